"""Faults while a run goes on, for both producers, on real brokers: each message is accounted for, none twice."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import psutil
import pytest
from brokers import admin, freeze, kill, leader, new_topic, thaw, wait_until_up

from harness.runs import outcome as told
from kafka_helpers import (
    ClusterError,
    ProducerRun,
    encode,
    make_events,
    make_messages,
    produce_async,
    produce_sync,
    read_back,
)
from local_kafka import LocalKafka

both = pytest.mark.parametrize("produce", [produce_async, produce_sync], ids=["async", "sync"])
BATCH = 100


@pytest.fixture(scope="module")
def victim() -> Iterator[LocalKafka]:
    """A broker for these tests to maltreat; each test leaves it running."""
    with LocalKafka() as started:
        yield started


@dataclass
class Outcome:
    run: ProducerRun
    run_id: str
    messages: list[tuple[bytes, bytes]]
    seconds: float  # from the fault to the end of the run


def produce_with(
    fault: Callable[[], object],
    produce: Callable,
    config: dict[str, str],
    topic: str,
    *,
    count: int = 4_000,
    messages: list[tuple[bytes, bytes]] | None = None,
    run_id: str = "",
    **options: float,
) -> Outcome:
    """Produce messages, and let ``fault`` happen when ten batches have been handed over."""
    run_id = run_id or uuid.uuid4().hex
    messages = messages or make_messages(run_id, count)
    began = 0.0

    def with_fault() -> Iterator[tuple[bytes, bytes]]:
        nonlocal began
        yield from messages[: 10 * BATCH]
        fault()
        began = time.monotonic()
        yield from messages[10 * BATCH :]

    run = produce(config, topic, with_fault(), batch_size=BATCH, **options)
    return Outcome(run, run_id, messages, time.monotonic() - began)


def both_at_once(
    fault: Callable[[], object],
    config: dict[str, str],
    topic: str,
    *,
    counts: tuple[int, int] = (4_000, 4_000),
    **options: float,
) -> list[Outcome]:
    """An asynchronous and a synchronous run; ``fault`` happens when both have handed over ten batches."""
    meeting = threading.Barrier(2, action=fault, timeout=60)
    with ThreadPoolExecutor() as pool:
        runs = [
            pool.submit(produce_with, meeting.wait, produce, config, topic, count=count, **options)
            for produce, count in zip((produce_async, produce_sync), counts, strict=True)
        ]
        return [run.result() for run in runs]


def check(outcome: Outcome, config: dict[str, str], topic: str) -> None:
    """What holds after every fault."""
    run, messages = outcome.run, outcome.messages
    print(f"\n{run.mode}: {told(run)}; longest batch {longest_wait(run):.1f} s; {outcome.seconds:.1f} s from the fault")
    assert run.submitted == run.acknowledged + run.failed <= len(messages)
    assert all(batch.messages == batch.acknowledged + batch.failed for batch in run.batches)
    assert run.failed == sum(run.errors.values()) == len(run.undelivered)
    assert run.stopped or run.submitted == len(messages)
    assert run.complete == (run.acknowledged == len(messages))
    sent, undelivered = {outcome.run_id: messages[: run.submitted]}, {outcome.run_id: run.undelivered}
    found = read_back(config, topic, sent, undelivered=undelivered)
    (row,) = found.to_dict("records")  # and no row for messages that belong to no run
    print(row)
    assert row["expected"] == run.acknowledged <= row["received"]
    assert row["missing"] == row["duplicated"] == row["damaged"] == row["out_of_order"] == 0


def longest_wait(run: ProducerRun) -> float:
    """Of all batches, the longest: until handed over (sync), until acknowledged (async)."""
    return max(batch.elapsed_s if run.mode == "sync" else batch.delivered_s for batch in run.batches)


# --- The broker goes, and comes back ---------------------------------------------------------------------------------


@pytest.mark.long
def test_only_broker_killed_and_started_again(victim: LocalKafka) -> None:
    topic = new_topic(victim.config)

    def fault() -> None:
        kill(victim)
        threading.Timer(4, victim.start_broker, [0]).start()

    for outcome in both_at_once(fault, victim.config, topic, counts=(4_000, 2_000)):
        check(outcome, victim.config, topic)
        assert outcome.run.complete
        assert longest_wait(outcome.run) > 4
        # Requests are counted on, though the broker's counters begin at 0 again; those of the last 0.2 s before it was
        # killed are never told.
        if outcome.run.mode == "sync":
            assert 0.8 < outcome.run.network["produce_requests"] / outcome.run.acknowledged < 1.1


def test_broker_frozen_for_five_seconds(victim: LocalKafka) -> None:
    topic = new_topic(victim.config)

    def fault() -> None:
        freeze(victim)
        threading.Timer(5, thaw, [victim]).start()

    for outcome in both_at_once(fault, victim.config, topic):
        check(outcome, victim.config, topic)
        assert outcome.run.complete
        assert longest_wait(outcome.run) > 4.5
        assert sum(batch.elapsed_s > 4.5 for batch in outcome.run.batches) == (outcome.run.mode == "sync")


@pytest.mark.long
def test_leader_of_three_killed_for_good() -> None:
    with LocalKafka(3) as three:
        topic = new_topic(three.config, partitions=1)
        for outcome in both_at_once(lambda: kill(three, leader(three.config, topic)), three.config, topic):
            check(outcome, three.config, topic)
            assert outcome.run.complete
            assert longest_wait(outcome.run) > 1
        assert sum(process.poll() is None for process in three.processes) == 2


# --- The cluster never comes back ------------------------------------------------------------------------------------


def test_broker_frozen_for_good(victim: LocalKafka) -> None:
    """What was under way may arrive all the same, once the broker goes on: that isn't known, so it counts as failed."""
    topic = new_topic(victim.config)
    try:
        outcomes = both_at_once(lambda: freeze(victim), victim.config, topic, delivery_timeout_s=3)
    finally:
        thaw(victim)
    for outcome in outcomes:
        check(outcome, victim.config, topic)
        assert 2 < outcome.seconds < 3 + 5
        assert outcome.run.failed and outcome.run.stopped == "no acknowledgement within 3 s"
        assert told(outcome.run).endswith("; stopped: no acknowledgement within 3 s")


