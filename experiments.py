"""The measurements of ``going_further.ipynb``: each function asks one question and returns a table.

In the tables, ``messages`` are acknowledged ones, which took ``elapsed_s`` seconds, and ``repeat`` counts the rounds.
"""

import asyncio
import contextlib
import ctypes
import dataclasses
import itertools
import json
import multiprocessing
import os
import random
import re
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import mean
from time import perf_counter
from typing import ClassVar

import pandas as pd
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.aio import AIOProducer

import kafka_helpers as kh
from harness import show, warm_up
from harness.client import Connection, connect
from harness.cluster import Cluster, start_cluster
from harness.config import ClientConfig, producer_settings
from harness.errors import ClusterError, ResultsError
from harness.measurement import PRIMER, Report, await_statistics, prime
from harness.network import INTERVAL_S, Network
from harness.report import summarize
from harness.results import ASSIGNMENT_KINDS, FURTHER_KINDS, Record, Results, load_results, new_folder, newest
from harness.runs import KeyValue, batches_frame, order_of_runs, require_complete, rounds
from harness.stop import StopButton
from harness.topics import end_offsets, ensure_topic, topic_metadata
from local_kafka import KAFKA_VERSION, LocalKafka, quiet_logger

MESSAGES = 20_000  # as the assignment's notebook sends
PRODUCERS = {"async": kh.produce_async, "sync": kh.produce_sync}
TOPIC = "going-further"
FAR_MS = 25
HERE = "here"
FAR = f"{FAR_MS} ms away"
Config = Mapping[str, str]
Places = Mapping[str, Config]  # HERE and FAR, or one of them
Row = dict[str, object]
Ways = dict[tuple[object, ...], Callable[[], list[Row]]]  # each measures something once

# --- How a measurement goes ------------------------------------------------------------------------------------------


def in_turns(repeats: int, columns: Sequence[str], ways: Ways, about_s: float = 1.5) -> pd.DataFrame:
    """Each way in turn, again and again; every second round backwards, so that a drift affects all alike.

    A line says which is under way and how much time is left; a way takes ``about_s`` seconds. The rows that it returns
    get the round as ``repeat``, and the parts of the way's key in these columns.
    """
    turns = list(rounds(repeats, ways))
    rows: list[Row] = []
    with show.time_left([(str(key), about_s) for _, key in turns]) as begin:
        for repeat, key in turns:
            begin(", ".join(map(str, key)))
            labels = dict(zip(columns, key, strict=True))
            rows += [{**labels, "repeat": repeat, **row} for row in ways[key]()]
    return pd.DataFrame(rows)


def open_results(saved_run: str = "", saved_further: str = "") -> tuple[Results, Results, Results | None]:
    """What was saved in ``saved_further``, else a new folder; then the measurement that is examined, and the rehearsal.

    The one that is examined is ``saved_run``, by default that of ``saved_further``, else the newest complete one of
    20,000 messages here. All is judged before anything is measured.

    Raises:
        ResultsError: a folder can't be read, or there is no such measurement.
    """
    before = load_results(saved_further, FURTHER_KINDS) if saved_further else None
    named = saved_run or (before.record.saved_run if before else "")
    near = load_results(named, ASSIGNMENT_KINDS) if named else newest(["local"], num_messages=MESSAGES)
    if near is None or len(summarize(near.runs)) < len(PRODUCERS):
        needed = "It takes a saved run with complete runs of both producers"
        raise ResultsError(f"{needed}: run assignment1.ipynb first, or name another in saved_run.")
    if before:
        before.record.saved_run = near.folder.as_posix()
        rehearsal = None
        with contextlib.suppress(ResultsError):  # none was there, or it has been removed
            rehearsal = load_results(before.record.rehearsal)
        return before, near, rehearsal
    rehearsal = newest(["distant"])
    record = Record(kind="further", cluster=f"local Apache Kafka {KAFKA_VERSION}", saved_run=near.folder.as_posix())
    record.rehearsal = rehearsal.folder.as_posix() if rehearsal else ""
    return Results(new_folder("further"), record), near, rehearsal


