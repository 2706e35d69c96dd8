"""The benchmark: each contestant sends what it is asked to send, and what is measured is saved and reported."""

import json
import re
from functools import partial

import pandas as pd
import pytest
from notebooks import ROOT

from benchmarks import producers

PAGE = ROOT / "benchmarks" / "README.md"
MESSAGES = [(None, b"%0100d" % number) for number in range(300)]


# perf-test's jars are fetched first.
MARKS = {"perf-test": [pytest.mark.long]}
FIELD = [pytest.param(each, id=each.name, marks=MARKS.get(each.name, [])) for each in producers.CONTESTANTS]


@pytest.mark.parametrize("contestant", FIELD)
def test_a_contestant_sends_everything_once(kafka, topic, contestant):
    if contestant.name == "perf-test":  # its whole warm-up would take seconds
        contestant = contestant._replace(send=partial(contestant.send, warm_up=1_000), uncounted=1_000)
    measured = producers.measure(kafka.config, contestant, topic, MESSAGES)  # raises if the topic has more or less
    assert measured["messages"] == 300 and measured["seconds"] > 0


@pytest.mark.parametrize("sent", [MESSAGES[:-1], MESSAGES + MESSAGES[:1]], ids=["too few", "too many"])
def test_the_verification_notices_a_message_too_few_and_one_too_many(kafka, topic, sent):
    cheat = producers.Contestant("cheat", "", lambda config, topic, _: producers.usual_loop(config, topic, sent))
    with pytest.raises(RuntimeError, match=f"300 messages sent, {len(sent)} in the topic"):
        producers.measure(kafka.config, cheat, topic, MESSAGES)


def test_rounds_alternate(kafka):
    rows = producers.compete(kafka.config, producers.CONTESTANTS[:2], 2, MESSAGES)
    names = [each.name for each in producers.CONTESTANTS[:2]]
    assert list(rows["contestant"]) == names[::-1] + names and list(rows["round"]) == [1, 1, 2, 2]


@pytest.mark.long
def test_what_is_measured_is_printed_and_saved_where_it_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(producers, "MESSAGES", 300)
    monkeypatch.setattr(producers, "ROUNDS", 1)
    monkeypatch.setattr(producers, "CONTESTANTS", [each for each in producers.CONTESTANTS if each.name != "perf-test"])
    producers.main(str(tmp_path / "rounds.csv"))
    said = capsys.readouterr().out
    assert producers.table(pd.read_csv(tmp_path / "rounds.csv")) in said and "num_messages 300" in said


def test_the_page_has_the_numbers_of_the_saved_results():
    page = PAGE.read_text(encoding="utf-8")
    assert producers.table(pd.read_csv(PAGE.parent / "results" / "producers.csv")) in page
    about = json.loads((PAGE.parent / "results" / "producers.json").read_text(encoding="utf-8"))
    assert f"Measured: {'; '.join(f'{key} {value}' for key, value in about.items())}." in page
    rate = {name: float(rate.replace(",", "")) for name, rate in re.findall(r"\| (\S.*?) \| \*\*([\d.,]+)\*\*", page)}
    times, percent = r"(\d+) times as [^`.]* as\s+`(.*?)`", r"`([^`]*)` reaches\s+(\d+) %"
    said = [(number, rate["produce_async"] / rate[name]) for number, name in re.findall(times, page)]
    said += [(number, 100 * rate[name] / rate["produce_async"]) for name, number in re.findall(percent, page)]
    assert len(said) == 4 and all(float(number) == float(f"{value:.2g}") for number, value in said), said
