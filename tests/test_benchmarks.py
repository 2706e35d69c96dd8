"""The benchmark: each contestant sends what it is asked to send, and what is measured is saved and reported."""

import re
import shutil
from functools import partial

import pandas as pd
import pytest

from benchmarks import producers

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


def test_rounds_alternate_and_are_saved_without_a_secret(kafka, tmp_path):
    (tmp_path / "results").mkdir()
    producers.compete(kafka.config, tmp_path, producers.CONTESTANTS[:2], 2, MESSAGES)
    saved = pd.read_csv(tmp_path / "results" / "producers.csv")
    names = [each.name for each in producers.CONTESTANTS[:2]]
    assert list(saved.contestant) == names + names[::-1] and list(saved["round"]) == [1, 1, 2, 2]
    assert kafka.config["sasl.password"] not in "".join(file.read_text() for file in tmp_path.glob("results/*"))


def test_the_page_has_the_numbers_of_the_saved_results(tmp_path):
    shutil.copytree(producers.HERE, tmp_path, dirs_exist_ok=True)
    producers.report(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert page == (producers.HERE / "README.md").read_text()
    rate = {name: float(rate.replace(",", "")) for name, rate in re.findall(r"\| (\S.*?) \| \*\*([\d.,]+)\*\*", page)}
    times, percent = r"(\d+) times as [^`.]* as\s+`(.*?)`", r"`([^`]*)` reaches\s+(\d+) %"
    said = [(number, rate["produce_async"] / rate[name]) for number, name in re.findall(times, page)]
    said += [(number, 100 * rate[name] / rate["produce_async"]) for name, number in re.findall(percent, page)]
    assert len(said) == 4 and all(float(number) == float(f"{value:.2g}") for number, value in said), said
