"""The measurements of ``going_further.ipynb``: each function asks one question and returns a table.

In the tables, ``messages`` are acknowledged ones, ``elapsed_s`` is the time they took in seconds, and ``repeat`` counts
the rounds. A run that is not complete ends an experiment with the reason, and the user's interrupt ends it at once.
"""

import asyncio
import dataclasses
import io
import itertools
import json
import multiprocessing
import random
import statistics
import subprocess
import sys
import threading
import time
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from time import perf_counter

import fastavro
import pandas as pd
from confluent_kafka import Producer
from confluent_kafka.aio import AIOProducer

import kafka_helpers as kh
from harness.client import connect
from harness.config import MEASURED_SETTINGS, producer_settings, quiet_logger
from harness.measurement import WARM_UP, measured, warm_up
from harness.read_back import read_back
from harness.runs import ProducerRun, checked, rounds
from local_kafka import LocalKafka

ROUND_TRIPS_MS = (5, 0, 20, 1, 50, 2, 10)  # not in order, so that a drift doesn't look like an effect
WAITS = (1, 2, 5, 10, 50, 100, 500, 2_000, 10_000)
LINGERS_MS, LINGER_MESSAGES = (0, 5, 100), 100
SOURCE_RATE, SOURCE_BATCH = 1_000, 50  # messages a second, and in a batch, while a broker dies
DEAD_S = 1.0  # from killing the broker to starting it again
LONGEST_LIFE_S = 0.5  # of a program that is killed
Config = Mapping[str, str]


def counts(run: ProducerRun) -> dict[str, float]:
    """What a table has of a complete run."""
    return {"messages": checked(run).acknowledged, "elapsed_s": run.elapsed_s}