class Clusters(contextlib.ExitStack):
    """One broker here, and three that can be moved away; each started and warmed up when it is first asked for.

    Those of before are closed, so that a notebook that is run again has only its latest.
    """

    _latest: ClassVar["Clusters | None"] = None

    def __init__(self) -> None:
        super().__init__()
        self._started: dict[str, Cluster] = {}
        if Clusters._latest:
            Clusters._latest.close()
        Clusters._latest = self

    def here(self) -> Config:
        """One broker on this machine."""
        return self._cluster("local").config

    def away(self, distance_ms: float = FAR_MS) -> Config:
        """Three brokers, moved to a round trip of so many milliseconds."""
        cluster = self._cluster("distant")
        cluster.set_distance(distance_ms)
        return cluster.config

    def both(self) -> Places:
        """Here and far away."""
        return {HERE: self.here(), FAR: self.away()}

    def _cluster(self, kind: str) -> Cluster:
        if kind not in self._started:
            parts = [("", 2 * warm_up.CROWD_S[kind])]
            with show.time_left(parts) as begin, contextlib.ExitStack() as starting:
                begin("Starting Kafka and warming it up")
                cluster = start_cluster(kind, FAR_MS, starting)
                ensure_topic(cluster.config, TOPIC)
                messages = kh.make_messages("warm", MESSAGES)
                warm_up.warm_up(cluster, TOPIC, messages, kh.produce_async, kh.produce_sync, leg_s=0.2)
                self.push(starting.pop_all())  # an interrupt before this ends it again
            self._started[kind] = cluster
            self.callback(self._started.pop, kind)  # who asks for it once it is closed gets a new one
        return self._started[kind]


# --- Two ways to send ------------------------------------------------------------------------------------------------


def wait_for_all(connection: Connection[Producer]) -> None:
    """Wait until nothing is under way, or the stop button is pressed."""
    while connection.client.flush(0.5):
        connection.stop.check()
    connection.stop.check()


def timed(mode: str, config: Config, topic: str, messages: Sequence[KeyValue]) -> list[Row]:
    """A complete run of one of the two producers, with its processor time."""
    run = require_complete(PRODUCERS[mode](config, topic, messages))
    return [{"messages": run.acknowledged, "elapsed_s": run.elapsed_s, "cpu_s": run.cpu_s}]


def hand_over(
    connection: Connection[Producer],
    topic: str,
    messages: Iterable[KeyValue],
    report: Report,
    every: int,
    then: Callable[[Connection[Producer]], object],
) -> int:
    """The loop: do ``then`` after every so many messages (0: never); return how many there were."""
    number = 0
    for number, (key, value) in enumerate(messages, start=1):
        try:
            connection.client.produce(topic, value, key, -1, report)
        except BufferError:  # the queue is full
            wait_for_all(connection)
            connection.client.produce(topic, value, key, -1, report)
        if every and number % every == 0:
            then(connection)
        elif number % 500 == 0:
            connection.client.poll(0)
    return number


def send(
    config: Config,
    topic: str,
    messages: Iterable[KeyValue],
    every: int = 0,
    then: Callable[[Connection[Producer]], object] = wait_for_all,
    report: Report | None = None,
    settings: Mapping[str, object] | None = None,
) -> list[Row]:
    """Hand over, wait at the end, and say how long that took, and how many requests the client made.

    ``connecting_s`` is before the clock, ``queued_s`` are until all was handed over, ``elapsed_s`` until all arrived.
    """
    network = Network()
    failures: list[KafkaError] = []

    def note(error: KafkaError | None, message: Message) -> None:
        if error:
            failures.append(error)
        if report:
            report(error, message)

    statistics = {"statistics.interval.ms": round(1000 * INTERVAL_S)}
    began = perf_counter()
    with connect(
        Producer, producer_settings(config) | (settings or {}) | statistics, stats_cb=network.take
    ) as connection:
        primers = prime(connection, topic)
        connected = perf_counter()
        await_statistics(connection, network, primers)
        network.begin()
        started = perf_counter()
        number = hand_over(connection, topic, messages, note, every, then)
        queued = perf_counter()
        wait_for_all(connection)
        ended = perf_counter()
        await_statistics(connection, network, primers + number)
    if failures:
        raise ClusterError(f"Not all messages were delivered: {failures[0].str()}. Try again.")
    times = {"connecting_s": connected - began, "queued_s": queued - started, "elapsed_s": ended - started}
    found = network.summary()
    return [{"messages": number, **times, "requests": found["produce_requests"], "request_ms": found["rtt_ms"]}]


