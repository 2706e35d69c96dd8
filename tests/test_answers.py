"""What the second notebook says: predicted beside measured, a verdict, quotients of printed numbers, few words."""

import itertools
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import answers
from harness.answers import Answer
from harness.report import approx
from harness.results import Record, Results
from harness.runs import BatchTiming, ProducerRun

FAR = "25 ms away"


def number(text: str) -> float:
    return float(text.replace(",", ""))


def verdicts(answer: Answer) -> list[str]:
    assert len(answer.short.split()) <= 15, answer.short
    return [each for table in answer.tables for each in table["verdict"]]


positive = st.floats(1e-3, 1e6)


@given(positive, positive, positive, positive)
def test_a_verdict_is_on_what_is_printed(low, more, least, rest):
    table = answers.judge(pd.DataFrame(index=["it"]), "what", [(low, low + more)], [(least, least + rest)])
    shown = table.iloc[0].to_dict()
    measured, predicted = (
        [number(end) for end in shown[name].split(" to ")] for name in ("measured", "what: predicted")
    )
    inside = predicted[0] <= measured[0] and measured[-1] <= predicted[-1]
    outside = measured[-1] < predicted[0] or predicted[-1] < measured[0]
    assert (shown["verdict"] == "as predicted") == inside and (shown["verdict"] == "not as predicted") == outside


def looks(**seen: int) -> pd.DataFrame:
    programs = ["no callback", "no flush", "callback and flush", "no poll", "waits for its callback, nobody polls"]
    counts = {"no callback": 0, "no flush": 0, "callback and flush": 1, "no poll": 1} | seen
    rows = [("too large", program, 100, 99, counts.get(program, 1), "why") for program in programs]
    return pd.DataFrame(rows, columns=["fault", "program", "sent", "arrived", "seen", "reason"])


def test_who_looks_and_who_does_not():
    said = answers.nobody_looks(looks())
    assert said.short == "Of 2 programs without callback or flush that lost messages, none noticed."
    assert set(verdicts(said)) == {"as predicted"}
    assert answers.nobody_looks(looks(**{"no flush": 1})).verdict == "not as predicted"
    assert answers.nobody_looks(looks(**{"callback and flush": 0})).verdict == "not as predicted"


@pytest.mark.parametrize(
    ("sync", "hundred", "asyn", "expected"),
    [
        ([0, 0], [0, 74], [5, 3_000], ["as predicted"] * 3),
        ([0, 1], [0, 120], [0, 0], ["not as predicted"] * 3),
    ],
)
def test_what_a_dying_program_loses(sync, hundred, asyn, expected):
    ways = {"sync": sync, "wait after every 100": hundred, "async": asyn}
    table = pd.DataFrame([(way, lost) for way, each in ways.items() for lost in each], columns=["way", "lost"])
    said = answers.program_dies(table)
    assert verdicts(said) == expected and ("sync none" in said.short) == (max(sync) == 0)


def outage(lost: int, async_s: float) -> pd.DataFrame:
    rows = []
    for brokers, mode in itertools.product((1, 3), ("async", "sync")):
        for started_s in range(5):
            elapsed_s = 12.0 if mode == "sync" and started_s == 2 else 0.1
            rows.append((brokers, mode, 50, async_s if mode == "async" else elapsed_s, started_s, 1.5, lost, 0, 0))
    columns = [
        "brokers",
        "mode",
        "messages",
        "elapsed_s",
        "started_s",
        "killed_s",
        "missing",
        "duplicated",
        "out_of_order",
    ]
    table = pd.DataFrame(rows, columns=columns)
    late = (table["mode"] == "sync") & (table["started_s"] > 2)
    table.loc[late, "started_s"] += 12
    return table.assign(delivered_s=table["elapsed_s"])


def test_a_broker_that_dies():
    said = answers.brokers_die(outage(0, 0.1))
    assert set(verdicts(said)) == {"as predicted"} and said.short.startswith("None lost") and "13 s" in said.short
    assert answers.standstills(outage(0, 0.1)) == {1: (1.5, 14.0), 3: (1.5, 14.0)}
    assert answers.brokers_die(outage(2, 0.1)).short.startswith("8 lost")
    assert answers.brokers_die(outage(0, 2.0)).verdict == "not as predicted"


