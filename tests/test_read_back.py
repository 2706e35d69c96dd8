"""Reading the topic again finds what is missing, doubled or damaged, for every run by itself."""

from dataclasses import replace

from brokers import new_topic, remove_records
from confluent_kafka import Producer

import harness.read_back
import kafka_helpers as kh
from harness.measurement import WARM_UP


def send(kafka, topic, *messages):
    producer = Producer(dict(kafka.config))
    for key, value in messages:
        producer.produce(topic, value, key)
    assert producer.flush(10) == 0


def row(frame, run_id):
    return frame.set_index("run_id").loc[run_id].to_dict()


def test_all_there(kafka, topic):
    sent = {run: kh.make_messages(run, 1000) for run in ("r1", "r2")}
    kh.produce_async(kafka.config, topic, sent["r1"])
    kh.produce_sync(kafka.config, topic, sent["r2"])
    found = kh.read_back(kafka.config, topic, sent)
    for run in sent:
        assert row(found, run) == {"expected": 1000, "received": 1000, "missing": 0, "duplicated": 0, "damaged": 0}


def test_missing_doubled_damaged_and_foreign(kafka, topic):
    sent = {"r": kh.make_messages("r", 10)}
    m = list(sent["r"])
    beyond = next(e for e in kh.make_events("r", 11) if e.sequence == 10)
    changed = (m[5][0], kh.encode(replace(kh.decode(m[5][1]), station="Nowhere")))
    send(
        kafka,
        topic,
        *m[:4],
        m[2],
        m[2],
        (b"other key", m[4][1]),
        (m[6][0], m[6][1][:-5]),
        (None, b"\xff"),
        (b"k", None),
    )
    send(kafka, topic, changed, (b"k", kh.encode(beyond)), *kh.make_messages("somebody-else", 50), (None, WARM_UP))
    found = kh.read_back(kafka.config, topic, sent)
    assert row(found, "r") == {"expected": 10, "received": 4, "missing": 6, "duplicated": 2, "damaged": 3}
    assert row(found, "unknown")["damaged"] == 3
    assert list(found["run_id"]) == ["r", "unknown"]


def test_failed_messages_are_no_loss_but_lost_ones_are(kafka, topic):
    sent = {"r": kh.make_messages("r", 10)}
    send(kafka, topic, *sent["r"][:7])
    found = kh.read_back(kafka.config, topic, sent, undelivered={"r": sent["r"][8:]})
    assert row(found, "r") == {"expected": 8, "received": 7, "missing": 1, "duplicated": 0, "damaged": 0}


def test_start_leaves_out_what_was_there_before(kafka, topic):
    send(kafka, topic, *[(b"k", b"not json")] * 20)
    start = kh.end_offsets(kafka.config, topic)
    sent = {"r": kh.make_messages("r", 100)}
    kh.produce_async(kafka.config, topic, sent["r"])
    assert list(kh.read_back(kafka.config, topic, sent, start=start)["run_id"]) == ["r"]
    assert row(kh.read_back(kafka.config, topic, sent), "unknown")["damaged"] == 20


def test_an_empty_topic(kafka, topic):
    found = kh.read_back(kafka.config, topic, {"r": kh.make_messages("r", 3)})
    assert row(found, "r") == {"expected": 3, "received": 0, "missing": 3, "duplicated": 0, "damaged": 0}


def test_accounts_hold_only_if_nothing_is_lost(kafka, topic):
    run = kh.ProducerRun("async", "r", [kh.BatchTiming(10, acknowledged=10)])
    sent = {"r": kh.make_messages("r", 10)}
    send(kafka, topic, *sent["r"][:9])
    assert not kh.accounts([run], kh.read_back(kafka.config, topic, sent))["holds"].any()
    send(kafka, topic, sent["r"][9])
    table = kh.accounts([run], kh.read_back(kafka.config, topic, sent))
    assert table["holds"].all() and table["received"].tolist() == [10]
    run.batches[0].acknowledged = 9  # a report that never came
    assert not kh.accounts([run], kh.read_back(kafka.config, topic, sent))["holds"].any()


def test_a_topic_whose_oldest_messages_are_gone(kafka, topic):
    """As on Confluent Cloud after a week."""
    kh.produce_async(kafka.config, topic, kh.make_messages("old", 500))
    remove_records(kafka.config, topic, kh.end_offsets(kafka.config, topic))
    sent = {"r": kh.make_messages("r", 1000)}
    kh.produce_async(kafka.config, topic, sent["r"])
    for start in (None, dict.fromkeys(range(6), 0)):
        found = row(kh.read_back(kafka.config, topic, sent, start=start), "r")
        assert found == {"expected": 1000, "received": 1000, "missing": 0, "duplicated": 0, "damaged": 0}
    found = row(kh.read_back(kafka.config, topic, {"old": kh.make_messages("old", 500)}), "old")
    assert (found["received"], found["missing"]) == (0, 500)


def test_messages_that_are_removed_while_the_topic_is_read(kafka, topic):
    """What is still there is found: the reading goes on with the oldest message that is left."""
    messages = kh.make_messages("r", 20_000)
    kh.produce_async(kafka.config, topic, messages)
    end = kh.end_offsets(kafka.config, topic)
    left = {number: 100 * number for number in end}  # of partition 0, nothing
    little_at_a_time = {"fetch.message.max.bytes": "10000", "queued.min.messages": "1"}

    def read(at_first):
        seen = []

        def identify(value):
            if not seen:
                at_first()
            seen.append(kh.decode(value).sequence)
            return "r", seen[-1]

        found = harness.read_back.read_back(kafka.config | little_at_a_time, topic, {"r": messages}, identify=identify)
        return row(found, "r"), set(seen)

    found, seen = read(lambda: remove_records(kafka.config, topic, {n: end[n] - left[n] for n in end}))
    assert found["received"] == len(seen) < 20_000 and found["missing"] == 20_000 - len(seen)
    again, there = read(lambda: None)
    assert again["received"] == len(there) == sum(left.values())
    assert there <= seen


def test_a_compacted_topic(kafka):
    """It refuses messages without a key; the warm-up's has one."""
    topic = new_topic(kafka.config, **{"cleanup.policy": "compact"})
    sent = {mode: kh.make_messages(mode, 300) for mode in ("async", "sync")}
    assert kh.produce_async(kafka.config, topic, sent["async"]).complete
    assert kh.produce_sync(kafka.config, topic, sent["sync"]).complete
    found = kh.read_back(kafka.config, topic, sent)
    assert found["received"].tolist() == [300, 300] and list(found["run_id"]) == ["async", "sync"]
