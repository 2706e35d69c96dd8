"""Faults while a run goes on, for both producers, on real brokers: each message is accounted for, none twice."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import pytest
from brokers import admin, check_accounts, freeze, kill, leader, new_topic, thaw, wait_until_up

from harness.errors import ClusterError
from harness.read_back import reconcile
from harness.runs import ProducerRun, outcome, require_complete
from kafka_helpers import encode, make_events, make_messages, produce_async, produce_sync, read_back
from local_kafka import LocalKafka

BATCH = 100


@pytest.fixture(scope="module")
def victim() -> Iterator[LocalKafka]:
    """A broker for these tests to kill; each test leaves it running."""
    with LocalKafka() as started:
        yield started


def both_at_once(
    fault: Callable[[], object], config: dict[str, str], topic: str, *, messages: int = 4_000
) -> list[tuple[ProducerRun, list]]:
    """Two runs on one topic at the same time, each with its messages; the fault comes after ten batches of both."""
    meeting = threading.Barrier(2, action=fault, timeout=60)

    def run(mode: str, produce: Callable) -> tuple[ProducerRun, list]:
        sent = make_messages(mode, messages)

        def with_fault() -> Iterator[tuple[bytes, bytes]]:
            yield from sent[: 10 * BATCH]
            meeting.wait()
            yield from sent[10 * BATCH :]

        return produce(config, topic, with_fault(), batch_size=BATCH), sent

    with ThreadPoolExecutor() as pool:
        return list(pool.map(run, ("async", "sync"), (produce_async, produce_sync)))


def check(run: ProducerRun, messages: list, config: dict[str, str], topic: str) -> None:
    """What holds after every fault."""
    print(f"\n{run.mode}: {outcome(run)}; longest batch {longest_wait(run):.1f} s")
    check_accounts(run, run.mode, messages, config, topic)
    assert all(batch.messages == batch.acknowledged + batch.failed for batch in run.batches)
    assert run.stopped or run.submitted == len(messages)
    assert run.complete == (run.acknowledged == len(messages))


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

    for run, messages in both_at_once(fault, victim.config, topic):
        check(run, messages, victim.config, topic)
        assert run.complete and longest_wait(run) > 4
        # Requests are counted on, though the broker's counters begin at 0 again; those of the last 0.2 s before it was
        # killed are never told.
        if run.mode == "sync":
            assert 0.8 < run.network["produce_requests"] / run.acknowledged < 1.1


def test_broker_frozen_for_some_seconds(kafka: LocalKafka, topic: str) -> None:
    def fault() -> None:
        freeze(kafka)
        threading.Timer(4, thaw, [kafka]).start()

    for run, messages in both_at_once(fault, kafka.config, topic, messages=2_000):
        check(run, messages, kafka.config, topic)
        assert run.complete and longest_wait(run) > 3.5
        assert sum(batch.elapsed_s > 3.5 for batch in run.batches) == (run.mode == "sync")


@pytest.mark.long
def test_leader_of_three_killed_for_good() -> None:
    with LocalKafka(3) as three:
        topic = new_topic(three.config, partitions=1)
        for run, messages in both_at_once(lambda: kill(three, leader(three.config, topic)), three.config, topic):
            check(run, messages, three.config, topic)
            assert run.complete and longest_wait(run) > 1
        assert sum(process.poll() is None for process in three.processes) == 2


# --- Connections break -----------------------------------------------------------------------------------------------


def break_connections(kafka: LocalKafka) -> int:
    """Shut down this process's connections to the cluster, behind the client's back; how many there were."""
    ports = {int(kafka.config["bootstrap.servers"].rpartition(":")[2])}
    broken = 0
    for each in psutil.Process().net_connections("tcp"):
        if each.status == psutil.CONN_ESTABLISHED and each.raddr.port in ports:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(each.fd)) as connection:
                connection.shutdown(socket.SHUT_RDWR)
                broken += 1
    return broken


@pytest.mark.parametrize("produce", [produce_async, produce_sync])
def test_connections_broken_again_and_again(kafka: LocalKafka, topic: str, produce: Callable) -> None:
    sent = make_messages("broken", 4_000)

    def with_faults() -> Iterator[tuple[bytes, bytes]]:
        for number, message in enumerate(sent):
            if number % 1_000 == 500:
                deadline = time.monotonic() + 30
                while not break_connections(kafka):  # it has just been broken, and comes back
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            yield message

    run = produce(kafka.config, topic, with_faults(), batch_size=BATCH)
    check_accounts(run, "broken", sent, kafka.config, topic)
    assert run.complete and run.acknowledged == len(sent)


# --- The cluster never comes back ------------------------------------------------------------------------------------


def impatient(kafka: LocalKafka, timeout_s: int) -> dict[str, str]:
    return {**kafka.config, "delivery.timeout.ms": str(1000 * timeout_s)}


def check_given_up(outcomes: list, timeout_s: int, config: dict[str, str], topic: str) -> None:
    for run, messages in outcomes:
        check(run, messages, config, topic)
        assert timeout_s - 1 < longest_wait(run) < timeout_s + 20
        assert run.failed and run.stopped == f"no acknowledgement within {timeout_s} s"
        assert outcome(run).endswith(f"; stopped: {run.stopped}")


def test_broker_frozen_for_good(kafka: LocalKafka, topic: str) -> None:
    """What was under way may arrive all the same, once the broker goes on: that isn't known, so it counts as failed."""
    try:
        outcomes = both_at_once(lambda: freeze(kafka), impatient(kafka, 3), topic, messages=2_000)
    finally:
        thaw(kafka)
    check_given_up(outcomes, 3, kafka.config, topic)


