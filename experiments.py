"""The measurements of ``going_further.ipynb``: each function asks one question and returns a table.

In the tables, ``messages`` are acknowledged ones, which took ``elapsed_s`` seconds, and ``repeat`` counts the rounds.
``python -m experiments 5`` measures five times by each of two designs, which takes too long for the notebook.
"""

import asyncio
import itertools
import multiprocessing
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter

import pandas as pd
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.aio import AIOProducer

import kafka_helpers as kh
from harness.client import Connection, connect
from harness.config import producer_settings, quiet_logger
from harness.measurement import PRIMER, prime
from harness.read_back import find_messages
from harness.runs import ProducerRun, checked, in_blocks, rounds
from harness.topics import topic_metadata
from local_kafka import LocalKafka

PRODUCERS = {"async": kh.produce_async, "sync": kh.produce_sync}
ROUND_TRIPS_MS = (5, 50, 0, 20)  # not in order, so that a drift doesn't look like an effect
WAITS = (1, 2, 5, 10, 50, 100, 500, 2_000, 10_000)
SETTINGS = ("as measured", "acks=all", "acks=1", "acks=0", "linger.ms=0", "linger.ms=100", "compression.type=lz4")
NOT_IDEMPOTENT = {"enable.idempotence": "false"}  # since idempotence needs acks=all
SOURCE_RATE, SOURCE_BATCH = 1_000, 50  # messages a second, and in a batch, while a broker dies
DEAD_S = 1.0  # from killing the broker to starting it again
LONGEST_LIFE_S = 0.5  # of a program that is killed
Config = Mapping[str, str]
Row = dict[str, float]


def counts(run: ProducerRun) -> Row:
    """What a table has of a complete run."""
    return {"messages": checked(run).acknowledged, "elapsed_s": run.elapsed_s}


def _wait(connection: Connection[Producer]) -> None:
    """Until all is answered, or the user stops it."""
    while connection.client.flush(0.5):
        connection.stop.check()
    connection.stop.check()


def send(config: Config, topic: str, messages: Iterable, wait_every: int = 0, look=None, **settings) -> Row:
    """Send with other settings; wait after every so many messages, or only at the end, with a look after every 500."""
    failures: list = []
    with connect(Producer, producer_settings(config), **settings) as connection:
        prime(connection, topic)
        producer, number, started = connection.client, 0, perf_counter()
        for number, (key, value) in enumerate(messages, start=1):
            producer.produce(topic, value, key, -1, lambda error, _: error and failures.append(error))
            if wait_every and number % wait_every == 0:
                _wait(connection)
            elif not wait_every and number % 500 == 0:
                look(producer) if look else producer.poll(0)
        _wait(connection)
        return {"messages": number - len(failures), "elapsed_s": perf_counter() - started}


def in_turns(repeats: int, ways: Mapping[object, Callable[[], Row]], column: str = "way") -> pd.DataFrame:
    """Each way in turn, again and again: a row a time, with the way's name in ``column``."""
    return pd.DataFrame({column: way, "repeat": repeat} | ways[way]() for repeat, way in rounds(repeats, ways))


def same_twice(config: Config, topic: str, num_messages: int, *, blocks: int = 8) -> pd.DataFrame:
    """What does the measurement call "no difference"? Its blocks, with each producer under two names in turns."""
    messages, share = kh.make_messages("same", num_messages), {"async": 1, "sync": 4}
    names = {mode: itertools.cycle(("A", "A again", "A again", "A")) for mode in PRODUCERS}
    return pd.DataFrame(
        {"mode": mode, "name": next(names[mode])} | counts(PRODUCERS[mode](config, topic, messages[:: share[mode]]))
        for mode in in_blocks(blocks)
    )