# --- 1. What if nobody looks? ----------------------------------------------------------------------------------------


def careless(
    producer: Producer,
    topic: str,
    values: Iterable[bytes],
    *,
    looks: bool = True,
    polls: bool = True,
    flushes: bool = True,
) -> list[str]:
    """A loop as many publish it: what it knows failed."""
    failed: list[str] = []

    def report(error: KafkaError | None, _message: Message) -> None:
        if error:
            failed.append(error.str())

    for value in values:
        producer.produce(topic, value, on_delivery=report if looks else None)
        if polls:
            producer.poll(0)
    if flushes:
        producer.flush()
    return failed


def nobody_polls(producer: Producer, topic: str, values: Iterable[bytes]) -> list[str]:
    """Another slip: to wait for the callback, while nobody polls who could call it."""
    answered = threading.Event()
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, message: answered.set())
    return [] if answered.wait(3) else ["no answer within 3 s"]


SMALL = b"." * 100
HUNDRED = [SMALL] * 100
PROGRAMS: dict[str, Callable[[Producer, str, Iterable[bytes]], list[str]]] = {
    "no callback": partial(careless, looks=False),
    "no flush": partial(careless, flushes=False),
    "callback and flush": careless,
    "no poll": partial(careless, polls=False),
    "waits for its callback, nobody polls": nobody_polls,
}
FAULTS: dict[str, tuple[dict[str, object], list[bytes]]] = {  # settings, and what is sent
    "none": ({}, HUNDRED),
    "one message too large for the broker": ({"message.max.bytes": 4_000_000}, [*HUNDRED[1:], b"." * 2_000_000]),
    "no such topic": ({}, HUNDRED),
    "no broker answers": ({"bootstrap.servers": "127.0.0.1:1"}, HUNDRED),
    "none, but a queue of 1,000": ({"queue.buffering.max.messages": 1_000}, [SMALL] * 1_500),  # by default 100,000
}
IMPATIENT = {"message.timeout.ms": 2_000, "topic.metadata.propagation.max.ms": 1_000}


def nobody_looks(config: Config) -> pd.DataFrame:
    """What if nobody looks? How many messages have ``arrived``, and how many errors the program has ``seen``."""
    *faults, queue = FAULTS
    *programs, no_poll, waits = PROGRAMS
    cases = [*itertools.product(faults, programs), (queue, no_poll), ("none", waits)]
    ways: Ways = {case: partial(_try_program, config, *case) for case in cases}
    return in_turns(1, ("fault", "program"), ways)


def _try_program(config: Config, fault: str, program: str) -> list[Row]:
    settings, values = FAULTS[fault]
    topic = "nobody-looks-" + "-".join(re.findall(r"\w+", f"{fault} {program}"))
    has_topic = fault != "no such topic"
    before = 0
    if has_topic:
        ensure_topic(config, topic)
        before = sum(end_offsets(config, topic).values())  # of an earlier try
    producer = Producer(ClientConfig(config) | IMPATIENT | settings | {"logger": quiet_logger()})
    try:
        with ThreadPoolExecutor(1) as pool:  # not in this thread: the client would lose an interrupt in its callback
            failed = pool.submit(PROGRAMS[program], producer, topic, values).result()
    except BufferError as error:
        failed = [str(error)]
    del producer  # as at the program's end
    arrived = sum(end_offsets(config, topic).values()) - before if has_topic else 0
    reason = failed[0] if failed else ""
    return [{"sent": len(values), "arrived": arrived, "seen": len(failed), "reason": reason}]


