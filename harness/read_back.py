"""Did every message arrive? The topic is read again, and each message is looked for."""

import time
import zlib
from array import array
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from typing import Any

import pandas as pd
from confluent_kafka import Consumer, KafkaError, TopicPartition

from harness.client import CONNECT_TIMEOUT_S, connect, meaning
from harness.config import READER_SETTINGS
from harness.errors import ClusterError
from harness.measurement import PRIMER
from harness.runs import KeyValue, ProducerRun
from harness.topics import offsets

COLUMNS = ["run_id", "expected", "received", "missing", "removed", "duplicated", "damaged", "out_of_order"]
STANDSTILL_S = 2 * CONNECT_TIMEOUT_S  # without a message for so long, the reading is given up


class Search:
    """The messages of one run, of which only checksums stay in memory, and what has been found of them."""

    def __init__(self, messages: Iterable[KeyValue]) -> None:
        self.failed: set[int] = set()  # sequence numbers
        self._checksums = array("I", (_checksum(*message) for message in messages))
        self._found = bytearray(len(self._checksums))  # 1 where the message was found
        self._latest: dict[tuple[int, bytes | None], int] = {}  # sequence number, by partition and key
        self._duplicated = self._damaged = self._out_of_order = 0

    def take(self, partition: int, key: bytes | None, value: bytes | None, number: int) -> None:
        """Take in a message of the run that stands next in its partition; ``number`` is its sequence number."""
        if not 0 <= number < len(self._checksums) or _checksum(key, value) != self._checksums[number]:
            self._damaged += 1
        elif self._found[number]:
            self._duplicated += 1
        else:
            self._found[number] = 1
            before = self._latest.setdefault((partition, key), number)
            self._out_of_order += number < before
            self._latest[partition, key] = max(number, before)

    def counts(self) -> dict[str, int]:
        """The counts of :func:`read_back`."""
        missing = {number for number, found in enumerate(self._found) if not found} - self.failed
        return {
            "expected": len(self._found) - len(self.failed),
            "received": sum(self._found),
            "missing": len(missing),
            "removed": 0,
            "duplicated": self._duplicated,
            "damaged": self._damaged,
            "out_of_order": self._out_of_order,
        }


def read_back(
    config: Mapping[str, str],
    topic: str,
    sent: Mapping[str, Iterable[KeyValue] | Callable[[], Iterable[KeyValue]]],
    *,
    identify: Callable[[bytes], tuple[str, int]],
    undelivered: Mapping[str, Iterable[KeyValue]] | None = None,
    start: Mapping[int, int] | None = None,
) -> pd.DataFrame:
    """Read the topic again, and look for every message of the runs by run id and sequence number.

    Args:
        config: settings of the client.
        topic: where the messages were sent.
        sent: for each run id its messages in order, or a function that makes them again; only checksums stay in memory.
        identify: gives run id and sequence number of a message's value; raises ValueError where that has none.
        undelivered: for each run id the messages that failed; it is no loss if these are not found.
        start: offset by partition where to begin, as from ``end_offsets``; the oldest message by default.

    Returns:
        One row a run: ``expected`` (acknowledged messages), ``received`` (of all sent ones, at least once),
        ``missing`` (acknowledged, not found intact), ``removed`` (the same, where the topic's retention has removed as
        many messages or more before they were looked for), ``duplicated`` (further copies), ``damaged`` (not as sent),
        ``out_of_order`` (first copies that stand behind a later message of the same key). ``attrs["foreign"]``: how
        many messages there were of other runs or programs.

    Raises:
        ClusterError: no connection, the reading comes to a standstill, or the topic is another one than at ``start``.
        KeyboardInterrupt: the user pressed the stop button.
    """
    start = start or {}
    searches = {run_id: Search(messages() if callable(messages) else messages) for run_id, messages in sent.items()}
    for run_id, failed in (undelivered or {}).items():
        if run_id in searches:
            searches[run_id].failed = {identify(value or b"")[1] for _, value in failed}
    foreign = 0
    with closing(_read_all(config, topic, start)) as found:
        for partition, key, value in found:
            if value == PRIMER:
                continue
            try:
                run_id, number = identify(value or b"")
                search = searches[run_id]
            except (ValueError, KeyError):
                foreign += 1
                continue
            search.take(partition, key, value, number)
    rows = [{"run_id": run_id, **search.counts()} for run_id, search in searches.items()]
    table = pd.DataFrame(rows, columns=COLUMNS)
    lost = table["missing"].sum()
    if lost and lost <= _removed(config, topic, start):  # retention can explain all of it
        table["removed"] = table["missing"]
        table["missing"] = 0
    table.attrs["foreign"] = foreign
    return table


