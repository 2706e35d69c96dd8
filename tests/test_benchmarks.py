"""The benchmark: each contestant sends what it is asked to send, and what is measured is saved and reported whole.

How fast they are is not tested: that depends on the machine, and on what else it does.
"""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import growth
import producers


@pytest.fixture
def load(topic, tmp_path):
    return producers.Load("schema", topic, producers.kh.make_messages("bench", 1_000), tmp_path)


@pytest.mark.parametrize("contestant", producers.CONTESTANTS, ids=lambda each: each.name)
def test_a_contestant_sends_everything_once(kafka, load, contestant):
    if reason := producers.missing(contestant):
        pytest.skip(reason)
    load.messages = load.messages[: max(20, int(len(load.messages) * min(1, contestant.share)))]
    taken = producers.measure(kafka.config, contestant, load)  # raises if the topic holds more or less
    assert taken.seconds > 0 and taken.cpu_s > 0


def test_the_verification_notices_a_message_too_few_and_one_too_many(kafka, load):
    for sent in (load.messages[:-1], load.messages + load.messages[:1]):

        def cheat(config, load, sent=sent):
            return producers.bare_async(config, dataclasses.replace(load, messages=sent))

        with pytest.raises(RuntimeError, match=f"1000 messages sent, {len(sent)} in the topic"):
            producers.measure(kafka.config, producers.Contestant("cheat", cheat), load)


def test_rounds_alternate_and_are_reported_from_what_is_saved(kafka, tmp_path, monkeypatch):
    monkeypatch.setattr(producers, "RESULTS", tmp_path)
    monkeypatch.setattr(producers, "HERE", tmp_path)
    (tmp_path / "README.md").write_text("Before\n<!-- table -->\nold\n<!-- end of table -->\nafter\n")
    few = [each for each in producers.CONTESTANTS if each.name in (producers.REFERENCE, "produce_batches")]
    rows = list(producers.compete(kafka, few, rounds=2, count=600))
    assert [(row.payload, row.round, row.contestant) for row in rows] == [
        (payload, number, each.name)
        for payload in ("100 bytes", "schema")
        for number, order in ((1, few), (2, few[::-1]))
        for each in order
    ]
    assert {row.messages for row in rows} == {600}
    record = producers.environment(rounds=2, messages=600) | {"load average": "1"}
    producers.save(rows, record)
    saved = producers.load_rows()
    assert [row.contestant for row in saved] == [row.contestant for row in rows]
    producers.report(saved, json.loads((tmp_path / "producers.json").read_text()))
    readme = (tmp_path / "README.md").read_text()
    assert "| produce_async |" in readme and "old" not in readme and readme.endswith("-->\nafter\n")
    assert (tmp_path / "producers.png").stat().st_size > 1_000
    assert kafka.config["sasl.password"] not in "".join(file.read_text() for file in tmp_path.glob("producers.[cj]*"))


def test_growth_measures_a_run_of_its_own(kafka, topic):
    case = {"messages": 3_000, "partitions": 6, "size": 50, "config": dict(kafka.config), "topic": topic}
    measured = growth.one(case)
    assert measured["requests"] >= 1 and measured["seconds"] > 0
    assert sum(producers.kh.end_offsets(kafka.config, topic).values()) == 3_000 + 1 + 2 * 6
    point = growth.Point(series="messages", **growth.USUAL | {"messages": 20_000}, **measured)
    assert growth.table([point]).splitlines()[-1].startswith("| 20,000 | 6 | 100 |")
