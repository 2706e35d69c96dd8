"""The benchmark: each contestant sends what it is asked to send, and what is measured is saved and reported.

How fast they are is not tested: that depends on the machine, and on what else it does.
"""

import re
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import producers

BENCHMARKS = producers.HERE
MESSAGES = [(None, b"%0100d" % number) for number in range(300)]


@pytest.mark.parametrize("contestant", producers.CONTESTANTS, ids=lambda each: each.name)
def test_a_contestant_sends_everything_once(kafka, topic, contestant):
    if not producers.can_take_part(contestant):
        pytest.skip(f"{contestant.program} is not on the PATH")
    if contestant.warm_up == producers.JAVA_WARM_UP:  # that would take seconds
        contestant = replace(contestant, send=partial(producers.perf_test, warm_up=1_000), warm_up=1_000)
    measured = producers.measure(kafka.config, contestant, topic, MESSAGES)  # raises if the topic has more or less
    assert measured["messages"] == 300 and measured["seconds"] > 0 and measured["cpu_s"] > 0


@pytest.mark.parametrize("sent", [MESSAGES[:-1], MESSAGES + MESSAGES[:1]], ids=["too few", "too many"])
def test_the_verification_notices_a_message_too_few_and_one_too_many(kafka, topic, sent):
    cheat = producers.Contestant("cheat", "", lambda config, topic, _: producers.bare_async(config, topic, sent))
    with pytest.raises(RuntimeError, match=f"300 messages sent, {len(sent)} in the topic"):
        producers.measure(kafka.config, cheat, topic, MESSAGES)


def test_rounds_alternate_and_what_is_saved_is_reported(kafka, tmp_path, monkeypatch):
    monkeypatch.setattr(producers, "HERE", tmp_path)
    shutil.copy(BENCHMARKS / "README.md", tmp_path)
    names = ["produce_async", "AIOProducer", "produce_sync"]
    field = [replace(each, share=1) for each in producers.CONTESTANTS if each.name in names]
    rows = list(producers.compete(kafka.config, field, 2, "100 bytes", MESSAGES))
    assert [(row["round"], row["contestant"]) for row in rows] == [
        (number, name) for number, order in ((1, names), (2, names[::-1])) for name in order
    ]
    producers.save("producers", iter(rows), rounds=2, messages=300)
    producers.save("growth", producers.grow(kafka.config, [(3_000, 2, 50)], 1))
    assert kafka.config["sasl.password"] not in "".join(file.read_text() for file in tmp_path.glob("results/*.[cj]*"))

    producers.report()
    readme = (tmp_path / "README.md").read_text()
    for name in names:
        some = [row for row in rows if row["contestant"] == name]
        rate = sum(row["messages"] for row in some) / sum(row["seconds"] for row in some)
        assert f"| {name} | **{producers.approx(rate)}** (" in readme
    assert "rounds 2; messages 300;" in readme and "| 3,000 | 2 | 50 | **" in readme
    assert (tmp_path / "results" / "producers.png").stat().st_size > 10_000


def test_a_ratio_is_that_of_the_printed_rates_and_its_range_is_formed_within_rounds():
    rows = [(1, "produce_async", 1.0), (1, "other", 2.0), (2, "produce_async", 3.0), (2, "other", 3.0)]
    frame = pd.DataFrame(rows, columns=["round", "contestant", "seconds"])
    other = producers.summary(frame.assign(payload="", messages=1_000, cpu_s=1), "").loc["other"]
    assert (other.rate, other.low, other.high) == (pytest.approx(400), pytest.approx(2000 / 6), 500)
    assert (other.ratio, other.ratio_low, other.ratio_high) == (400 / 500, 0.5, 1)


def test_the_page_has_the_numbers_of_the_saved_results(tmp_path, monkeypatch):
    monkeypatch.setattr(producers, "HERE", tmp_path)
    shutil.copytree(BENCHMARKS / "results", tmp_path / "results")
    shutil.copy(BENCHMARKS / "README.md", tmp_path)
    producers.report()
    page = (BENCHMARKS / "README.md").read_text()
    assert (tmp_path / "README.md").read_text() == page

    _, tables, choosing, c_or_python, *_ = re.split("<!-- (?:end of )?results -->|### C or Python", page)
    for number in re.findall(r"\d+\.\d+|\d+,\d+", choosing):  # not 100 bytes, 500 messages
        assert number in tables, number
    rows, _ = producers.load("producers")
    c_tool = pd.concat(producers.summary(rows, payload) for payload in rows.payload.unique()).loc["rdkafka_performance"]
    assert f"| {1 / c_tool.ratio_high.max():.2f} to {1 / c_tool.ratio_low.min():.2f} |" in c_or_python
