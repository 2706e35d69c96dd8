"""The measurements of ``going_further.ipynb``: each function asks one question and returns a table.

In the tables, ``messages`` are acknowledged ones, which took ``elapsed_s`` seconds, and ``repeat`` counts the rounds.
"""

import asyncio
import itertools
import multiprocessing
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from time import perf_counter

import pandas as pd
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.aio import AIOProducer

import kafka_helpers as kh
from harness.client import connect
from harness.config import producer_settings
from harness.errors import ClusterError
from harness.measurement import PRIMER, prime
from harness.runs import batches_frame, order_of_runs, require_complete, rounds
from harness.topics import end_offsets, ensure_topic, topic_metadata
from harness.warm_up import produce_at_once
from local_kafka import LocalKafka, quiet_logger

PRODUCERS = {"async": kh.produce_async, "sync": kh.produce_sync}
ROUND_TRIPS_MS = (5, 50, 0, 20)  # not in order, so that a drift doesn't look like an effect
WAITS = (1, 2, 5, 10, 50, 100, 500, 2_000, 10_000)
SETTINGS = ("as measured", "acks=all", "acks=1", "acks=0", "linger.ms=0", "linger.ms=100", "compression.type=lz4")
SOURCE_RATE, SOURCE_BATCH = 1_000, 50  # messages a second, and in a batch, while a broker dies
DEAD_S = 1.0  # from killing the broker to starting it again
Config = Mapping[str, str]
Row = dict[str, float]


def timed(mode: str, config: Config, topic: str, messages: list) -> Row:
    """A complete run of one of the two producers."""
    run = require_complete(PRODUCERS[mode](config, topic, messages))
    return {"messages": run.acknowledged, "elapsed_s": run.elapsed_s}


def send(config: Config, topic: str, messages: Iterable, wait_every=0, look=None, primed=True, **settings) -> Row:
    """Send with other settings; wait after every so many messages, or only at the end, with a look after every 500."""
    failures: list = []
    with connect(Producer, producer_settings(config), **settings) as connection:

        def wait() -> None:
            while producer.flush(0.5):
                connection.stop.check()
            connection.stop.check()

        if primed:
            prime(connection, topic)
        producer, report = connection.client, lambda error, _: error and failures.append(error)
        number, started = 0, perf_counter()
        for number, (key, value) in enumerate(messages, start=1):
            producer.produce(topic, value, key, -1, report)
            if number % (wait_every or 500) == 0:
                wait() if wait_every else (look or Producer.poll)(producer, 0)
        wait()
        return {"messages": number - len(failures), "elapsed_s": perf_counter() - started}


def in_turns(repeats: int, ways: Mapping[object, Callable[[], Row]], column: str = "way") -> pd.DataFrame:
    """Each way in turn, again and again: a row a time, with the way's name in ``column``."""
    return pd.DataFrame({column: way, "repeat": repeat} | ways[way]() for repeat, way in rounds(repeats, ways))


def same_twice(config: Config, topic: str, num_messages: int, *, blocks: int = 8) -> pd.DataFrame:
    """What does the measurement call "no difference"? Its blocks, with each producer under two names in turns."""
    messages, share = kh.make_messages("same", num_messages), {"async": 1, "sync": 4}
    names = {mode: itertools.cycle(("A", "A again", "A again", "A")) for mode in PRODUCERS}
    return pd.DataFrame(
        {"mode": mode, "name": next(names[mode])} | timed(mode, config, topic, messages[:: share[mode]])
        for mode in order_of_runs(blocks)
    )