# --- 2. What if the program dies? ------------------------------------------------------------------------------------

KILLS = 20
WAITS_OF = {"sync": 1, "wait after every 100": 100, "async": 0}
EXAMPLE = kh.make_messages("example", 1)[0][1]
EVENT = EXAMPLE.replace(b'"example"', b'"%s"').replace(b'"sequence":0', b'"sequence":%d')  # to be filled in by %


def make_quickly(run_id: str, count: int) -> Iterator[KeyValue]:
    """Messages in a fraction of the usual time: alike but for run, number and key."""
    for number in range(count):
        yield b"bike-%d" % (number % 2000), EVENT % (run_id.encode(), number)


def program_dies(config: Config, kills: int = KILLS) -> pd.DataFrame:
    """What if the program is killed at random moments? ``lost`` are messages ``handed_over`` and not in the topic."""
    if sys.platform == "win32":
        context = multiprocessing.get_context("spawn")
    else:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])  # so that what it takes to import is imported once
    moments = random.Random(7)
    start = end_offsets(config, TOPIC)

    def kill_one(way: str) -> list[Row]:
        run_id = f"{way}-{moments.random()}"
        handed_over = context.RawValue("q", 0)  # in shared memory: it outlives the process
        arguments = (ClientConfig(config), TOPIC, run_id, WAITS_OF[way], handed_over)
        child = context.Process(target=_send_on, args=arguments, daemon=True)
        child.start()
        try:
            while child.is_alive() and not handed_over.value:
                time.sleep(0.001)
            time.sleep(moments.uniform(0, 0.5))
            if not child.is_alive():
                raise ClusterError("The program that was to be killed has ended by itself.")
        finally:
            child.kill()
            child.join()
        return [{"run_id": run_id, "handed_over": handed_over.value}]

    ways: Ways = {(way,): partial(kill_one, way) for way in WAITS_OF}
    table = in_turns(kills, ["way"], ways)
    time.sleep(1)  # what is still in the network's buffers arrives
    counts = zip(table["run_id"], table["handed_over"], strict=True)
    sent = {run_id: partial(make_quickly, run_id, count) for run_id, count in counts}
    return table.assign(lost=kh.read_back(config, TOPIC, sent, start=start)["missing"])


def _send_on(config: Config, topic: str, run_id: str, wait_every: int, handed_over: ctypes.c_longlong) -> None:
    def messages() -> Iterator[KeyValue]:
        for number, message in enumerate(make_quickly(run_id, sys.maxsize), start=1):
            yield message
            handed_over.value = number  # the program has gone on from it, since it asks for the next

    send(config, topic, messages(), wait_every)


# --- 3. What if a broker dies? ---------------------------------------------------------------------------------------

SOURCE_RATE = 1_000  # messages a second, while a broker dies
SOURCE_BATCH = 50
KILLED_AFTER_S = 1.0
DEAD_S = 1.0  # from killing a lone broker to starting it again
OUTAGES = (("async", 1, 6), ("sync", 1, 6), ("async", 3, 12), ("sync", 3, 12))  # mode, brokers, seconds


def brokers_die(cases: Sequence[tuple[str, int, float]] = OUTAGES) -> pd.DataFrame:
    """What if a broker is killed while a source offers messages? A row a batch."""
    ways: Ways = {case: partial(_broker_dies, *case) for case in cases}
    return in_turns(1, ("mode", "brokers", "seconds"), ways, about_s=28)


