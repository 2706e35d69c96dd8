"""Reading the topic again finds what is missing, doubled, damaged or out of order, for every run by itself."""

import threading
import tracemalloc
from dataclasses import replace
from functools import partial

import pytest
from brokers import admin, kill, leader, new_topic, remove_records
from confluent_kafka import Producer

import kafka_helpers as kh
from harness.client import connect
from harness.errors import ClusterError
from harness.measurement import PRIMER
from harness.read_back import read_back, reconcile
from harness.runs import BatchTiming, ProducerRun
from harness.topics import end_offsets, ensure_topic
from local_kafka import LocalKafka


def send(kafka, topic, *messages):
    with connect(Producer, kafka.config) as connection:
        for key, value in messages:
            connection.client.produce(topic, value, key)
        assert connection.client.flush(10) == 0


def row(frame, run_id):
    """What was found of a run, but for what is 0."""
    return {name: number for name, number in frame.set_index("run_id").loc[run_id].items() if number}


def test_missing_doubled_damaged_and_foreign(kafka, topic):
    sent = {"r": kh.make_messages("r", 10)}
    m = list(sent["r"])
    beyond = next(e for e in kh.make_events("r", 11) if e.sequence == 10)
    changed = (m[5][0], kh.encode(replace(kh.decode(m[5][1]), station="Nowhere")))
    send(kafka, topic, *m[:4], m[2], m[2], (b"other key", m[4][1]), changed, (b"k", kh.encode(beyond)))
    send(kafka, topic, (m[6][0], m[6][1][:-5]), (None, b"\xff"), (b"k", None), (None, PRIMER))
    send(kafka, topic, *kh.make_messages("somebody-else", 50))
    found = kh.read_back(kafka.config, topic, sent)
    assert row(found, "r") == {"expected": 10, "received": 4, "missing": 6, "duplicated": 2, "damaged": 3}
    assert list(found["run_id"]) == ["r"] and found.attrs["foreign"] == 3 + 50


def test_order_is_that_of_each_key(kafka):
    topic = new_topic(kafka.config, partitions=1)
    m = [(b"key", value) for _, value in kh.make_messages("r", 6)]
    m[4] = (b"other", m[4][1])
    send(kafka, topic, *(m[n] for n in (4, 0, 2, 1, 2, 5, 3)))  # 1 and 3 are late; 2 is no first copy, 4 another key's
    found = kh.read_back(kafka.config, topic, {"r": m})
    assert row(found, "r") == {"expected": 6, "received": 6, "duplicated": 1, "out_of_order": 2}


def test_failed_messages_are_no_loss_but_lost_ones_are(kafka, topic):
    sent = {"r": kh.make_messages("r", 10)}
    send(kafka, topic, *sent["r"][:7])
    found = kh.read_back(kafka.config, topic, sent, undelivered={"r": sent["r"][8:]})
    assert row(found, "r") == {"expected": 8, "received": 7, "missing": 1}


def test_a_run_holds_only_if_nothing_is_lost_whoever_else_writes_to_the_topic(kafka, topic):
    run = ProducerRun("async", "r", [BatchTiming(10, acknowledged=10)])
    sent = {"r": kh.make_messages("r", 10)}
    send(kafka, topic, *sent["r"][:9], (b"k", b"not json"))
    assert not reconcile([run], kh.read_back(kafka.config, topic, sent))["holds"].any()
    send(kafka, topic, sent["r"][9])
    table = reconcile([run], kh.read_back(kafka.config, topic, sent))
    assert table["holds"].all() and table["received"].tolist() == [10] and table["mode"].tolist() == ["async"]
    assert table.attrs["foreign"] == 1
    unread = replace(run, run_id="not looked for")
    assert reconcile([run, unread], kh.read_back(kafka.config, topic, sent))["holds"].tolist() == [True, False]
    run.batches[0].acknowledged = 9  # a report that never came
    assert not reconcile([run], kh.read_back(kafka.config, topic, sent))["holds"].any()


def test_messages_are_made_again_one_run_at_a_time(kafka, topic):
    """A million messages of 12 runs each would be four gigabytes."""
    sent = {f"r{number}": partial(kh.make_messages, f"r{number}", 2_000) for number in range(6)}
    tracemalloc.start()
    try:
        found = kh.read_back(kafka.config, topic, sent)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found["missing"].tolist() == [2_000] * 6
    assert most < 2 * 2_000 * 400  # two runs' messages


