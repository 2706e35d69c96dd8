"""What is said of a measurement: numbers that fit together, an interval, and what speaks against them."""

import hashlib
import json
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import figures, report
from harness.errors import ResultsError
from harness.results import COUNTS, Record, Results, load_measurements, load_results
from harness.runs import INTERRUPTED, BatchTiming, ProducerRun, batches_frame, order_of_runs

ROOT = Path(__file__).resolve().parent.parent
KNOWN = load_measurements(ROOT / "results" / "measurements.csv").query(
    "measurement < '2026-11-30_16'"
)  # those that are known so far


def a_run(mode, time_s, *, rtt_ms=0.1, batch_times=None, reports=0, stopped="", cpu_s=0.0, **network):
    times = batch_times or [time_s / 40] * 40
    batches = [BatchTiming(500, elapsed_s, elapsed_s, 500, reports=reports) for elapsed_s in times]
    network = {"produce_requests": 50, "rtt_ms": rtt_ms} | network
    quantiles = [0.1] * 201
    return ProducerRun(mode, "r", batches, time_s, cpu_s, stopped=stopped, wait_quantiles_s=quantiles, network=network)


def measured(*runs, kind="local", **record):
    return Results(Path("nowhere"), Record(kind, **record), list(runs))


def runs_in_blocks(seed):
    rng = random.Random(seed)
    of = {"async": (0.064, 0.2), "sync": (3.65, 0.05)}
    return [a_run(mode, of[mode][0] * rng.lognormvariate(0, of[mode][1])) for mode in order_of_runs(6)]


# --- The answer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_who_divides_the_printed_numbers_gets_the_printed_ones(seed):
    text = report.finding(measured(*runs_in_blocks(seed)))
    numbers = (
        r"costs it (\S+) microseconds, the synchronous one (\S+) microseconds\. "
        r"20,000 messages take (\S+) s and (\S+) s: about (\S+) times as fast on this machine "
        r"\(medians of 24 and 6 runs\)\.\*\* .* give (\S+) to (\S+) times"
    )
    cost, more, fast, slow, ratio, low, high = map(float, re.search(numbers, text).groups())
    assert report.rounded(slow / fast) == report.quotient(slow, fast) == ratio
    assert (cost, more) == tuple(report.rounded(1e6 * seconds / 20_000) for seconds in (fast, slow))
    assert low < ratio < high


def test_most_repetitions_are_within_the_interval():
    ratios = [
        report.ratio_of_medians(*(report.run_times(runs_in_blocks(n), m) for m in ("sync", "async"))) for n in range(40)
    ]
    hits = sum(low <= again <= high for _, low, high in ratios for again, _, _ in ratios)
    assert 0.85 < hits / len(ratios) ** 2 <= 1


def test_at_a_distance_the_place_is_said():
    text = report.finding(measured(a_run("async", 0.32), a_run("sync", 570, rtt_ms=28), kind="distant"), KNOWN)
    assert "a message costs it 16 microseconds, the synchronous one 29 ms." in text
    assert "about 1,800 times as fast at a round trip of 28 ms (one run each, which does not show how much" in text
    assert text.endswith("; the ratio grows.") and "known" not in text


@pytest.mark.parametrize(
    ("times", "place"),
    [(10, "below all of them"), (50, "between the lowest and the highest"), (200, "above all of them")],
)
def test_where_a_result_stands_among_known_ones(times, place):
    results = measured(a_run("async", 0.1), a_run("sync", 0.1 * times))
    known = "known measurements on 2 kinds of processor gave"
    assert f"18 other {known} 35 to 97 times; this one is {place}." in report.finding(results, KNOWN)
    results.folder = Path("results/2026-11-26_20-15-56_local")  # it was 35 times
    assert f"17 other {known} 41 to 97 times;" in report.finding(results, KNOWN)
    fewer = a_run("async", 0.1, batch_times=[0.1])
    assert report.standing(measured(fewer, a_run("sync", 1.0)), KNOWN) == "", "of another size"


