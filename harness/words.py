"""Sentences about a measurement. Each follows the data: one run or many, stopped ones, none."""

from collections.abc import Sequence

import pandas as pd

from harness.compare import approx, drift, pair_ratios, printed, summarize
from harness.results import Results
from harness.runs import ProducerRun, counted, outcome

FULL_NAME = {"async": "asynchronous", "sync": "synchronous"}
CLEARLY = 1.1  # times as fast: less than that is called no difference


def finding(results: Results) -> str:
    """The answer in three or four sentences, with this measurement's numbers, as Markdown."""
    summary = summarize(results.runs)
    if missing := [FULL_NAME[mode] for mode in FULL_NAME if mode not in summary]:
        return f"**No comparison: there is no complete run of the {' or the '.join(missing)} producer.**"
    times = {mode: printed(summary[mode]["time_s"]) for mode in summary}
    fast, slow = sorted(times, key=times.get)
    ratio = times[slow] / times[fast]
    took = (
        f"it delivered {counted(round(summary[fast]['messages']), 'message')} in {approx(times[fast])} s, the "
        f"{FULL_NAME[slow]} one in {approx(times[slow])} s ({_number_of_runs(summary)})"
    )
    spread = _spread(results.runs)
    if ratio < CLEARLY:
        return f"**Neither producer is clearly faster; the {FULL_NAME[fast]} one, by a little: {took}.** {spread}"
    said = f"**The {FULL_NAME[fast]} producer is {approx(ratio)} times as fast: {took}.** {spread}"
    if fast == "async":
        said += (
            " The reason is the wait: the synchronous producer waits for the broker's answer to each message; the "
            "asynchronous one sends many messages in a request and does not stop for the answer."
        )
    return said


def _number_of_runs(summary: dict[str, dict[str, float]]) -> str:
    a, s = (summary[mode]["runs"] for mode in ("async", "sync"))
    if a == s == 1:
        return "one run each"
    return f"averages of {a} runs each" if a == s else f"averages of {a} asynchronous and {s} synchronous runs"


def _spread(runs: Sequence[ProducerRun]) -> str:
    ratios = pair_ratios(runs)
    if len(ratios) < 2:
        return "One pair of runs does not show how much this varies."
    low, high = approx(min(ratios)), approx(max(ratios))
    said = f"In the {len(ratios)} pairs of neighbouring runs it was {low} to {high} times as fast."
    return " ".join([said, *drift(runs)])


def where_measured(results: Results) -> str:
    """Where and when the results come from, as one line of Markdown."""
    e = results.environment
    return (
        f"*Measured on {e['date'][:10]}: {e['cluster']}, {counted(e['brokers'], 'broker')}; {e['cores']} cores "
        f"({e['cpu']}), {e['os']}, Python {e['python']}, confluent-kafka {e['confluent-kafka']}. "
        f"Data: {results.folder.as_posix()}.*"
    )


def incomplete(runs: Sequence[ProducerRun]) -> list[str]:
    """A sentence for each run that is not complete, and therefore left out of averages and ratios."""
    return [
        f"Run {number} ({run.mode}) is incomplete: {outcome(run)}. It is shown, but left out of averages and ratios."
        for number, run in enumerate(runs, start=1)
        if not run.complete
    ]


def prediction(num_messages: int, runs_each: int, round_trip_ms: float, message_ms: float) -> str:
    """What the warm-up foretells of the synchronous runs, and from what."""
    seconds = num_messages * printed(message_ms) / 1000
    all_runs = f", {duration(runs_each * seconds)} for {runs_each} runs" if runs_each > 1 else ""
    return (
        f"A synchronous message takes {approx(message_ms)} ms: {approx(round_trip_ms)} ms for the round trip, the "
        f"rest in the client.\nPrediction: {num_messages:,} x {approx(message_ms)} ms = {duration(seconds)} "
        f"a synchronous run{all_runs}."
    )


def duration(seconds: float) -> str:
    """``4.5 s``, ``75 s``, ``12 min``."""
    return f"{approx(seconds)} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def prediction_check(results: Results) -> str:
    """The predicted time of a synchronous run beside the measured one."""
    summary, predicted_s = summarize(results.runs), results.environment.get("predicted s")
    if "sync" not in summary or not predicted_s:
        return "There is no complete synchronous run to compare the prediction with."
    measured_s = summary["sync"]["time_s"]
    times = [run.elapsed_s for run in results.runs if run.mode == "sync" and run.complete]
    spread = f" ({approx(min(times))} to {approx(max(times))} s)" if len(times) > 1 else ""
    return (
        f"Sync: {approx(predicted_s)} s predicted, {approx(measured_s)} s measured{spread}: "
        f"{approx(printed(measured_s) / printed(predicted_s))} times the prediction."
    )


def first_batch(batches: pd.DataFrame) -> str:
    """How the first batch of the synchronous runs compares with the others: averages."""
    sync = batches[batches["mode"] == "sync"]
    times = sync.groupby(sync["batch"] == 1)["elapsed_s"].mean()
    if len(times) < 2:
        return "There is no synchronous run of several batches."
    return f"Sync: batch 1 took {approx(times[True] / times[False])} times the average of the others."


def accounted(accounts: pd.DataFrame | None) -> tuple[bool, str]:
    """Whether the accounts hold, and that as a sentence."""
    if accounts is None:
        return False, "Not checked: the topic was not read again after these runs."
    if accounts["holds"].all():
        arrived = f"All {accounts['acknowledged'].sum():,} acknowledged messages arrived"
        failed = accounts["failed"].sum()
        rest = f"; {counted(failed, 'message')} failed, and {'is' if failed == 1 else 'are'} known" if failed else ""
        return True, f"{arrived}: none missing, duplicated or damaged{rest}."
    bad = ", ".join(map(str, accounts.loc[~accounts["holds"], "run"]))
    return False, f"The accounts do not hold for run {bad}: do not use its numbers."