def turns(columns: list[str], times: dict[tuple, tuple[int, list[float]]]) -> pd.DataFrame:
    rows = [
        (*key, repeat, messages, seconds)
        for key, (messages, each) in times.items()
        for repeat, seconds in enumerate(each)
    ]
    return pd.DataFrame(rows, columns=[*columns, "repeat", "messages", "elapsed_s"])


def divides(table: pd.DataFrame, base: str) -> bool:
    quotients = table["messages / s"].map(number) / table[f"with {base}"].map(number)
    return quotients.map(approx).tolist() == table["times as fast"].tolist()


def test_waits_are_compared_with_a_wait_for_each():
    times = {("here", 0): (20_000, [0.061, 0.07]), (FAR, 0): (20_000, [0.2, 0.3])}
    times |= {("here", 1): (400, [0.0613, 0.07, 0.08]), ("here", 10): (4_000, [0.239, 0.24, 0.25])}
    times |= {(FAR, 1): (40, [1.07, 1.08]), (FAR, 10): (400, [1.13, 1.19])}
    said = answers.waits_between(turns(["place", "k"], times), FAR)
    assert verdicts(said) == ["as predicted", "as predicted"] and divides(said.tables[0], "k = 1")
    times[FAR, 10] = (400, [3.0, 3.1])
    assert answers.waits_between(turns(["place", "k"], times), FAR).verdict == "not as predicted"


def law(slope: float, own_ms: float, growth: float) -> pd.DataFrame:
    times = {}
    for ms in (5, 50, 0, 20):
        times["question", ms] = (1, [(ms + 0.4) / 1000] * 2)
        times["async", ms] = (20_000, [0.06 + growth * ms / 1000] * 2)
        times["sync", ms] = (100, [(slope * (ms + 0.4) + own_ms) / 10] * 2)
    return answers.points(turns(["mode", "set_ms"], times))


def requests(time_s: float, idempotence: str = "on") -> pd.DataFrame:
    table = turns(["partitions", "idempotence", "linger_ms"], {(6, idempotence, 5): (20_000, [time_s] * 3)})
    return table.assign(requests=12, request_ms=40.0)


def rehearsal(message_ms: float) -> Results:
    run = ProducerRun("sync", "", [BatchTiming(500, acknowledged=500)], elapsed_s=0.5 * message_ms)
    record = Record(cluster="Kafka (on this machine, 25 ms away)", num_messages=500)
    return Results(Path("nowhere"), record, [run])


@pytest.mark.parametrize(
    ("table", "time_s", "idempotence", "message_ms", "expected"),
    [
        (law(1.0, 1.0, 4), 0.1, "on", 26.0, ["as predicted"] * 5),
        (law(1.3, 2.0, 30), 0.05, "on", 60.0, ["not as predicted"] * 5),
        (law(1.0, 1.0, 4), 0.05, "off", 26.0, ["as predicted"] * 5),
        (law(1.0, 1.0, 4), 0.2, "off", 26.0, ["as predicted"] * 4 + ["not as predicted"]),
    ],
)
def test_both_laws_of_distance(table, time_s, idempotence, message_ms, expected):
    said = answers.distance(table, requests(time_s, idempotence), rehearsal(message_ms))
    assert verdicts(said) == expected
    by_law = said.tables[1].iloc[0]
    assert by_law["law (s)"] == approx(number(by_law["requests"]) / 6 * number(by_law["a request (ms)"]) / 1000)
    assert len(verdicts(answers.distance(table, requests(0.1), None))) == 4, "there may be no rehearsal"


def test_the_line_goes_through_the_medians():
    assert answers.line(law(0.98, 1.2, 4)) == pytest.approx((0.98, 1.2))


def first_messages(idempotent_s: float) -> pd.DataFrame:
    seconds = {"idempotent": idempotent_s, "idempotent, asks first": 0.02, "not idempotent": 0.012}
    rows = [("here", name, each, 0.002) for name, each in seconds.items()]
    return pd.DataFrame(rows, columns=["place", "producer", "first_s", "second_s"])


def test_what_safety_costs():
    usual = "acks=all, idempotent"
    times = {("here", "async", usual): (20_000, [0.06, 0.07]), ("here", "async", "acks=0"): (20_000, [0.05, 0.06])}
    times |= {("here", "sync", usual): (1_000, [0.2, 0.21]), ("here", "sync", "acks=0"): (1_000, [0.03, 0.04])}
    table = turns(["place", "mode", "settings"], times)
    said = answers.safety(table, first_messages(0.51))
    assert set(verdicts(said)) == {"as predicted"} and divides(said.tables[0], usual) and "0.51 s" in said.short
    assert answers.safety(table, first_messages(0.05)).verdict == "not as predicted"


