"""What is said of a measurement: averages, ratios, intervals, sentences, tables. Nothing here draws or sends.

Numbers in the tables are rounded to two digits already, so that a quotient is that of the numbers beside it;
:func:`as_printed` turns them into text.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import median

import numpy
import pandas as pd

from harness.results import Results
from harness.runs import NEAR_MS, ProducerRun, order_of_runs, outcome, printable, quantity

FULL_NAME = {"async": "asynchronous", "sync": "synchronous"}
CLEARLY = 1.1  # times as fast: less than that is called no difference
STANDS_OUT = 2.0  # a run that took so many times the median of its mode
SLOW_START = 1.5  # a batch that took so many times the median of its run,
SLOW_BATCHES = 3  # and so many of them at its beginning
DRIFT_P = 0.05  # a rank correlation that chance brings less often than so is a drift: in one of 20 steady sequences

MARKUP = str.maketrans({sign: f"&#{ord(sign)};" for sign in r"<>&`*[]|\$~#"})

# --- Rounding: one way, everywhere -----------------------------------------------------------------------------------


def rounded(value: float) -> float:
    """The number that :func:`approx` prints: two significant digits; a half is rounded up."""
    return float(f"{value * (1 + 1e-9):.2g}")


def quotient(first: float, second: float) -> float:
    """What a reader gets who divides the two numbers as they are printed, rounded again."""
    return rounded(rounded(first) / rounded(second))


def approx(value: float) -> str:
    """A number with two significant digits: 0.012, 4.6, 79, 120, 46,000."""
    value = rounded(value)
    digits = 0
    if value and math.isfinite(value):
        digits = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def as_printed(table: pd.DataFrame) -> pd.DataFrame:
    """A table with its fractions printed as :func:`approx` does; whole numbers and text stay."""
    return table.map(lambda cell: approx(cell) if isinstance(cell, float) else cell)


def duration(seconds: float) -> str:
    """``3.2 microseconds``, ``28 ms``, ``4.5 s``, ``12 min``."""
    if seconds < 0.001:
        return f"{approx(1e6 * seconds)} microseconds"
    if seconds < 0.1:
        return f"{approx(1000 * seconds)} ms"
    return f"{approx(seconds)} s" if seconds < 100 else f"{approx(seconds / 60)} min"


# --- Averages --------------------------------------------------------------------------------------------------------


def complete_runs(runs: Iterable[ProducerRun], mode: str) -> dict[int, ProducerRun]:
    """A mode's runs that count, by their number from 1: complete ones with messages."""
    numbered = enumerate(runs, start=1)
    return {n: run for n, run in numbered if run.mode == mode and run.complete and run.acknowledged and run.elapsed_s}


def run_times(runs: Iterable[ProducerRun], mode: str) -> list[float]:
    """The times of a mode's complete runs, in seconds."""
    return [run.elapsed_s for run in complete_runs(runs, mode).values()]


def summarize(runs: Iterable[ProducerRun]) -> dict[str, dict[str, float]]:
    """For each mode with complete runs, in the order async, sync: medians over those runs, and their quotients.

    ``time_s``, ``requests`` and what is divided by them are as printed, so that they can be checked by hand: in
    messages / s ``response_rate`` and ``request_rate``, in Produce requests / s ``requests_rate``, and ``message_us``,
    the microseconds that a message takes. ``cpu_us`` is its processor time; 0 in results that have none.
    """
    runs = list(runs)
    of_mode = {mode: list(complete_runs(runs, mode).values()) for mode in FULL_NAME}
    return {mode: _medians(some) for mode, some in of_mode.items() if some}


def _medians(runs: list[ProducerRun]) -> dict[str, float]:
    messages = median(run.acknowledged for run in runs)
    time_s = rounded(median(run.elapsed_s for run in runs))
    requests = rounded(median(run.network.get("produce_requests", 0) for run in runs))
    return {
        "runs": len(runs),
        "messages": messages,
        "time_s": time_s,
        "message_us": rounded(1e6 * time_s / messages),
        "cpu_us": rounded(median(1e6 * run.cpu_s / run.acknowledged for run in runs)),
        "response_rate": messages / time_s,
        "request_rate": median(run.request_rate for run in runs),
        "batch_s": median(batch.elapsed_s for run in runs for batch in run.batches),
        "delivered_s": median(batch.delivered_s for run in runs for batch in run.batches),
        "wait_s": median(run.wait_s(0.5) for run in runs),
        "wait_99_s": median(run.wait_s(0.99) for run in runs),
        "requests": requests,
        "requests_rate": requests / time_s,
        "messages_per_request": messages / max(1, requests),
        "rtt_ms": median(run.network.get("rtt_ms", 0) for run in runs),
    }


