"""The written analysis of a measurement: its sentences with their numbers, and the tables beside them."""

from collections.abc import Mapping

import pandas as pd

from harness.report import CLEARLY, approx, duration, quotient, rounded, summarize
from harness.results import Results

Summary = Mapping[str, Mapping[str, float]]  # as report.summarize() has it
SPIKE = 5.0  # times the median: a batch that took longer is called slow


def concise(results: Results) -> str:
    """The assignment's three questions in 150 to 200 words of Markdown: which is faster, why, and what speaks for each.

    Where there are not complete runs of both producers, or the asynchronous one was not faster, a sentence says so.
    """
    summary = summarize(results.runs)
    if len(summary) < 2:
        return "There is nothing to analyse: it takes complete runs of both producers."
    asyn = summary["async"]
    sync = summary["sync"]
    times = quotient(sync["time_s"], asyn["time_s"])
    if times < CLEARLY:
        return "In this measurement the asynchronous producer was not clearly faster; why is not explained here."
    return f"""**The asynchronous producer is the faster one**: for the same {asyn["messages"]:,.0f} messages the \
synchronous one took about {approx(times)} times as long.

**Why:**

1. *Waiting.* The synchronous producer sends a message only once the last one is acknowledged, one each \
{duration(sync["message_us"] / 1e6)}. The asynchronous one waits once, at the end.
2. *Grouping.* Its client meanwhile collects messages and sends many in one request: a run took \
{asyn["requests"]:,.0f} requests instead of {sync["requests"]:,.0f}.
3. *Overlap.* Each partition can have a request under way while further messages are handed over; on average \
{approx(under_way(asyn))} were.

**Advantages and disadvantages:**

- *Asynchronous*, for: high throughput at any distance from the cluster; few large requests, which are easy on the \
broker. Against: a message waits {duration(asyn["wait_s"])} for its acknowledgement (median; synchronous: \
{duration(sync["wait_s"])}); errors come later, in a callback; what is queued is lost if the program dies.
- *Synchronous*, for: the program knows the fate of each message before its next step; only one message is at risk \
when the program dies. Against: at most one message a round trip, so a slow network stops the program; a request for \
each message, the most expensive way for network and broker."""


def under_way(of_mode: Mapping[str, float]) -> float:
    """How many requests were under way at a time, on average: requests a second, times the seconds that each takes."""
    return of_mode["requests_rate"] * rounded(of_mode["rtt_ms"]) / 1000


def reasons(summary: Summary) -> pd.DataFrame:
    """What was measured of each reason, with a column for each producer."""
    columns = {}
    for mode, of_mode in summary.items():
        columns[mode] = {
            "1. waiting: time of a message (μs)": approx(of_mode["message_us"]),
            "1. waiting: a request is under way for (μs)": approx(1000 * of_mode["rtt_ms"]),
            "2. grouping: messages in a request": approx(of_mode["messages_per_request"]),
            "2. grouping: requests in a run": f"{of_mode['requests']:,.0f}",
            "3. overlap: requests under way at a time": approx(under_way(of_mode)),
            "processor time of a message (μs)": approx(of_mode["cpu_us"]),
        }
    return pd.DataFrame(columns)


def batches_title(batches: pd.DataFrame) -> str:
    """What the figure of all batches shows, as its title."""
    sync = 1000 * batches.loc[batches["mode"] == "sync", "elapsed_s"]
    handed_over = 1000 * batches.loc[batches["mode"] == "async", "elapsed_s"]
    parts = []
    if len(sync):
        parts.append(f"sync takes {approx(sync.median())} ms a batch{_steadiness(sync)}")
    if len(handed_over):
        parts.append(f"async hands one over in {approx(handed_over.median())} ms{_steadiness(handed_over)}")
    title = "; ".join(parts) or "no batches"
    return title[0].upper() + title[1:]


def batches_caption(batches: pd.DataFrame) -> str:
    """How to read the figure of all batches."""
    caption = "Squares: sync. Circles: async. A thin line is one run"
    if batches.groupby("mode")["run"].nunique().max() > 1:
        caption += ", the dark line the median of the runs"
    return f"{caption}. All three panels have one log scale for the time of a batch, in milliseconds."


def _steadiness(times: pd.Series) -> str:
    slow = times > SPIKE * times.median()
    if slow.any():
        return f", with spikes to {approx(times.max())} ms"
    return ", steadily"


def what_varies(times: pd.Series, runs: pd.Series) -> dict[str, str]:
    """How the times of batches vary, in seconds, given the run of each: a column of a table."""
    slow = times > SPIKE * times.median()
    by_run = times.groupby(runs)
    low, high = 1000 * times.quantile([0.05, 0.95])
    return {
        "nine of ten (ms)": f"{approx(low)} to {approx(high)}",
        "first batch of a run, median (ms)": approx(1000 * by_run.first().median()),
        "last batch of a run, median (ms)": approx(1000 * by_run.last().median()),
        "slow batches": f"{slow.sum():,} of {len(slow):,}",
        "slow batches' share of the time": f"{times[slow].sum() / times.sum():.0%}",
    }
