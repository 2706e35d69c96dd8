"""The two producers on a real broker: what they count, time and report."""

import itertools
import threading
import time

import pytest
from confluent_kafka import KafkaError, KafkaException

import kafka_helpers as kh
from harness import warm_up as module
from harness.cluster import Cluster, describe_cluster, open_cluster
from harness.config import ClientConfig
from harness.errors import ClusterError, ConfigError
from harness.measurement import measured
from harness.runs import INTERRUPTED
from harness.topics import end_offsets, ensure_topic
from harness.warm_up import CROWD, crowd, for_seconds, warm_up

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
    # The next batch begins only when the last message has arrived ...
    assert all(batch.delivered_s <= batch.elapsed_s for batch in run.batches)
    starts = [batch.started_s for batch in run.batches]
    assert all(
        after >= batch.started_s + batch.elapsed_s for batch, after in zip(run.batches, starts[1:], strict=False)
    )
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
    assert sum(batch.reports for batch in run.batches) <= 5000 + 10 * run.elapsed_s, "and some texts of statistics"
    assert 0 < run.cpu_s < 2 * run.elapsed_s + 1


def test_a_batch_counts_the_reports_that_it_served(kafka, topic):
    """Slowly enough for the broker to answer in between; beside the reports there are two texts of statistics."""

    def slow():
        for message in messages(20):
            yield message
            time.sleep(0.05)

    run = kh.produce_async(kafka.config, topic, slow(), batch_size=1)
    assert sum(batch.reports for batch in run.batches) >= 10


@pytest.mark.parametrize("kind", ["cloud", "distant"])
def test_what_is_warmed_up_how(kafka, topic, kind, monkeypatch):
    """Brokers that are not ours: no more than three short runs. A distant local one: a crowd, moved near meanwhile."""
    monkeypatch.setattr(module, "CROWD_S", {"distant": 0.5})
    monkeypatch.setattr(module, "TURNS_S", 0.5)
    moved = []
    cluster = Cluster(kind, "a test", ClientConfig(kafka.config), lambda: None, 25, moved.append)
    few = messages(2_000)
    round_trip_ms, message_ms = warm_up(cluster, topic, few, kh.produce_async, kh.produce_sync, leg_s=0.05)
    sent = sum(end_offsets(kafka.config, topic).values())
    assert 0 < round_trip_ms <= message_ms and moved == [0, 25]
    if kind == "cloud":
        assert 3 * len(few) < sent < 4 * len(few), "three asynchronous runs, a few synchronous messages, primers"
    else:
        assert sent > 4 * len(few), "one more asynchronous run, a synchronous one of a second, and the crowd"
    with pytest.raises(ClusterError):
        warm_up(cluster, "no-such-topic", few, kh.produce_async, kh.produce_sync)
    assert moved == [0, 25, 0, 25], "also where it ends early"


def test_a_crowd_sends_at_the_same_time_and_ends():
    meeting = threading.Barrier(CROWD)
    counts = []

    def produce(_config, _topic, some, *, batch_size):
        meeting.wait(10)
        count = 0
        for _ in some:
            time.sleep(0.001)  # so that the others have their turn
            count += 1
        counts.append(count)

    crowd({}, "any", messages(3), produce, seconds=0.5)
    assert len(counts) == CROWD and min(counts) > 3, "however few there are, they are sent until the time is up"


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


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"batch_size": 0}, r"batch_size has to be a whole number, 1 or more\."),
        ({"num_messages": "20000"}, "num_messages has to be a whole number"),
        ({"num_messages": True}, "num_messages has to be a whole number"),
        ({"blocks": 1.5}, r"blocks \(unless it is None\) has to be a whole number"),
        ({"topic": 2026}, r"topic has to be a text in quotation marks\."),
        ({"batch_size": 101}, "batch_size can't be larger than num_messages; make it smaller"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_named(parameters, sentence):
    with pytest.raises(ConfigError, match=sentence):
        kh.check_parameters(**{"num_messages": 100, "batch_size": 10, "blocks": None, "topic": "t", **parameters})


def test_batch_size_has_to_be_a_whole_number(kafka, topic):
    with pytest.raises(ConfigError, match="batch_size has to be a whole number"):
        kh.produce_async(kafka.config, topic, messages(1), batch_size=0)


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


def test_replicated_like_confluent_cloud(prepared):
    cluster = open_cluster("distant", rtt_ms=1)
    ensure_topic(cluster.config, "replicated")
    described = describe_cluster(cluster, "replicated")
    assert (described["brokers"], described["partitions"], described["replication_factor"]) == (3, 6, 3)
    assert described["kind"] == "distant" and described["cluster"].endswith("(on this machine, 1 ms away)")
    assert "sasl.password" not in str(described) and cluster.config["sasl.password"] not in str(described)
    for produce in PRODUCERS:
        assert produce(cluster.config, "replicated", messages(300)).complete
    cluster.close()


def test_the_users_stop_counts_whatever_else_went_wrong(kafka, topic):
    """Who measures has to learn of it, so as not to go on with the next run."""
    with measured("async", kafka.config, topic) as run:
        run.stop("no acknowledgement within 5 s")
        run.stop(INTERRUPTED)
        run.stop("no acknowledgement within 5 s")
    assert run.result.stopped == INTERRUPTED