def ratio_of_medians(
    first: Sequence[float], second: Sequence[float], draws: tuple[int, int] | None = None
) -> tuple[float, float, float]:
    """The first values' median divided by the second's, and between what a repetition would find it: 95 %.

    A bootstrap with a fixed seed: how far is one drawn measurement from another? It knows nothing of other hours.
    ``draws`` are the numbers of values in such a measurement, where they are not those at hand.
    """
    rng = numpy.random.default_rng(7)
    numbers = draws or (len(first), len(second))
    medians = [
        numpy.median(rng.choice(values, (2, 4000, number)), axis=2)
        for values, number in zip((first, second), numbers, strict=True)
    ]
    once, again = medians[0] / medians[1]
    low, high = numpy.quantile(again / once, (0.025, 0.975))
    ratio = rounded(median(first)) / rounded(median(second))
    return ratio, float(ratio * low), float(ratio * high)


def interval_by_runs(results: Results) -> pd.DataFrame:
    """What interval more or fewer blocks of runs would buy, drawn from these runs; no row without two of each mode."""
    slow, fast = run_times(results.runs, "sync"), run_times(results.runs, "async")
    rows = []
    if min(len(slow), len(fast)) > 1:
        for blocks in (1, 3, 6, 12, 24):
            order = order_of_runs(blocks)
            runs = order.count("sync"), order.count("async")
            ratio, low, high = ratio_of_medians(slow, fast, runs)
            half_width = (rounded(high) - rounded(low)) / 2 / rounded(ratio)
            rows.append((runs[1], runs[0], rounded(low), rounded(high), f"{approx(100 * half_width)}%"))
    return pd.DataFrame(rows, columns=["async runs", "sync runs", "from (times)", "to (times)", "plus or minus"])


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
    order = ("as predicted", "not decided", "not as predicted")
    return max(verdicts, key=order.index, default="as predicted")


# --- The answer ------------------------------------------------------------------------------------------------------


def finding(results: Results, known: pd.DataFrame | None = None) -> str:
    """The answer in two or three sentences, with this measurement's numbers, as Markdown; then what speaks against it.

    ``known`` are the runs of other measurements, as :func:`harness.results.load_measurements` has them.
    """
    summary = summarize(results.runs)
    answer = _interruption(results)
    remarks = []
    missing = [FULL_NAME[mode] for mode in FULL_NAME if mode not in summary]
    if missing:
        answer += f"No comparison: there is no complete run of the {' or the '.join(missing)} producer."
    else:
        answer += _comparison(results, summary)
        remarks = [_repetition(results), standing(results, known), _distance(summary["sync"]["rtt_ms"])]
    return " ".join([f"**{answer}**", *filter(None, remarks), *doubts(results.runs)])


def _interruption(results: Results) -> str:
    if results.state != "interrupted":
        return ""
    return f"The measurement was interrupted: {len(results.runs)} of {results.record.planned_runs} runs were begun. "


def _comparison(results: Results, summary: dict[str, dict[str, float]]) -> str:
    fast, slow = sorted(FULL_NAME, key=lambda mode: summary[mode]["time_s"])
    times = quotient(summary[slow]["time_s"], summary[fast]["time_s"])
    opening = f"The {FULL_NAME[fast]} producer is faster: a message costs it"
    if times < CLEARLY:
        opening = f"Neither producer is clearly faster: a message costs the {FULL_NAME[fast]} one"
    cost, more = (duration(summary[mode]["message_us"] / 1e6) for mode in (fast, slow))
    messages = quantity(round(summary[fast]["messages"]), "message")
    place = "on this machine"
    if results.record.kind != "local":
        place = f"at a round trip of {approx(summary['sync']['rtt_ms'])} ms"
    runs = [summary[mode]["runs"] for mode in (fast, slow)]
    basis = f"medians of {runs[0]} and {runs[1]} runs"
    if runs == [1, 1]:
        basis = "one run each, which does not show how much this varies"
    return (
        f"{opening} {cost}, the {FULL_NAME[slow]} one {more}. {messages} take {approx(summary[fast]['time_s'])} s and "
        f"{approx(summary[slow]['time_s'])} s: about {approx(times)} times as fast {place} ({basis})."
    )


