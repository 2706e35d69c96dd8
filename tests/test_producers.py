"""The two producers on a real broker: what they count, time and report."""

import itertools
import time

import pytest
from confluent_kafka import KafkaError, KafkaException

import kafka_helpers as kh
from harness.cluster import Cluster, describe_cluster
from harness.config import ClientConfig
from harness.errors import ConfigError
from harness.measurement import measured
from harness.runs import INTERRUPTED
from harness.topics import end_offsets, ensure_topic
from harness.warm_up import CROWD, crowd, for_seconds, warm_up
from local_kafka import LocalKafka

PRODUCERS = [kh.produce_async, kh.produce_sync]


def messages(count, size=20):
    return [(b"key-%d" % (i % 7), b"%0*d" % (size, i)) for i in range(count)]


@pytest.mark.parametrize("produce", PRODUCERS)
@pytest.mark.parametrize(("count", "batch_size", "sizes"), [(100, 30, [30, 30, 30, 10]), (60, 30, [30, 30])])
def test_counts_and_batches(kafka, topic, produce, count, batch_size, sizes):
    run = produce(kafka.config, topic, messages(count), batch_size=batch_size)
    assert [batch.messages for batch in run.batches] == sizes
    assert [batch.acknowledged for batch in run.batches] == sizes
    assert (run.submitted, run.acknowledged, run.failed, run.errors, run.stopped) == (count, count, 0, {}, "")
    assert run.complete and run.undelivered == []
    assert sum(end_offsets(kafka.config, topic).values()) == count + 6  # a primer for each partition


@pytest.mark.parametrize("produce", PRODUCERS)
def test_an_iterable_without_length_and_an_empty_one(kafka, topic, produce):
    assert produce(kafka.config, topic, (m for m in messages(7)), batch_size=5).acknowledged == 7
    run = produce(kafka.config, topic, iter([]))
    assert (run.batches, run.acknowledged, run.elapsed_s, run.request_rate) == ([], 0, 0, 0)


def test_times_of_sync(kafka, topic):
    before = time.perf_counter()
    run = kh.produce_sync(kafka.config, topic, messages(200), batch_size=50)
    outside = time.perf_counter() - before
    # The next batch begins only when the last message has arrived, so the two times of a batch coincide ...
    for batch in run.batches:
        assert batch.delivered_s <= batch.elapsed_s <= batch.delivered_s + 0.5  # a busy machine may pause there
    # ... and the batches fill the run.
    assert sum(batch.elapsed_s for batch in run.batches) == pytest.approx(run.elapsed_s, rel=0.1, abs=0.5)
    assert 0 < run.elapsed_s < outside


def test_times_of_async(kafka, topic):
    run = kh.produce_async(kafka.config, topic, messages(5000), batch_size=500)
    assert all(batch.elapsed_s > 0 for batch in run.batches)
    starts = [batch.started_s for batch in run.batches]
    assert starts[0] == 0 and starts == sorted(starts) and starts[-1] < run.elapsed_s
    # The run ends with the last acknowledgement, so the final wait is in its rates.
    assert run.elapsed_s > sum(batch.elapsed_s for batch in run.batches)
    assert run.response_rate == pytest.approx(5000 / run.elapsed_s)
    # Submitting ends before; that wait is not in the rate of requests.
    submitting = sum(batch.elapsed_s for batch in run.batches)
    assert run.request_rate == pytest.approx(5000 / submitting) and run.request_rate > run.response_rate
    # The reports that no batch served came while waiting at the end.
    assert all(batch.reports >= 0 for batch in run.batches)
    assert sum(batch.reports for batch in run.batches) <= 5000 + 10 * run.elapsed_s, "and some texts of statistics"
    assert 0 < run.cpu_s < 2 * run.elapsed_s + 1


def test_a_batch_counts_the_reports_that_it_served(kafka, topic):
    """Slowly enough for the broker to answer in between."""

    def slow():
        for message in messages(5):
            yield message
            time.sleep(0.3)

    run = kh.produce_async(kafka.config, topic, slow(), batch_size=1)
    assert sum(batch.reports for batch in run.batches) >= 4


@pytest.fixture(scope="module")
def far():
    """A Kafka at a distance, and how far it is in seconds."""
    with LocalKafka(distance_ms=20) as kafka:
        ensure_topic(kafka.config, "far")
        yield kafka.config, 0.020


def test_the_round_trip_is_in_every_sync_message_and_shared_in_async(far):
    config, distance_s = far
    one_by_one = kh.produce_sync(config, "far", messages(30))
    together = kh.produce_async(config, "far", messages(30))
    assert one_by_one.elapsed_s >= 30 * distance_s
    assert distance_s <= together.elapsed_s < one_by_one.elapsed_s
    assert one_by_one.network["rtt_ms"] >= 1000 * distance_s
    assert one_by_one.wait_quantiles_s[0] >= distance_s


