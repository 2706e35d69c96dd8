"""What the notebook calls: the messages, and the two producers.

A batch is ``batch_size`` consecutive messages of the test, not librdkafka's message batch. All times are in seconds
unless a name says otherwise; ``poll`` and ``flush`` take seconds, too. What stands behind is in ``harness``.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Annotated, Literal

import msgspec
import pandas as pd
from confluent_kafka import KafkaException

from harness import read_back as reading
from harness.cluster import describe_cluster, open_cluster
from harness.config import check_parameters, producer_settings
from harness.credentials import load_config
from harness.errors import ConfigError
from harness.measurement import measured
from harness.read_back import reconcile
from harness.results import (
    ASSIGNMENT_KINDS,
    FURTHER_KINDS,
    Record,
    Results,
    check_folder,
    load_measurements,
    load_results,
    new_folder,
    newest,
)
from harness.runs import BatchTiming, KeyValue, ProducerRun, batches_frame, order_of_runs
from harness.topics import end_offsets, ensure_topic
from harness.warm_up import warm_up

# What assignment1.ipynb calls, and the names that other programs rely on.
__all__ = [
    "ASSIGNMENT_KINDS",
    "FURTHER_KINDS",
    "BatchTiming",
    "ConfigError",
    "ProducerRun",
    "Record",
    "Results",
    "RideEvent",
    "batches_frame",
    "check_folder",
    "check_parameters",
    "decode",
    "describe_cluster",
    "encode",
    "end_offsets",
    "ensure_topic",
    "load_config",
    "load_measurements",
    "load_results",
    "make_events",
    "make_messages",
    "new_folder",
    "newest",
    "open_cluster",
    "order_of_runs",
    "produce_async",
    "produce_sync",
    "producer_settings",
    "read_back",
    "reconcile",
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
    return msgspec.json.encode(event)


def decode(value: bytes) -> RideEvent:
    """The event from its JSON; raises ValueError where a field is not as declared."""
    return msgspec.json.decode(value, type=RideEvent)


STATIONS = ("Ferry Plaza", "Mission Bay", "Embarcadero", "North Beach", "Civic Center", "Golden Gate Park")


def make_events(run_id: str, count: int) -> Iterator[RideEvent]:
    """The first ``count`` events of a stream that is always the same, but for ``run_id``."""
    rng = random.Random(7)
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


def make_messages(run_id: str, count: int) -> list[tuple[bytes, bytes]]:
    """The events of :func:`make_events` ready to send, as (key, value): serialized before any clock runs."""
    return [(event.bike_id.encode(), encode(event)) for event in make_events(run_id, count)]


# --- The two producers -----------------------------------------------------------------------------------------------

Config = Mapping[str, str]  # settings of the client
Messages = Iterable[KeyValue]  # keys and values; a key may be None


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
            timing.reports = run.serve_reports()  # poll(0): call on_delivery for what has arrived
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


# --- Afterwards ------------------------------------------------------------------------------------------------------


def read_back(
    config: Config,
    topic: str,
    sent: Mapping[str, Messages | Callable[[], Messages]],
    *,
    undelivered: Mapping[str, Messages] | None = None,
    start: Mapping[int, int] | None = None,
) -> pd.DataFrame:
    """Read the topic again, and look for every message of the runs by its event's run id and sequence number.

    For each run id, ``sent`` has its messages in order, or a function that makes them again, and ``undelivered`` those
    that failed. Reading begins at the offsets ``start``, by partition, else at the oldest message. What the table says,
    and what is raised, stands at :func:`harness.read_back.read_back`.
    """
    return reading.read_back(config, topic, sent, identify=_run_and_sequence, undelivered=undelivered, start=start)


def _run_and_sequence(value: bytes) -> tuple[str, int]:
    event = decode(value)
    return event.run_id, event.sequence
