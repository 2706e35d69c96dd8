"""The figures of both notebooks."""

from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from statistics import fmean

import matplotlib.pyplot as plt
import numpy
import pandas as pd
from IPython.display import Image, Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from harness.report import approx, drift
from harness.runs import ProducerRun, counted

# From Okabe and Ito's colour-blind safe palette; blue is async and vermillion is sync, everywhere and nothing else is.
BLUE, VERMILLION = "#0072B2", "#D55E00"
COLOURS = {"async": BLUE, "sync": VERMILLION}
MARKERS = {"async": "o", "sync": "s"}
STYLE = {
    "figure.figsize": (9, 4.8),
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
SPIKE = 3.0  # a batch that took so many times the average of its mode


def new_figure(rows: int = 1, columns: int = 1, **options: object) -> tuple[Figure, Axes]:
    """A figure in the notebooks' style, and its axes."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, layout="constrained", **options)
    return figure, axes


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Title and axes' labels; numbers on a log axis are written plainly (1, 10, 100)."""
    axes.set_title(title, loc="left", fontweight="bold", wrap=True)
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())):
        if scale == "log":
            axis.set_major_locator(LogLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def show_figure(figure: Figure, name: str, caption: str, folder: Path | None = None) -> None:
    """Show a figure with a caption that says the same in words, and save it as ``NAME.png`` if a folder is given."""
    png = BytesIO()
    figure.savefig(png, format="png", dpi=100, metadata={"Software": None})
    plt.close(figure)
    if folder:
        (folder / f"{name}.png").write_bytes(png.getvalue())
    display(Image(png.getvalue(), alt=caption), Markdown(f"*{caption}*"))


def time_per_batch(batches: pd.DataFrame, summary: dict[str, dict[str, float]]) -> tuple[Figure, str]:
    """Time per batch against its number, a line for each run; and the caption.

    Args:
        batches: as from ``batches_frame``.
        summary: of the same runs, as from ``summarize``.
    """
    panels = [
        ("sync", "elapsed_s", "sync", "-"),
        ("async", "elapsed_s", "async, handed over", "--"),
        ("async", "delivered_s", "async, until acknowledged", "-"),
    ]
    figure, all_axes = new_figure(1, 3, figsize=(9.6, 4.6), sharey=True)
    size = int(batches["messages"].max())
    for axes, (mode, column, name, style) in zip(all_axes, panels, strict=True):
        look = {"color": COLOURS[mode], "marker": MARKERS[mode], "fillstyle": "none" if style == "--" else "full"}
        for _, run in batches[batches["mode"] == mode].groupby("run"):
            axes.plot(run["batch"], 1000 * run[column], style, ms=3.5, lw=0.9, alpha=0.6, **look)
        axes.set(yscale="log", xlim=(0, batches["batch"].max() + 1))
        label(axes, "", "batch, in the order sent", "")
        axes.set_title(name, loc="left", color=COLOURS[mode])
    all_axes[0].set_ylabel(f"time per batch of {counted(size, 'message')} (ms)")
    figure.suptitle(_batch_title(summary), x=0.01, ha="left", fontweight="bold")
    return figure, _batch_caption(batches, summary)


def _batch_title(summary: dict[str, dict[str, float]]) -> str:
    if {"sync", "async"} - set(summary):
        return "Time per batch"
    sync, handed, arrived = (
        approx(1000 * summary[mode][column])
        for mode, column in (("sync", "batch_s"), ("async", "batch_s"), ("async", "delivered_s"))
    )
    return f"A batch costs the sender {sync} ms in sync, {handed} ms in async ({arrived} ms until acknowledged)"


def _batch_caption(batches: pd.DataFrame, summary: dict[str, dict[str, float]]) -> str:
    said = ["Every batch of every run, on a log scale; each line is one run."]
    if "sync" in summary:
        said.append(f"Sync (squares): {approx(1000 * summary['sync']['batch_s'])} ms a batch on average.")
    if "async" in summary:
        handed, arrived = (approx(1000 * summary["async"][key]) for key in ("batch_s", "delivered_s"))
        said.append(
            f"Async: {handed} ms until a batch was handed over (open circles, dashed), {arrived} ms until poll or "
            "flush had served the report on its last message (filled circles)."
        )
    for mode, column, name in (
        ("sync", "elapsed_s", "synchronous batch"),
        ("async", "delivered_s", "wait for an asynchronous batch's acknowledgement"),
        ("async", "elapsed_s", "handing over of an asynchronous batch"),
    ):
        points = batches[batches["mode"] == mode]
        if len(points) > 1 and points[column].max() >= SPIKE * points[column].mean():
            longest = points.loc[points[column].idxmax()]
            times = approx(longest[column] / points[column].mean())
            said.append(
                f"The longest {name} took {times} times the average (batch {longest['batch']} of run {longest['run']})."
            )
    return " ".join(said)


def waits(runs: Iterable[ProducerRun]) -> tuple[Figure, str]:
    """The distribution of a message's wait for its acknowledgement, a line for each run; and the caption."""
    runs = list(runs)
    figure, axes = new_figure(figsize=(9, 4.2))
    middle: dict[str, float] = {}
    for mode, style in (("async", "--"), ("sync", "-")):
        each_run = [run.wait_quantiles_s for run in runs if run.mode == mode and run.wait_quantiles_s]
        for quantiles in each_run:
            axes.plot(
                [1000 * wait for wait in quantiles], [n / 2 for n in range(201)], style, color=COLOURS[mode], alpha=0.7
            )
        if each_run:
            middle[mode] = 1000 * fmean(quantiles[100] for quantiles in each_run)
            axes.text(middle[mode], 103, mode, color=COLOURS[mode], ha="center", fontweight="bold")
    axes.set(xscale="log", ylim=(-3, 112))
    halves = " and ".join(f"{approx(wait)} ms ({mode})" for mode, wait in middle.items())
    title = f"Half of the messages wait no longer than {halves}"
    label(axes, title, "wait for the acknowledgement (ms)", "share of messages that waited at most this long (%)")
    caption = (
        "From produce() to the report, for each message: the share of messages whose wait was at most this long, on a "
        f"log scale. Each line is one run. Half of the messages wait no longer than {halves}, on average over the runs."
    )
    return figure, caption


DARK, GREY = "#222222", "#777777"  # for what is neither sync nor async


def runs_in_order(runs: Sequence[ProducerRun]) -> tuple[Figure, str]:
    """The rate of each complete run, in the order of time; and the caption."""
    figure, axes = new_figure(figsize=(9, 3.4))
    caption = "The rate of each run, in the order in which they ran, on a log scale."
    for mode in ("async", "sync"):
        rates = {number: run.response_rate for number, run in enumerate(runs, 1) if run.mode == mode and run.complete}
        axes.plot(list(rates), list(rates.values()), MARKERS[mode], color=COLOURS[mode], label=mode)
        low, high = approx(min(rates.values())), approx(max(rates.values()))
        caption += f" {mode.capitalize()}: {low} to {high} messages / s."
    axes.set(yscale="log", xlim=(0, len(runs) + 1))
    title = "The runs drift, or one stands out" if drift(runs) else "The runs do not drift, and none stands out"
    label(axes, title, "run, in the order of time", "messages / s")
    _legend(axes)
    return figure, caption


def law(points: pd.DataFrame, slope: float, own_ms: float) -> tuple[Figure, str]:
    """Time per message against round trip, with the line that was fitted to sync; and the caption.

    Args:
        points: columns ``name`` (a mode, or what was not used for the fit), ``round_trip_ms``, ``message_ms``.
        slope: of the line.
        own_ms: its value at 0.
    """
    figure, axes = new_figure()
    for (name, some), other in zip(points.groupby("name", sort=False), ("", "", "*", "P"), strict=False):
        marker, colour = MARKERS.get(name, other), COLOURS.get(name, DARK)
        axes.plot(some["round_trip_ms"], some["message_ms"], marker, ms=11 if other else 6, color=colour, label=name)
    x = numpy.geomspace(points["round_trip_ms"].min(), points["round_trip_ms"].max())
    axes.plot(x, slope * x + own_ms, color=COLOURS["sync"], lw=1)
    axes.set(xscale="log", yscale="log")
    title = f"A millisecond of round trip costs the synchronous producer {approx(slope)} ms a message"
    label(axes, title, "round trip, measured before the runs (ms)", "time per message (ms)")
    _legend(axes)
    others = " and ".join(name for name in points["name"].unique() if name not in COLOURS) or "none"
    line = f"{approx(slope)} x round trip + {approx(own_ms)} ms"
    caption = f"Squares: sync, with the line fitted to them, {line}. Circles: async. Not used for the fit: {others}."
    return figure, f"Time per message against a round trip that was measured apart, on log scales. {caption}"


def settings(rates: pd.DataFrame) -> tuple[Figure, str]:
    """The rate of both producers with each setting, a panel for each place; and the caption.

    Args:
        rates: messages / s, a row for each setting, columns (place, mode).
    """
    places = list(rates.columns.unique(0))
    figure, panels = new_figure(1, len(places), figsize=(9, 4.2), sharex=True, sharey=True, squeeze=False)
    for place, axes in zip(places, panels[0], strict=True):
        for mode in ("sync", "async"):
            axes.plot(rates[place, mode], range(len(rates)), MARKERS[mode], color=COLOURS[mode], label=mode)
        axes.set(xscale="log", yticks=range(len(rates)), yticklabels=rates.index)
        label(axes, place, "messages / s", "")
    panels[0, 0].invert_yaxis()
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    figure.suptitle("Whether one waits matters more than any setting", x=0.01, ha="left", fontweight="bold")
    spread = (
        f"{place}, {mode}: {approx(rates[place, mode].min())} to {approx(rates[place, mode].max())} messages / s"
        for place, mode in rates.columns
    )
    return figure, f"The rate with each setting, on log scales. {'; '.join(spread).capitalize()}."


def between(rates: pd.DataFrame) -> tuple[Figure, str]:
    """Rate against k, a line for each place; and the caption.

    Args:
        rates: messages / s, a row for each place, a column for each k; 0 stands for no wait but at the end.
    """
    figure, axes = new_figure()
    for (place, row), colour, marker in zip(rates.iterrows(), (GREY, DARK), "D^", strict=False):
        axes.plot(row.index[1:], row[1:], marker + "-", color=colour, label=place)
        axes.axhline(row[0], color=colour, ls=":", label=f"{place}, one wait at the end")
    axes.set(xscale="log", yscale="log")
    gains = ", ".join(f"{approx(row[100] / row[1])} times as fast {place}" for place, row in rates.iterrows())
    label(axes, f"One wait for 100 messages: {gains}", "messages for each wait (k)", "messages / s")
    _legend(axes)
    ends = "; ".join(
        f"{place} {approx(row[1])} with k = 1, {approx(row[0])} at the end" for place, row in rates.iterrows()
    )
    return figure, f"Messages / s against k, on log scales; dotted: one wait, at the end. {ends.capitalize()}."


def outage(batches: pd.DataFrame, outages: Mapping[int, tuple[float, float]]) -> tuple[Figure, str]:
    """Time until a batch is acknowledged against the clock while a broker dies, a panel for each cluster; the caption.

    Args:
        batches: columns ``brokers``, ``mode``, ``started_s``, ``delivered_s``.
        outages: for each number of brokers from when to when sync stood still, in seconds on its run's clock.
    """
    figure, panels = new_figure(len(outages), 1, figsize=(9, 3.2 * len(outages)), squeeze=False)
    caption = "Time until a batch is acknowledged against its beginning, on a log scale; grey: sync stands still."
    for (brokers, (began, ended)), axes in zip(outages.items(), panels[:, 0], strict=True):
        for mode, some in batches[batches["brokers"] == brokers].groupby("mode"):
            axes.plot(
                some["started_s"], 1000 * some["delivered_s"], MARKERS[mode], color=COLOURS[mode], ms=4, label=mode
            )
            caption += f" {counted(brokers, 'broker')}, {mode}: at most {approx(some['delivered_s'].max())} s."
        axes.axvspan(began, ended, color="#dddddd", zorder=0)
        axes.set(yscale="log")
        which = "One broker, started again" if brokers == 1 else f"{brokers} brokers, one gone for good"
        title = f"{which}: sync stands still for {approx(ended - began)} s"
        label(axes, title, "time when the batch began (s)", "until acknowledged (ms)")
        _legend(axes)
    return figure, caption


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
