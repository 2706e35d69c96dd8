"""What is said of a measurement: numbers that fit together, an interval, and what speaks against them."""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import report
from harness.results import Results
from harness.runs import BatchTiming, ProducerRun, order_of_runs


def a_run(mode, time_s, *, rtt_ms=0.1, batch_times=None, stopped="", **network):
    times = batch_times or [time_s / 40] * 40
    batches = [BatchTiming(500, elapsed_s, elapsed_s, 500) for elapsed_s in times]
    network |= {"produce_requests": 50, "rtt_ms": rtt_ms}
    return ProducerRun(mode, "r", batches, time_s, stopped=stopped, wait_quantiles_s=[0.1] * 201, network=network)


def measured(*runs, **environment):
    return Results(Path("nowhere"), environment, list(runs))


def runs_in_blocks(seed):
    rng = random.Random(seed)
    of = {"async": (0.064, 0.2), "sync": (3.65, 0.05)}
    return [a_run(mode, of[mode][0] * rng.lognormvariate(0, of[mode][1])) for mode in order_of_runs(6)]


@pytest.mark.parametrize("seed", range(5))
def test_who_divides_the_printed_times_gets_the_printed_ratio(seed):
    said = report.finding(measured(*runs_in_blocks(seed)))
    numbers = (
        r"about (\S+) times as fast.* in (\S+) s, .* in (\S+) s .*medians of 24 and 6 runs.* give (\S+) to (\S+) times"
    )
    ratio, fast, slow, low, high = re.search(numbers, said).groups()
    assert report.approx(float(slow) / float(fast)) == ratio
    assert float(low) < float(ratio) < float(high)


def test_most_repetitions_are_within_the_interval():
    ratios = [
        report.ratio_of_medians(*(report.run_times(runs_in_blocks(n), m) for m in ("sync", "async"))) for n in range(40)
    ]
    hits = sum(low <= again <= high for _, low, high in ratios for again, _, _ in ratios)
    assert 0.85 < hits / len(ratios) ** 2 <= 1


def test_at_a_distance_the_cost_of_a_message_is_said():
    said = report.finding(measured(a_run("async", 0.32), a_run("sync", 570, rtt_ms=28)))
    assert "(one run each, which does not show how much" in said and "16 microseconds" in said
    assert "29 ms synchronously" in said and "the ratio grows" in said


def test_an_estimate_that_missed_is_said_to_have_missed():
    assert "within 10 %" in report.estimate_check(measured(a_run("sync", 3.5), **{"estimated s": 3.6}))
    said = report.estimate_check(measured(a_run("sync", 11.8), **{"estimated s": 146.0}))
    assert "missed by more than 10 %" in said
    assert "no complete synchronous run" in report.estimate_check(measured(a_run("async", 1.0), **{"estimated s": 1.0}))


@pytest.mark.parametrize("seconds", [(4, 3, 2, 1), (1, 2, 3, 4), (1, 2, 1, 2)])
@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_drift_is_said(mode, seconds):
    way = {4: "faster", 1: "slower"}[seconds[0]]
    said = [f"The later {mode} runs were all {way} than the earlier ones."] if seconds != (1, 2, 1, 2) else []
    assert report.doubts([a_run(mode, s) for s in seconds]) == said


def test_a_run_that_stands_out_and_what_a_cloud_or_a_busy_machine_has_done_are_said():
    throttled, long = a_run("sync", 4.0, throttle_ms=120), a_run("sync", 9.0)
    slowed = a_run("sync", 4.0, batch_times=[0.05] * 20 + [0.15] * 20)
    said = report.doubts([a_run("sync", 4.0), throttled, slowed, long])
    whole = ["Run 2 was throttled", "Run 3 became twice as fast or as slow", "Run 4 took at least twice the median"]
    assert len(said) == 3 and all(map(str.startswith, said, whole))


def test_averages_are_medians_of_complete_runs_and_fit_together():
    """A reader who divides two of the printed numbers gets the third."""
    runs = [a_run(mode, s) for mode, s in (("sync", 1.04), ("async", 0.2), ("sync", 3.0), ("sync", 1.0))]
    compared = report.summarize(iter([*runs, a_run("sync", 1e-9, stopped="interrupted")]))
    sync = compared["sync"]
    assert (sync["runs"], sync["time_s"], compared["async"]["time_s"]) == (3, 1.04, 0.2)
    assert sync["messages"] / report.rounded(1.04) == pytest.approx(sync["response_rate"])
    assert sync["requests_rate"] * sync["messages_per_request"] == pytest.approx(sync["response_rate"])


@given(st.floats(1e-6, 1e9))
def test_two_digits_are_shown(value):
    assert float(report.approx(value).replace(",", "")) == report.rounded(value) == pytest.approx(value, rel=0.0501)
    shown = [report.approx(each) for each in (0.0123, 4.56, 78.96, 45_678, 0)]
    assert shown == ["0.012", "4.6", "79", "46,000", "0"]


def test_without_two_complete_modes_there_is_no_comparison():
    run = a_run("sync", 1.0)
    run.batches[0].failed, run.batches[0].acknowledged, run.errors = 2, 498, {"Local: Message timed out": 2}
    assert "no complete run of the synchronous producer" in report.finding(measured(a_run("async", 1.0), run))
    (said,) = report.doubts([run])
    assert said.startswith("Run 1 (sync) is incomplete") and "19,998 messages acknowledged, 2 failed" in said
    assert "2 with 'Local: Message timed out'" in said
    assert "no complete run" in report.finding(measured())


def test_the_faster_one_is_named_whichever_it_is():
    assert report.finding(measured(a_run("async", 2.0), a_run("sync", 1.0))).startswith("**The synchronous producer is")
    assert report.finding(measured(a_run("async", 1.0), a_run("sync", 1.04))).startswith("**Neither producer is")


def test_figures_are_drawn_with_settings_of_our_own(tmp_path):
    """The user's may need LaTeX, or an editor's backend."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    root = Path(__file__).resolve().parent.parent
    own = {"MATPLOTLIBRC": str(tmp_path), "MPLBACKEND": "module://of_an_editor", "PYTHONPATH": str(root), "PATH": ""}
    draw = "from harness.figures import new_figure; new_figure()[0].savefig('figure.png')"
    subprocess.run([sys.executable, "-c", draw], cwd=tmp_path, env={**os.environ, **own}, check=True)
    assert (tmp_path / "figure.png").stat().st_size > 1000
