"""The measurements of "Going further", small: their counts, their shape, and what they must show on any machine."""

import asyncio

import pytest

import experiments
import kafka_helpers as kh


def test_same_twice(kafka, topic):
    table = experiments.same_twice(kafka.config, topic, 100)
    assert table.groupby(["mode", "name"])["messages"].apply(list).to_dict() == {
        (mode, name): [count] * 6 for mode, count in (("async", 100), ("sync", 5)) for name in ("A", "A again")
    }


def test_law(monkeypatch):
    monkeypatch.setattr(experiments, "ROUND_TRIPS_MS", (2, 40))
    table = experiments.round_trip_law(200, repeats=1, seconds=0.2)
    sync = table[table["mode"] == "sync"].set_index("set_ms")
    per_message = sync["elapsed_s"] / sync["messages"]
    assert 0.03 <= per_message[40] - per_message[2] <= 0.2  # 0.038 on an idle machine
    assert (sync["round_trip_ms"] >= sync.index).all()
    assert table[table["mode"] == "async"]["messages"].tolist() == [200, 200]


def test_wait_every(kafka, topic, monkeypatch):
    monkeypatch.setattr(experiments, "WAITS", (1, 10))
    monkeypatch.setattr(experiments, "LOCAL_WAITS", 20)
    table = experiments.wait_every(kh.Cluster("here", kafka.config, False, lambda: None), topic, 300)
    counts = table.groupby(["place", "k"])["messages"].apply(list).to_dict()
    assert counts[("here", 1)] == [20] * 3 and counts[("here", 10)] == [200] * 3 and counts[("here", 0)] == [300] * 3
    assert counts[("simulated, 20 ms", 1)] == [25] and counts[("simulated, 20 ms", 10)] == [250]
    slow = table[table["place"] == "simulated, 20 ms"].set_index("k")
    assert slow["elapsed_s"][1] >= 25 * 0.02


def test_other_ways_deliver_all(kafka, topic):
    table = asyncio.run(experiments.other_ways(kafka.config, topic, 500, rounds=2))
    assert sorted(table["way"]) == sorted(["produce", "produce_batch", "AIOProducer"] * 2)
    assert set(table["messages"]) == {500}
    assert table["way"].tolist()[:3] == table["way"].tolist()[:2:-1]


def test_serializing():
    table = experiments.serializing(50, repeats=1).set_index("way")
    assert (
        table["bytes"]["Avro, fastavro"] < table["bytes"]["JSON, msgspec"] <= table["bytes"]["JSON, standard library"]
    )
    assert (table["microseconds"] > 0).all()


def test_linger_does_not_slow_a_flush(kafka, topic):
    table = experiments.linger(kafka.config, topic)
    assert set(table["messages"]) == {experiments.LINGER_MESSAGES}
    # If each flush waited for linger.ms, 100 messages would take 10 s.
    assert table[table["linger_ms"] == 100]["elapsed_s"].median() < 5


@pytest.mark.parametrize(
    ("wanted", "configured", "round_trip_ms", "chosen", "said"),
    [
        (None, False, 40, set(experiments.PARTS), 0),
        (None, True, 40, {"law", "ways", "serializing", "linger"}, 2),
        (None, True, 0.3, set(experiments.PARTS), 0),
        ({"between"}, True, 40, {"between"}, 0),
        (set(), False, 40, set(), 0),
    ],
)
def test_costly_parts_are_left_out_with_their_time(capsys, wanted, configured, round_trip_ms, chosen, said):
    cluster = kh.Cluster("here", {}, configured, lambda: None)
    assert experiments.choose_parts(wanted, cluster, 20_000, round_trip_ms) == chosen
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == said and all("minutes here" in line for line in lines)


def test_unknown_part():
    with pytest.raises(kh.ConfigError, match="unknown parts: lore; there are same, law"):
        experiments.choose_parts({"lore"}, kh.Cluster("here", {}, False, lambda: None), 1, 1)