def test_known_measurements_have_a_row_each():
    table = report.compare_measurements(KNOWN)
    assert len(table) == 18 and set(table["processor"]) == {"AMD EPYC", "Intel(R) Xeon(R) Processor"}
    for _, row in table.iterrows():
        assert row["times as fast"] == report.quotient(row["sync (s)"], row["async (s)"])
        assert float(row["async: a message (μs)"]) == pytest.approx(1e6 * row["async (s)"] / 20_000, rel=0.005)
        assert row["repeat: from"] < row["times as fast"] < row["to"]
    assert report.as_printed(table).loc["2026-11-30_12-58-52", "times as fast"] == "97"


def test_more_runs_buy_a_narrower_interval():
    table = report.interval_by_runs(measured(*runs_in_blocks(1)))
    widths = [float(width.rstrip("%")) for width in table["plus or minus"]]
    assert widths == sorted(widths, reverse=True) and table["async runs"].tolist() == [1, 12, 24, 48, 96]
    assert report.interval_by_runs(measured(a_run("async", 1.0))).empty


def test_an_estimate_that_missed_is_said_to_have_missed():
    assert "within 10 %" in report.estimate_check(measured(a_run("sync", 3.5), estimated_s=3.6))
    assert "missed by more than 10 %" in report.estimate_check(measured(a_run("sync", 11.8), estimated_s=146.0))
    assert "no complete synchronous run" in report.estimate_check(measured(a_run("async", 1.0), estimated_s=1.0))


def test_an_interrupted_measurement_says_so_first():
    runs = [a_run("async", 1.0), a_run("sync", 2.0), a_run("async", 1.0, stopped=INTERRUPTED)]
    text = report.finding(measured(*runs, planned_runs=30, num_messages=20_000))
    assert text.startswith("**The measurement was interrupted: 3 of 30 runs were begun. The asynchronous producer is")


# --- What speaks against it ------------------------------------------------------------------------------------------


def known_runs(measurement):
    of_one = KNOWN[KNOWN["measurement"] == measurement].sort_values("order")
    return [a_run(row.mode, row.elapsed_s) for row in of_one.itertuples()]


def test_drift_is_seen_in_few_of_the_known_measurements():
    """In these four: of 36 sequences by mode, two would be expected where there is none."""
    found = {name: report.drift(known_runs(name)) for name in KNOWN["measurement"].unique()}
    assert [name for name in found if found[name]] == [
        "2026-11-26_20-13-47",
        "2026-11-26_20-19-11",
        "2026-11-26_22-59-43",
        "2026-11-30_12-57-10",
    ]
    (sentence,) = found["2026-11-26_22-59-43"]
    assert "asynchronous runs became faster: the first 6 took 95 ms, the last 6 63 ms" in sentence


def test_steady_runs_rarely_count_as_drifting():
    rng = random.Random(5)
    steady = ([a_run("async", rng.lognormvariate(0, 0.2)) for _ in range(24)] for _ in range(200))
    assert 0 < sum(bool(report.drift(runs)) for runs in steady) < 24  # 10 are expected


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=8))
def test_rank_correlation(pairs):
    first, second = [one for one, _ in pairs], [other for _, other in pairs]
    correlation, chance = report.rank_correlation(first, second)
    assert -1 <= round(correlation, 9) <= 1 and 0 <= chance <= 1
    assert report.rank_correlation(second, first)[0] == pytest.approx(correlation)
    expected = pd.Series(first, dtype=float).rank().corr(pd.Series(second, dtype=float).rank())
    assert correlation == pytest.approx(0 if math.isnan(expected) else expected)


def test_the_chance_of_a_rank_correlation_is_that_of_all_orders():
    assert report.rank_correlation(range(5), [1, 2, 3, 4, 5])[1] == pytest.approx(2 / 120, abs=0.005)
    assert report.rank_correlation(range(4), [2, 1, 4, 3])[1] == pytest.approx(10 / 24, abs=0.02)