def measure_design(design: str, num_messages: int, *, blocks: int = 6) -> pd.DataFrame:
    """A whole measurement on a broker of its own, by the ``new`` or the ``old`` design: a row a run.

    ``jit_s`` is the processor time of Java's optimizing compiler meanwhile, connecting included.
    """
    warm_up, order = kh.warm_up, in_blocks(blocks)
    if design == "old":
        warm_up, order = _old_warm_up, kh.alternating("async", "sync", blocks)
    messages, rows = kh.make_messages(design, num_messages), []
    with LocalKafka() as kafka:
        kh.ensure_topic(kafka.config, design)
        warm_up(kafka.config, design)
        for number, mode in enumerate(order, start=1):
            before = _jit_s(kafka)
            sent = counts(PRODUCERS[mode](kafka.config, design, messages))
            rows.append({"design": design, "order": number, "mode": mode, **sent, "jit_s": _jit_s(kafka) - before})
    return pd.DataFrame(rows)


def _old_warm_up(config: Config, topic: str) -> None:
    messages, legs = kh.make_messages("warm-up", 20_000), []
    checked(kh.produce_async(config, topic, messages))
    ends = time.monotonic() + 30
    while time.monotonic() < ends and not (len(legs) > 4 and min(legs[-3:]) > 0.95 * min(legs[:-3])):
        run = checked(kh.produce_sync(config, topic, kh.for_seconds(2.5, messages), batch_size=10))
        legs.append(1000 * run.elapsed_s / run.acknowledged)


def _jit_s(kafka: LocalKafka) -> float:
    """The processor time so far of the broker's C2 compiler threads, in seconds; Linux tells it."""
    stats = [file.read_text() for file in Path(f"/proc/{kafka.processes[0].pid}/task").glob("*/stat")]
    return sum(sum(map(int, stat.rpartition(")")[2].split()[11:13])) for stat in stats if "(C2 Comp" in stat) / 100


def measure_designs(each: int = 8, num_messages: int = 20_000, file: str = "results/designs.csv") -> None:
    """So many measurements by each design, old and new in turns; what there is is saved after each."""
    tables: list[pd.DataFrame] = []
    for design in ("old", "new") * each:
        about = {"measurement": len(tables) + 1, "date": kh.environment()["date"]}
        tables.append(measure_design(design, num_messages).assign(**about))
        pd.concat(tables).to_csv(file, index=False, lineterminator="\n")
        print(f"{len(tables)} of {2 * each} measurements saved in {file}", flush=True)


def round_trip_law(num_messages: int, *, repeats: int = 3, seconds: float = 0.6, warm_s: float = 6) -> pd.DataFrame:
    """How does the time per message depend on the round trip? Three brokers, TLS and login, at several distances.

    A synchronous run lasts about ``seconds``, an asynchronous one sends all. In the table, ``set_ms`` is the chosen
    distance, ``round_trip_ms`` that of other requests, measured before the runs.
    """
    rows, messages = [], kh.make_messages("law", num_messages)
    for ms in ROUND_TRIPS_MS:
        with LocalKafka(3, distance_ms=ms) as kafka:
            kh.ensure_topic(kafka.config, "law")
            kh.produce_at_once(kafka.config, "law", messages, seconds=warm_s)
            place = {"set_ms": ms, "round_trip_ms": _round_trip_ms(kafka.config, "law")}
            shares = {"async": messages, "sync": messages[: max(16, int(1000 * seconds / (ms + 3)))]}
            for repeat, mode in rounds(1 + repeats, PRODUCERS):
                sent = counts(PRODUCERS[mode](kafka.config, "law", shares[mode]))
                rows.append({**place, "mode": mode, "repeat": repeat, **sent})
    return pd.DataFrame(rows).query("repeat > 0")  # the first round still warms up


def _round_trip_ms(config: Config, topic: str) -> float:
    """The shortest of 21 times of a question that a broker answers at once: for a topic's metadata."""
    with connect(AdminClient, config) as connection:
        moments = [topic_metadata(connection, topic) and perf_counter() for _ in range(22)]
    return 1000 * min(after - before for before, after in itertools.pairwise(moments))


