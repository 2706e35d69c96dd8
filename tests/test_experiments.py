"""The measurements of going_further.ipynb, small: counts, shape, and what they must show on any machine."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from brokers import new_topic
from confluent_kafka import KafkaException, Producer

import experiments
import kafka_helpers as kh
from harness import answers, warm_up
from harness.client import connect
from harness.errors import ClusterError
from harness.topics import end_offsets


def here(kafka):
    return {experiments.HERE: kafka.config}


@pytest.fixture(autouse=True)
def topic_of_the_notebook(kafka, topic, monkeypatch):
    """Each test in a topic of its own, and with few messages."""
    monkeypatch.setattr(experiments, "TOPIC", topic)
    monkeypatch.setattr(experiments, "MESSAGES", 300)


def test_same_twice(kafka):
    table = experiments.same_twice(kafka.config, blocks=2)
    found = table.value_counts(["mode", "messages", "name"]).unstack("name")
    assert found.loc["async", 300].tolist() == [4, 4] and found.loc["sync", 75].tolist() == [1, 1]
    assert (table["cpu_s"] > 0).all()


@pytest.mark.long
def test_laws_of_distance(monkeypatch):
    monkeypatch.setattr(experiments, "ROUND_TRIPS_MS", (0, 60))
    monkeypatch.setattr(warm_up, "CROWD_S", {"distant": 2})
    monkeypatch.setattr(warm_up, "TURNS_S", 1)
    with experiments.Clusters() as clusters:
        law = answers.points(experiments.law_of_distance(clusters, repeats=1, seconds=0.3))
        requests = experiments.law_of_requests(clusters.away(), repeats=1)
    sync = law[law["mode"] == "sync"].set_index("set_ms")
    assert sync["message_ms"][60] >= 60 and sync["round_trip_ms"][60] >= 60
    assert sync["message_ms"][60] > sync["message_ms"][0]
    assert law[law["mode"] == "async"]["messages"].tolist() == [300, 300]
    assert len(requests) == 12 and (requests["requests"] >= requests["partitions"]).all()
    assert (requests["request_ms"] >= experiments.FAR_MS).all()
    answers.distance(law, requests, None)


@pytest.mark.long
def test_clusters_of_before_are_closed(monkeypatch):
    """As when a notebook is run again from its top, or a section after its end."""
    monkeypatch.setattr(warm_up, "CROWD_S", {"local": 1})
    monkeypatch.setattr(warm_up, "TURNS_S", 1)
    first = experiments.Clusters()
    folder = Path(first.here()["ssl.ca.location"]).parent
    with experiments.Clusters():
        assert not folder.exists()
    with first:
        assert end_offsets(first.here(), experiments.TOPIC)


def test_waits_between(kafka, monkeypatch):
    monkeypatch.setattr(experiments, "MOST_WAITS", {experiments.HERE: 20})
    table = experiments.waits_between(here(kafka), repeats=2)
    counts = table.groupby("k")["messages"].apply(list).to_dict()
    assert counts == {0: [300] * 2, 1: [20] * 2, 10: [200] * 2, 100: [300] * 2, 1_000: [300] * 2}
    waits = table[table["k"].isin([1, 10])]
    assert (waits["requests"] >= waits["messages"] / waits["k"]).all(), "each wait makes a request at least"
    answers.waits_between(table, "there")


def test_safety_and_the_first_message(kafka):
    table = experiments.safety(here(kafka), repeats=1)
    assert set(table["settings"]) == set(experiments.SAFETY) and (table["messages"] == 300).all()
    first = experiments.first_message(here(kafka), repeats=2)
    assert set(first["producer"]) == set(experiments.NEW_PRODUCERS) and (first["second_s"] > 0).all()
    assert first[first["producer"] == "idempotent"]["first_s"].min() >= 0.5, "it waits for the timer"
    answers.safety(table, first)


@pytest.mark.long
def test_web_handler(kafka):
    table = experiments.web_handler(kafka.config, seconds=1)
    assert table.groupby("way").size().to_dict() == {
        "AIOProducer": 20,
        "AIOProducer, batch_size=1, a task polls": 10,
        "AIOProducer, one by one": 4,
        "Producer, a thread polls": 10,
        "Producer, threads wait": 10,
    }
    waits = table.groupby("way")["wait_s"].min()
    assert waits["AIOProducer, one by one"] > 1, "its buffer waits for a timer"
    assert sum(end_offsets(kafka.config, experiments.TOPIC).values()) >= 54
    answers.web_handler(table)


def test_a_message_that_fails_raises_where_it_is_awaited(kafka):
    async def send():
        over = threading.Event()
        with connect(Producer, kafka.config | {"message.timeout.ms": 1_000}) as connection:
            polling = threading.Thread(target=experiments.keep_polling, args=(connection.client, over))
            polling.start()
            try:
                await experiments.deliver(connection.client, "no-such-topic", b"key", b"value")
            finally:
                over.set()
                polling.join()

    with pytest.raises(KafkaException, match=r"UNKNOWN_TOPIC|_MSG_TIMED_OUT"):
        asyncio.run(send())


def test_mistakes(kafka):
    runs = experiments.mistakes(kafka.config, repeats=1)
    assert (runs["messages"] > 0).all() and runs["mode"].isin(["async", "sync"]).all()
    found = answers.ratios_of_mistakes(runs)
    assert set(found["habit"]) == {"right", *answers.WHY} and found.notna().all(axis=None)
    answers.mistakes(found)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["async", "sync"])
def test_broker_dies_and_nothing_is_lost(mode):
    table = experiments.brokers_die([(mode, 1, 2)])
    assert table["acknowledged"].sum() == table["messages"].sum() == 2 * experiments.SOURCE_RATE
    assert table[["missing", "duplicated", "out_of_order"]].eq(0).all(axis=None)
    assert table["started_s"].is_monotonic_increasing and table["killed_s"].between(1, 60).all()
    waited = table["delivered_s" if mode == "async" else "elapsed_s"].max()
    assert waited >= experiments.DEAD_S / 2, "batches wait while there is no broker"


def test_program_dies(kafka):
    table = experiments.program_dies(kafka.config, kills=2)
    assert table["way"].value_counts().to_dict() == dict.fromkeys(experiments.WAITS_OF, 2)
    assert (table["handed_over"] > 0).all() and (table["lost"] <= table["handed_over"]).all()
    lost = table.groupby("way")["lost"].max()
    assert lost["sync"] == 0 and lost["wait after every 100"] <= 100
    answers.program_dies(table)


LAST = list(experiments.FAULTS)[-1]


def test_nobody_looks(kafka, monkeypatch):
    table = experiments.nobody_looks(kafka.config)
    rows = table.set_index(["fault", "program"])
    without, careful = (rows.xs(program, level="program") for program in ("no callback", "callback and flush"))
    assert without["arrived"].tolist() == [100, 99, 0, 0] and without["seen"].eq(0).all()
    assert (careful["arrived"] + careful["seen"]).eq(100).all()
    for reason, said in zip(("", "too large", "Unknown topic", "timed out"), careful["reason"], strict=True):
        assert reason in said
    assert rows["reason"].iloc[-2:].tolist() == ["Local: Queue full", "no answer within 3 s"]
    assert answers.nobody_looks(table).verdict == "as predicted"
    monkeypatch.setattr(experiments, "FAULTS", {name: experiments.FAULTS[name] for name in ("none", LAST)})
    again = experiments.nobody_looks(kafka.config)
    assert (again["arrived"] <= again["sent"]).all(), "what an earlier try has sent is not counted"


# --- An experiment that is cut short ---------------------------------------------------------------------------------


def test_an_incomplete_run_is_no_row_of_data(kafka):
    topic = new_topic(kafka.config, **{"max.message.bytes": "150"})  # takes the primer only
    with pytest.raises(ClusterError, match="Not all messages were delivered"):
        experiments.timed("async", kafka.config, topic, kh.make_messages("large", 20))
    with pytest.raises(ClusterError, match="Not all messages were delivered"):
        experiments.send(kafka.config, topic, kh.make_messages("large", 20))


@contextlib.contextmanager
def interrupt_after(seconds):
    """Press the stop button in the block after so many seconds; it ends at once."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    hangs = time.monotonic() + seconds + 10  # a generous limit
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        timer.cancel()
    assert time.monotonic() < hangs


@pytest.mark.parametrize("name", ["program_dies", "web_handler", "mistakes", "nobody_looks"])
def test_an_interrupt_ends_an_experiment_at_once(kafka, name, monkeypatch):
    monkeypatch.setattr(experiments, "MESSAGES", 50_000)
    with interrupt_after(4):
        getattr(experiments, name)(kafka.config)


def test_an_interrupt_before_the_broker_is_killed_leaves_nothing_behind(monkeypatch):
    before = psutil.Process().children(recursive=True)
    monkeypatch.setattr(experiments, "KILLED_AFTER_S", 50)
    with interrupt_after(8):
        experiments.brokers_die([("sync", 1, 60)])
    left = set(psutil.Process().children(recursive=True)) - set(before)
    for child in left:
        with contextlib.suppress(psutil.NoSuchProcess):  # it is just ending
            assert child.name() != "java"