def test_what_stands_out_or_was_throttled_or_failed_is_said():
    failed = a_run("sync", 1.0)
    failed.batches[0].failed, failed.batches[0].acknowledged = 2, 498
    failed.errors = {"Local: Message timed out": 2}
    runs = [a_run("sync", 4.0), a_run("sync", 4.0, throttle_ms=120), a_run("sync", 9.0), failed, a_run("sync", 4.0)]
    assert report.doubts(runs) == [
        "Run 4 (sync) is incomplete, and left out of the averages: 19,998 messages acknowledged, 2 failed; "
        "2 with 'Local: Message timed out'.",
        "The cluster throttled run 2: it limits how much it takes.",
        "Run 3 took at least twice the median of the sync runs.",
    ]
    text = report.finding(measured(a_run("async", 1.0), failed))
    assert text.startswith("**No comparison: there is no complete run of the synchronous producer.** Run 2 (sync) is")


def test_whether_the_accounts_hold_is_said():
    runs = pd.DataFrame({"run": [1, 2], "acknowledged": [100, 99], "received": [100, 99], "failed": [0, 1]})
    kept = "All 199 acknowledged messages arrived: none missing, duplicated, damaged or out of order"
    assert report.accounts_sentence(runs.assign(holds=True)) == f"{kept}; 1 message failed, and is known."
    removed = report.accounts_sentence(runs.assign(holds=True, received=[100, 40], failed=0))
    assert removed.startswith("140 acknowledged messages are there; 59 were removed by the topic's retention before")
    lost = report.accounts_sentence(runs.assign(holds=[True, False]))
    assert lost == "The accounts do not hold for run 2: do not use its numbers."
    assert report.accounts_sentence(None).startswith("Not checked")


# --- What varies, and why --------------------------------------------------------------------------------------------


def test_batches_that_serve_reports_are_told_from_those_that_do_not():
    runs = [a_run("async", 1.0, batch_times=[0.001] * 30), a_run("async", 1.0, batch_times=[0.007] * 10, reports=3)]
    table = report.batches_by_reports(measured(*runs, a_run("sync", 1.0)))
    assert table.values.tolist() == [[30, 1.0, "30%"], [10, 7.0, "70%"]]


def test_synchronous_runs_differ_by_their_round_trip():
    table = report.sync_runs(
        measured(a_run("async", 1.0), a_run("sync", 3.0, rtt_ms=0.1), a_run("sync", 4.0, rtt_ms=0.15))
    )
    assert table.values.tolist() == [[150, 100, 50], [200, 150, 50]] and table.index.tolist() == ["run 2", "run 3"]


def test_asynchronous_runs_beside_their_requests():
    runs = [a_run("async", seconds, produce_requests=n) for seconds, n in ((0.2, 50), (0.1, 12), (0.3, 60))]
    for run, cpu_s in zip(runs, (0.3, 0.2, 0.1), strict=True):
        run.cpu_s = cpu_s
    results = measured(*runs)
    assert report.async_runs_by_requests(results).values.tolist() == [
        [0.1, 0.2, 12, 1700],
        [0.2, 0.3, 50, 400],
        [0.3, 0.1, 60, 330],
    ]
    text = report.what_async_runs_go_with(results)
    assert "processor time: -0.50" in text and "requests: 1.00" in text


def test_slow_first_batches_are_said():
    slow = a_run("sync", 3.5, batch_times=[0.122, 0.126, 0.178, 0.2] + [0.078] * 36)
    text = report.odd_batches(measured(a_run("async", 0.1), slow))
    assert text == "Run 2 (sync) took 120 to 200 ms in its first 4 batches; its median batch took 78 ms."
    assert report.odd_batches(measured(a_run("sync", 3.5))).startswith("No run began with")