def _broker_dies(mode: str, brokers: int, seconds: float) -> list[Row]:
    messages = kh.make_messages(mode, round(seconds * SOURCE_RATE))
    clock: dict[str, float] = {}

    def outage() -> None:
        kafka.processes[0].kill()
        clock["killed"] = perf_counter()
        if brokers == 1:
            time.sleep(DEAD_S)
            kafka.start_broker(0)

    def offered() -> Iterator[KeyValue]:
        clock["begin"] = perf_counter()
        fault.start()
        for number, message in enumerate(messages):
            due = clock["begin"] + number // SOURCE_BATCH * SOURCE_BATCH / SOURCE_RATE
            time.sleep(max(0.0, due - perf_counter()))
            yield message

    with LocalKafka(brokers) as kafka:
        fault = threading.Timer(KILLED_AFTER_S, outage)
        ensure_topic(kafka.config, TOPIC)
        try:
            run = require_complete(PRODUCERS[mode](kafka.config, TOPIC, offered(), batch_size=SOURCE_BATCH))
        finally:
            fault.cancel()
            if fault.ident:  # it has been started
                fault.join()
        found = kh.read_back(kafka.config, TOPIC, {mode: messages})
    table = batches_frame([run]).assign(killed_s=clock["killed"] - clock["begin"])
    table = table.assign(**found.iloc[0][["missing", "duplicated", "out_of_order"]])
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


# --- 4. How often to wait? -------------------------------------------------------------------------------------------

WAITS = (1, 10, 100, 1_000)
MOST_WAITS = {HERE: 400, FAR: 40}  # of a run


def waits_between(places: Places, repeats: int = 3) -> pd.DataFrame:
    """What lies between waiting after each message and waiting once (0 as ``k``)?"""
    messages = kh.make_messages("between", MESSAGES)
    ways: Ways = {}
    for place, config in places.items():
        ways[place, 0] = partial(send, config, TOPIC, messages)
        for k in WAITS:
            ways[place, k] = partial(send, config, TOPIC, messages[: MOST_WAITS[place] * k], k)
    return in_turns(repeats, ("place", "k"), ways)


# --- 5. How does distance matter? ------------------------------------------------------------------------------------

ROUND_TRIPS_MS = (5, 50, 0, 20)  # not in order, so that a drift doesn't look like an effect


def law_of_distance(clusters: Clusters, repeats: int = 3, seconds: float = 0.6) -> pd.DataFrame:
    """How does a message's time depend on the round trip? Three brokers, moved from distance to distance.

    A synchronous run lasts about ``seconds``. The rows of the mode ``question`` have as ``elapsed_s`` the shortest of
    21 times of a question that a broker answers at once, for metadata.
    """
    messages = kh.make_messages("law", MESSAGES)
    tables = []
    for ms in ROUND_TRIPS_MS:
        config = clusters.away(ms)
        few = messages[: max(16, int(1000 * seconds / (ms + 3)))]
        ways: Ways = {
            ("question", ms): partial(_ask, config),
            ("async", ms): partial(timed, "async", config, TOPIC, messages),
            ("sync", ms): partial(timed, "sync", config, TOPIC, few),
        }
        tables.append(in_turns(repeats, ("mode", "set_ms"), ways))
    return pd.concat(tables, ignore_index=True)


def _ask(config: Config) -> list[Row]:
    times = []
    with connect(AdminClient, config) as connection:
        for _ in range(22):
            asked = perf_counter()
            topic_metadata(connection, TOPIC)
            times.append(perf_counter() - asked)
    return [{"messages": 1, "elapsed_s": min(times[1:])}]  # the first has to connect


def law_of_requests(config: Config, repeats: int = 5) -> pd.DataFrame:
    """What does the asynchronous time far away depend on? Partitions, idempotence, linger; with requests and times."""
    messages = kh.make_messages("requests", MESSAGES)
    ways: Ways = {}
    for partitions, idempotence, linger_ms in itertools.product((1, 6, 24), ("on", "off"), (5, 100)):
        topic = f"partitions-{partitions}"
        ensure_topic(config, topic, partitions=partitions)
        settings = {"enable.idempotence": idempotence == "on", "linger.ms": linger_ms}
        ways[partitions, idempotence, linger_ms] = partial(send, config, topic, messages, settings=settings)
    return in_turns(repeats, ("partitions", "idempotence", "linger_ms"), ways)