def _repetition(results: Results) -> str:
    times = [run_times(results.runs, mode) for mode in ("async", "sync")]
    if min(map(len, times)) < 2:
        return ""
    slow, fast = sorted(times, key=median, reverse=True)
    _, low, high = ratio_of_medians(slow, fast)
    return f"A repeat right away would give {approx(low)} to {approx(high)} times (95 %)."


def _distance(rtt_ms: float) -> str:
    if rtt_ms <= NEAR_MS:
        return ""
    return "At this distance the cost of a synchronous message stays the same with more messages; the ratio grows."


# --- Known measurements ----------------------------------------------------------------------------------------------


def compare_measurements(known: pd.DataFrame) -> pd.DataFrame:
    """A row for each measurement with runs of both producers: where, times, costs of a message, ratio, its interval."""
    rows = {}
    for name, runs in known.groupby("measurement"):
        times = {mode: some["elapsed_s"].tolist() for mode, some in runs.groupby("mode")}
        if not {"async", "sync"} <= set(times):
            continue
        fast_s = rounded(median(times["async"]))
        slow_s = rounded(median(times["sync"]))
        ratio, low, high = ratio_of_medians(times["sync"], times["async"])
        first = runs.iloc[0]
        rows[name] = {
            "processor": first["cpu"],
            "cores": first["cores"],
            "async (s)": fast_s,
            "sync (s)": slow_s,
            "async: a message (μs)": f"{1e6 * fast_s / first['messages']:.3g}",  # exact, so that quotients agree
            "sync: a message (μs)": f"{1e6 * slow_s / first['messages']:.3g}",
            "times as fast": rounded(ratio),
            "repeat: from": rounded(low),
            "to": rounded(high),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def standing(results: Results, known: pd.DataFrame | None) -> str:
    """Where a local result stands among other known measurements of as many messages; nothing where that is unknown."""
    summary = summarize(results.runs)
    if known is None or len(summary) < 2 or results.record.kind != "local":
        return ""
    alike = known["messages"] == summary["async"]["messages"]
    itself = known["measurement"] == results.folder.name.removesuffix("_local")
    others = compare_measurements(known[alike & ~itself])
    if others.empty:
        return ""
    ratio = quotient(summary["sync"]["time_s"], summary["async"]["time_s"])
    lowest, highest = others["times as fast"].min(), others["times as fast"].max()
    place = "between the lowest and the highest"
    if ratio < lowest:
        place = "below all of them"
    if ratio > highest:
        place = "above all of them"
    number = quantity(len(others), "other known measurement")
    kinds = quantity(others["processor"].nunique(), "kind")
    return f"{number} on {kinds} of processor gave {approx(lowest)} to {approx(highest)} times; this one is {place}."


# --- What speaks against it ------------------------------------------------------------------------------------------


def doubts(runs: Sequence[ProducerRun]) -> list[str]:
    """What speaks against taking a mode's runs for complete, independent and alike; a sentence each."""
    sentences = []
    for find in (incomplete, throttled, unread, standing_out, drift):
        sentences += find(runs)
    return sentences


def incomplete(runs: Sequence[ProducerRun]) -> list[str]:
    """The runs that were stopped, or of which messages failed; with what became of the first."""
    found = [(number, run) for number, run in enumerate(runs, start=1) if not run.complete]
    if not found:
        return []
    number, run = found[0]
    if len(found) == 1:
        return [f"Run {number} ({run.mode}) is incomplete, and left out of the averages: {literal(outcome(run))}."]
    more = f"and {len(found) - 1} more are incomplete, and left out of the averages"
    return [f"Run {number} ({run.mode}) {more}; of the first: {literal(outcome(run))}."]


def throttled(runs: Sequence[ProducerRun]) -> list[str]:
    """The runs that the cluster held back."""
    numbers = [str(number) for number, run in enumerate(runs, start=1) if run.network.get("throttle_ms")]
    return [f"The cluster throttled run {', '.join(numbers)}: it limits how much it takes."] if numbers else []


def unread(runs: Sequence[ProducerRun]) -> list[str]:
    """The runs of which the client's statistics could not be read as a whole."""
    numbers = [str(number) for number, run in enumerate(runs, start=1) if run.network.get("unread")]
    return [f"Of run {', '.join(numbers)} the client's statistics are incomplete."] if numbers else []


def standing_out(runs: Sequence[ProducerRun]) -> list[str]:
    """The runs that took much longer than the others of their mode."""
    sentences = []
    for mode in FULL_NAME:
        times = run_times(runs, mode)
        slow = [str(n) for n, run in complete_runs(runs, mode).items() if run.elapsed_s >= STANDS_OUT * median(times)]
        if slow:
            sentences.append(f"Run {', '.join(slow)} took at least twice the median of the {mode} runs.")
    return sentences


def drift(runs: Sequence[ProducerRun]) -> list[str]:
    """The modes whose times rise or fall with the order of the runs, more than chance does in one case of twenty."""
    sentences = []
    for mode in FULL_NAME:
        times = run_times(runs, mode)
        correlation, chance = rank_correlation(range(len(times)), times)
        if chance >= DRIFT_P:
            continue
        quarter = max(2, len(times) // 4)
        before, after = (duration(median(some)) for some in (times[:quarter], times[-quarter:]))
        way = "faster" if correlation < 0 else "slower"
        sentences.append(
            f"The {FULL_NAME[mode]} runs became {way}: the first {quarter} took {before}, the last {quarter} {after} "
            f"(medians; rank correlation with their order {correlation:.2f}, p = {chance:.2g})."
        )
    return sentences


def rank_correlation(first: Iterable[float], second: Iterable[float]) -> tuple[float, float]:
    """Spearman's rank correlation of paired values, and how often chance alone brings one as far from 0.

    That is counted in 10,000 random orders, with a fixed seed, and the given one. (0, 1) where all values are equal.
    """
    ranks = [pd.Series(values, dtype=float).rank().to_numpy() for values in (first, second)]
    one, other = (values - values.mean() if len(values) else values for values in ranks)
    scale = math.sqrt((one @ one) * (other @ other))
    if not scale:
        return 0.0, 1.0
    shuffled = numpy.random.default_rng(7).permuted(numpy.tile(other, (10_000, 1)), axis=1)
    correlation = one @ other / scale
    as_far = numpy.abs(shuffled @ one) >= abs(one @ other) * (1 - 1e-9)
    return float(correlation), (int(as_far.sum()) + 1) / (len(as_far) + 1)


# --- What varies, and why --------------------------------------------------------------------------------------------


def batches_by_reports(results: Results) -> pd.DataFrame:
    """The asynchronous batches that served no delivery reports, and those that did: how many, how long, what share."""
    batches = [batch for run in complete_runs(results.runs, "async").values() for batch in run.batches]
    all_s = sum(batch.elapsed_s for batch in batches)
    rows = {}
    for name, served in (("served no reports", False), ("served reports", True)):
        times = [batch.elapsed_s for batch in batches if bool(batch.reports) == served]
        if times and all_s:
            share = f"{sum(times) / all_s:.0%}"
            rows[name] = {"batches": len(times), "median (ms)": rounded(1000 * median(times)), "share of time": share}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["batches", "median (ms)", "share of time"])


def sync_runs(results: Results) -> pd.DataFrame:
    """A row for each synchronous run: the whole microseconds of a message, of its round trip, and what is left."""
    columns = ["a message (μs)", "its round trip (μs)", "the rest (μs)"]
    rows = {}
    for number, run in complete_runs(results.runs, "sync").items():
        message_us = round(1e6 * run.elapsed_s / run.acknowledged)
        round_trip_us = round(1000 * run.network.get("rtt_ms", 0))
        rows[f"run {number}"] = (message_us, round_trip_us, message_us - round_trip_us)
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def async_runs_by_requests(results: Results) -> pd.DataFrame:
    """The fastest asynchronous run, one in the middle, the slowest: times, requests, messages in a request."""
    columns = ["time (s)", "processor time (s)", "Produce requests", "messages in a request"]
    runs = sorted(complete_runs(results.runs, "async").values(), key=lambda run: run.elapsed_s)
    if not runs:
        return pd.DataFrame(columns=columns)
    rows = {}
    middle = len(runs) // 2
    for name, run in (("fastest", runs[0]), (f"number {middle + 1}", runs[middle]), ("slowest", runs[-1])):
        requests = round(run.network.get("produce_requests", 0))
        messages = rounded(run.acknowledged / max(1, requests))
        rows[name] = (rounded(run.elapsed_s), rounded(run.cpu_s), requests, messages)
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def what_async_runs_go_with(results: Results) -> str:
    """How the asynchronous runs' times go with their processor time and with their requests, in a sentence."""
    runs = complete_runs(results.runs, "async").values()
    times = [run.elapsed_s for run in runs]
    by_cpu, _ = rank_correlation(times, [run.cpu_s for run in runs])
    by_requests, _ = rank_correlation(times, [run.network.get("produce_requests", 0) for run in runs])
    return (
        f"Rank correlation of an asynchronous run's time with its processor time: {by_cpu:.2f}; "
        f"with the number of its Produce requests: {by_requests:.2f}."
    )


def odd_batches(results: Results) -> str:
    """The runs that began with much slower batches than their median, in a sentence each; or that none did."""
    sentences = []
    for number, run in enumerate(results.runs, start=1):
        times = [1000 * batch.elapsed_s for batch in run.batches]
        usual = median(times) if times else 0.0
        slow = 0
        while slow < len(times) and times[slow] > SLOW_START * usual:
            slow += 1
        if slow >= SLOW_BATCHES:
            span = f"{approx(min(times[:slow]))} to {approx(max(times[:slow]))} ms"
            usually = f"its median batch took {approx(usual)} ms"
            sentences.append(f"Run {number} ({run.mode}) took {span} in its first {slow} batches; {usually}.")
    return " ".join(sentences) or "No run began with batches that were much slower than its others."


# --- Other sentences -------------------------------------------------------------------------------------------------


def literal(text: str) -> str:
    """A text of another program's or a file's, with nothing in it that Markdown or HTML would take for markup."""
    return printable(text).translate(MARKUP) or "?"


def where_measured(results: Results) -> str:
    """Where and when the results come from, as a line of Markdown."""
    record = results.record
    return (
        f"*Measured on {record.date[:10]}: {literal(record.cluster)}, {quantity(record.brokers, 'broker')}; "
        f"{quantity(record.cores, 'core')} ({literal(record.cpu)}), {literal(record.os)}, "
        f"Python {literal(record.python)}, confluent-kafka {literal(record.confluent_kafka)}; "
        f"load average before {record.load_average}. Data: {literal(results.folder.as_posix())}.*"
    )


def estimate_check(results: Results) -> str:
    """The estimated time of a synchronous run beside the measured one, and in words whether that was a miss."""
    times = run_times(results.runs, "sync")
    estimated_s = rounded(results.record.estimated_s)
    if not times or not estimated_s:
        return "There is no complete synchronous run to compare the estimate with."
    measured_s = rounded(median(times))
    compared = f"A synchronous run: {duration(estimated_s)} estimated, {duration(measured_s)} measured"
    if abs(measured_s / estimated_s - 1) <= 0.1:
        return f"{compared}; the estimate was within 10 %."
    return f"{compared}; the estimate missed by more than 10 %."


def accounts_sentence(accounts: pd.DataFrame | None) -> str:
    """Whether the accounts hold, as a sentence."""
    if accounts is None:
        return "Not checked: the topic was not read again after these runs."
    if not accounts["holds"].all():
        bad = ", ".join(map(str, accounts.loc[~accounts["holds"], "run"]))
        return f"The accounts do not hold for run {bad}: do not use its numbers."
    removed = int((accounts["acknowledged"] - accounts["received"]).clip(lower=0).sum())
    if removed:
        there = f"{accounts['received'].sum():,} acknowledged messages are there"
        clauses = [f"{there}; {removed:,} were removed by the topic's retention before they were looked for"]
    else:
        arrived = f"All {accounts['acknowledged'].sum():,} acknowledged messages arrived"
        clauses = [f"{arrived}: none missing, duplicated, damaged or out of order"]
    if failed := int(accounts["failed"].sum()):
        clauses.append(f"{quantity(failed, 'message')} failed, and {'is' if failed == 1 else 'are'} known")
    return "; ".join(clauses) + "."
