"""The stop button, and a process that dies: it ends within two seconds, and what was measured is there."""

import asyncio
import gc
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nbformat
import psutil
import pytest
from brokers import freeze, new_topic, thaw

from harness.runs import INTERRUPTED, ProducerRun, checked
from kafka_helpers import (
    end_offsets,
    ensure_topic,
    load_results,
    make_messages,
    produce_async,
    produce_sync,
    read_back,
    reconcile,
    warm_up,
)
from local_kafka import LocalKafka

ROOT = Path(__file__).resolve().parent.parent
both = pytest.mark.parametrize("produce", [produce_async, produce_sync], ids=["async", "sync"])
# Whatever talks to a cluster outside a measurement. Without messages, a producer connects, warms up and ends.
CALLS = {
    "ensure_topic": lambda config, topic, _messages: ensure_topic(config, topic),
    "produce_async": lambda config, topic, _messages: produce_async(config, topic, []),
    "produce_sync": lambda config, topic, _messages: produce_sync(config, topic, []),
    "end_offsets": lambda config, topic, _messages: end_offsets(config, topic),
    "warm_up": lambda config, topic, _messages: warm_up(config, topic),
    "read_back": lambda config, topic, messages: read_back(config, topic, {"any": messages}),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


class StopButton:
    """Sends this process a real SIGINT after some seconds, and measures how long it then goes on."""

    def __init__(self, after_s: float):
        self.after_s, self.pressed = after_s, 0.0

    def press(self) -> None:
        self.pressed = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)

    def __enter__(self) -> "StopButton":
        self._timer = threading.Timer(self.after_s, self.press)
        self._timer.start()
        return self

    def __exit__(self, *_exc_info) -> None:
        seconds = time.monotonic() - self.pressed
        self._timer.cancel()
        self._timer.join()
        assert self.pressed, "it ended before the button was pressed"
        print(f"\nended {seconds:.2f} s after the button was pressed")
        assert seconds < 2


@pytest.fixture(autouse=True)
def no_collector_callbacks() -> Iterator[None]:
    """Hypothesis leaves one behind for good, and Python drops an interrupt that falls into it."""
    before = gc.callbacks[:]
    gc.callbacks.clear()
    yield
    gc.callbacks[:] = before


def then(messages: list, number: int, action: Callable[[], object]) -> Iterator[tuple[bytes, bytes]]:
    """The messages; the action happens when so many have been handed over, between two batches."""
    yield from messages[:number]
    action()
    yield from messages[number:]


def stopped(
    produce: Callable,
    config: dict,
    topic: str,
    messages: list,
    *,
    after_s: float,
    first: Callable = lambda: None,
    batch_size: int = 500,
) -> ProducerRun:
    """The run of a producer whose button is pressed some seconds after its first batch."""
    buttons: list[StopButton] = []

    def press() -> None:
        first()
        buttons.append(StopButton(after_s))
        buttons[0].__enter__()  # on a busy machine, it may be pressed already in there

    run = produce(config, topic, then(messages, batch_size, press), batch_size=batch_size)
    buttons[0].__exit__()
    return run


@pytest.fixture
def frozen(kafka: LocalKafka) -> Iterator[Callable[[], None]]:
    """A function that freezes the broker; it goes on when the test ends."""
    try:
        yield lambda: freeze(kafka)
    finally:
        thaw(kafka)


def check(run: ProducerRun, messages: list, config: dict[str, str], topic: str, run_id: str) -> None:
    """An interrupted run accounts for every message that it had handed over."""
    assert run.stopped == INTERRUPTED and not run.complete
    assert run.submitted == run.acknowledged + run.failed
    assert run.failed == len(run.undelivered) == sum(run.errors.values())
    sent, undelivered = {run_id: messages[: run.submitted]}, {run_id: run.undelivered}
    found = read_back(config, topic, sent, undelivered=undelivered)
    (row,) = found.to_dict("records")
    print(f"{run}; {run.errors}; {row}")
    assert row["missing"] == row["duplicated"] == row["damaged"] == 0 and row["expected"] == run.acknowledged
    assert reconcile([replace(run, run_id=run_id)], found)["holds"].all()
    with pytest.raises(KeyboardInterrupt):  # what rests on the run ends with it
        checked(run)


# --- Every phase -----------------------------------------------------------------------------------------------------


