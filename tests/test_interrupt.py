"""The stop button, and a process that dies: what is under way ends, and what was measured is there."""

import asyncio
import gc
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from brokers import check_accounts, freeze, new_topic, thaw

from harness.cluster import Cluster
from harness.runs import INTERRUPTED, ProducerRun, require_complete
from harness.topics import end_offsets, ensure_topic
from harness.warm_up import warm_up
from kafka_helpers import make_messages, produce_async, produce_sync, read_back
from local_kafka import LocalKafka

ROOT = Path(__file__).resolve().parent.parent
both = pytest.mark.parametrize("produce", [produce_async, produce_sync], ids=["async", "sync"])
# Whatever talks to a cluster outside a measurement. Without messages, a producer connects, warms up and ends.
CALLS = {
    "ensure_topic": lambda config, topic, _messages: ensure_topic(config, topic),
    "produce": lambda config, topic, _messages: produce_async(config, topic, []),
    "end_offsets": lambda config, topic, _messages: end_offsets(config, topic),
    "warm_up": lambda config, topic, messages: warm_up(
        Cluster("local", "test", config, print), topic, messages or [(b"k", b"v")], produce_async, produce_sync
    ),
    "read_back": lambda config, topic, messages: read_back(config, topic, {"any": messages}),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


HANGS_AFTER_S = 9  # what hangs takes at least 10; alone on a machine, all takes half a second, a crowd two


class PressedLater:
    """Sends this process a real SIGINT some seconds after its start, and makes sure that nothing then hangs."""

    def __init__(self, after_s: float):
        self.pressed, self._timer = 0.0, threading.Timer(after_s, self.press)

    def press(self) -> None:
        self.pressed = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_exc_info) -> None:
        seconds = time.monotonic() - self.pressed
        self._timer.cancel()
        self._timer.join()
        assert self.pressed, "it ended before the button was pressed"
        print(f"\nended {seconds:.2f} s after the button was pressed")
        assert seconds < HANGS_AFTER_S


@pytest.fixture(autouse=True)
def no_collector_callbacks() -> Iterator[None]:
    """Hypothesis leaves one behind for good, and Python drops an interrupt that falls into it."""
    before = gc.callbacks[:]
    gc.callbacks.clear()
    yield
    gc.callbacks[:] = before


@pytest.fixture(scope="module")
def many() -> list[tuple[bytes, bytes]]:
    """More messages than the client's queue takes, of the run "many"."""
    return make_messages("many", 150_000)


def then(messages: list, number: int, action: Callable[[], object]) -> Iterator[tuple[bytes, bytes]]:
    """The messages; the action happens when so many have been handed over, between two batches."""
    yield from messages[:number]
    action()
    yield from messages[number:]


def stopped(
    produce: Callable, config: dict, topic: str, messages: list, *, after_s: float, first: Callable = lambda: None
) -> ProducerRun:
    """The run of a producer whose button is pressed some seconds after its first batch."""
    button = PressedLater(after_s)
    run = produce(config, topic, then(messages, 500, lambda: (first(), button.__enter__())))
    button.__exit__()
    return run


@pytest.fixture
def frozen(kafka: LocalKafka) -> Iterator[Callable[[], None]]:
    """A function that freezes the broker; it goes on when the test ends."""
    try:
        yield lambda: freeze(kafka)
    finally:
        thaw(kafka)


def check(run: ProducerRun, messages: list, config: dict[str, str], topic: str) -> None:
    """An interrupted run of "many" accounts for every message that it had handed over; what rests on it ends, too."""
    assert run.stopped == INTERRUPTED and not run.complete
    check_accounts(run, "many", messages, config, topic)
    with pytest.raises(KeyboardInterrupt):
        require_complete(run)


# --- Every phase -----------------------------------------------------------------------------------------------------


@each_call
def test_while_connecting(kafka: LocalKafka, call: Callable) -> None:
    """To a port that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = {**kafka.config, "bootstrap.servers": f"127.0.0.1:{server.getsockname()[1]}"}
        with PressedLater(0.7), pytest.raises(KeyboardInterrupt):
            call(config, "any", [])


# In a network of its own, where a name server hears and never answers. Only Linux can do that.
SILENT_NAME_SERVER = """
import fcntl, os, signal, socket, struct, subprocess, sys, threading, time
from kafka_helpers import produce_async
with open(sys.argv[1], "w") as file:
    file.write("nameserver 127.0.0.1\\noptions timeout:30 attempts:1")
