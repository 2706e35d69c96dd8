"""What is said and shown of a measurement: averages, ratios, intervals, sentences, tables."""

import math
from collections.abc import Iterable, Sequence
from statistics import median

import numpy
import pandas as pd

from harness.results import Results
from harness.runs import NEAR_MS, ProducerRun, outcome, quantity

# --- Averages --------------------------------------------------------------------------------------------------------


def summarize(runs: Iterable[ProducerRun]) -> dict[str, dict[str, float]]:
    """For each mode with complete runs, in the order async, sync: medians over those runs.

    Rates are counts divided by the median time as it is printed, so that they can be checked by hand: in messages / s
    ``response_rate`` and ``request_rate``, in Produce requests / s ``requests_rate``.
    """
    runs = [run for run in runs if run.complete and run.acknowledged]
    return {mode: _medians([run for run in runs if run.mode == mode]) for mode in sorted({run.mode for run in runs})}


def _medians(runs: list[ProducerRun]) -> dict[str, float]:
    messages, time_s = median(run.acknowledged for run in runs), median(run.elapsed_s for run in runs)
    requests = median(run.network.get("produce_requests", 0) for run in runs)
    return {
        "runs": len(runs),
        "messages": messages,
        "time_s": time_s,
        "response_rate": messages / rounded(time_s),
        "request_rate": messages / rounded(median(run.submitting_s for run in runs)),
        "batch_s": median(batch.elapsed_s for run in runs for batch in run.batches),
        "delivered_s": median(batch.delivered_s for run in runs for batch in run.batches),
        "wait_s": median(run.wait_quantiles_s[100] for run in runs),
        "wait_99_s": median(run.wait_quantiles_s[198] for run in runs),
        "requests_rate": requests / rounded(time_s),
        "messages_per_request": messages / max(1, requests),
        "rtt_ms": median(run.network.get("rtt_ms", 0) for run in runs),
    }