# --- 6. What does safety cost? ---------------------------------------------------------------------------------------

SAFETY: dict[str, dict[str, object]] = {
    "acks=all, idempotent": {},
    "acks=all": {"enable.idempotence": False},
    "acks=1": {"enable.idempotence": False, "acks": 1},
    "acks=0": {"enable.idempotence": False, "acks": 0},
}
WAITED = {HERE: 1_000, FAR: 30}  # synchronous messages of a run


def safety(places: Places, repeats: int = 3) -> pd.DataFrame:
    """What do acknowledgements and idempotence cost, waiting once and waiting for each message?"""
    messages = kh.make_messages("safety", MESSAGES)
    ways: Ways = {}
    for (place, config), (name, settings) in itertools.product(places.items(), SAFETY.items()):
        few = messages[: WAITED[place]]
        ways[place, "async", name] = partial(send, config, TOPIC, messages, settings=settings)
        ways[place, "sync", name] = partial(send, config, TOPIC, few, 1, settings=settings)
    return in_turns(repeats, ("place", "mode", "settings"), ways)


NEW_PRODUCERS = {"idempotent": (True, False), "idempotent, asks first": (True, True), "not idempotent": (False, False)}


def first_message(places: Places, repeats: int = 5) -> pd.DataFrame:
    """What does a new producer's first message take, from making the producer on, and what its second?

    One of the producers asks for metadata first, which it then has to wait for.
    """
    cases = itertools.product(places.items(), NEW_PRODUCERS.items())
    ways: Ways = {(place, name): partial(_first_message, config, *how) for (place, config), (name, how) in cases}
    return in_turns(repeats, ("place", "producer"), ways)


def _first_message(config: Config, idempotent: bool, asks: bool) -> list[Row]:
    times = []
    began = perf_counter()
    with connect(Producer, producer_settings(config) | {"enable.idempotence": idempotent}) as connection:
        if asks:
            topic_metadata(connection, TOPIC)
        for _ in range(2):
            connection.client.produce(TOPIC, PRIMER, PRIMER)
            wait_for_all(connection)
            times.append(perf_counter() - began)
    return [{"first_s": times[0], "second_s": times[1] - times[0]}]


# --- 7. One message from a web handler -------------------------------------------------------------------------------

Deliver = Callable[[bytes, bytes], Awaitable[object]]
Server = Callable[[], contextlib.AbstractAsyncContextManager[Deliver]]  # what requests share
EVERY_S = 0.1  # a message of the steady source
HANDLER_TIMEOUT_MS = 10_000  # a message that has not arrived by then has failed


def deliver(producer: Producer, topic: str, key: bytes, value: bytes) -> asyncio.Future[None]:
    """Hand a message over; await the future to know that it has arrived. A thread has to ``keep_polling``."""
    loop = asyncio.get_running_loop()
    arrived = loop.create_future()

    def settle(error: KafkaError | None) -> None:
        if error and not arrived.done():  # it is done, too, if nobody waits any more
            arrived.set_exception(KafkaException(error))
        elif not arrived.done():
            arrived.set_result(None)

    def report(error: KafkaError | None, _message: Message) -> None:
        loop.call_soon_threadsafe(settle, error)  # the only call that is allowed from the polling thread

    producer.produce(topic, value, key, on_delivery=report)
    return arrived


def keep_polling(producer: Producer, over: threading.Event) -> None:
    """What the polling thread does until the end; then ``flush()``."""
    while not over.is_set():
        producer.poll(0.1)


