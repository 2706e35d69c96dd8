"""What the notebook calls: the messages, and the two producers.

A batch is ``batch_size`` consecutive messages of the test, not librdkafka's message batch. All times are in seconds
unless a name says otherwise; ``poll`` and ``flush`` take seconds, too. What stands behind is in ``harness``.
"""

# ruff: noqa: F401 (what the notebooks call is imported here, too)
import itertools
import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from time import perf_counter
from typing import Annotated, Any, Literal

import msgspec
import pandas as pd
from confluent_kafka import KafkaException, Producer

from harness.client import connect
from harness.cluster import Cluster, describe_cluster, open_cluster
from harness.config import ClientConfig, check_parameters, load_config, producer_settings
from harness.errors import ClusterError, ConfigError, ResultsError, RunInterrupted
from harness.measurement import measured
from harness.read_back import find_messages, reconcile
from harness.results import Results, check_folder, environment, load_results, new_folder, newest
from harness.runs import NEAR_MS, BatchTiming, ProducerRun, batches_frame, checked, in_blocks
from harness.topics import end_offsets, ensure_topic, topic_metadata

# --- The messages ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RideEvent:
    """One event of a bicycle hire system: a bicycle was unlocked or locked somewhere."""

    run_id: str  # which run of the experiment sent it
    sequence: int  # 0, 1, 2, ... within the run
    event_time: datetime  # UTC
    bike_id: str  # the message's key: the events of one bicycle stay in order
    kind: Literal["unlocked", "locked"]
    station: str
    latitude: float  # degrees north
    longitude: float  # degrees east
    battery: Annotated[int, msgspec.Meta(ge=0, le=100)]  # per cent


def encode(event: RideEvent) -> bytes:
    """An event as JSON."""
    return _encoder.encode(event)


def decode(value: bytes) -> RideEvent:
    """The event from its JSON; raises ValueError where a field is not as declared."""
    return _decoder.decode(value)


_encoder, _decoder = msgspec.json.Encoder(), msgspec.json.Decoder(RideEvent)

STATIONS = ("Ferry Plaza", "Mission Bay", "Embarcadero", "North Beach", "Civic Center", "Golden Gate Park")


def make_events(run_id: str, count: int, *, seed: int = 7) -> Iterator[RideEvent]:
    """The first ``count`` events of the stream that ``seed`` stands for; runs differ in their ``run_id`` only."""
    rng = random.Random(seed)
    time_of_event = datetime(2026, 1, 1, 6, tzinfo=UTC)
    for sequence in range(count):
        time_of_event += timedelta(milliseconds=rng.randint(1, 400))
        yield RideEvent(
            run_id=run_id,
            sequence=sequence,
            event_time=time_of_event,
            bike_id=f"bike-{rng.randint(1, 2000):04d}",
            kind=rng.choice(("unlocked", "locked")),
            station=rng.choice(STATIONS),
            latitude=round(rng.uniform(37.70, 37.82), 5),
            longitude=round(rng.uniform(-122.52, -122.38), 5),
            battery=rng.randint(5, 100),
        )


def make_messages(run_id: str, count: int, *, seed: int = 7) -> list[tuple[bytes, bytes]]:
    """The events of :func:`make_events` ready to send, as (key, value): serialized before any clock runs."""
    return [(event.bike_id.encode(), encode(event)) for event in make_events(run_id, count, seed=seed)]


# --- The two producers -----------------------------------------------------------------------------------------------

Config = Mapping[str, str]  # settings of the client
Messages = Iterable[tuple[bytes, bytes]]  # keys and values


def produce_async(config: Config, topic: str, messages: Messages, *, batch_size: int = 500) -> ProducerRun:
    """Hand over message after message; wait once, at the end."""
    with measured("async", config, topic) as run:  # connects before, closes after
        produce = run.producer.produce  # the client's; looked up once, called by position: faster
        for batch in run.batches(messages, batch_size):
            started = perf_counter()
            timing, on_delivery = run.start_batch(len(batch), started)
            for key, value in batch:
                try:
                    # -1: the key decides the partition; on_delivery is called when it has arrived or failed
                    produce(topic, value, key, -1, on_delivery)
                except (BufferError, KafkaException) as refusal:
                    # the queue is full: wait and try again; or the message is too large: it has failed
                    run.retry_or_fail(refusal, key, value, on_delivery)
            run.serve_reports()  # poll(0): call on_delivery for those messages that have arrived by now
            timing.elapsed_s = perf_counter() - started
        run.wait_for_all()  # wait once, at the end
    return run.result