def test_what_retention_has_removed_is_no_loss(kafka):
    """As on Confluent Cloud after a week, or after a few minutes where a topic keeps little."""
    topic = new_topic(kafka.config, partitions=1)
    other = kh.make_messages("other", 500)
    send(kafka, topic, *other)
    start = end_offsets(kafka.config, topic)
    sent = {name: kh.make_messages(name, 100) for name in ("first", "second")}
    send(kafka, topic, *sent["first"], *sent["second"])
    remove_records(kafka.config, topic, {0: start[0] + 150})
    found = kh.read_back(kafka.config, topic, sent, start=start)
    assert row(found, "first") == {"expected": 100, "removed": 100}
    assert row(found, "second") == {"expected": 100, "received": 50, "removed": 50}
    runs = [ProducerRun("sync", name, [BatchTiming(100, acknowledged=100)]) for name in sent]
    table = reconcile(runs, found)
    assert table["holds"].all() and table.attrs["removed"] == 150 and "removed" not in table
    never_sent = {"third": kh.make_messages("third", 1)}  # more are missing than have been removed: one is lost
    found = kh.read_back(kafka.config, topic, sent | never_sent, start=start)
    assert found["missing"].tolist() == [100, 50, 1] and not found["removed"].any()


def test_old_messages_that_are_gone_do_not_stop_the_reading(kafka, topic):
    kh.produce_async(kafka.config, topic, kh.make_messages("old", 500))
    remove_records(kafka.config, topic, end_offsets(kafka.config, topic))
    sent = {"r": kh.make_messages("r", 1000)}
    kh.produce_async(kafka.config, topic, sent["r"])
    for start in (None, dict.fromkeys(range(6), 0)):
        assert row(kh.read_back(kafka.config, topic, sent, start=start), "r") == {"expected": 1000, "received": 1000}


ODD = {"fetch.wait.max.ms": "30000", "fetch.min.bytes": "1000000", "fetch.queue.backoff.ms": "30000"}


def test_settings_that_make_a_reader_wait_do_not_hold_it_up(kafka, topic):
    sent = {"r": kh.make_messages("r", 20_000)}
    kh.produce_async(kafka.config, topic, sent["r"])
    odd = kafka.config | ODD | {"queued.max.messages.kbytes": "1", "message.max.bytes": "2000"}
    assert row(kh.read_back(odd, topic, sent), "r") == {"expected": 20_000, "received": 20_000}


def test_a_topic_that_was_made_anew_is_another_one(kafka):
    topic = new_topic(kafka.config)
    kh.produce_async(kafka.config, topic, kh.make_messages("r", 500))
    start = end_offsets(kafka.config, topic)
    client = admin(kafka.config)
    client.delete_topics([topic])[topic].result(15)
    ensure_topic(kafka.config, topic, partitions=3)
    with pytest.raises(ClusterError, match="is another one than when the runs began"):
        kh.read_back(kafka.config, topic, {"r": kh.make_messages("r", 500)}, start=start)


def test_an_open_transaction_of_another_program_holds_nothing_up(kafka, topic):
    with connect(Producer, kafka.config | {"transactional.id": topic}) as connection:
        connection.client.init_transactions(15)
        connection.client.begin_transaction()
        for partition in range(6):
            connection.client.produce(topic, b"not yet", b"k", partition)
        connection.client.flush(10)
        sent = {"r": kh.make_messages("r", 1000)}
        start = end_offsets(kafka.config, topic)
        kh.produce_async(kafka.config, topic, sent["r"])
        found = kh.read_back(kafka.config, topic, sent, start=start)
        assert row(found, "r") == {"expected": 1000, "received": 1000} and found.attrs["foreign"] == 0
        connection.client.abort_transaction(15)


LITTLE_AT_A_TIME = {"fetch.message.max.bytes": "10000", "queued.min.messages": "1"}


@pytest.mark.long
def test_a_partition_without_a_leader_ends_the_reading_whatever_goes_on_elsewhere():
    with LocalKafka(3) as three, connect(Producer, three.config) as other:
        ensure_topic(three.config, "t", partitions=3, replication=1)
        # more in each partition than are read at once, before the broker is killed
        kh.produce_async(three.config, "t", kh.make_messages("r", 60_000))
        dead, over = leader(three.config, "t", 0), threading.Event()
        alive = next(number for number in (1, 2) if leader(three.config, "t", number) != dead)

        def traffic():
            while not over.wait(0.05):
                other.client.produce("t", b"foreign", b"k", alive)
                other.client.poll(0)

        def identify(_value):
            if three.processes[dead].poll() is None:
                kill(three, dead)
            raise ValueError

        thread = threading.Thread(target=traffic)
        thread.start()
        try:
            with pytest.raises(ClusterError, match="can't be read to its end"):
                read_back(three.config | LITTLE_AT_A_TIME, "t", {}, identify=identify)
        finally:
            over.set()
            thread.join()


def test_all_there_in_a_compacted_topic_too(kafka):
    """It refuses messages without a key; the primer has one."""
    topic = new_topic(kafka.config, **{"cleanup.policy": "compact"})
    sent = {mode: kh.make_messages(mode, 300) for mode in ("async", "sync")}
    assert kh.produce_async(kafka.config, topic, sent["async"]).complete
    assert kh.produce_sync(kafka.config, topic, sent["sync"]).complete
    found = kh.read_back(kafka.config, topic, sent)
    assert found["received"].tolist() == [300, 300] and list(found["run_id"]) == ["async", "sync"]