def ratio_of_medians(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """The first values' median divided by the second's, and between what a repetition would find it: 95 %.

    A bootstrap with a fixed seed: how far is one drawn measurement from another? It knows nothing of other hours.
    """
    rng, draws = numpy.random.default_rng(7), 4000
    drawn = [numpy.median(rng.choice(values, (2, draws, len(values))), axis=2) for values in (first, second)]
    once, again = drawn[0] / drawn[1]
    low, high = numpy.quantile(again / once, (0.025, 0.975))
    ratio = median(first) / median(second)
    return ratio, float(ratio * low), float(ratio * high)


def approx(value: float) -> str:
    """A number with two significant digits: 0.012, 4.6, 79, 120, 46,000."""
    value = rounded(value)
    digits = max(0, 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{digits}f}"


def rounded(value: float) -> float:
    """The number that :func:`approx` prints; a half is rounded up."""
    return float(f"{value * (1 + 1e-9):.2g}")


def duration(seconds: float) -> str:
    """``3.2 microseconds``, ``28 ms``, ``4.5 s``, ``12 min``."""
    if seconds < 0.001:
        return f"{approx(1e6 * seconds)} microseconds"
    if seconds < 0.1:
        return f"{approx(1000 * seconds)} ms"
    return f"{approx(seconds)} s" if seconds < 100 else f"{approx(seconds / 60)} min"


# --- Predictions ------------------------------------------------------------------------------------------------------


def verdict(measured: tuple[float, float], predicted: tuple[float, float]) -> str:
    """Whether a measured range, low to high, bears out a predicted one; either end of that may be infinite.

    Returns:
        ``as predicted`` where it lies within, ``not as predicted`` where it lies outside, else ``not decided``.
    """
    low, high = measured
    least, most = predicted
    if least <= low and high <= most:
        return "as predicted"
    if high < least or most < low:
        return "not as predicted"
    return "not decided"


def joint(*verdicts: str) -> str:
    """The verdict of a prediction with several parts: as its worst part, of which *not as predicted* is the worst."""
    for worst in ("not as predicted", "not decided"):
        if worst in verdicts:
            return worst
    return "as predicted"


# --- Sentences -------------------------------------------------------------------------------------------------------

FULL_NAME = {"async": "asynchronous", "sync": "synchronous"}
CLEARLY = 1.1  # times as fast: less than that is called no difference
STANDS_OUT = 2.0  # a run that took so many times the median of its mode


def finding(results: Results) -> str:
    """The answer in some five sentences, with this measurement's numbers, as Markdown."""
    summary = summarize(results.runs)
    if missing := [FULL_NAME[mode] for mode in FULL_NAME if mode not in summary]:
        return f"**No comparison: there is no complete run of the {' or the '.join(missing)} producer.**"
    runs = [summary[mode]["runs"] for mode in FULL_NAME]
    varied = f"medians of {runs[0]} and {runs[1]} runs"
    if runs == [1, 1]:
        varied = "one run each, which does not show how much this varies"
    times = {mode: rounded(summary[mode]["time_s"]) for mode in FULL_NAME}
    fast, slow = sorted(times, key=lambda mode: times[mode])
    took = (
        f"it delivers {quantity(round(summary[fast]['messages']), 'message')} in {approx(times[fast])} s, the "
        f"{FULL_NAME[slow]} one in {approx(times[slow])} s ({varied})"
    )
    said = [f"**The {FULL_NAME[fast]} producer is about {approx(times[slow] / times[fast])} times as fast: {took}.**"]
    if times[slow] / times[fast] < CLEARLY:
        said = [f"**Neither producer is clearly faster; the {FULL_NAME[fast]} one, by a little: {took}.**"]
    if min(runs) > 1:
        _, low, high = ratio_of_medians(*(run_times(results.runs, mode) for mode in (slow, fast)))
        said.append(
            f"A repeat right away would give {approx(low)} to {approx(high)} times (95 %, from how these runs "
            "vary); another hour or another machine can move it more: see section 1 of going_further.ipynb."
        )
    cost = {mode: duration(times[mode] / summary[mode]["messages"]) for mode in FULL_NAME}
    said.append(f"A message costs {cost['async']} asynchronously and {cost['sync']} synchronously.")
    if summary["sync"]["rtt_ms"] > NEAR_MS:
        said.append(
            "At this distance the cost of a synchronous message holds for other numbers of messages, too; the ratio "
            "grows with them."
        )
    return " ".join(said + doubts(results.runs))


def run_times(runs: Iterable[ProducerRun], mode: str) -> list[float]:
    """The times of a mode's complete runs, in seconds."""
    return [run.elapsed_s for run in runs if run.mode == mode and run.complete]


def doubts(runs: Sequence[ProducerRun]) -> list[str]:
    """What speaks against taking a mode's runs for complete, independent and alike; a sentence each."""
    said = []
    for mode in FULL_NAME:
        times = run_times(runs, mode)
        if (half := len(times) // 2) >= 2:
            earlier, later = times[:half], times[-half:]
            if max(later) < min(earlier):
                said.append(f"The later {mode} runs were all faster than the earlier ones.")
            if min(later) > max(earlier):
                said.append(f"The later {mode} runs were all slower than the earlier ones.")
        for number, run in enumerate(runs, start=1):
            if run.mode != mode:
                continue
            if not run.complete:
                said.append(f"Run {number} ({mode}) is incomplete, and left out of the averages: {outcome(run)}.")
                continue
            if run.elapsed_s >= STANDS_OUT * median(times):
                said.append(f"Run {number} took at least twice the median of the {mode} runs.")
            if run.network.get("throttle_ms"):
                said.append(f"Run {number} was throttled by the cluster, which limits how much it takes.")
            if mode == "sync" and (quarter := len(run.batches) // 4) >= 2:
                batches = [batch.elapsed_s for batch in run.batches]
                fast, slow = sorted([median(batches[:quarter]), median(batches[-quarter:])])
                if slow >= STANDS_OUT * fast:
                    said.append(f"Run {number} became twice as fast or as slow on its way.")
    return said


def where_measured(results: Results) -> str:
    """Where and when the results come from, as a line of Markdown."""
    of = results.record
    return (
        f"*Measured on {of.date[:10]}: {of.cluster}, {quantity(of.brokers, 'broker')}; {of.cores} cores ({of.cpu}), "
        f"{of.os}, Python {of.python}, confluent-kafka {of.confluent_kafka}; load average before {of.load_average}. "
        f"Data: {results.folder.as_posix()}.*"
    )


def estimate_check(results: Results) -> str:
    """The estimated time of a synchronous run beside the measured one, and in words whether that was a miss."""
    times, estimated_s = run_times(results.runs, "sync"), results.record.estimated_s
    if not times or not estimated_s:
        return "There is no complete synchronous run to compare the estimate with."
    measured_s, estimated_s = rounded(median(times)), rounded(estimated_s)
    said = f"A synchronous run: {duration(estimated_s)} estimated, {duration(measured_s)} measured"
    if abs(measured_s / estimated_s - 1) <= 0.1:
        return f"{said}; the estimate was within 10 %."
    return f"{said}; the estimate missed by more than 10 %."


def accounts_sentence(accounts: pd.DataFrame | None) -> str:
    """Whether the accounts hold, as a sentence."""
    if accounts is None:
        return "Not checked: the topic was not read again after these runs."
    if not accounts["holds"].all():
        bad = ", ".join(map(str, accounts.loc[~accounts["holds"], "run"]))
        return f"The accounts do not hold for run {bad}: do not use its numbers."
    arrived = f"All {accounts['acknowledged'].sum():,} acknowledged messages arrived"
    said = [f"{arrived}: none missing, duplicated, damaged or out of order"]
    if failed := int(accounts["failed"].sum()):
        said.append(f"{quantity(failed, 'message')} failed, and {'is' if failed == 1 else 'are'} known")
    if foreign := accounts.attrs.get("foreign"):
        said.append(f"{quantity(foreign, 'message')} of other runs or programs left out")
    return "; ".join(said) + "."