@each_call
def test_while_connecting(kafka: LocalKafka, call: Callable) -> None:
    """To a port that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = {**kafka.config, "bootstrap.servers": f"127.0.0.1:{server.getsockname()[1]}"}
        with StopButton(0.7), pytest.raises(KeyboardInterrupt):
            call(config, "any", [])


class Pressing(tuple):
    """A message at which the button is pressed."""

    pressed = 0.0

    def __iter__(self) -> Iterator[bytes]:
        Pressing.pressed = time.monotonic()
        signal.raise_signal(signal.SIGINT)
        return super().__iter__()


@both
def test_in_the_middle_of_a_batch(kafka: LocalKafka, produce: Callable, frozen: Callable) -> None:
    """What is handed over after the stop, and before the run can end, isn't waited for."""
    topic, messages = new_topic(kafka.config), make_messages("middle", 1_000)
    messages[500] = Pressing(messages[500])
    run = produce(kafka.config, topic, then(messages, 500, frozen), delivery_timeout_s=15)
    assert time.monotonic() - Pressing.pressed < 2
    thaw(kafka)
    check(run, make_messages("middle", 1_000), kafka.config, topic, "middle")


@pytest.mark.parametrize("times", [2, pytest.param(15, marks=pytest.mark.long)])
@pytest.mark.parametrize("queue", [500, 100_000])
@pytest.mark.parametrize("is_frozen", [False, True], ids=["alive", "frozen"])
@both
def test_many_times_at_any_moment(
    kafka: LocalKafka, produce: Callable, queue: int, is_frozen: bool, frozen: Callable, times: int
) -> None:
    """Each within two seconds, and every message accounted for, whatever is queued and whether anyone answers.

    The signal is most often noticed when the client calls back; that message must not be lost from the counts.
    """
    config = kafka.config | {"queue.buffering.max.messages": str(queue)}
    messages, moments = make_messages("often", 150_000), random.Random(queue)
    within_s = 1.0 if is_frozen or produce is produce_sync else 0.2  # all may be sent soon
    for _ in range(times):
        topic = new_topic(kafka.config)
        first = frozen if is_frozen else lambda: None
        try:
            run = stopped(produce, config, topic, messages, after_s=moments.uniform(0, within_s), first=first)
        finally:
            thaw(kafka)
        check(run, messages, kafka.config, topic, "often")


@each_call
def test_before_and_after_the_measurement_at_any_moment(kafka: LocalKafka, topic: str, call: Callable) -> None:
    """With Python 3.11, the client lost interrupts that it met in a callback."""
    messages = make_messages("any", 1_000)
    produce_async(kafka.config, topic, messages)
    for attempt in range(8):
        with StopButton(0.03 + attempt * 0.037), pytest.raises(KeyboardInterrupt):
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
def test_dropped_by_python_while_producing(kafka: LocalKafka, topic: str, produce: Callable, dropped: Callable) -> None:
    messages = make_messages("dropped", 100_000)
    run = produce(kafka.config, topic, then(messages, 500, lambda: (dropped(), gc.collect())))
    check(run, messages, kafka.config, topic, "dropped")
    assert run.submitted < len(messages)


def test_while_reading_back(kafka: LocalKafka, topic: str, frozen: Callable) -> None:
    messages = make_messages("read", 100_000)
    produce_async(kafka.config, topic, messages)
    sent = {"read": messages}
    with StopButton(0.4), pytest.raises(KeyboardInterrupt):
        while True:
            read_back(kafka.config, topic, sent)
    threading.Timer(0.2, frozen).start()
    with StopButton(1.2), pytest.raises(KeyboardInterrupt):
        while True:
            read_back(kafka.config, topic, sent)
    with StopButton(0.5), pytest.raises(KeyboardInterrupt):
        end_offsets(kafka.config, topic)


def check_threads(expected: int) -> None:
    """So many are left; one that has just ended is counted for some milliseconds more."""
    ends = time.monotonic() + 0.5
    while psutil.Process().num_threads() != expected and time.monotonic() < ends:
        time.sleep(0.01)
    assert psutil.Process().num_threads() == expected