@pytest.mark.long
def test_broker_killed_for_good(victim: LocalKafka) -> None:
    """However many messages are left, more than the queue holds here, the run ends with its delivery timeout."""
    topic = new_topic(victim.config)
    outcomes = both_at_once(
        lambda: kill(victim), victim.config, topic, counts=(120_000, 120_000), delivery_timeout_s=10
    )
    with pytest.raises(ClusterError, match="nothing listens there"):
        read_back(victim.config, topic, {})
    victim.start_broker(0)
    wait_until_up(victim.config)
    for outcome in outcomes:
        check(outcome, victim.config, topic)
        assert 9 < outcome.seconds < 10 + 5
        assert outcome.run.failed and outcome.run.stopped == "no acknowledgement within 10 s"


# --- The client's own limits -----------------------------------------------------------------------------------------


@both
def test_messages_larger_than_the_topic_accepts(kafka: LocalKafka, topic: str, produce: Callable) -> None:
    """Among good ones: five that only the broker refuses (over 1 MB), and one that the client itself does."""
    config = {**kafka.config, "message.max.bytes": "3000000"}
    run_id = uuid.uuid4().hex
    events = list(make_events(run_id, 3_000))
    for number in range(250, 2_500, 500):
        events[number] = replace(events[number], station="x" * 1_500_000)
    events[2_900] = replace(events[2_900], station="x" * 3_100_000)
    messages = [(event.bike_id.encode(), encode(event)) for event in events]
    outcome = produce_with(lambda: None, produce, config, topic, messages=messages, run_id=run_id)
    check(outcome, config, topic)
    assert not outcome.run.stopped and outcome.run.errors == {"MSG_SIZE_TOO_LARGE": 6}
    assert sorted(len(value) > 1_000_000 for _, value in outcome.run.undelivered) == [True] * 6


# --- Load ------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_five_million_messages(kafka: LocalKafka, topic: str) -> None:
    """Memory is bounded by the client's queue (100,000 messages) and grows by 4 bytes a message, its measured wait."""
    count, run_id, template = 5_000_000, uuid.uuid4().hex, encode(next(make_events("RUN", 1)))
    before, after = template.replace(b"RUN", run_id.encode()).split(b'"sequence":0')

    def messages() -> Iterator[tuple[bytes, bytes]]:
        for number in range(count):
            yield b"%d" % (number % 2_000), b'%b"sequence":%d%b' % (before, number, after)

    process, ended, sizes = psutil.Process(), threading.Event(), []
    at_first = process.memory_info().rss

    def watch() -> None:
        while not ended.wait(0.1):
            sizes.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    run = produce_async(kafka.config, topic, messages())
    ended.set()
    watcher.join()
    grown = (max(sizes) - at_first) / 1e6
    assert run.complete and run.submitted == run.acknowledged == count
    assert grown < 400
    found = read_back(kafka.config, topic, {run_id: messages()})
    (row,) = found.to_dict("records")
    assert row["received"] == row["expected"] == count
    assert row["missing"] == row["duplicated"] == row["damaged"] == row["out_of_order"] == 0
    admin(kafka.config).delete_topics([topic])  # a gigabyte
