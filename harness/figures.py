"""The figures of both notebooks: their style, and what they show."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report import approx, complete_runs, drift, standing_out
from harness.runs import ProducerRun, quantity

# From Okabe and Ito's colour-blind safe palette; blue is async and vermillion is sync, everywhere and nothing else is.
COLOURS = {"async": "#0072B2", "sync": "#D55E00"}
MARKERS = {"async": "o", "sync": "s"}


def new_figure(rows: int = 1, columns: int = 1, *, figsize: tuple[float, float] = (9, 4.8), **options: Any):
    """A figure, and its axes as ``subplots`` gives them; it belongs to no window.

    From then on this process draws with our settings, whatever the user has set for other figures (LaTeX, for instance,
    which may not be installed).
    """
    matplotlib.rcdefaults()
    matplotlib.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Title and axes' labels; numbers on a log axis are written plainly (1, 10, 100)."""
    axes.set_title(title, loc="left", fontweight="bold", wrap=True)
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())):
        if scale == "log":
            axis.set_minor_formatter("")
            axis.set_major_formatter("{x:,.10g}")


def runs_in_order(runs: Sequence[ProducerRun]) -> tuple[Figure, str]:
    """The rate of each complete run, in the order of time; and the caption."""
    figure, axes = new_figure(figsize=(9, 3.4))
    caption = "The rate of each run, in the order in which they ran, on a log scale."
    for mode in ("async", "sync"):
        rates = {number: run.response_rate for number, run in complete_runs(runs, mode).items()}
        axes.plot(list(rates), list(rates.values()), MARKERS[mode], color=COLOURS[mode], label=mode)
        if rates:
            low, high = approx(min(rates.values())), approx(max(rates.values()))
            caption += f" {mode.capitalize()}: {low} to {high} messages / s."
    axes.set(yscale="log", xlim=(0, len(runs) + 1))
    title = (
        "The runs drift, or one stands out"
        if standing_out(runs) + drift(runs)
        else "No drift was noticed, and no run stands out"
    )
    label(axes, title, "run, in the order of time", "messages / s")
    _legend(axes)
    return figure, caption


def law(points: pd.DataFrame, slope: float, own_ms: float) -> tuple[Figure, str]:
    """Time per message against round trip, with the line of this slope and value at 0; and the caption.

    ``points`` has the columns ``mode``, ``round_trip_ms`` and ``message_ms``.
    """
    figure, axes = new_figure()
    for mode, some in points.groupby("mode", sort=False):
        look = {"color": COLOURS[str(mode)], "marker": MARKERS[str(mode)], "label": mode}
        axes.plot(some["round_trip_ms"], some["message_ms"], ls="", **look)
    x = numpy.geomspace(points["round_trip_ms"].min(), points["round_trip_ms"].max())
    axes.plot(x, slope * x + own_ms, color=COLOURS["sync"], lw=1)
    axes.set(xscale="log", yscale="log")
    title = f"A millisecond of round trip costs the synchronous producer {approx(slope)} ms a message"
    label(axes, title, "round trip, measured before the runs (ms)", "time per message (ms)")
    _legend(axes)
    caption = "Time per message against the round trip, on log scales. Squares: sync, with the line fitted to them, "
    return figure, f"{caption}{approx(slope)} x round trip + {approx(own_ms)} ms. Circles: async."


def outage(batches: pd.DataFrame, outages: Mapping[int, tuple[float, float]]) -> tuple[Figure, str]:
    """Time until a batch is acknowledged while a broker dies, a panel for each cluster; and the caption.

    ``outages`` says for each number of brokers from when to when sync stood still, in seconds on its run's clock.
    """
    figure, panels = new_figure(len(outages), 1, figsize=(9, 3.2 * len(outages)), squeeze=False)
    caption = "Time until a batch is acknowledged against its beginning, on a log scale; grey: sync stands still."
    for (brokers, (began, ended)), axes in zip(outages.items(), panels[:, 0], strict=True):
        for mode, some in batches[batches["brokers"] == brokers].groupby("mode"):
            look = {"color": COLOURS[str(mode)], "marker": MARKERS[str(mode)], "label": mode}
            axes.plot(some["started_s"], 1000 * some["delivered_s"], ls="", ms=4, **look)
            caption += f" {quantity(brokers, 'broker')}, {mode}: at most {approx(some['delivered_s'].max())} s."
        axes.axvspan(began, ended, color="#dddddd", zorder=0)
        axes.set(yscale="log")
        which = "One broker, started again" if brokers == 1 else f"{brokers} brokers, one gone for good"
        title = f"{which}: sync stands still for {approx(ended - began)} s"
        label(axes, title, "time when the batch began (s)", "until acknowledged (ms)")
        _legend(axes)
    return figure, caption


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