@pytest.mark.long
def test_broker_killed_for_good(victim: LocalKafka) -> None:
    """However many messages are left, more than the queue holds here, the run ends with its delivery timeout."""
    topic = new_topic(victim.config)
    outcomes = both_at_once(lambda: kill(victim), impatient(victim, 10), topic, messages=120_000)
    with pytest.raises(ClusterError, match="nothing listens there"):
        read_back(victim.config, topic, {})
    victim.start_broker(0)
    wait_until_up(victim.config)
    check_given_up(outcomes, 10, victim.config, topic)


# --- The client's own limits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("produce", [produce_async, produce_sync])
def test_messages_larger_than_the_topic_accepts(kafka: LocalKafka, topic: str, produce: Callable) -> None:
    """Among good ones: two that only the broker refuses (over 1 MB), and one that the client itself does."""
    mode = produce.__name__.removeprefix("produce_")
    events = list(make_events(mode, 300))
    for number, size in ((50, 1_500_000), (150, 1_500_000), (250, 3_100_000)):
        events[number] = replace(events[number], station="x" * size)
    messages = [(event.bike_id.encode(), encode(event)) for event in events]
    run = produce({**kafka.config, "message.max.bytes": "3000000"}, topic, messages, batch_size=BATCH)
    check(run, messages, kafka.config, topic)
    assert sorted(run.undelivered) == sorted(messages[number] for number in (50, 150, 250))
    assert outcome(run) == "297 messages acknowledged, 3 failed; 3 with 'Broker: Message size too large'"


def test_a_topic_that_takes_no_whole_batch(kafka: LocalKafka) -> None:
    topic = new_topic(kafka.config, **{"max.message.bytes": "20000"})
    messages = make_messages("async", 4_000)
    run = produce_async(kafka.config, topic, messages)
    check(run, messages, kafka.config, topic)
    with pytest.raises(ClusterError, match="counts for a whole batch: raise it, or set batch"):
        require_complete(run)
    assert produce_async(kafka.config | {"batch.size": "10000"}, topic, messages).complete


# --- Load ------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_five_million_messages(kafka: LocalKafka, topic: str) -> None:
    """Memory is bounded by the client's queue (100,000 messages) and grows by 4 bytes a message, its measured wait."""
    count, template = 5_000_000, encode(next(make_events("RUN", 1)))
    before, after = template.split(b'"sequence":0')

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
    assert run.complete and run.acknowledged == count and grown < 400
    found = read_back(kafka.config, topic, {"RUN": messages()})
    assert reconcile([replace(run, run_id="RUN")], found)["holds"].all()
    admin(kafka.config).delete_topics([topic])  # a gigabyte