def same_twice(config: Config, topic: str, num_messages: int) -> pd.DataFrame:
    """What does the harness call "no difference"? Each producer alternates with itself, six runs under each name."""
    modes = {"async": (kh.produce_async, num_messages), "sync": (kh.produce_sync, max(1, num_messages // 4))}
    return pd.DataFrame(
        {"mode": mode, "name": name} | counts(produce(config, topic, kh.make_messages("same", count)))
        for name in kh.alternating("A", "A again", 6)
        for mode, (produce, count) in modes.items()
    )


def round_trip_law(num_messages: int, *, repeats: int = 6, seconds: float = 0.4) -> pd.DataFrame:
    """How does the time per message depend on the round trip? Three brokers, TLS and login, at several distances.

    A synchronous run sends as many messages as should take about ``seconds``, the asynchronous one all of them. In the
    table ``set_ms`` is the chosen distance and ``round_trip_ms`` what the client itself measured, as a mean.
    """
    rows = []
    for ms in ROUND_TRIPS_MS:
        with LocalKafka(3, distance_ms=ms) as kafka:
            kh.ensure_topic(kafka.config, "law")
            few = kh.make_messages("law", max(16, int(1000 * seconds / (ms + 1))))
            runs = [kh.produce_sync(kafka.config, "law", few) for _ in range(1 + repeats)][1:]  # the first one warms up
            runs.append(kh.produce_async(kafka.config, "law", kh.make_messages("law", num_messages)))
        rows += [
            {"set_ms": ms, "mode": run.mode, "repeat": repeat, **counts(run), "round_trip_ms": run.network["rtt_ms"]}
            for repeat, run in enumerate(runs)
        ]
    return pd.DataFrame(rows)


def wait_every(k: int, config: Config, topic: str, messages: Iterable[tuple[bytes, bytes]]) -> ProducerRun:
    """As ``produce_sync``, but hand over ``k`` messages before each wait."""
    with measured(f"wait after every {k}", config, topic, 120.0) as run:
        for batch in run.batches(messages, k, None):
            started = perf_counter()
            timing, on_delivery = run.start_batch(len(batch), started)
            for key, value in batch:
                run.producer.produce(topic, value, key, -1, on_delivery)
            run.flush()
            timing.elapsed_s = perf_counter() - started
    return run.result


def between(config: Config, topic: str, num_messages: int, *, most_waits: int, repeats: int) -> pd.DataFrame:
    """What lies between waiting after each message and waiting once? A run waits ``most_waits`` times at most.

    In the table, 0 as ``k`` stands for waiting only at the end: ``produce_async``.
    """
    rows = []
    for repeat, k in rounds(repeats, (*WAITS, 0)):
        messages = kh.make_messages("between", min(num_messages, most_waits * k) if k else num_messages)
        produce = partial(wait_every, k) if k else kh.produce_async
        rows.append({"k": k, "repeat": repeat} | counts(produce(config, topic, messages)))
    return pd.DataFrame(rows)


async def other_ways(config: Config, topic: str, num_messages: int, *, repeats: int = 5) -> pd.DataFrame:
    """What do other ways of asynchronous sending change? All messages have to fit into the client's queue (100,000)."""
    rows = []
    for repeat, way in rounds(repeats, ("produce", "failures only", "AIOProducer")):
        messages = kh.make_messages("ways", num_messages)
        if way == "produce":
            sent = counts(kh.produce_async(config, topic, messages))
        elif way == "failures only":
            sent = _reporting_failures(config, topic, messages)
        else:
            sent = await _with_asyncio(config, topic, messages)
        rows.append({"way": way, "repeat": repeat} | sent)
    return pd.DataFrame(rows)


def _reporting_failures(config: Config, topic: str, messages: list) -> dict[str, float]:
    failures = []
    with connect(Producer, producer_settings(config), **{"delivery.report.only.error": True}) as connection:
        warm_up(connection, topic)
        produce, report = connection.client.produce, lambda error, _: failures.append(error)
        started = perf_counter()
        for key, value in messages:
            produce(topic, value, key, -1, report)
        connection.client.flush()
        return {"messages": len(messages) - len(failures), "elapsed_s": perf_counter() - started}


async def _with_asyncio(config: Config, topic: str, messages: list) -> dict[str, float]:
    producer = AIOProducer({**config, **MEASURED_SETTINGS, "logger": quiet_logger()})
    try:
        first = await producer.produce(topic, WARM_UP, WARM_UP)
        await producer.flush()
        await first
        started = perf_counter()
        futures = [await producer.produce(topic, value, key) for key, value in messages]
        await producer.flush()
        await asyncio.gather(*futures)
        return {"messages": len(messages), "elapsed_s": perf_counter() - started}
    finally:
        await producer.close()


def serializing(num_messages: int, *, repeats: int = 5) -> pd.DataFrame:
    """What does it cost to turn an event into bytes? JSON by the standard library and by msgspec, Avro by fastavro.

    Returns:
        Columns ``way``, ``bytes`` (mean size), ``microseconds`` (a message; the median of the repeats).
    """
    events = list(kh.make_events("serializing", num_messages))
    ways = {"JSON, standard library": _standard_json, "JSON, msgspec": kh.encode, "Avro, fastavro": avro_encoder()}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _, (way, encode) in rounds(repeats, ways.items()):
        started = perf_counter()
        for event in events:
            encode(event)
        seconds[way].append(perf_counter() - started)
    return pd.DataFrame(
        {
            "way": way,
            "bytes": statistics.mean(len(encode(event)) for event in events),
            "microseconds": statistics.median(seconds[way]) / num_messages * 1e6,
        }
        for way, encode in ways.items()
    )


def _standard_json(event: kh.RideEvent) -> bytes:
    return json.dumps(dataclasses.asdict(event), default=datetime.isoformat, separators=(",", ":")).encode()


def avro_schema(cls: type = kh.RideEvent) -> dict:
    """The Avro schema of a dataclass.

    Source: Avro 1.12 specification, "Complex Types" and "Logical Types".
    """
    simple = {
        str: "string",
        int: "long",
        float: "double",
        datetime: {"type": "long", "logicalType": "timestamp-micros"},
    }

    def avro_type(name: str, hint: object) -> object:
        if typing.get_origin(hint) is typing.Literal:
            return {"type": "enum", "name": name.title(), "symbols": list(typing.get_args(hint))}
        return simple[hint]

    hints = typing.get_type_hints(cls)
    fields = [{"name": name, "type": avro_type(name, hint)} for name, hint in hints.items()]
    return {"type": "record", "name": cls.__name__, "fields": fields}


def avro_encoder(cls: type = kh.RideEvent) -> Callable[[kh.RideEvent], bytes]:
    """A function that turns an event into Avro's binary form, without the schema."""
    schema, names = fastavro.parse_schema(avro_schema(cls)), [each.name for each in dataclasses.fields(cls)]

    def encode(event: kh.RideEvent) -> bytes:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, {name: getattr(event, name) for name in names})
        return buffer.getvalue()

    return encode


def linger(config: Config, topic: str) -> pd.DataFrame:
    """Does ``linger.ms``, the time a message may wait for company, slow a producer that flushes after each message?"""
    messages = kh.make_messages("linger", LINGER_MESSAGES)
    return pd.DataFrame(
        {"linger_ms": ms, "repeat": repeat} | counts(kh.produce_sync({**config, "linger.ms": str(ms)}, topic, messages))
        for repeat, ms in rounds(3, LINGERS_MS)
    )


def broker_dies(mode: str, brokers: int, *, seconds: float, after_s: float) -> pd.DataFrame:
    """What if a broker dies while a source offers messages at a steady rate for so many seconds?

    It is killed ``after_s`` seconds after the first message. A lone one is started again ``DEAD_S`` later; of three, it
    stays away, and the partitions that it led need a new leader.

    The table has a row a batch: ``at_s`` (when it began) and ``killed_s`` on the run's clock, and in each row what
    became of the run's messages: ``missing``, ``duplicated``.
    """
    produce = {"async": kh.produce_async, "sync": kh.produce_sync}[mode]
    messages, ends, clock = kh.make_messages(mode, round(seconds * SOURCE_RATE)), [], {}

    def outage() -> None:
        if over.wait(after_s):
            return
        kafka.processes[0].kill()
        clock["killed"] = perf_counter()
        if brokers == 1 and not over.wait(DEAD_S):
            kafka.start_broker(0)

    def offered() -> Iterator[tuple[bytes, bytes]]:
        clock["begin"] = perf_counter()
        fault.start()
        for number, message in enumerate(messages):
            due = clock["begin"] + number // SOURCE_BATCH * SOURCE_BATCH / SOURCE_RATE
            time.sleep(max(0.0, due - perf_counter()))
            yield message

    over, fault = threading.Event(), threading.Thread(target=outage)
    with LocalKafka(brokers) as kafka:
        kh.ensure_topic(kafka.config, "dying")
        try:
            options = {"batch_size": SOURCE_BATCH, "progress": lambda _: ends.append(perf_counter() - clock["begin"])}
            run = checked(produce(kafka.config, "dying", offered(), **options))
        finally:
            over.set()
            if fault.is_alive():
                fault.join()
        found = kh.read_back(kafka.config, "dying", {mode: messages}).iloc[0]
    table = kh.batches_frame([run]).drop(columns="run").assign(brokers=brokers)
    table = table.assign(at_s=ends - table["elapsed_s"], killed_s=clock["killed"] - clock["begin"])
    return table.assign(missing=found["missing"], duplicated=found["duplicated"])


WAYS = {"sync": kh.produce_sync, "wait after every 100": partial(wait_every, 100), "async": kh.produce_async}


def program_dies(config: Config, topic: str, kills: int, *, seed: int = 7) -> pd.DataFrame:
    """What if the program dies? Each way of sending is killed so often, at random moments, in a process of its own.

    In the table, ``handed_over`` counts the messages after which the program had gone on to the next one, and ``lost``
    those of them that are not in the topic.
    """
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    context.set_forkserver_preload([__name__])  # so that what it takes to import is imported once
    moments, rows, start = random.Random(seed), [], kh.end_offsets(config, topic)
    for number, way in rounds(kills, WAYS):
        gone_on = context.RawValue("q", 0)  # in shared memory: it outlives the process
        row = {"way": way, "run_id": f"{way}-{number}"}
        child = context.Process(target=_send_on, args=(way, dict(config), topic, row["run_id"], gone_on), daemon=True)
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
        rows.append(row | {"handed_over": gone_on.value})
    time.sleep(1)  # what is still in the network's buffers arrives
    sent = {row["run_id"]: map(partial(_numbered, row["run_id"]), range(row["handed_over"])) for row in rows}
    found = read_back(config, topic, sent, identify=_run_and_number, start=start).set_index("run_id")["missing"]
    table = pd.DataFrame(rows)
    return table.assign(lost=table.pop("run_id").map(found))


def _send_on(way: str, config: Config, topic: str, run_id: str, gone_on) -> None:
    class Message:
        """A producer unpacks its key and value when it is its turn, however many it has read ahead."""

        def __init__(self, number: int):
            self.number = number

        def __iter__(self) -> Iterator[bytes]:
            gone_on.value = self.number
            return iter(_numbered(run_id, self.number))

    WAYS[way](config, topic, map(Message, itertools.count()))


def _numbered(run_id: str, number: int) -> tuple[bytes, bytes]:
    """A message of the size of an event, made in a fraction of the time."""
    return b"bike-%d" % (number % 2000), f"{run_id}/{number}/".encode().ljust(200, b".")


def _run_and_number(value: bytes) -> tuple[str, int]:
    run_id, number, _ = value.decode().split("/")
    return run_id, int(number)


# A loop as many publish it, with or without a look at its reports and a flush at its end.
CARELESS = """
import json, sys
from confluent_kafka import Producer
config, topic, size, looks, flushes = json.load(sys.stdin)
failed = []
def report(error, message):
    if error:
        failed.append(error.str())
producer = Producer(config)
for number in range(100):
    value = b"." * (size if number == 50 else 100)
    producer.produce(topic, value, on_delivery=report if looks else None)
    producer.poll(0)
if flushes:
    producer.flush()
if failed:
    print(f"{len(failed)} of 100 messages failed: {failed[0]}")
    sys.exit(1)
"""
PROGRAMS = {"no callback": (False, True), "no flush": (True, False), "both": (True, True)}


def nobody_looks(config: Config) -> pd.DataFrame:
    """What does a program notice that looks at no delivery report, or leaves out ``flush()``?

    The programs wait for seconds only, where the client would by default wait for minutes. In the table, ``arrived``
    counts the messages in the topic, of 100, ``said`` is what the program printed; ``log_lines`` are the client's.
    """
    patience = {"message.timeout.ms": "4000", "topic.metadata.propagation.max.ms": "2000"}
    faults = {
        "none": ({}, 100),
        "one message too large for the broker": ({"message.max.bytes": "4000000"}, 2_000_000),
        "no such topic": ({}, 100),
        "no broker answers": ({"bootstrap.servers": "127.0.0.1:1"}, 100),
    }

    def try_out(case: tuple[int, tuple[str, str]]) -> dict[str, object]:
        number, (fault, program) = case
        (settings, size), topic = faults[fault], f"nobody-looks-{number}"
        if there := fault != "no such topic":
            kh.ensure_topic(config, topic)
        given = json.dumps([{**config, **patience, **settings}, topic, size, *PROGRAMS[program]])
        done = subprocess.run([sys.executable, "-c", CARELESS], input=given, capture_output=True, text=True)
        arrived = sum(kh.end_offsets(config, topic).values()) if there else 0
        row = {"fault": fault, "program": program, "arrived": arrived, "exit_code": done.returncode}
        return row | {"said": done.stdout.strip(), "log_lines": len(done.stderr.splitlines())}

    with ThreadPoolExecutor() as pool:
        return pd.DataFrame(pool.map(try_out, enumerate(itertools.product(faults, PROGRAMS))))
