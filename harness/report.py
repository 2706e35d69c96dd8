"""What is said and shown of a measurement: averages, ratios, intervals, sentences, tables."""

import contextlib
import difflib
import inspect
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import pandas as pd
from IPython.display import Code, DisplayHandle, Markdown, display

from harness.results import Results
from harness.runs import ProducerRun, counted, outcome

STANDS_OUT = 2.0  # a run that took so many times the median of its mode


def summarize(runs: Iterable[ProducerRun]) -> dict[str, dict[str, float]]:
    """For each mode with complete runs, in the order async, sync: averages over those runs.

    Keys: ``runs``, ``messages`` (a run), ``time_s`` (a run, to its last acknowledgement), ``response_rate`` and
    ``request_rate`` (messages / s), ``batch_s`` (the sender's time for a batch), ``delivered_s`` (until a batch is
    acknowledged), ``wait_s`` (half of the messages waited no longer; mean of the runs' medians), and from the client's
    statistics ``requests_rate`` (Produce requests / s), ``messages_per_request``, ``rtt_ms``, ``queue_ms``,
    ``outbuf_ms`` (means over the runs).
    """
    runs = [run for run in runs if run.complete and run.acknowledged]
    return {mode: _averages([run for run in runs if run.mode == mode]) for mode in sorted({run.mode for run in runs})}


def _averages(runs: list[ProducerRun]) -> dict[str, float]:
    messages = sum(run.acknowledged for run in runs)
    time_s = sum(run.elapsed_s for run in runs)
    batches = [batch for run in runs for batch in run.batches]
    requests = sum(run.network.get("produce_requests", 0) for run in runs)
    return {
        "runs": len(runs),
        "messages": messages / len(runs),
        "time_s": time_s / len(runs),
        "response_rate": messages / time_s,
        "request_rate": messages / sum(run.submitting_s for run in runs),
        "batch_s": statistics.fmean(batch.elapsed_s for batch in batches),
        "delivered_s": statistics.fmean(batch.delivered_s for batch in batches),
        "wait_s": statistics.fmean(run.wait_quantiles_s[100] for run in runs),
        "requests_rate": requests / time_s,
        "messages_per_request": messages / max(1, requests),
        **{
            key: statistics.fmean(run.network.get(key, 0) for run in runs)
            for key in ("rtt_ms", "queue_ms", "outbuf_ms")
        },
    }


def pair_ratios(runs: Sequence[ProducerRun]) -> list[float]:
    """How many times as fast async was as sync, for each pair of neighbours (run 1 and 2, 3 and 4, ...).

    A pair counts if both runs are complete, one of each mode.
    """
    ratios = []
    for first, second in zip(runs[::2], runs[1::2], strict=False):
        rates = {run.mode: run.response_rate for run in (first, second) if run.complete and run.acknowledged}
        if len(rates) == 2:
            ratios.append(rates["async"] / rates["sync"])
    return ratios


def drift(runs: Sequence[ProducerRun]) -> list[str]:
    """What speaks against taking a mode's complete runs for independent ones; a sentence each.

    A mode has drifted where all its later runs were faster than all its earlier ones, or all slower (of four runs or
    more); a run stands out where it took at least twice the median of its mode.
    """
    said = []
    for mode in ("async", "sync"):
        times = [
            (number, run.elapsed_s) for number, run in enumerate(runs, start=1) if run.mode == mode and run.complete
        ]
        half, seconds = len(times) // 2, [each for _, each in times]
        if half >= 2:
            earlier, later = seconds[:half], seconds[-half:]
            if max(later) < min(earlier):
                said.append(f"The later {mode} runs were all faster than the earlier ones.")
            if min(later) > max(earlier):
                said.append(f"The later {mode} runs were all slower than the earlier ones.")
        for number, each in times:
            if len(times) > 2 and each >= STANDS_OUT * statistics.median(seconds):
                times_the_median = approx(each / statistics.median(seconds))
                said.append(f"Run {number} ({mode}) stands out: it took {times_the_median} times its mode's median.")
    return said