def produce_sync(config: Config, topic: str, messages: Messages, *, batch_size: int = 500) -> ProducerRun:
    """Hand over a message; wait until it is acknowledged; go on."""
    with measured("sync", config, topic) as run:  # connects before, closes after
        produce = run.producer.produce  # the client's; looked up once, called by position: faster
        for batch in run.batches(messages, batch_size):
            started = perf_counter()
            timing, on_delivery = run.start_batch(len(batch), started)
            for key, value in batch:
                try:
                    # -1: the key decides the partition; on_delivery is called when it has arrived or failed
                    produce(topic, value, key, -1, on_delivery)
                except (BufferError, KafkaException) as refusal:
                    # the queue is full: wait and try again; or the message is too large: it has failed
                    run.retry_or_fail(refusal, key, value, on_delivery)
                run.wait_for_all()  # wait for this message's acknowledgement
            timing.elapsed_s = perf_counter() - started
    return run.result


# --- Before and after ------------------------------------------------------------------------------------------------


def warm_up(config: Config, topic: str, *, at_most_s: float = 30.0) -> tuple[float, float]:
    """Send messages that don't count until cluster and client have stopped getting faster; then time some.

    Java compiles what is used often while it runs, so a new Kafka gets faster. First come connections, since each run
    begins with one. Where the round trip is short, both producers follow in turns until the times of both stand still,
    for ``at_most_s`` seconds; brokers on this machine that only seem far away would see too few messages that way:
    several producers at once warm them up. A cloud's brokers are warm, and its quotas forbid the crowd.

    Returns:
        Medians of three short synchronous runs, in milliseconds: the round trip of a request as the client's statistics
        have it, and the whole time of a message.
    """
    messages, ends = make_messages("warm-up", 20_000), time.monotonic() + at_most_s

    def message_ms(run: ProducerRun) -> float:
        return 1000 * checked(run).elapsed_s / run.acknowledged

    for _ in range(40):  # at some thirty TLS handshakes Java compiles them, which takes it a third of a second
        with connect(Producer, producer_settings(config)) as connection:
            topic_metadata(connection, topic)
        if time.monotonic() > ends - 0.9 * at_most_s:
            break
    run = checked(produce_sync(config, topic, for_seconds(min(1.0, at_most_s), messages), batch_size=10))
    times: dict[str, list[float]] = {"async": [], "sync": []}
    if run.network["rtt_ms"] < NEAR_MS:
        while not all(map(_steady, times.values())) and time.monotonic() < ends:
            times["async"].append(message_ms(produce_async(config, topic, messages)))
            times["sync"].append(message_ms(produce_sync(config, topic, for_seconds(1.0, messages), batch_size=10)))
    elif config.get("bootstrap.servers", "").startswith(("127.0.0.1:", "localhost:")):
        produce_at_once(config, topic, messages, seconds=0.4 * at_most_s)
    timed = []
    for _ in range(3):
        timed.append(produce_sync(config, topic, for_seconds(at_most_s / 10, messages), batch_size=10))
        checked(produce_async(config, topic, messages))
    return median(run.network["rtt_ms"] for run in timed), median(map(message_ms, timed))


def _steady(times: list[float]) -> bool:
    """Whether the last three fell less than a tenth below the three before them, by their medians."""
    return len(times) >= 8 and median(times[-3:]) > 0.9 * median(times[-6:-3])


def produce_at_once(config: Config, topic: str, messages: Messages, *, seconds: float) -> None:
    """Sixteen synchronous producers at the same time, for so many seconds."""
    over, impatient = threading.Event(), ClientConfig(config) | {"delivery.timeout.ms": "2000"}
    with ThreadPoolExecutor(16) as pool:
        try:
            for _ in range(16):
                some = itertools.takewhile(lambda _: not over.is_set(), messages)
                pool.submit(produce_sync, impatient, topic, some, batch_size=1)
            time.sleep(seconds)
        finally:
            over.set()


def for_seconds(seconds: float, messages: Messages) -> Messages:
    """The messages, until so many seconds after the first has been dealt with; at least one."""
    ends = None
    for message in messages:
        yield message
        ends = ends or time.monotonic() + seconds
        if time.monotonic() > ends:
            return


def read_back(config: Config, topic: str, sent: Mapping[str, Any], **options: Any) -> pd.DataFrame:
    """Read the topic again and look for every message: see :func:`harness.read_back.find_messages`."""
    return find_messages(config, topic, sent, identify=_run_and_sequence, **options)


def _run_and_sequence(value: bytes) -> tuple[str, int]:
    event = decode(value)
    return event.run_id, event.sequence