def test_where_the_brokers_are_not_ours_warming_up_is_no_more_than_three_short_runs(far):
    config, distance_s = far
    cluster = Cluster("cloud", "not ours", ClientConfig(config), lambda: None)
    before = sum(end_offsets(config, "far").values())
    few = messages(500)
    round_trip_ms, message_ms = warm_up(cluster, "far", few, kh.produce_async, kh.produce_sync, leg_s=0.1)
    sent = sum(end_offsets(config, "far").values()) - before
    assert 1000 * distance_s <= round_trip_ms <= message_ms
    assert 3 * len(few) < sent < 4 * len(few), "three asynchronous runs, and a few synchronous messages"


def test_a_crowd_sends_at_the_same_time_and_ends(kafka, topic):
    crowd(kafka.config, topic, messages(100_000), kh.produce_sync, seconds=1)
    after = end_offsets(kafka.config, topic)
    assert sum(after.values()) > 6 * CROWD, "more than what each sends first to each partition"
    time.sleep(0.3)
    assert end_offsets(kafka.config, topic) == after


def test_seconds_of_messages_begin_with_the_first():
    """However long it takes to connect before, there is one at least."""
    some = iter(for_seconds(0.2, itertools.count()))
    time.sleep(0.3)
    assert next(some) == 0 and next(some) == 1
    time.sleep(0.3)
    assert len(list(some)) <= 1


def test_requests_are_counted_by_the_client(kafka, topic):
    run = kh.produce_sync(kafka.config, topic, messages(120))
    assert run.network["produce_requests"] == 120
    assert run.network["rtt_ms"] > 0
    run = kh.produce_async(kafka.config, topic, messages(5000))
    assert 1 <= run.network["produce_requests"] < 1000


@pytest.mark.parametrize("produce", PRODUCERS)
def test_full_queue_is_waited_out_and_counted(kafka, topic, produce):
    for size in ("1", "10"):
        run = produce({**kafka.config, "queue.buffering.max.messages": size}, topic, messages(500), batch_size=100)
        assert run.complete and run.acknowledged == 500
        assert (run.queue_full > 0) == (produce is not kh.produce_sync)


def test_a_file_cannot_change_what_is_compared(kafka, topic):
    weak = {"acks": "0", "enable.idempotence": "false", "message.timeout.ms": "1", "delivery.report.only.error": "true"}
    for produce in PRODUCERS:
        run = produce({**kafka.config, **weak, "linger.ms": "0", "statistics.interval.ms": "0"}, topic, messages(5))
        assert run.complete and run.acknowledged == 5
        assert run.network["produce_requests"] > 0


@pytest.mark.parametrize("size", [0, 1.5, "500", True])
def test_batch_size_has_to_be_a_whole_number(kafka, topic, size):
    with pytest.raises(ConfigError, match="batch_size has to be a whole number"):
        kh.produce_async(kafka.config, topic, messages(1), batch_size=size)


@pytest.mark.parametrize("produce", PRODUCERS)
def test_an_error_of_the_messages_themselves_comes_out_as_it_is(kafka, topic, produce):
    error = KafkaException(KafkaError(KafkaError._APPLICATION, "from the caller's own source"))

    def broken():
        yield from messages(15)
        raise error

    with pytest.raises(KafkaException) as raised:
        produce(kafka.config, topic, broken(), batch_size=10)
    assert raised.value is error
    # What was handed over before is sent, or is let go of; nothing comes later.
    before = end_offsets(kafka.config, topic)
    time.sleep(0.3)
    assert end_offsets(kafka.config, topic) == before


def test_replicated_like_confluent_cloud():
    with LocalKafka(3) as kafka3:
        ensure_topic(kafka3.config, "replicated")
        described = describe_cluster(Cluster("other", "test", kafka3.config, lambda: None), "replicated")
        assert (described["brokers"], described["partitions"], described["replication_factor"]) == (3, 6, 3)
        assert "sasl.password" not in str(described) and kafka3.config["sasl.password"] not in str(described)
        for produce in PRODUCERS:
            assert produce(kafka3.config, "replicated", messages(300)).complete


def test_the_users_stop_counts_whatever_else_went_wrong(kafka, topic):
    """Who measures has to learn of it, so as not to go on with the next run."""
    with measured("async", kafka.config, topic) as run:
        run.stop("no acknowledgement within 5 s")
        run.stop(INTERRUPTED)
        run.stop("no acknowledgement within 5 s")
    assert run.result.stopped == INTERRUPTED
