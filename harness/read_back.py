"""Did every message arrive? The topic is read again, and every message of every run is looked for."""

import time
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing

import pandas as pd
from confluent_kafka import Consumer, KafkaError, TopicPartition

from harness.client import CONNECT_TIMEOUT_S, connect, known
from harness.config import READER_SETTINGS
from harness.errors import ClusterError
from harness.measurement import WARM_UP
from harness.runs import ProducerRun
from harness.topics import offsets

Message = tuple[bytes | None, bytes | None]


def read_back(
    config: Mapping[str, str],
    topic: str,
    sent: Mapping[str, Iterable[Message]],
    *,
    identify: Callable[[bytes], tuple[str, int]],
    undelivered: Mapping[str, Iterable[Message]] | None = None,
    start: Mapping[int, int] | None = None,
) -> pd.DataFrame:
    """Read the topic again and look for every message of the runs, by run id and sequence number.

    Messages of other runs are passed over, so two users of one topic don't disturb each other. A topic that is
    compacted (``cleanup.policy=compact``) keeps only the last message of each key; there, the others count as missing.

    Args:
        config: client configuration.
        topic: where the runs were sent to.
        sent: for each run id its messages in order, as they were submitted.
        identify: gives run id and sequence number of a message's value; raises ValueError where that has none.
        undelivered: for each run id the messages that failed; it is no loss if these are not found.
        start: offset by partition where to begin, as from ``end_offsets``; the oldest message by default.

    Returns:
        One row a run: ``expected`` (acknowledged messages), ``received`` (of all sent ones, at least once),
        ``missing`` (acknowledged, not found intact), ``duplicated`` (further copies), ``damaged`` (not as sent). Should
        messages be found that belong to no run, a row ``unknown`` counts them as damaged.

    Raises:
        ClusterError: no connection, or the reading comes to a standstill.
    """
    checksums = {run_id: array("I", (_checksum(*each) for each in messages)) for run_id, messages in sent.items()}
    excused = {run_id: {identify(value)[1] for _, value in each} for run_id, each in (undelivered or {}).items()}
    copies = {run_id: bytearray(len(each)) for run_id, each in checksums.items()}
    duplicated, damaged = Counter(), Counter()
    with closing(_read_all(config, topic, start or {})) as found:
        for key, value in found:
            if value == WARM_UP:
                continue
            try:
                run_id, number = identify(value or b"")
            except ValueError:
                damaged["unknown"] += 1
                continue
            expected = checksums.get(run_id)
            if expected is None:
                continue
            if not 0 <= number < len(expected) or _checksum(key, value) != expected[number]:
                damaged[run_id] += 1
            elif copies[run_id][number]:
                duplicated[run_id] += 1
            else:
                copies[run_id][number] = 1
    rows = [
        {
            "run_id": run_id,
            "expected": len(seen) - len(excused.get(run_id, ())),
            "received": sum(seen),
            "missing": sum(not each and n not in excused.get(run_id, ()) for n, each in enumerate(seen)),
            "duplicated": duplicated[run_id],
            "damaged": damaged[run_id],
        }
        for run_id, seen in copies.items()
    ]
    if damaged["unknown"]:
        nothing = dict.fromkeys(("expected", "received", "missing", "duplicated"), 0)
        rows.append({"run_id": "unknown", **nothing, "damaged": damaged["unknown"]})
    return pd.DataFrame(rows)


def _checksum(key: bytes | None, value: bytes | None) -> int:
    return zlib.crc32(value or b"", zlib.crc32(key or b""))


def _read_all(config: Mapping[str, str], topic: str, start: Mapping[int, int]) -> Iterator[Message]:
    """Every message from ``start`` to what was the topic's end when this was called."""
    spans = {
        number: (max(oldest, start.get(number, 0)), end) for number, (oldest, end) in offsets(config, topic).items()
    }
    with connect(Consumer, config, **READER_SETTINGS) as connection:
        consumer = connection.client
        consumer.assign([TopicPartition(topic, number, first) for number, (first, _) in spans.items()])
        unfinished = {number for number, (first, end) in spans.items() if first < end}
        progress = time.monotonic()
        while unfinished:
            connection.stop.check()
            refusals = []
            for message in consumer.consume(10_000, timeout=0.5):
                if message.error() is None:
                    progress = time.monotonic()
                    if message.offset() < spans[message.partition()][1]:
                        yield message.key(), message.value()
                    if message.offset() + 1 >= spans[message.partition()][1]:
                        unfinished.discard(message.partition())
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(message.partition())
                else:
                    refusals.append(message.error())
            # It may come together with others, such as of the right to the group, which isn't needed.
            forbidden = any(each.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED for each in refusals)
            if forbidden or time.monotonic() - progress > 2 * CONNECT_TIMEOUT_S:
                said = [*map(str, refusals), *connection.heard]
                cause = known(said) or "no message came; check that this API key may read it"
                raise ClusterError(f"The topic {topic} can't be read to its end: {cause}.")


def accounts(runs: Iterable[ProducerRun], found: pd.DataFrame) -> pd.DataFrame:
    """What the runs counted beside what :func:`read_back` found; ``holds`` says whether nothing is lost."""
    rows = [
        {"run": number, "run_id": run.run_id, "mode": run.mode, "submitted": run.submitted}
        | {"acknowledged": run.acknowledged, "failed": run.failed}
        for number, run in enumerate(runs, start=1)
    ]
    table = pd.DataFrame(rows).merge(found.drop(columns="expected"), on="run_id", how="outer").fillna(0)
    faults = table[["missing", "duplicated", "damaged"]].sum(axis=1)
    table["holds"] = (table.submitted == table.acknowledged + table.failed) & (faults == 0)
    return table.astype(dict.fromkeys(table.select_dtypes("number").columns, int))