def round_trip_law(num_messages: int, *, repeats: int = 3, seconds: float = 0.6, warm_s: float = 10) -> pd.DataFrame:
    """How does the time per message depend on the round trip? Three brokers, TLS and login, at several distances.

    A synchronous run lasts about ``seconds``, an asynchronous one sends all. In the table, ``set_ms`` is the chosen
    distance, ``round_trip_ms`` the shortest of 21 times of a question that a broker answers at once, for metadata.
    """
    tables, messages = [], kh.make_messages("law", num_messages)
    for ms in ROUND_TRIPS_MS:
        with LocalKafka(3, distance_ms=ms) as kafka:
            ensure_topic(kafka.config, "law")
            produce_at_once(kafka.config, "law", messages, seconds=warm_s)
            with connect(AdminClient, kafka.config) as connection:
                moments = [topic_metadata(connection, "law") and perf_counter() for _ in range(22)]
            round_trip_s = min(after - before for before, after in itertools.pairwise(moments))
            shares = {"async": messages, "sync": messages[: max(16, int(1000 * seconds / (ms + 3)))]}
            ways = {mode: partial(timed, mode, kafka.config, "law", shares[mode]) for mode in shares}
            table = in_turns(1 + repeats, ways, "mode")
            tables.append(table.assign(set_ms=ms, round_trip_ms=1000 * round_trip_s))
    return pd.concat(tables).query("repeat > 0")  # the first round still warms up


def other_settings(config: Config, topic: str, num_messages: int, most_waits: int, repeats: int) -> pd.DataFrame:
    """Which settings change the answer? Both ways of sending with each of ``SETTINGS``; sync sends ``most_waits``."""
    messages, ways = kh.make_messages("settings", num_messages), {}
    for name in SETTINGS:
        settings: dict = dict([name.split("=")] if "=" in name else [])
        settings["enable.idempotence"] = "acks" not in settings  # since it needs acks=all
        ways[f"async {name}"] = partial(send, config, topic, messages, **settings)
        ways[f"sync {name}"] = partial(send, config, topic, messages[:most_waits], wait_every=1, **settings)
    table = in_turns(repeats, ways)
    table[["mode", "settings"]] = table.pop("way").str.split(" ", n=1, expand=True)
    return table


def between(config: Config, topic: str, num_messages: int, most_waits: int, repeats: int) -> pd.DataFrame:
    """What lies between waiting after each message and waiting once (0 as ``k``)? A run waits ``most_waits`` times."""
    messages = kh.make_messages("between", num_messages)
    ways = {k: partial(send, config, topic, messages[: most_waits * k], wait_every=k) for k in WAITS}
    return in_turns(repeats, ways | {0: partial(send, config, topic, messages)}, "k")


def slow_batches(config: Config, topic: str, num_messages: int, *, runs: int = 12) -> pd.DataFrame:
    """Why are some asynchronous batches slow? A row for each batch but the runs' first ones.

    ``cpu_s`` is the sending thread's processor time, ``poll_cpu_s`` that of serving as many ``reports``.
    """
    messages, moments = kh.make_messages("slow", num_messages), []

    def look(run: int, producer: Producer, timeout_s: float) -> None:
        waiting, cpu = len(producer), time.thread_time()
        producer.poll(timeout_s)
        moments.append((run, perf_counter(), cpu, time.thread_time(), waiting - len(producer)))

    for run in range(1, 1 + runs):
        send(config, topic, messages, look=partial(look, run))
    table = pd.DataFrame(moments, columns=["run", "ended", "cpu_before", "cpu", "reports"])
    table["poll_cpu_s"] = table["cpu"] - table["cpu_before"]
    table[["elapsed_s", "cpu_s"]] = table.groupby("run")[["ended", "cpu"]].diff()
    return table.dropna().drop(columns=["ended", "cpu_before", "cpu"])


async def with_asyncio(config: Config, topic: str, messages: Sequence[tuple], gathered: bool = True) -> float:
    """The client's AIOProducer, each message awaited by itself or all together; how many seconds they took."""
    async with AIOProducer({**producer_settings(config), "logger": quiet_logger()}) as producer:
        await producer.produce(topic, PRIMER, PRIMER)
        await producer.flush()
        started, answers = perf_counter(), []
        for key, value in messages:
            answer = await producer.produce(topic, value, key)
            answers.append(answer) if gathered else await answer
        await producer.flush()
        await asyncio.gather(*answers)
        return perf_counter() - started