subprocess.run(["mount", "--bind", file.name, "/etc/resolv.conf"], check=True)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(server, 0x8914, struct.pack("16sh", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
server.bind(("127.0.0.1", 53))
def press():
    global pressed
    assert server.recv(512), "the name has been asked for"
    pressed = time.monotonic()
    os.kill(os.getpid(), signal.SIGINT)
threading.Timer(1, press).start()
try:
    produce_async({"bootstrap.servers": "broker.example.org:9092"}, "any", [])
except KeyboardInterrupt:
    print(time.monotonic() - pressed)
"""
APART = ["unshare", "--map-root-user", "--mount", "--net", "--"]


@pytest.mark.skipif(
    not shutil.which("unshare") or bool(subprocess.run([*APART, "true"], stderr=subprocess.DEVNULL).returncode),
    reason="no network of its own can be had here",
)
def test_while_a_name_server_does_not_answer(tmp_path: Path) -> None:
    """The system waits for it, and a client that is closed waits with it: half a minute here."""
    command = [*APART, sys.executable, "-c", SILENT_NAME_SERVER, str(tmp_path / "resolv.conf")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode and not done.stderr, done.stderr
    assert float(done.stdout) < HANGS_AFTER_S


class Pressing(tuple):
    """A message at which the button is pressed."""

    pressed = 0.0

    def __iter__(self) -> Iterator[bytes]:
        Pressing.pressed = time.monotonic()
        signal.raise_signal(signal.SIGINT)
        return super().__iter__()


@both
def test_in_the_middle_of_a_batch(
    kafka: LocalKafka, topic: str, produce: Callable, frozen: Callable, many: list
) -> None:
    """What is handed over after the stop, and before the run can end, isn't waited for."""
    messages = [*many[:500], Pressing(many[500]), *many[501:1_000]]
    run = produce({**kafka.config, "delivery.timeout.ms": "15000"}, topic, then(messages, 500, frozen))
    assert time.monotonic() - Pressing.pressed < HANGS_AFTER_S
    thaw(kafka)
    check(run, many, kafka.config, topic)


@pytest.mark.parametrize("times", [2, pytest.param(15, marks=pytest.mark.long)])
@pytest.mark.parametrize("is_frozen", [False, True], ids=["alive", "frozen"])
@pytest.mark.parametrize(
    ("produce", "queue"),
    [(produce_async, 500), (produce_async, 100_000), (produce_sync, 100_000)],
    ids=["async, short queue", "async", "sync"],
)
def test_many_times_at_any_moment(
    kafka: LocalKafka, produce: Callable, queue: int, is_frozen: bool, frozen: Callable, times: int, many: list
) -> None:
    """Every message is accounted for, whatever is queued and whether anyone answers.

    The signal is most often noticed when the client calls back; that message must not be lost from the counts.
    """
    config = kafka.config | {"queue.buffering.max.messages": str(queue)}
    moments, first = random.Random(queue), frozen if is_frozen else lambda: None
    within_s = 1.0 if is_frozen or produce is produce_sync else 0.2  # all may be sent soon
    for _ in range(times):
        topic = new_topic(kafka.config)
        try:
            run = stopped(produce, config, topic, many, after_s=moments.uniform(0, within_s), first=first)
        finally:
            thaw(kafka)
        check(run, many, kafka.config, topic)


@each_call
def test_before_and_after_the_measurement_at_any_moment(kafka: LocalKafka, topic: str, call: Callable) -> None:
    """With Python 3.11, the client lost interrupts that it met in a callback."""
    messages = make_messages("any", 1_000)
    produce_async(kafka.config, topic, messages)
    for attempt in range(4):
        with PressedLater(0.03 + attempt * 0.074), pytest.raises(KeyboardInterrupt):
            while True:
                outcome = call(kafka.config, topic, messages)
                if getattr(outcome, "stopped", None) == INTERRUPTED:  # nothing was left to break off: it is marked
                    raise KeyboardInterrupt


@pytest.fixture
def dropped() -> Callable[[], None]:
    """A function that has Python drop the next interrupt, as it does in a destructor: here, in its collector."""

    def interrupt(_phase: str, _info: dict) -> None:
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # in the helper, that is
            gc.callbacks.clear()
            signal.raise_signal(signal.SIGINT)

    return lambda: gc.callbacks.append(interrupt)


@both
def test_dropped_by_python_while_producing(
    kafka: LocalKafka, topic: str, produce: Callable, dropped: Callable, many: list
) -> None:
    run = produce(kafka.config, topic, then(many, 500, lambda: (dropped(), gc.collect())))
    check(run, many, kafka.config, topic)
    assert run.submitted < len(many)


def test_while_nobody_answers_the_reader(kafka: LocalKafka, topic: str, frozen: Callable, many: list) -> None:
    produce_async(kafka.config, topic, many)
    threading.Timer(0.2, frozen).start()
    with PressedLater(1.2), pytest.raises(KeyboardInterrupt):
        while True:
            read_back(kafka.config, topic, {"many": many})


@pytest.fixture
def check_threads(kafka: LocalKafka, topic: str) -> Iterator[Callable[[], None]]:
    """A function that finds out whether a client has not ended, but waits for the garbage collector: it has threads."""
    produce_async(kafka.config, topic, make_messages("first", 1))  # it imports what starts threads of its own
    gc.collect()
    gc.disable()
    time.sleep(1)  # a thread that has just ended is counted for some milliseconds more
    expected = psutil.Process().num_threads()

    def check_threads() -> None:
        ends = time.monotonic() + 15
        while psutil.Process().num_threads() > expected and time.monotonic() < ends:
            time.sleep(0.01)
        assert psutil.Process().num_threads() <= expected

    yield check_threads
    gc.enable()


def test_no_client_goes_on(
    kafka: LocalKafka, topic: str, frozen: Callable, many: list, check_threads: Callable
) -> None:
    """Whatever way a call ends, its client ends with it."""
    messages = many[:2_000]
    for action in (
        lambda: ensure_topic(kafka.config, topic),
        lambda: produce_async(kafka.config, topic, messages),
        lambda: produce_sync(kafka.config, topic, messages),
        lambda: read_back(kafka.config, topic, {"many": messages}),
        lambda: stopped(produce_async, kafka.config, topic, many, after_s=0.02),
        lambda: stopped(produce_sync, kafka.config, topic, many, after_s=0.02),
        lambda: stopped(produce_async, kafka.config, topic, messages, after_s=0.2, first=frozen),
    ):
        action()
        check_threads()
    for action in (
        lambda: produce_async(kafka.config, topic, messages),  # it is frozen still
        lambda: end_offsets(kafka.config, topic),
        lambda: read_back(kafka.config, topic, {}),
    ):
        with PressedLater(0.3), pytest.raises(KeyboardInterrupt):
            action()
        check_threads()


def pressed_again_and_again(action: Callable[[], object], moments: list[float]) -> None:
    """Do something while the button is pressed at these moments, and let no interrupt out."""

    def press() -> None:
        for moment in moments:
            time.sleep(max(0.0, began + moment - time.monotonic()))
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)  # until the last has been noticed, in wait()
        ended.set()

    def shielded(layers: int) -> None:
        """Each press can raise one interrupt, anywhere in here; so there is a layer for each, and one more."""
        try:
            if layers:
                shielded(layers - 1)
            else:
                threading.Thread(target=press).start()
                action()
            ended.wait()  # not join(): interrupted, that would take the thread for ended
        except KeyboardInterrupt:
            pass

    began, ended = time.monotonic(), threading.Event()
    shielded(len(moments))
    ended.wait()


@pytest.mark.parametrize("how", ["producing", "frozen", "reading back"])
def test_pressed_again_while_it_closes(
    kafka: LocalKafka, topic: str, frozen: Callable, how: str, many: list, check_threads: Callable
) -> None:
    """However often the button is pressed: the client is closed, and the next interrupt is raised as usual."""
    messages, random_ = many[:20_000], random.Random(1)
    produce_async(kafka.config, topic, messages)
    action = {
        "producing": lambda: produce_async(kafka.config, topic, many),
        "frozen": lambda: produce_sync(kafka.config, topic, then(messages, 500, frozen)),
        "reading back": lambda: read_back(kafka.config, topic, {"many": messages}),
    }[how]
    for _ in range(3):
        first = 0.3 + random_.uniform(0, 0.3)
        moments = [first, *sorted(first + random_.uniform(0, 0.2) ** 2 for _ in range(4))]
        pressed_again_and_again(action, moments)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        check_threads()
        thaw(kafka)


def test_under_asyncio(kafka: LocalKafka, topic: str, many: list) -> None:
    """Which has a handler of its own, as a notebook has for cells with await: it waits for the code that runs."""

    async def main() -> ProducerRun:
        return stopped(produce_sync, kafka.config, topic, many, after_s=0.3)

    assert asyncio.run(main()).stopped == INTERRUPTED