@contextlib.asynccontextmanager
async def aio_producer(config: Config, batch_size: int = 1000, polls: bool = False) -> AsyncIterator[Deliver]:
    """The client's AIOProducer, as it comes or with a task that polls."""

    async def poll() -> None:
        while True:
            await producer.poll(0.02)

    async def deliver_one(key: bytes, value: bytes) -> None:
        await (await producer.produce(TOPIC, value, key))

    settings = producer_settings(config) | {"logger": quiet_logger(), "delivery.timeout.ms": HANDLER_TIMEOUT_MS}
    async with AIOProducer(settings, batch_size=batch_size) as producer:
        await producer.produce(TOPIC, PRIMER, PRIMER)
        await producer.flush()
        polling = [asyncio.create_task(poll())] if polls else []
        try:
            yield deliver_one
        finally:
            for task in polling:
                task.cancel()


@contextlib.asynccontextmanager
async def polling_thread(config: Config) -> AsyncIterator[Deliver]:
    """The plain producer, and one thread that polls."""
    over = threading.Event()
    with connect(Producer, producer_settings(config) | {"delivery.timeout.ms": HANDLER_TIMEOUT_MS}) as connection:
        prime(connection, TOPIC)
        thread = threading.Thread(target=keep_polling, args=(connection.client, over))
        thread.start()
        try:
            yield partial(deliver, connection.client, TOPIC)
        finally:
            over.set()
            thread.join()


@contextlib.asynccontextmanager
async def waiting_threads(config: Config) -> AsyncIterator[Deliver]:
    """The plain producer, and a thread for each message, which waits for it."""

    def send_and_wait(key: bytes, value: bytes) -> None:
        connection.client.produce(TOPIC, value, key)
        connection.client.flush()

    async def deliver_one(key: bytes, value: bytes) -> None:
        await asyncio.to_thread(send_and_wait, key, value)

    with connect(Producer, producer_settings(config) | {"delivery.timeout.ms": HANDLER_TIMEOUT_MS}) as connection:
        prime(connection, TOPIC)
        yield deliver_one


async def handle_requests(server: Server, count: int, at_once: bool, stop: StopButton) -> list[Row]:
    """Requests that each deliver a message: ten a second, or one after another; the seconds that each waited."""

    async def request(deliver_one: Deliver, key: bytes, value: bytes) -> float:
        began = perf_counter()
        await deliver_one(key, value)
        return perf_counter() - began

    async with server() as deliver_one:
        requests = []
        for key, value in kh.make_messages("handler", count):
            stop.check()
            requests.append(asyncio.create_task(request(deliver_one, key, value)))
            await (asyncio.sleep(EVERY_S) if at_once else requests[-1])
        in_time = sum(map(asyncio.Task.done, requests))
        waits = await asyncio.gather(*requests)
        stopping = perf_counter()
    stop_s = perf_counter() - stopping
    return [{"wait_s": wait_s, "in_time": in_time, "stop_s": stop_s} for wait_s in waits]


def in_a_loop(server: Server, count: int, at_once: bool) -> list[Row]:
    """The same in a thread, since the notebook's own has a loop already; the stop button ends it."""
    with StopButton() as stop, ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(handle_requests(server, count, at_once, stop))).result()


def web_handler(config: Config, seconds: float = 6) -> pd.DataFrame:
    """How long does a request wait that sends one message and has to know that it arrived?"""
    count = round(seconds / EVERY_S)
    as_it_comes: Server = partial(aio_producer, config)
    polled: Server = partial(aio_producer, config, 1, True)
    ways: Ways = {
        ("AIOProducer, one by one",): partial(in_a_loop, as_it_comes, 4, False),
        ("AIOProducer",): partial(in_a_loop, as_it_comes, 2 * count, True),
        ("AIOProducer, batch_size=1, a task polls",): partial(in_a_loop, polled, count, True),
        ("Producer, a thread polls",): partial(in_a_loop, partial(polling_thread, config), count, True),
        ("Producer, threads wait",): partial(in_a_loop, partial(waiting_threads, config), count, True),
    }
    return in_turns(1, ["way"], ways, about_s=seconds + 3)


# --- 8. Mistakes, measured -------------------------------------------------------------------------------------------