def test_averages_are_medians_of_complete_runs_and_fit_together():
    """A reader who divides two of the printed numbers gets the third."""
    runs = [a_run(mode, s) for mode, s in (("sync", 1.04), ("async", 0.2), ("sync", 3.0), ("sync", 1.0))]
    compared = report.summarize(iter([*runs, a_run("sync", 1e-9, stopped=INTERRUPTED)]))
    sync = compared["sync"]
    assert (sync["runs"], sync["time_s"], compared["async"]["time_s"]) == (3, 1.0, 0.2)
    assert sync["messages"] / 1.0 == pytest.approx(sync["response_rate"])
    assert (sync["message_us"], sync["cpu_us"]) == (50, 0)
    assert sync["requests_rate"] * sync["messages_per_request"] == pytest.approx(sync["response_rate"])


def test_processor_time_of_a_message():
    runs = [a_run("async", 0.1, cpu_s=0.06), a_run("sync", 3.0, cpu_s=1.2)]
    assert [of_mode["cpu_us"] for of_mode in report.summarize(runs).values()] == [3.0, 60.0]


@given(st.floats(1e-6, 1e9), st.floats(1e-6, 1e9))
def test_two_digits_are_shown(value, other):
    assert float(report.approx(value).replace(",", "")) == report.rounded(value) == pytest.approx(value, rel=0.0501)
    printed = [float(report.approx(each).replace(",", "")) for each in (value, other)]
    assert report.quotient(value, other) == report.rounded(printed[0] / printed[1])
    shown = [report.approx(each) for each in (0.0123, 4.56, 78.96, 45_678, 0)]
    assert shown == ["0.012", "4.6", "79", "46,000", "0"]


def test_the_faster_one_is_named_whichever_it_is():
    assert report.finding(measured(a_run("async", 2.0), a_run("sync", 1.0))).startswith("**The synchronous producer is")
    assert report.finding(measured(a_run("async", 1.0), a_run("sync", 1.04))).startswith("**Neither producer is")


# --- Predictions -----------------------------------------------------------------------------------------------------

numbers = st.integers(-9, 9) | st.sampled_from([-math.inf, math.inf])
ranges = st.tuples(numbers, numbers).map(sorted).map(tuple)
VERDICTS = ("as predicted", "not as predicted", "not decided")


@given(ranges, ranges)
def test_verdict(measured_range, predicted):
    found = report.verdict(measured_range, predicted)
    assert found in VERDICTS
    values = [*measured_range, measured_range[0] / 2 + measured_range[1] / 2]
    within = [predicted[0] <= value <= predicted[1] for value in values if not math.isnan(value)]
    if found == "as predicted":
        assert all(within)
    if found == "not as predicted":
        assert not any(within) and report.verdict(predicted, measured_range) == "not as predicted"
    assert report.verdict(measured_range, (-math.inf, math.inf)) == "as predicted"


@given(st.lists(st.sampled_from(VERDICTS)))
def test_a_prediction_of_several_parts_is_as_its_worst(parts):
    worst = max(parts, key=("as predicted", "not decided", "not as predicted").index, default="as predicted")
    assert report.joint(*parts) == worst == report.joint(*reversed(parts))


# --- Whatever a folder holds -----------------------------------------------------------------------------------------


def draw_all(results):
    """Everything that is made from saved results, as text."""
    tables = (report.batches_by_reports, report.sync_runs, report.async_runs_by_requests, report.interval_by_runs)
    for make in tables:
        report.as_printed(make(results)).to_string()
    batches_frame(results.runs).pivot(index=["batch", "run"], columns="mode", values="elapsed_s")
    for numbers_ in report.summarize(results.runs).values():
        assert all(report.approx(number) for number in numbers_.values())
    figures.runs_in_order(results.runs)
    sentences = [
        report.finding(results, KNOWN),
        report.where_measured(results),
        report.estimate_check(results),
        report.what_async_runs_go_with(results),
        report.odd_batches(results),
        report.accounts_sentence(results.tables.get("accounts")),
    ]
    return " ".join(sentences)


