"""Did every message arrive? The topic is read again, and each message is looked for."""

import time
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from typing import Any

import pandas as pd
from confluent_kafka import Consumer, KafkaError, TopicPartition

from harness.client import CONNECT_TIMEOUT_S, connect, known
from harness.config import READER_SETTINGS
from harness.errors import ClusterError
from harness.measurement import PRIMER
from harness.runs import ProducerRun
from harness.topics import offsets

Message = tuple[bytes | None, bytes | None]
COLUMNS = ["run_id", "expected", "received", "missing", "duplicated", "damaged", "out_of_order"]


def read_back(
    config: Mapping[str, str],
    topic: str,
    sent: Mapping[str, Iterable[Message] | Callable[[], Iterable[Message]]],
    *,
    identify: Callable[[bytes], tuple[str, int]],
    undelivered: Mapping[str, Iterable[Message]] | None = None,
    start: Mapping[int, int] | None = None,
) -> pd.DataFrame:
    """Read the topic again, and look for every message of the runs by run id and sequence number.

    Args:
        sent: for each run id its messages in order, or a function that makes them again; only checksums stay in memory.
        identify: gives run id and sequence number of a message's value; raises ValueError where that has none.
        undelivered: for each run id the messages that failed; it is no loss if these are not found.
        start: offset by partition where to begin, as from ``end_offsets``; the oldest message by default.

    Returns:
        One row a run: ``expected`` (acknowledged messages), ``received`` (of all sent ones, at least once),
        ``missing`` (acknowledged, not found intact), ``duplicated`` (further copies), ``damaged`` (not as sent),
        ``out_of_order`` (first copies that stand behind a later message of the same key). ``attrs["foreign"]``: how
        many messages there were of other runs or programs.

    Raises:
        ClusterError: no connection, the reading comes to a standstill, or the topic is another one than at ``start``.
    """
    checksums = {
        run_id: array("I", (_checksum(*message) for message in (messages() if callable(messages) else messages)))
        for run_id, messages in sent.items()
    }
    excused = {
        run_id: {identify(value or b"")[1] for _, value in failed} for run_id, failed in (undelivered or {}).items()
    }
    copies = {run_id: bytearray(len(expected)) for run_id, expected in checksums.items()}
    latest: dict[tuple, int] = {}  # of a run's messages of a key in a partition
    duplicated, damaged, out_of_order = (Counter[str]() for _ in range(3))
    foreign = 0
    with closing(_read_all(config, topic, start or {})) as found:
        for partition, key, value in found:
            if value == PRIMER:
                continue
            try:
                run_id, number = identify(value or b"")
                expected = checksums[run_id]
            except (ValueError, KeyError):
                foreign += 1
                continue
            if not 0 <= number < len(expected) or _checksum(key, value) != expected[number]:
                damaged[run_id] += 1
            elif copies[run_id][number]:
                duplicated[run_id] += 1
            else:
                copies[run_id][number] = 1
                before = latest.setdefault((run_id, partition, key), number)
                out_of_order[run_id] += number < before
                latest[run_id, partition, key] = max(number, before)
    rows = []
    for run_id, seen in copies.items():
        failed = excused.get(run_id, set())
        missing = {number for number, copy in enumerate(seen) if not copy} - failed
        counts = (len(seen) - len(failed), sum(seen), len(missing))
        rows.append((run_id, *counts, duplicated[run_id], damaged[run_id], out_of_order[run_id]))
    table = pd.DataFrame(rows, columns=COLUMNS)
    table.attrs["foreign"] = foreign
    return table


def _checksum(key: bytes | None, value: bytes | None) -> int:
    return zlib.crc32(value or b"", zlib.crc32(key or b""))


def _read_all(config: Mapping[str, str], topic: str, start: Mapping[int, int]) -> Generator[tuple, None, None]:
    """Partition, key and value of every message from ``start`` to what was the topic's end when this was called."""
    spans = {
        number: (max(oldest, start.get(number, 0)), end) for number, (oldest, end) in offsets(config, topic).items()
    }
    if any(spans.get(number, (0, -1))[1] < first for number, first in start.items()):
        raise ClusterError(f"The topic {topic} is another one than when the runs began, made anew; measure again.")
    with connect(Consumer, config, **READER_SETTINGS) as connection:
        consumer = connection.client
        consumer.assign([TopicPartition(topic, number, first) for number, (first, _) in spans.items()])
        unfinished = {number for number, (first, end) in spans.items() if first < end}
        progress = time.monotonic()
        while unfinished:
            connection.stop.check()
            refusals = []
            received: list[Any] = consumer.consume(10_000, timeout=0.5)
            for message in received:
                number = message.partition()
                if message.error() is None:
                    if message.offset() < spans[number][1]:  # what comes behind the end is no progress
                        progress = time.monotonic()
                        yield number, message.key(), message.value()
                    if message.offset() + 1 >= spans[number][1]:
                        unfinished.discard(number)
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(number)
                else:
                    refusals.append(message.error())
            # It may come together with others, such as of the right to the group, which isn't needed.
            forbidden = any(error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED for error in refusals)
            if forbidden or time.monotonic() - progress > 2 * CONNECT_TIMEOUT_S:
                said = [*map(str, refusals), *connection.heard]
                cause = known(said) or "no message came; check that this API key may read it"
                raise ClusterError(f"The topic {topic} can't be read to its end: {cause}.")


def reconcile(runs: Iterable[ProducerRun], found: pd.DataFrame) -> pd.DataFrame:
    """What the runs counted beside what :func:`read_back` found; ``holds`` says whether nothing is lost."""
    counts = [(n, r.run_id, r.mode, r.submitted, r.acknowledged, r.failed) for n, r in enumerate(runs, start=1)]
    table = pd.DataFrame(counts, columns=["run", "run_id", "mode", "submitted", "acknowledged", "failed"])
    table = table.merge(found.drop(columns="expected"), on="run_id", how="left")
    faults = table[["missing", "duplicated", "damaged", "out_of_order"]].sum(axis=1)
    adds_up = (table.submitted == table.acknowledged + table.failed) & (table.acknowledged <= table.received)
    table["holds"] = adds_up & (faults == 0)
    table.attrs["foreign"] = found.attrs["foreign"]
    return table