def test_no_client_goes_on(kafka: LocalKafka, frozen: Callable) -> None:
    """Whatever way a call ends, its client ends with it, and not when the garbage collector happens to find it."""
    topic, messages = new_topic(kafka.config), make_messages("left", 2_000)
    produce_async(kafka.config, topic, messages)  # the first imports numpy, which starts threads of its own
    gc.collect()
    gc.disable()
    threads = psutil.Process().num_threads()
    try:
        for action in (
            lambda: ensure_topic(kafka.config, topic),
            lambda: produce_async(kafka.config, topic, messages),
            lambda: produce_sync(kafka.config, topic, messages),
            lambda: read_back(kafka.config, topic, {"left": messages}),
            lambda: stopped(produce_async, kafka.config, topic, messages * 50, after_s=0.02),
            lambda: stopped(produce_sync, kafka.config, topic, messages * 50, after_s=0.02),
            lambda: stopped(produce_async, kafka.config, topic, messages, after_s=0.2, first=frozen),
        ):
            action()
            check_threads(threads)
        for action in (
            lambda: produce_async(kafka.config, topic, messages),  # it is frozen still
            lambda: end_offsets(kafka.config, topic),
            lambda: read_back(kafka.config, topic, {}),
        ):
            with StopButton(0.3), pytest.raises(KeyboardInterrupt):
                action()
            check_threads(threads)
    finally:
        gc.enable()


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
def test_pressed_again_while_it_closes(kafka: LocalKafka, frozen: Callable, how: str) -> None:
    """However often the button is pressed: the client is closed, and the next interrupt is raised as usual."""
    topic, messages, random_ = new_topic(kafka.config), make_messages("again", 20_000), random.Random(1)
    produce_async(kafka.config, topic, messages)
    action = {
        "producing": lambda: produce_async(kafka.config, topic, messages * 10),
        "frozen": lambda: produce_sync(kafka.config, topic, then(messages, 500, frozen)),
        "reading back": lambda: read_back(kafka.config, topic, {"again": messages}),
    }[how]
    gc.collect()
    gc.disable()
    threads = psutil.Process().num_threads()
    try:
        for _ in range(5):
            first = 0.3 + random_.uniform(0, 0.3)
            moments = [first, *sorted(first + random_.uniform(0, 0.2) ** 2 for _ in range(4))]
            pressed_again_and_again(action, moments)
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            time.sleep(0.05)  # until the thread that has pressed is gone
            assert psutil.Process().num_threads() == threads
            thaw(kafka)
    finally:
        gc.enable()


def test_under_asyncio(kafka: LocalKafka, topic: str) -> None:
    """Which has a handler of its own, as a notebook has for cells with await: it waits for the code that runs."""

    async def main() -> ProducerRun:
        return stopped(produce_sync, kafka.config, topic, make_messages("asyncio", 100_000), after_s=0.3)

    assert asyncio.run(main()).stopped == INTERRUPTED


FOR_EVER = "import atexit, time; atexit.register(time.sleep, 0.8); print('on')\nwhile True: time.sleep(0.1)"


@pytest.mark.long
def test_twice_in_the_terminal(tmp_path: Path) -> None:
    """While the kernel that was interrupted is ending, too."""
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(FOR_EVER)]), tmp_path / "for_ever.ipynb")
    command = [sys.executable, "-m", "harness.run_notebook", str(tmp_path / "for_ever.ipynb")]
    for tenths in (1, 4, 6, 7):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
            while run.stdout.readline() != "on\n":
                assert run.poll() is None
            for _ in range(2):
                run.send_signal(signal.SIGINT)
                time.sleep(tenths / 10)
            assert run.stdout.read().strip().splitlines()[-1:] in (
                ["In the first cell: interrupted."],
                ["Kernel died"],
            )


# --- What was measured is kept ---------------------------------------------------------------------------------------


SAVE_FOR_EVER = """
import sys
from pathlib import Path
from kafka_helpers import BatchTiming, ProducerRun, Results
results = Results(Path(sys.argv[1]), {"name": "crash"})
while True:
    results.add_run(ProducerRun("sync", batches=[BatchTiming(500, 0.1, 0.2, 500, 0) for _ in range(2_000)]))
    print("saved", flush=True)
"""


def test_crash_while_saving_leaves_no_half_file(tmp_path: Path) -> None:
    for attempt in range(4):
        command = [sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path / str(attempt))]
        with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE) as saving:
            saving.stdout.readline()
            time.sleep(0.2 + 0.037 * attempt)
            saving.kill()
        assert load_results(tmp_path / str(attempt)).runs