def other_settings(config: Config, topic: str, num_messages: int, most_waits: int, repeats: int) -> pd.DataFrame:
    """Which settings change the answer? Both ways of sending with each of ``SETTINGS``; sync sends ``most_waits``."""
    messages, ways = kh.make_messages("settings", num_messages), {}
    for name in SETTINGS:
        settings = dict([name.split("=")] if "=" in name else []) | (NOT_IDEMPOTENT if "acks" in name else {})
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

    Of ``elapsed_s``, ``poll_s`` is for serving as many ``reports``; ``cpu_s`` is the sending thread's processor time.
    """
    tables, messages = [], kh.make_messages("slow", num_messages)

    def look(producer: Producer) -> None:
        waiting, began = len(producer), perf_counter()
        producer.poll(0)
        moments.append((began, perf_counter(), time.thread_time(), waiting - len(producer)))

    for number in range(1, 1 + runs):
        moments: list[tuple] = []
        send(config, topic, messages, look=look)
        table = pd.DataFrame(moments, columns=["began", "ended", "cpu", "reports"])
        table = table.assign(run=number, elapsed_s=table["ended"].diff(), poll_s=table["ended"] - table["began"])
        tables.append(table.assign(cpu_s=table["cpu"].diff()).drop(columns=["began", "ended", "cpu"])[1:])
    return pd.concat(tables, ignore_index=True)


def other_ways(config: Config, topic: str, num_messages: int, *, repeats: int = 3) -> pd.DataFrame:
    """What do other ways of sending change? The slow ones send fewer messages."""
    settings, messages = producer_settings(config), kh.make_messages("ways", num_messages)

    async def with_asyncio(messages: list, gathered: bool) -> Row:
        async with AIOProducer({**settings, "logger": quiet_logger()}) as producer:
            await producer.produce(topic, PRIMER, PRIMER)
            await producer.flush()
            started, futures = perf_counter(), []
            for key, value in messages:
                futures.append(await producer.produce(topic, value, key))
                if not gathered:
                    await futures[-1]
            await producer.flush()
            await asyncio.gather(*futures)
            return {"messages": len(messages), "elapsed_s": perf_counter() - started}

    def in_a_loop(*arguments) -> Row:
        with ThreadPoolExecutor(1) as pool:  # the notebook's own thread has a loop already
            return pool.submit(lambda: asyncio.run(with_asyncio(*arguments))).result()

    def in_threads(messages: list) -> Row:
        # the connection ends first: what is under way then fails, and its threads need not wait
        with ThreadPoolExecutor(100) as pool, connect(Producer, settings) as connection:

            def deliver(message: tuple[bytes, bytes]) -> bool:
                answers: SimpleQueue = SimpleQueue()
                connection.client.produce(topic, message[1], message[0], -1, lambda error, _: answers.put(error))
                return answers.get() is None

            prime(connection, topic)
            started = perf_counter()
            delivered = [pool.submit(deliver, message) for message in messages]
            for each in delivered:
                while not each.done():
                    connection.client.poll(0.05)
                    connection.stop.check()
            return {"messages": sum(each.result() for each in delivered), "elapsed_s": perf_counter() - started}

    def producer_each(messages: list) -> Row:
        started, failures = perf_counter(), []
        for key, value in messages:
            with connect(Producer, settings) as connection:
                connection.client.produce(topic, value, key, -1, lambda error, _: error and failures.append(error))
                _wait(connection)
        return {"messages": len(messages) - len(failures), "elapsed_s": perf_counter() - started}

    ways = {
        "produce_async": lambda: counts(kh.produce_async(config, topic, messages)),
        "failures only": partial(send, config, topic, messages, **{"delivery.report.only.error": True}),
        "AIOProducer, gathered": partial(in_a_loop, messages, True),
        "100 threads that wait": partial(in_threads, messages[:10_000]),
        "produce_sync": lambda: counts(kh.produce_sync(config, topic, messages[:1_000])),
        "a producer for each message": partial(producer_each, messages[:20]),
        "AIOProducer, one by one": partial(in_a_loop, messages[:2], False),
    }
    return in_turns(repeats, ways)


def broker_dies(mode: str, brokers: int, *, seconds: float, after_s: float = 1.0) -> pd.DataFrame:
    """What if a broker dies while a source offers messages for so many seconds? A row a batch.

    It is killed ``after_s`` after the first message, at ``killed_s`` on the run's clock. A lone one is started again.
    """
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
        kh.ensure_topic(kafka.config, "dying")
        try:
            run = checked(PRODUCERS[mode](kafka.config, "dying", offered(), batch_size=SOURCE_BATCH))
        finally:
            fault.cancel()
            if fault.ident:  # it has been started
                fault.join()
        found = kh.read_back(kafka.config, "dying", {mode: messages})
    fates = found[["missing", "duplicated", "out_of_order"]].iloc[0]
    return kh.batches_frame([run]).assign(brokers=brokers, killed_s=clock["killed"] - clock["begin"], **fates)


WAYS = {"sync": kh.produce_sync, "wait after every 100": partial(send, wait_every=100), "async": kh.produce_async}


def program_dies(config: Config, topic: str, kills: int) -> pd.DataFrame:
    """What if the program dies? Each way of sending is killed so often, at random moments, in a process of its own.

    In the table, ``lost`` counts the messages that were handed over and are not in the topic.
    """
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    context.set_forkserver_preload([__name__])  # so that what it takes to import is imported once
    moments, rows, start = random.Random(7), [], kh.end_offsets(config, topic)
    for number, way in rounds(kills, WAYS):
        run_id, gone_on = f"{way}-{number}", context.RawValue("q", 0)  # in shared memory: it outlives the process
        child = context.Process(target=_send_on, args=(way, dict(config), topic, run_id, gone_on), daemon=True)
        child.start()
        try:
            while not gone_on.value:
                child.join(0.001)
                if child.exitcode is not None:
                    raise kh.RunIncomplete("The program that was to be killed has ended by itself.")
            time.sleep(moments.uniform(0, LONGEST_LIFE_S))
        finally:
            child.kill()
            child.join()
        rows.append({"way": way, "run_id": run_id, "handed_over": gone_on.value})
    time.sleep(1)  # what is still in the network's buffers arrives
    sent = {row["run_id"]: map(partial(_numbered, row["run_id"]), range(row["handed_over"])) for row in rows}
    found = find_messages(config, topic, sent, identify=_run_and_number, start=start).set_index("run_id")["missing"]
    return pd.DataFrame(rows).assign(lost=found[[row["run_id"] for row in rows]].array)


def _send_on(way: str, config: Config, topic: str, run_id: str, gone_on) -> None:
    def message(number: int) -> Iterator[bytes]:
        gone_on.value = number  # when key and value are unpacked, however many messages have been read ahead
        yield from _numbered(run_id, number)

    WAYS[way](config, topic, map(message, itertools.count()))


def _numbered(run_id: str, number: int) -> tuple[bytes, bytes]:
    """A message of the size of an event, made in a fraction of the time."""
    return b"bike-%d" % (number % 2000), f"{run_id}/{number}/".encode().ljust(200, b".")


def _run_and_number(value: bytes) -> tuple[str, int]:
    run_id, number, _ = value.decode().split("/")
    return run_id, int(number)


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
    while flushes and producer.flush(0.2):
        pass  # in short waits, so that the stop button is heard
    return failed


def nobody_looks(config: Config) -> pd.DataFrame:
    """What does a program notice that looks at no delivery report, or leaves out ``flush()``?

    Of 100 messages, ``arrived`` are in the topic; the program knows of ``noticed`` failures, for this ``reason``.
    """
    patience = {"message.timeout.ms": "2000", "topic.metadata.propagation.max.ms": "1000", "logger": quiet_logger()}
    rows = []
    for number, (fault, program) in enumerate(itertools.product(FAULTS, LEFT_OUT)):
        (settings, size), topic = FAULTS[fault], f"nobody-looks-{number}"
        if has_topic := fault != "no such topic":
            kh.ensure_topic(config, topic)
        try:
            failed = careless({**config, **patience, **settings}, topic, size, *LEFT_OUT[program])
        except SystemError:  # the client has lost an interrupt that fell into its callback
            raise KeyboardInterrupt from None
        arrived = sum(kh.end_offsets(config, topic).values()) if has_topic else 0
        row = {"fault": fault, "program": program, "arrived": arrived, "noticed": len(failed)}
        rows.append(row | {"reason": failed[0] if failed else ""})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    measure_designs(*map(int, sys.argv[1:]))