def median_interval(values: Iterable[float]) -> tuple[float, float, float, float]:
    """The median, and an interval for it that assumes nothing of the distribution's shape.

    Returns:
        (median, low, high, coverage): low and high are the k-th smallest and k-th largest value, with the largest k
        that covers the true median with a probability of at least 0.95; where there are too few values for that, the
        smallest and the largest one. coverage is that probability, for independent values.

    Source: order statistics; the number of values below the median is binomial with probability 1/2.
    """
    ordered = sorted(values)
    n = len(ordered)

    def coverage(k: int) -> float:
        return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2**n

    k = max((k for k in range(1, (n + 1) // 2 + 1) if coverage(k) >= 0.95), default=1)
    return statistics.median(ordered), ordered[k - 1], ordered[n - k], max(0.0, coverage(k))


def approx(value: float) -> str:
    """A number with three significant digits, for prose: 0.0123, 4.56, 78.9, 123, 45,600."""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{float(f'{value:.3g}'):,.{digits}f}"


def printed(value: float) -> float:
    """The number that :func:`approx` prints."""
    return float(approx(value).replace(",", ""))


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


# --- What the notebooks show -----------------------------------------------------------------------------------------


def show_source(*things: Callable) -> None:
    """Show the source of functions or classes, whole."""
    for thing in things:
        display(Code(inspect.getsource(thing).rstrip(), language="python"))


def show_difference(first: Callable, second: Callable) -> None:
    """Show the lines in which the source of two functions differs, as a diff."""
    lines = (inspect.getsource(function).splitlines() for function in (first, second))
    changed = [line for line in difflib.ndiff(*lines) if line[0] in "+-"]
    display(Code("\n".join(changed), language="diff"))


def show_table(frame: pd.DataFrame, *, prose: bool = False) -> None:
    """Show a table; one of prose is aligned to the left."""
    shown = frame.to_html(border=0)
    if prose:
        left = 'style="text-align: left"'
        shown = shown.replace("<td>", f"<td {left}>").replace("<th>", f"<th {left}>")
    display({"text/html": shown, "text/plain": frame.to_string()}, raw=True)


def show_settings(config: Mapping[str, str]) -> None:
    """Show a configuration in the form of the assignment's sample: key and secret hidden, and without paths."""
    hidden = ("sasl.username", "sasl.password")
    keys = ("bootstrap.servers", "security.protocol", "sasl.mechanisms", *hidden)
    lines = [f"    {key!r}: {'***' if key in hidden else config[key]!r}," for key in keys if key in config]
    print("\n".join(["config = {", *lines, "}"]))


def place_for_answer() -> DisplayHandle:
    """A place in the notebook that is filled in later, by its ``update``."""
    return display(Markdown("*The answer comes with the results.*"), display_id=True)


@contextlib.contextmanager
def time_left(seconds: float) -> Iterator[Callable[[str], None]]:
    """Show in one line what is under way, and how much is left of an estimated time.

    The line is drawn when the caller says what comes next, and again where that takes more than eight seconds, by a
    thread: a short run is never disturbed by it.

    Yields:
        A function to call with what comes next.
    """
    shown = display({"text/plain": ""}, raw=True, display_id=True)
    began, said, drawn, over = time.monotonic(), "", threading.Event(), threading.Event()

    def draw() -> None:
        left = seconds - (time.monotonic() - began)
        time_said = f"about {duration(left)} left" if left > 0 else f"{duration(-left)} longer than estimated"
        shown.update({"text/plain": f"{said}; {time_said}"}, raw=True)

    def draw_again() -> None:
        while not over.is_set():
            if not drawn.wait(8):
                draw()
            drawn.clear()

    def come_to(what: str) -> None:
        nonlocal said
        said = what
        draw()
        drawn.set()

    threading.Thread(target=draw_again, daemon=True).start()
    try:
        yield come_to
    finally:
        over.set()
        drawn.set()
        shown.update({"text/plain": f"Ended after {duration(time.monotonic() - began)}."}, raw=True)