def other_ways(config: Config, topic: str, num_messages: int, *, repeats: int = 3) -> pd.DataFrame:
    """What do other ways of sending change? The slow ones send fewer messages."""
    settings, messages = producer_settings(config), kh.make_messages("ways", num_messages)

    def in_a_loop(messages: list, gathered: bool) -> Row:
        with ThreadPoolExecutor(1) as pool:  # the notebook's own thread has a loop already
            sending = pool.submit(lambda: asyncio.run(with_asyncio(config, topic, messages, gathered)))
            return {"messages": len(messages), "elapsed_s": sending.result()}

    def in_threads(messages: list) -> Row:
        # the connection ends first: what is under way then fails, and its threads need not wait
        with ThreadPoolExecutor(100) as pool, connect(Producer, settings) as connection:

            def deliver(message: tuple[bytes, bytes]) -> bool:
                answer: Future = Future()
                connection.client.produce(topic, message[1], message[0], -1, lambda error, _: answer.set_result(error))
                return answer.result() is None

            prime(connection, topic)
            started = perf_counter()
            delivered = [pool.submit(deliver, message) for message in messages]
            while not all(map(Future.done, reversed(delivered))):
                connection.client.poll(0.05)
                connection.stop.check()
            return {"messages": sum(map(Future.result, delivered)), "elapsed_s": perf_counter() - started}

    def producer_each(messages: list) -> Row:
        started = perf_counter()
        delivered = sum(send(config, topic, [message], primed=False)["messages"] for message in messages)
        return {"messages": delivered, "elapsed_s": perf_counter() - started}

    ways = {
        "produce_async": partial(timed, "async", config, topic, messages),
        "another loop": partial(send, config, topic, messages),
        "another loop, failures only": partial(send, config, topic, messages, **{"delivery.report.only.error": True}),
        "AIOProducer, gathered": partial(in_a_loop, messages, True),
        "100 threads that wait": partial(in_threads, messages[:10_000]),
        "produce_sync": partial(timed, "sync", config, topic, messages[:1_000]),
        "a producer for each message": partial(producer_each, messages[:20]),
        "AIOProducer, one by one": partial(in_a_loop, messages[:2], False),
    }
    return in_turns(repeats, ways)


def broker_dies(mode: str, brokers: int, seconds: float, after_s: float = 1.0) -> pd.DataFrame:
    """What if a broker is killed while a source offers messages? A lone one is started again. A row a batch."""
    messages, clock = kh.make_messages(mode, round(seconds * SOURCE_RATE)), {}

    def outage() -> None:
        kafka.processes[0].kill()
        clock["killed"] = perf_counter()
        if brokers == 1:
            time.sleep(DEAD_S)
            kafka.start_broker(0)

    def offered() -> Iterator[tuple[bytes, bytes]]:
        clock["begin"] = perf_counter()
        fault.start()
        for number, message in enumerate(messages):
            due = clock["begin"] + number // SOURCE_BATCH * SOURCE_BATCH / SOURCE_RATE
            time.sleep(max(0.0, due - perf_counter()))
            yield message

    with LocalKafka(brokers) as kafka:
        fault = threading.Timer(after_s, outage)
        ensure_topic(kafka.config, "dying")
        try:
            run = require_complete(PRODUCERS[mode](kafka.config, "dying", offered(), batch_size=SOURCE_BATCH))
        finally:
            fault.cancel()
            if fault.ident:  # it has been started
                fault.join()
        found = kh.read_back(kafka.config, "dying", {mode: messages})
    table = batches_frame([run]).assign(brokers=brokers, killed_s=clock["killed"] - clock["begin"])
    return table.assign(**found.iloc[0][["missing", "duplicated", "out_of_order"]])


WAYS = {"sync": kh.produce_sync, "wait after every 100": partial(send, wait_every=100), "async": kh.produce_async}
EVENT = kh.make_messages("%s", 1)[0][1].replace(b'"sequence":0', b'"sequence":%d')