def _checksum(key: bytes | None, value: bytes | None) -> int:
    return zlib.crc32(value or b"", zlib.crc32(key or b""))


def _removed(config: Mapping[str, str], topic: str, start: Mapping[int, int]) -> int:
    """How many offsets from ``start`` on the topic doesn't have any more, since retention cuts off the oldest."""
    return sum(max(0, oldest - start.get(number, 0)) for number, (oldest, _) in offsets(config, topic).items())


def _spans(config: Mapping[str, str], topic: str, start: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """For each partition the first offset to read, and the one before which to end."""
    there = offsets(config, topic)
    for number, first in start.items():
        if number not in there or there[number][1] < first:
            raise ClusterError(f"The topic {topic} is another one than when the runs began, made anew; measure again.")
    return {number: (max(oldest, start.get(number, 0)), end) for number, (oldest, end) in there.items()}


def _read_all(
    config: Mapping[str, str], topic: str, start: Mapping[int, int]
) -> Generator[tuple[int, bytes | None, bytes | None], None, None]:
    """Partition, key and value of every message from ``start`` to what was the topic's end when this was called."""
    spans = _spans(config, topic, start)
    unfinished = {number for number, (first, end) in spans.items() if first < end}
    with connect(Consumer, config, **READER_SETTINGS) as connection:
        consumer = connection.client
        consumer.assign([TopicPartition(topic, number, first) for number, (first, _) in spans.items()])
        progress = time.monotonic()
        while unfinished:
            connection.stop.check()
            refusals = []
            received: list[Any] = consumer.consume(10_000, timeout=0.5)  # the declared types allow for None
            for message in received:
                number = message.partition()
                error = message.error()
                if error is None:
                    end = spans[number][1]
                    if message.offset() < end:  # what comes behind the end is no progress
                        progress = time.monotonic()
                        yield number, message.key(), message.value()
                    if message.offset() + 1 >= end:
                        unfinished.discard(number)
                elif error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(number)
                else:
                    refusals.append(error)
            _check_progress(topic, progress, refusals, connection.heard)


def _check_progress(topic: str, progress: float, refusals: list[KafkaError], heard: Iterable[str]) -> None:
    """Raise ClusterError where reading is forbidden, or nothing has come for long; ``progress`` is when it last did."""
    # It may come together with others, such as of the right to the group, which isn't needed.
    forbidden = any(error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED for error in refusals)
    if forbidden or time.monotonic() - progress > STANDSTILL_S:
        cause = meaning([*map(str, refusals), *heard]) or f"no message came for {STANDSTILL_S:g} s; check the network"
        raise ClusterError(f"The topic {topic} can't be read to its end: {cause}.")


def reconcile(runs: Iterable[ProducerRun], found: pd.DataFrame) -> pd.DataFrame:
    """What the runs counted beside what :func:`read_back` found.

    ``holds`` says whether nothing is lost; ``attrs`` has how many messages were ``foreign``, and how many ``removed``
    by the topic's retention, of which nobody can say whether they had arrived.
    """
    counts = [(n, r.run_id, r.mode, r.submitted, r.acknowledged, r.failed) for n, r in enumerate(runs, start=1)]
    table = pd.DataFrame(counts, columns=["run", "run_id", "mode", "submitted", "acknowledged", "failed"])
    table = table.merge(found.drop(columns="expected"), on="run_id", how="left")
    removed = table.pop("removed")
    faults = table[["missing", "duplicated", "damaged", "out_of_order"]].sum(axis=1)
    adds_up = table.submitted == table.acknowledged + table.failed
    arrived = table.acknowledged <= table.received + removed
    table["holds"] = adds_up & arrived & (faults == 0)
    table.attrs["foreign"] = found.attrs["foreign"]
    table.attrs["removed"] = int(removed.sum())
    return table
