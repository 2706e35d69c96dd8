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
import loops
import producers
import startup


@pytest.fixture
def load(topic, tmp_path):
    return producers.Load(topic, producers.kh.make_messages("bench", 1_000), tmp_path)


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


@pytest.fixture
def saved_in(tmp_path, monkeypatch):
    """Let the benchmark save, and report, in a folder of its own."""
    monkeypatch.setattr(producers, "RESULTS", tmp_path)
    monkeypatch.setattr(producers, "HERE", tmp_path)
    marks = "".join(f"<!-- {part} -->\nold\n<!-- end of {part} -->\n" for part in ("table", "targets"))
    (tmp_path / "README.md").write_text(f"Before\n{marks}after\n")
    return tmp_path


def test_rounds_alternate_and_are_reported_from_what_is_saved(kafka, saved_in):
    names = (producers.REFERENCE, "produce_async's loop, unmeasured")
    few = [each for each in producers.CONTESTANTS if each.name in names]
    rows = list(producers.compete(kafka, few, 2, "100 bytes", [(None, b"x" * 100)] * 600))
    assert [(row.round, row.contestant) for row in rows] == [
        (number, each.name) for number, order in ((1, few), (2, few[::-1])) for each in order
    ]
    assert {row.messages for row in rows} == {600}
    record = producers.environment(rounds=2, messages=600) | {"load average": "1"}
    pairs = [dataclasses.replace(row, payload="schema with keys") for row in rows]
    for speed_up in (1, 2):  # the second run saves beside the first
        faster = [
            dataclasses.replace(row, seconds=row.seconds / speed_up ** (row.contestant == names[0])) for row in pairs
        ]
        producers.set_aside()
        producers.save(rows + faster, record)
    saved = producers.load_rows()
    assert [row.contestant for row in saved] == [row.contestant for row in rows + pairs]
    producers.report(saved, json.loads((saved_in / "producers.json").read_text()))
    readme = (saved_in / "README.md").read_text()
    assert "| produce_async |" in readme and "old" not in readme and readme.endswith("-->\nafter\n")
    cost = next(line for line in readme.splitlines() if line.startswith("| the instrument's cost, async"))
    *_, middle, _, before, _, _ = cost.split("|")
    assert float(middle.strip(" *")) == pytest.approx(2 * float(before.split(",")[0]), abs=0.02)
    assert (saved_in / "producers.png").stat().st_size > 1_000
    assert kafka.config["sasl.password"] not in "".join(file.read_text() for file in saved_in.glob("*producers.[cj]*"))


def test_a_run_without_our_producer_has_a_table_without_ratios():
    row = producers.Row("100 bytes", 1, 1, "aiokafka", 1_000, 0.5, 0.4)
    assert producers.table([row]).splitlines()[-1].startswith("| aiokafka | **2,000** (2,000 to 2,000) |")
    assert len(producers.targets([row], []).splitlines()) == 2  # the head alone


def test_what_the_place_in_the_order_does_cancels_out_in_two_rounds():
    first_is_slower = [0.9 * 0.8, 0.9 / 0.8] * 5
    assert producers.balanced(first_is_slower) == pytest.approx([0.9] * 5)


def test_pairs_take_turns(kafka, monkeypatch):
    pairs = [(payload, 300, *names) for payload, _, *names in producers.PAIRS]
    monkeypatch.setattr(producers, "PAIRS", pairs)
    rows = list(producers.compete_in_pairs(kafka, producers.CONTESTANTS, 2))
    assert [(row.payload, row.round, row.position, row.contestant) for row in rows] == [
        (payload, number, position, name)
        for payload, _, *names in pairs
        for number in (1, 2)
        for position, name in enumerate(names if number % 2 else names[::-1], start=1)
    ]
    assert {row.messages for row in rows} == {300}


def test_a_start_of_kafka_is_divided_into_its_phases():
    imports, starts = [startup.import_s()], [startup.kafka_s()]
    assert set(startup.PHASES) < set(starts[0])
    phases = [starts[0][name] for name in ("_kafka_jars", "_write_settings", "_wait_until_ready")]
    assert sum(phases) == pytest.approx(starts[0][startup.ALL], rel=0.2)
    text = startup.table(imports, starts)
    assert "| kafka_helpers |" in text and all(what in text for what in startup.PHASES.values())


@pytest.mark.parametrize("variant", loops.VARIANTS, ids=lambda each: each.name)
def test_a_variant_of_the_loop_sends_everything_once(kafka, load, variant):
    assert producers.measure(kafka.config, variant, load).seconds > 0  # raises if the topic holds more or less


def test_growth_measures_a_run_of_its_own(kafka, topic):
    case = {"messages": 3_000, "partitions": 6, "size": 50, "config": dict(kafka.config), "topic": topic}
    measured = growth.one(case)
    assert measured["requests"] >= 1 and measured["seconds"] > 0
    assert sum(producers.kh.end_offsets(kafka.config, topic).values()) == 3_000 + 1 + 2 * 6
    point = growth.Point(series="messages", **growth.USUAL | {"messages": 20_000}, **measured)
    assert growth.table([point]).splitlines()[-1].startswith("| 20,000 | 6 | 100 |")
