"""What the notebook calls: the messages, and the two producers.

A batch is ``batch_size`` consecutive messages of the test, not librdkafka's message batch. All times are in seconds
unless a name says otherwise; ``poll`` and ``flush`` take seconds, too. What stands behind is in ``harness``.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import fmean
from time import perf_counter
from typing import Annotated, Literal

import msgspec
import pandas as pd
from confluent_kafka import KafkaException

import harness.read_back
from harness.cluster import Cluster, describe_cluster, open_cluster
from harness.config import check_parameters, load_config
from harness.errors import ClusterError, ConfigError, ResultsError, RunIncomplete, RunInterrupted
from harness.measurement import measured
from harness.read_back import accounts
from harness.results import Results, environment, load_results, new_folder
from harness.runs import BatchTiming, ProducerRun, alternating, batches_frame, checked
from harness.topics import end_offsets, ensure_topic

__all__ = [
    "BatchTiming",
    "Cluster",
    "ClusterError",
    "ConfigError",
    "ProducerRun",
    "Results",
    "ResultsError",
    "RideEvent",
    "RunIncomplete",
    "RunInterrupted",
    "accounts",
    "alternating",
    "batches_frame",
    "check_parameters",
    "decode",
    "describe_cluster",
    "encode",
    "end_offsets",
    "ensure_topic",
    "environment",
    "load_config",
    "load_results",
    "make_events",
    "make_messages",
    "new_folder",
    "open_cluster",
    "produce_async",
    "produce_sync",
    "read_back",
    "warm_up",
]

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

# ``progress`` is told, between two batches, how many messages the last one had. The client is called with arguments by
# position: names would cost a noticeable part of the time that is measured.
Messages = Iterable[tuple[bytes, bytes]]
Progress = Callable[[int], object]


def produce_async(
    config: Mapping[str, str],
    topic: str,
    messages: Messages,
    *,
    batch_size: int = 500,
    progress: Progress | None = None,
    delivery_timeout_s: float = 120.0,
) -> ProducerRun:
    """Hand over message after message; wait once, at the end."""
    with measured("async", config, topic, delivery_timeout_s) as run:  # connects before, closes after
        produce = run.producer.produce  # the client's
        for batch in run.batches(messages, batch_size, progress):
            started = perf_counter()
            timing, on_delivery = run.start_batch(len(batch), started)
            for key, value in batch:
                try:
                    # -1: the key decides the partition; on_delivery is called when it has arrived or failed
                    produce(topic, value, key, -1, on_delivery)
                except (BufferError, KafkaException) as refusal:
                    # the client's queue is full, or the message is too large
                    run.retry_or_fail(refusal, key, value, on_delivery)
            run.poll(0)  # serve the delivery reports that have come
            timing.elapsed_s = perf_counter() - started
        run.flush()  # wait once, for all
    return run.result


def produce_sync(
    config: Mapping[str, str],
    topic: str,
    messages: Messages,
    *,
    batch_size: int = 500,
    progress: Progress | None = None,
    delivery_timeout_s: float = 120.0,
) -> ProducerRun:
    """Hand over a message; wait until it is acknowledged; go on."""
    with measured("sync", config, topic, delivery_timeout_s) as run:  # connects before, closes after
        produce = run.producer.produce  # the client's
        for batch in run.batches(messages, batch_size, progress):
            started = perf_counter()
            timing, on_delivery = run.start_batch(len(batch), started)
            for key, value in batch:
                try:
                    # -1: the key decides the partition; on_delivery is called when it has arrived or failed
                    produce(topic, value, key, -1, on_delivery)
                except (BufferError, KafkaException) as refusal:
                    # the client's queue is full, or the message is too large
                    run.retry_or_fail(refusal, key, value, on_delivery)
                run.flush()  # wait for this message's acknowledgement
            timing.elapsed_s = perf_counter() - started
    return run.result


# --- Before and after ------------------------------------------------------------------------------------------------


def warm_up(config: Mapping[str, str], topic: str, *, at_most_s: float = 30.0) -> tuple[float, float]:
    """Send messages that don't count, until the time of a synchronous message stands still.

    A Kafka that has just been started gets faster for some seconds, while Java compiles what is used.

    Args:
        config: client configuration.
        topic: where to send to.
        at_most_s: then it is enough, steady or not.

    Returns:
        In milliseconds, from the last synchronous messages: the round trip of a request, from the client's statistics,
        and the whole time of a message, which is that and the client's own.

    Raises:
        RunIncomplete: not all messages were delivered.
        KeyboardInterrupt: the user pressed the stop button.
    """
    messages, rounds = make_messages("warm-up", 20_000), []
    checked(produce_async(config, topic, messages))
    ends = time.monotonic() + at_most_s
    while True:
        run = checked(produce_sync(config, topic, for_seconds(2.5, messages), batch_size=10))
        rounds.append((run.network["rtt_ms"], 1000 * run.elapsed_s / run.acknowledged))
        if _steady([message_ms for _, message_ms in rounds]) or time.monotonic() > ends:
            round_trips_ms, messages_ms = zip(*rounds[-3:], strict=True)
            return fmean(round_trips_ms), fmean(messages_ms)


def _steady(times: list[float]) -> bool:
    """Whether none of the last three, of at least five, is more than a twentieth below the best before them."""
    return len(times) > 4 and min(times[-3:]) > 0.95 * min(times[:-3])


def for_seconds(seconds: float, messages: Messages) -> Messages:
    """The messages, until so many seconds after the first has been dealt with; at least one."""
    ends = None
    for each in messages:
        yield each
        ends = ends or time.monotonic() + seconds
        if time.monotonic() > ends:
            return


def read_back(
    config: Mapping[str, str],
    topic: str,
    sent: Mapping[str, Messages],
    *,
    undelivered: Mapping[str, Messages] | None = None,
    start: Mapping[int, int] | None = None,
) -> pd.DataFrame:
    """Read the topic again and look for every message: see :func:`harness.read_back.read_back`."""
    return harness.read_back.read_back(
        config, topic, sent, identify=_run_and_sequence, undelivered=undelivered, start=start
    )


def _run_and_sequence(value: bytes) -> tuple[str, int]:
    event = decode(value)
    return event.run_id, event.sequence