def program_dies(config: Config, topic: str, kills: int) -> pd.DataFrame:
    """What if the program is killed at random moments? ``lost`` are messages ``handed_over`` and not in the topic."""
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    context.set_forkserver_preload([__name__])  # so that what it takes to import is imported once
    moments, rows, start = random.Random(7), [], end_offsets(config, topic)
    for number, way in rounds(kills, WAYS):
        run_id, gone_on = f"{way}-{number}", context.RawValue("q", 0)  # in shared memory: it outlives the process
        child = context.Process(target=_send_on, args=(way, dict(config), topic, run_id, gone_on), daemon=True)
        child.start()
        try:
            while child.is_alive() and not gone_on.value:
                time.sleep(0.001)
            time.sleep(moments.uniform(0, 0.5))
            if not child.is_alive():
                raise ClusterError("The program that was to be killed has ended by itself.")
        finally:
            child.kill()
            child.join()
        rows.append((way, run_id, gone_on.value))
    time.sleep(1)  # what is still in the network's buffers arrives
    sent = {run_id: map(partial(_event, run_id, gone_on), range(handed_over)) for _, run_id, handed_over in rows}
    lost = kh.read_back(config, topic, sent, start=start)["missing"]
    return pd.DataFrame(rows, columns=["way", "run_id", "handed_over"]).assign(lost=lost)


def _send_on(way: str, config: Config, topic: str, run_id: str, gone_on) -> None:
    WAYS[way](config, topic, map(partial(_event, run_id, gone_on), itertools.count()))


def _event(run_id: str, gone_on, number: int) -> Iterator[bytes]:
    """Key and value, made in a fraction of the usual time."""
    gone_on.value = number  # when they are unpacked, however many messages have been read ahead
    yield b"bike-%d" % (number % 2000)
    yield EVENT % (run_id.encode(), number)


LEFT_OUT = {"no callback": (False, True), "no flush": (True, False), "callback and flush": (True, True)}
FAULTS: dict[str, tuple[dict, int]] = {  # settings, and the size of one message
    "none": ({}, 100),
    "one message too large for the broker": ({"message.max.bytes": "4000000"}, 2_000_000),
    "no such topic": ({}, 100),
    "no broker answers": ({"bootstrap.servers": "127.0.0.1:1"}, 100),
}


def careless(config: Config, topic: str, size: int, looks: bool, flushes: bool) -> list[str]:
    """A loop as many publish it: what it knows failed."""
    failed: list[str] = []
    producer, report = Producer(config), lambda error, _: error and failed.append(error.str())
    for number in range(100):
        value = b"." * (size if number == 50 else 100)
        producer.produce(topic, value, on_delivery=report if looks else None)
        producer.poll(0)
    if flushes:
        producer.flush()
    return failed


def nobody_looks(config: Config) -> pd.DataFrame:
    """What if nobody looks? Of 100 messages, how many have ``arrived``, and of how many failures the program knows."""
    patience = {"message.timeout.ms": "2000", "topic.metadata.propagation.max.ms": "1000", "logger": quiet_logger()}
    rows = []
    for number, (fault, program) in enumerate(itertools.product(FAULTS, LEFT_OUT)):
        (settings, size), topic = FAULTS[fault], f"nobody-looks-{number}"
        if has_topic := fault != "no such topic":
            ensure_topic(config, topic)
        with ThreadPoolExecutor(1) as pool:  # not in this thread: the client would lose an interrupt in its callback
            failed = pool.submit(careless, {**config, **patience, **settings}, topic, size, *LEFT_OUT[program]).result()
        arrived = sum(end_offsets(config, topic).values()) if has_topic else 0
        rows.append((fault, program, arrived, len(failed), failed[0] if failed else ""))
    return pd.DataFrame(rows, columns=["fault", "program", "arrived", "noticed", "reason"])
