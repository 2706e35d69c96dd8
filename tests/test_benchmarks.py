"""The benchmark: each contestant sends what it is asked to send, and what is measured is saved and reported."""

import re
import shutil
from functools import partial

import pandas as pd
import pytest

from benchmarks import producers
from harness.results import Record

MESSAGES = [(producers.NO_KEY, b"%0100d" % number) for number in range(300)]


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


def test_rounds_alternate_and_are_published_without_a_secret(kafka, tmp_path):
    shutil.copytree(producers.HERE, tmp_path, dirs_exist_ok=True)
    rows = producers.compete(kafka.config, producers.CONTESTANTS[:2], 2, MESSAGES)
    names = [each.name for each in producers.CONTESTANTS[:2]]
    assert list(rows["contestant"]) == names[::-1] + names and list(rows["round"]) == [1, 1, 2, 2]
    everybody = [rows] + [
        rows.query("round == 1").head(1).assign(contestant=each.name) for each in producers.CONTESTANTS
    ]
    producers.publish(tmp_path, pd.concat(everybody).drop_duplicates(["round", "contestant"]), Record(num_messages=300))
    published = [tmp_path / "README.md", *tmp_path.glob("results/producers.*")]
    assert all(kafka.config["sasl.password"] not in file.read_text(encoding="utf-8") for file in published)
    assert "num_messages 300" in published[0].read_text(encoding="utf-8")


def test_measuring_alone_changes_no_file(kafka, monkeypatch, capsys):
    before = {file: file.read_bytes() for file in producers.HERE.rglob("*.*")}
    monkeypatch.setattr(producers, "MESSAGES", 300)
    monkeypatch.setattr(producers, "ROUNDS", 1)
    monkeypatch.setattr(producers, "CONTESTANTS", [each for each in producers.CONTESTANTS if each.name != "perf-test"])
    producers.main()
    assert "Nothing is saved" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in producers.HERE.rglob("*.*")} == before


def test_the_page_has_the_numbers_of_the_saved_results(tmp_path):
    shutil.copytree(producers.HERE, tmp_path, dirs_exist_ok=True)
    producers.write_page(tmp_path)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert page == (producers.HERE / "README.md").read_text(encoding="utf-8")
    rate = {name: float(rate.replace(",", "")) for name, rate in re.findall(r"\| (\S.*?) \| \*\*([\d.,]+)\*\*", page)}
    times, percent = r"(\d+) times as [^`.]* as\s+`(.*?)`", r"`([^`]*)` reaches\s+(\d+) %"
    said = [(number, rate["produce_async"] / rate[name]) for number, name in re.findall(times, page)]
    said += [(number, 100 * rate[name] / rate["produce_async"]) for name, number in re.findall(percent, page)]
    assert len(said) == 4 and all(float(number) == float(f"{value:.2g}") for number, value in said), said