batches = st.builds(
    BatchTiming,
    messages=st.integers(0, 3),
    elapsed_s=st.floats(0, 9),
    acknowledged=st.integers(0, 3),
    failed=st.integers(0, 3),
    reports=st.integers(0, 3),
)
any_run = st.builds(
    ProducerRun,
    mode=st.sampled_from(["async", "sync"]),
    batches=st.lists(batches, max_size=9),
    elapsed_s=st.floats(0, 9),
    errors=st.dictionaries(st.text(), st.integers(0, 9), max_size=2),
    stopped=st.sampled_from(["", INTERRUPTED, "no acknowledgement within 5 s"]),
    wait_quantiles_s=st.sampled_from([[], [0.1] * 201]),
    network=st.sampled_from([{}, {"produce_requests": 3, "rtt_ms": 9.0, "throttle_ms": 1.0}]),
)


@settings(max_examples=50)
@given(st.lists(any_run, max_size=6), st.integers(0, 6))
def test_any_measurement_can_be_drawn(runs, planned):
    draw_all(measured(*runs, planned_runs=planned))


ODD = [None, "many", "", -1, 0, True, [], {}, "../../x", 10**400, 1e300, 2.5]


@settings(max_examples=100)
@given(data=st.data())
def test_whatever_another_program_has_saved_is_refused_or_can_be_drawn(tmp_path_factory, data):
    """With the right digest, but a value somewhere that is odd, missing or under another name."""
    folder = tmp_path_factory.getbasetemp() / "odd"
    accounts = pd.DataFrame({name: [1, 2] for name in COUNTS}).assign(run_id="a", mode=["async", "sync"], holds=True)
    runs = [a_run("async", 1.0), a_run("sync", 9.0, batch_times=[1.0] * 9)]
    Results(folder, Record("local"), runs, tables={"accounts": accounts}).save()
    whole = node = json.loads((folder / "results.json").read_text())
    del whole["sha256"]
    while isinstance(node, dict | list) and node and (node is whole or data.draw(st.integers(0, 3))):
        parent = node
        key = data.draw(st.sampled_from(range(len(node)) if isinstance(node, list) else sorted(node)))
        node = parent[key]
    before = parent.pop(key)
    put = data.draw(st.sampled_from(["odd", "renamed", "nothing"]))
    if put != "nothing" and isinstance(parent, dict):
        parent["../../x" if put == "renamed" else key] = before if put == "renamed" else data.draw(st.sampled_from(ODD))
    elif put == "odd":
        parent.insert(key, data.draw(st.sampled_from(ODD)))
    body = json.dumps(whole)[1:].encode()
    first_line = f'{{"sha256": "{hashlib.sha256(body).hexdigest()}",\n'
    (folder / "results.json").write_bytes(first_line.encode() + body)
    try:
        results = load_results(folder)
    except ResultsError as error:
        assert str(error).endswith("by another version of this program; restore it, or measure again.")
    else:
        draw_all(results)


@settings(max_examples=50)
@given(st.text() | st.sampled_from(["<script>x</script>", "`<b>x", "[x](http://a.b)", "$x$", "a\n\n# b", "\x1b[31m"]))
def test_markup_of_others_is_only_text(text):
    failed = ProducerRun("sync", stopped=text, errors={text: 1})
    record = dict.fromkeys(["cluster", "cpu", "os", "python", "confluent_kafka"], text)
    shown = draw_all(measured(failed, **record))
    assert not re.search(r"[<>\[`$#\n\x1b]|&(?!#)", re.sub(r"&#\d+;", "", shown))


def test_figures_are_drawn_with_settings_of_our_own(tmp_path):
    """The user's may need LaTeX, or an editor's backend."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    own = {"MATPLOTLIBRC": str(tmp_path), "MPLBACKEND": "module://of_an_editor", "PYTHONPATH": str(ROOT), "PATH": ""}
    draw = """import matplotlib; from harness.figures import new_figure
assert matplotlib.rcParams["text.usetex"], "importing has changed the user's own"
new_figure()[0].savefig("figure.png")"""
    subprocess.run([sys.executable, "-c", draw], cwd=tmp_path, env={**os.environ, **own}, check=True)
    assert (tmp_path / "figure.png").stat().st_size > 1000
