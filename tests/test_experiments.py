"""The measurements of going_further.ipynb, small: counts, shape, and what they must show on any machine."""

import asyncio
import os
import signal
import threading
import time

import psutil
import pytest
from brokers import new_topic

import experiments
import kafka_helpers as kh


def test_same_twice(kafka, topic):
    table = experiments.same_twice(kafka.config, topic, 100)
    assert table.groupby(["mode", "name"])["messages"].apply(list).to_dict() == {
        (mode, name): [count] * 6 for mode, count in (("async", 100), ("sync", 25)) for name in ("A", "A again")
    }


def test_rounds_go_back_and_forth():
    assert list(experiments.rounds(3, "ab")) == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]


@pytest.mark.long
def test_law(monkeypatch):
    monkeypatch.setattr(experiments, "ROUND_TRIPS_MS", (0, 60))
    table = experiments.round_trip_law(200, repeats=1, seconds=0.3)
    sync = table[table["mode"] == "sync"].set_index("set_ms")
    per_message = 1000 * sync["elapsed_s"] / sync["messages"]
    assert per_message[60] >= 60 and sync["round_trip_ms"][60] >= 60
    assert per_message[60] > per_message[0]
    assert table[table["mode"] == "async"]["messages"].tolist() == [200, 200]


def test_wait_every_waits_for_the_group(kafka, topic):
    run = experiments.wait_every(10, kafka.config, topic, kh.make_messages("run", 25))
    assert run.complete and [batch.acknowledged for batch in run.batches] == [10, 10, 5]
    assert all(batch.delivered_s <= batch.elapsed_s for batch in run.batches)


def test_between(kafka, topic, monkeypatch):
    monkeypatch.setattr(experiments, "WAITS", (1, 10, 500))
    table = experiments.between(kafka.config, topic, 300, most_waits=20, repeats=2)
    counts = table.groupby("k")["messages"].apply(list).to_dict()
    assert counts == {0: [300] * 2, 1: [20] * 2, 10: [200] * 2, 500: [300] * 2}


def test_other_ways_deliver_all(kafka, topic):
    start = sum(kh.end_offsets(kafka.config, topic).values())
    table = asyncio.run(experiments.other_ways(kafka.config, topic, 500, repeats=2))
    assert sorted(table["way"]) == sorted(["produce", "failures only", "AIOProducer"] * 2)
    assert set(table["messages"]) == {500}
    assert sum(kh.end_offsets(kafka.config, topic).values()) - start >= 6 * 500


def test_serializing():
    table = experiments.serializing(50, repeats=1).set_index("way")
    sizes = table["bytes"]
    assert sizes["Avro, fastavro"] < sizes["JSON, msgspec"] <= sizes["JSON, standard library"]
    assert (table["microseconds"] > 0).all()


def test_linger_does_not_slow_a_flush(kafka, topic):
    table = experiments.linger(kafka.config, topic)
    assert set(table["messages"]) == {experiments.LINGER_MESSAGES}
    # If each flush waited for linger.ms, 100 messages would take 10 s.
    assert table[table["linger_ms"] == 100]["elapsed_s"].median() < 5


@pytest.mark.parametrize("mode", ["async", pytest.param("sync", marks=pytest.mark.long)])
def test_broker_dies_and_nothing_is_lost(mode):
    table = experiments.broker_dies(mode, 1, seconds=2, after_s=1)
    assert table["acknowledged"].sum() == table["messages"].sum() == 2 * experiments.SOURCE_RATE
    assert table["missing"].eq(0).all() and table["duplicated"].eq(0).all()
    assert table["at_s"].is_monotonic_increasing and table["killed_s"].between(1, 60).all()
    waited = table["delivered_s" if mode == "async" else "elapsed_s"].max()
    assert waited >= experiments.DEAD_S / 2, "batches wait while there is no broker"


def test_program_dies(kafka, topic):
    table = experiments.program_dies(kafka.config, topic, 2)
    assert table["way"].value_counts().to_dict() == dict.fromkeys(experiments.WAYS, 2)
    assert (table["handed_over"] > 0).all() and (table["lost"] <= table["handed_over"]).all()
    lost = table.groupby("way")["lost"].max()
    assert lost["sync"] == 0, "it goes on only after the acknowledgement"
    assert lost["wait after every 100"] <= 100


def test_nobody_looks(kafka):
    table = experiments.nobody_looks(kafka.config).set_index(["fault", "program"])
    arrived, ended = table["arrived"], table["exit_code"]
    large, nowhere = "one message too large for the broker", "no broker answers"
    assert arrived["none", "no callback"] == arrived["none", "both"] == 100
    assert arrived[large, "no callback"] < 100 and ended[large, "no callback"] == 0, "it doesn't notice"
    assert ended[:, "no callback"].eq(0).all() and ended[:, "no flush"].eq(0).all()
    for fault, reason in (
        (large, "Message size too large"),
        ("no such topic", "Unknown topic"),
        (nowhere, "timed out"),
    ):
        assert ended[fault, "both"] == 1 and reason in table["said"][fault, "both"]


# --- An experiment that is cut short ---------------------------------------------------------------------------------


def test_an_incomplete_run_is_no_row_of_data(kafka):
    topic = new_topic(kafka.config, **{"max.message.bytes": "150"})  # takes the warm-up's messages only
    with pytest.raises(kh.RunIncomplete, match="Not all messages were delivered"):
        experiments.same_twice(kafka.config, topic, 20)


@pytest.mark.parametrize("name", ["same_twice", "program_dies"])
def test_an_interrupt_ends_an_experiment_at_once(kafka, topic, name):
    arguments = {"same_twice": (20_000,), "program_dies": (100,)}[name]
    with interrupt_after(1.5) as interrupted, pytest.raises(KeyboardInterrupt):
        getattr(experiments, name)(kafka.config, topic, *arguments)
    assert time.monotonic() - interrupted[0] < 4


def test_an_interrupt_before_the_broker_is_killed_leaves_nothing_behind():
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with interrupt_after(8) as interrupted, pytest.raises(KeyboardInterrupt):
        experiments.broker_dies("sync", 1, seconds=60, after_s=50)
    assert time.monotonic() - interrupted[0] < 5
    left = [each for each in psutil.Process().children(recursive=True) if each.pid not in before]
    assert not [each for each in left if "java" in each.name()]


class interrupt_after:
    """Press the stop button after so many seconds."""

    def __init__(self, seconds: float):
        self._when: list[float] = []
        self._timer = threading.Timer(seconds, self._press)

    def _press(self) -> None:
        self._when.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    def __enter__(self) -> list[float]:
        self._timer.start()
        return self._when

    def __exit__(self, *_) -> None:
        self._timer.cancel()
        self._timer.join()
