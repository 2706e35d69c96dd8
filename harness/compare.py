"""How two modes compare: averages, ratios, intervals, drift. One number for one quantity.

Every average is a total divided by a count (messages / s, s / batch), so that a reader who divides two printed numbers
gets the printed ratio. Only complete runs count.
"""

import math
import statistics
from collections.abc import Iterable, Sequence

from harness.runs import ProducerRun

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
