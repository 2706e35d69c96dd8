"""The measurements of going_further.ipynb, small: counts, shape, and what they must show on any machine."""

import contextlib
import itertools
import os
import signal
import threading
import time

import psutil
import pytest
from brokers import new_topic

import experiments
from harness.errors import ClusterError
from harness.topics import end_offsets


def test_same_twice(kafka, topic):
    table = experiments.same_twice(kafka.config, topic, 100, blocks=2)
    found = table.value_counts(["mode", "messages", "name"]).unstack("name")
    assert found.loc["async", 100].tolist() == [4, 4] and found.loc["sync", 25].tolist() == [1, 1]


@pytest.mark.long
def test_law(monkeypatch):
    monkeypatch.setattr(experiments, "ROUND_TRIPS_MS", (0, 60))
    table = experiments.round_trip_law(200, repeats=1, seconds=0.3, warm_s=2)
    sync = table[table["mode"] == "sync"].set_index("set_ms")
    per_message = 1000 * sync["elapsed_s"] / sync["messages"]
    assert per_message[60] >= 60 and sync["round_trip_ms"][60] >= 60 and per_message[60] > per_message[0]
    assert table[table["mode"] == "async"]["messages"].tolist() == [200, 200]


def test_settings(kafka, topic):
    table = experiments.other_settings(kafka.config, topic, 300, 20, 1).set_index(["mode", "settings"])
    assert set(table.index) == set(itertools.product(("async", "sync"), experiments.SETTINGS))
    assert set(table["messages"]["async"]) == {300} and set(table["messages"]["sync"]) == {20}
    assert table["elapsed_s"]["sync", "linger.ms=100"] < 1.5, "20 times linger.ms would be 2 s"


def test_between(kafka, topic, monkeypatch):
    monkeypatch.setattr(experiments, "WAITS", (1, 10, 500))
    table = experiments.between(kafka.config, topic, 300, 20, 2)
    counts = table.groupby("k")["messages"].apply(list).to_dict()
    assert counts == {0: [300] * 2, 1: [20] * 2, 10: [200] * 2, 500: [300] * 2}


def test_slow_batches(kafka, topic):
    table = experiments.slow_batches(kafka.config, topic, 5_000, runs=2)
    assert table["run"].tolist() == [1] * 9 + [2] * 9, "all batches but each run's first"
    assert (table["poll_cpu_s"] <= table["cpu_s"]).all() and (table["reports"] <= 5_000).all()


def test_other_ways_deliver_all(kafka, topic):
    table = experiments.other_ways(kafka.config, topic, 500, repeats=1).set_index("way")
    expected = dict.fromkeys(table.index, 500) | {"a producer for each message": 20, "AIOProducer, one by one": 2}
    assert table["messages"].to_dict() == expected
    assert sum(end_offsets(kafka.config, topic).values()) >= sum(expected.values())


@pytest.mark.long
@pytest.mark.parametrize("mode", ["async", "sync"])
def test_broker_dies_and_nothing_is_lost(mode):
    table = experiments.broker_dies(mode, 1, 2)
    assert table["acknowledged"].sum() == table["messages"].sum() == 2 * experiments.SOURCE_RATE
    assert table[["missing", "duplicated", "out_of_order"]].eq(0).all(axis=None)
    assert table["started_s"].is_monotonic_increasing and table["killed_s"].between(1, 60).all()
    waited = table["delivered_s" if mode == "async" else "elapsed_s"].max()
    assert waited >= experiments.DEAD_S / 2, "batches wait while there is no broker"


def test_program_dies(kafka, topic):
    table = experiments.program_dies(kafka.config, topic, 2)
    assert table["way"].value_counts().to_dict() == dict.fromkeys(experiments.WAYS, 2)
    assert (table["handed_over"] > 0).all() and (table["lost"] <= table["handed_over"]).all()
    lost = table.groupby("way")["lost"].max()
    assert lost["sync"] == 0 and lost["wait after every 100"] <= 100


def test_nobody_looks(kafka):
    table = experiments.nobody_looks(kafka.config).set_index(["fault", "program"])
    without, careful = (table.xs(program, level="program") for program in ("no callback", "callback and flush"))
    assert without["arrived"].tolist() == [100, 99, 0, 0] and without["noticed"].eq(0).all()
    assert (careful["arrived"] + careful["noticed"]).eq(100).all()
    for reason, said in zip(("", "too large", "Unknown topic", "timed out"), careful["reason"], strict=True):
        assert reason in said


# --- An experiment that is cut short ---------------------------------------------------------------------------------


def test_an_incomplete_run_is_no_row_of_data(kafka):
    topic = new_topic(kafka.config, **{"max.message.bytes": "150"})  # takes the primer only
    with pytest.raises(ClusterError, match="Not all messages were delivered"):
        experiments.same_twice(kafka.config, topic, 20)


@contextlib.contextmanager
def interrupt_after(seconds):
    """Press the stop button in the block after so many seconds; it ends at once."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    ends = time.monotonic() + seconds + 4.5
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        timer.cancel()
    assert time.monotonic() < ends


ARGUMENTS = {"same_twice": (20_000,), "program_dies": (100,), "other_ways": (500,), "other_settings": (500, 500, 50)}


@pytest.mark.parametrize("name", [*ARGUMENTS, "nobody_looks"])
def test_an_interrupt_ends_an_experiment_at_once(kafka, topic, name):
    arguments = (topic, *ARGUMENTS[name]) if name in ARGUMENTS else ()
    with interrupt_after(3):
        getattr(experiments, name)(kafka.config, *arguments)


def test_an_interrupt_before_the_broker_is_killed_leaves_nothing_behind():
    before = psutil.Process().children(recursive=True)
    with interrupt_after(8):
        experiments.broker_dies("sync", 1, 60, after_s=50)
    left = set(psutil.Process().children(recursive=True)) - set(before)
    assert not [child for child in left if "java" in child.name()]