def test_what_idempotence_costs_is_said_in_a_sentence():
    times = {
        ("here", "async", "acks=all, idempotent"): (20_000, [0.0613]),
        ("here", "async", "acks=all"): (20_000, [0.05]),
    }
    by_partitions = {(1, "on", 5): (20_000, [0.21]), (1, "off", 5): (20_000, [0.088]), (6, "on", 5): (20_000, [0.1])}
    said = answers.cost_of_idempotence(
        turns(["place", "mode", "settings"], times), turns(["partitions", "idempotence", "linger_ms"], by_partitions)
    )
    assert "330,000 and 400,000 here" in said and "0.21 s and 0.088 s" in said


def test_a_web_handler_waits():
    waits = {"AIOProducer, one by one": 2.0, "AIOProducer": 8.0, "Producer, a thread polls": 0.012}
    rows = [(way, wait_s, 0, 0.01) for way, wait_s in waits.items() for _ in range(4)]
    said = answers.web_handler(pd.DataFrame(rows, columns=["way", "wait_s", "in_time", "stop_s"]))
    assert set(verdicts(said)) == {"as predicted"} and "12 ms" in said.short
    assert said.tables[0]["messages"].tolist() == [4, 4, 4]


def test_mistakes_are_ratios_of_printed_times():
    rows = [
        ("right", "async", 20_000, 0.5, 0.03, 0.061),
        ("right", "sync", 5_000, 0.5, 1.2, 1.22),
        ("poll(0.1) after each", "async", 200, 0.5, 1.2, 1.2),
        ("sync by poll(0.1)", "sync", 200, 0.5, 1.2, 1.2),
        ("a producer for each batch", "async", 500, 0.5, 0.01, 0.015),
        ("a mean of rates", "async", 20_000, None, None, 0.02),
    ]
    columns = ["habit", "mode", "messages", "connecting_s", "queued_s", "elapsed_s"]
    found = answers.ratios_of_mistakes(pd.DataFrame(rows, columns=columns)).set_index("habit")
    assert found["ratio"].is_monotonic_decreasing
    assert found["async_s"].to_dict() == pytest.approx({
        "right": 0.061, "poll(0.1) after each": 120, "sync by poll(0.1)": 0.061, "a producer for each batch": 21,
        "a mean of rates": 0.02, "the clock stops when all is queued": 0.03,
        "the producer is made inside the clock": 0.56,
    })  # fmt: skip
    assert found["sync_s"]["right"] == 4.9 and found["sync_s"]["the producer is made inside the clock"] == 5.4
    said = answers.mistakes(found.reset_index())
    assert set(verdicts(said)) == {"as predicted"} and "right" not in said.tables[0].index
    shown = said.tables[0]
    assert (shown["sync (s)"].map(number) / shown["async (s)"].map(number)).map(approx).tolist() == shown[
        "measured"
    ].tolist()
    assert all(found.drop("right")["why"])


def test_how_sure():
    rows = [
        (mode, name, 20_000, time_s * more, time_s)
        for mode, time_s in (("async", 0.06), ("sync", 3.0))
        for name, more in (("A", 1.0), ("A again", 1.01), ("A", 1.02), ("A again", 0.99))
    ]
    same = pd.DataFrame(rows, columns=["mode", "name", "messages", "elapsed_s", "cpu_s"])
    batches = [BatchTiming(500, acknowledged=500)]
    runs = [
        ProducerRun(mode, "", batches, elapsed_s=s) for mode, s in (("async", 0.06), ("sync", 3.0)) for _ in range(3)
    ]
    saved = Results(Path("nowhere"), Record(), runs)
    said = answers.how_sure(saved, same)
    assert set(verdicts(said)) == {"as predicted"} and "50 to 50" in said.short
    same["cpu_s"] *= same["elapsed_s"] ** 2
    assert answers.how_sure(saved, same).verdict == "not as predicted"


def test_the_table_at_the_top_has_a_line_for_each_question():
    said = {2: answers.nobody_looks(looks())}
    lines = answers.overview(said).splitlines()
    assert len(lines) == 2 + len(answers.QUESTIONS)
    assert lines[3] == f"| 2 | {answers.QUESTIONS[1]} | {said[2].short} | as predicted |"