def mistakes(config: Config, repeats: int = 3) -> pd.DataFrame:
    """What do common habits of measuring do to the answer? A habit that a sender has with one producer only is there
    with that; *right* is without any. What comes of it for 20,000 messages is worked out in ``harness.answers``."""
    events = list(kh.make_events("mistakes", MESSAGES))
    messages = [(event.bike_id.encode(), kh.encode(event)) for event in events]
    sending = partial(send, config, TOPIC)

    def serialized() -> Iterator[KeyValue]:
        for event in events:
            yield event.bike_id.encode(), json.dumps(dataclasses.asdict(event), default=str).encode()

    def print_it(error: KafkaError | None, message: Message) -> None:
        print(error or f"{message.topic()} [{message.partition()}] at {message.offset()}", file=nowhere)

    def poll_for(seconds: float) -> Callable[[Connection[Producer]], object]:
        return lambda connection: connection.client.poll(seconds)

    def poll_until_answered(connection: Connection[Producer]) -> None:
        while len(connection.client):
            connection.client.poll(0.1)
            connection.stop.check()

    few = messages[:200]
    ways: Ways = {
        ("right", "async"): partial(sending, messages),
        ("right", "sync"): partial(sending, messages[:5_000], 1),
        ("poll(0) after each", "async"): partial(sending, messages, 1, poll_for(0)),
        ("poll(0.1) after each", "async"): partial(sending, few, 1, poll_for(0.1)),
        ("flush() after each batch", "async"): partial(sending, messages, 500),
        ("the callback prints", "async"): partial(sending, messages, report=print_it),
        ("serializing inside the clock", "async"): lambda: sending(serialized()),
        ("serializing inside the clock", "sync"): lambda: sending(itertools.islice(serialized(), 5_000), 1),
        ("a producer for each batch", "async"): partial(sending, messages[:500]),
        ("sync by poll(0.1)", "sync"): partial(sending, few, 1, poll_until_answered),
        ("a mean of rates", "async"): partial(_by_mean_rate, "async", config, messages),
        ("a mean of rates", "sync"): partial(_by_mean_rate, "sync", config, messages[:5_000]),
    }
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        warm = in_turns(repeats, ("habit", "mode"), ways, about_s=2)
    cold = in_turns(1, ["habit"], {("a broker just started",): partial(_cold, messages)}, about_s=12)
    return pd.concat([warm, cold], ignore_index=True)


def _by_mean_rate(mode: str, config: Config, messages: Sequence[KeyValue]) -> list[Row]:
    run = require_complete(PRODUCERS[mode](config, TOPIC, messages))
    rate = mean(batch.messages / batch.elapsed_s for batch in run.batches)
    return [{"messages": run.acknowledged, "elapsed_s": run.acknowledged / rate}]


def _cold(messages: Sequence[KeyValue]) -> list[Row]:
    with LocalKafka() as kafka:
        ensure_topic(kafka.config, TOPIC)
        (waiting_once,) = send(kafka.config, TOPIC, messages)
        (waiting_each,) = send(kafka.config, TOPIC, messages[:2_000], 1)
    return [waiting_once | {"mode": "async"}, waiting_each | {"mode": "sync"}]


# --- 9. How sure are these numbers? ----------------------------------------------------------------------------------


def same_twice(config: Config, blocks: int = 6) -> pd.DataFrame:
    """What does the measurement call "no difference"? Its blocks, with each producer under two names in turns."""
    messages = kh.make_messages("same", MESSAGES)
    shares = {"async": messages, "sync": messages[: MESSAGES // 4]}
    names = {mode: itertools.cycle(("A", "A again", "A again", "A")) for mode in PRODUCERS}
    ways: Ways = {}
    for number, mode in enumerate(order_of_runs(blocks)):
        ways[mode, next(names[mode]), number] = partial(timed, mode, config, TOPIC, shares[mode])
    return in_turns(1, ("mode", "name", "number"), ways)
