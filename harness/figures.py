"""The figures of both notebooks: their style, and what they show."""

import contextlib
import random
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from statistics import median

import matplotlib
import pandas as pd
from IPython.display import Image, Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from harness.report import approx, drift
from harness.runs import ProducerRun, counted

# From Okabe and Ito's colour-blind safe palette; blue is async and vermillion is sync, everywhere and nothing else is.
COLOURS = {"async": "#0072B2", "sync": "#D55E00"}
MARKERS = {"async": "o", "sync": "s"}
# Our own settings, whatever the user has set for other figures (LaTeX, for instance, which may not be installed).
matplotlib.rcdefaults()
matplotlib.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})


def new_figure(rows: int = 1, columns: int = 1, *, figsize: tuple[float, float] = (9, 4.8), **options: object):
    """A figure, and its axes as ``subplots`` gives them; it belongs to no window."""
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


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
    if folder:
        with contextlib.suppress(OSError):  # it is shown all the same
            (folder / f"{name}.png").write_bytes(png.getvalue())
    display(Image(png.getvalue(), alt=caption), Markdown(f"*{caption}*"))


def waits(runs: Iterable[ProducerRun]) -> tuple[Figure, str]:
    """The distribution of a message's wait for its acknowledgement, a line for each run; and the caption."""
    figure, axes = new_figure(figsize=(9, 4.2))
    halves = {}
    for mode, style in (("async", "--"), ("sync", "-")):
        quantiles = [run.wait_quantiles_s for run in runs if run.mode == mode and run.wait_quantiles_s]
        for run in quantiles:
            axes.plot([1000 * s for s in run], [n / 2 for n in range(201)], style, color=COLOURS[mode], alpha=0.4)
        if quantiles:
            halves[mode] = 1000 * median(run[100] for run in quantiles)
            axes.text(halves[mode], 103, mode, color=COLOURS[mode], ha="center", fontweight="bold")
    axes.set(xscale="log", ylim=(-3, 112))
    said = " and ".join(f"{approx(wait)} ms ({mode})" for mode, wait in halves.items())
    title = f"Half of the messages wait no longer than {said}"
    label(axes, title, "wait for the acknowledgement (ms)", "messages that waited no longer (%)")
    caption = (
        "The share of messages whose wait, from produce() to the report, was at most this long, on a log scale; each "
        f"line is one run. Half of the messages wait no longer than {said} (medians of the runs' medians)."
    )
    return figure, caption


DARK, GREY = "#222222", "#777777"  # for what is neither sync nor async


def runs_in_order(runs: Sequence[ProducerRun]) -> tuple[Figure, str]:
    """The rate of each complete run, in the order of time; and the caption."""
    figure, axes = new_figure(figsize=(9, 3.4))
    caption = "The rate of each run, in the order in which they ran, on a log scale."
    for mode in ("async", "sync"):
        rates = {number: run.response_rate for number, run in enumerate(runs, 1) if run.mode == mode and run.complete}
        if rates:
            axes.plot(rates.keys(), rates.values(), MARKERS[mode], color=COLOURS[mode])
            _name(axes, len(runs) + 0.4, list(rates.values())[-1], mode, COLOURS[mode])
            low, high = approx(min(rates.values())), approx(max(rates.values()))
            caption += f" {mode.capitalize()}: {low} to {high} messages / s."
    axes.set(yscale="log", xticks=range(1, len(runs) + 1), xlim=(0.5, len(runs) + 1.5))
    title = "The runs drift, or one stands out" if drift(runs) else "The runs do not drift, and none stands out"
    label(axes, title, "run, in the order of time", "acknowledged messages / s")
    return figure, caption


def law(table: pd.DataFrame, slope: float, own_ms: float, not_used: Mapping[str, Iterable]) -> tuple[Figure, str]:
    """Time per message against round trip, with the fitted line; and the caption.

    Args:
        table: columns ``mode``, ``round_trip_ms`` (of synchronous requests), ``message_ms``.
        slope: of the line.
        own_ms: its value at 0.
        not_used: for each name the (round trip, time per message) of runs that were not used for the fit.
    """
    figure, axes = new_figure()
    for mode, each in table.groupby("mode"):
        axes.plot(each["round_trip_ms"], each["message_ms"], MARKERS[mode], color=COLOURS[mode], alpha=0.6)
        end = each.loc[each["round_trip_ms"].idxmax()]
        _name(axes, end["round_trip_ms"] * 1.15, end["message_ms"], mode, COLOURS[mode])
    sync = table.loc[table["mode"] == "sync", "round_trip_ms"]
    reach = [*sync, *(point[0] for points in not_used.values() for point in points)]
    line = [min(reach) * (max(reach) / min(reach)) ** (step / 50) for step in range(51)]
    axes.plot(line, [slope * x + own_ms for x in line], color=COLOURS["sync"], lw=1)
    for (name, points), marker in zip(not_used.items(), "*P", strict=False):
        axes.plot(*zip(*points, strict=True), marker, color=DARK, ms=9, label=name)
    axes.set(xscale="log", yscale="log")
    if not_used:
        axes.legend(frameon=False, loc="upper left")
    title = f"A millisecond of round trip costs the synchronous producer {slope:.2f} ms a message"
    label(
        axes, title, "round trip of a synchronous request, from the client's statistics (ms)", "time per message (ms)"
    )
    caption = (
        "Time per message against the round trip that the client measured, on log scales. Squares: sync, with the "
        f"fitted line: {slope:.3f} x round trip + {approx(own_ms)} ms. Circles: async on the same clusters."
    )
    marks = ("Stars", "Crosses")
    caption += "".join(f" {mark}: {name}, not used for the fit." for mark, name in zip(marks, not_used, strict=False))
    return figure, caption


def between(rates: pd.DataFrame) -> tuple[Figure, str]:
    """Rate against k, a line for each place; and the caption.

    Args:
        rates: messages / s, a row for each place, a column for each k; 0 stands for no wait but at the end.
    """
    figure, axes = new_figure()
    caption = "Rate against k, on log scales; dotted: waiting only at the end, as the asynchronous producer does."
    for (place, row), colour, marker in zip(rates.iterrows(), (GREY, DARK), "D^", strict=False):
        waits = row.drop(0)
        axes.plot(waits.index, waits, marker + "-", color=colour)
        axes.axhline(row[0], color=colour, ls=":")
        axes.text(waits.index[0] * 1.3, waits.iloc[0] * 0.75, place, color=colour, va="top")
        caption += (
            f" {place.capitalize()}: {approx(row[1])} messages / s with k = 1, {approx(row[100])} with k = 100, "
            f"{approx(row[0])} with one wait at the end."
        )
    axes.set(xscale="log", yscale="log", ylim=(rates.min().min() / 2.5, rates.max().max() * 2))
    axes.text(1, rates[0].max() * 1.15, "dotted: one wait, at the end", color=DARK, fontsize=10)
    gains = ", ".join(f"{approx(row[100] / row[1])} times as fast {place}" for place, row in rates.iterrows())
    label(axes, f"One wait for 100 messages: {gains}", "wait after every k messages", "messages / s")
    return figure, caption


def outage(batches: pd.DataFrame, outages: Mapping[int, tuple[float, float]]) -> tuple[Figure, str]:
    """Batch times against the clock while a broker dies, a panel for each number of brokers; and the caption.

    Args:
        batches: columns ``brokers``, ``mode``, ``at_s``, ``elapsed_s``, ``delivered_s``.
        outages: for each number of brokers from when to when sync stood still, in seconds on its run's clock.
    """
    figure, panels = new_figure(len(outages), 1, figsize=(9, 3.4 * len(outages)), squeeze=False)
    lines = (("async", "elapsed_s", "none"), ("async", "delivered_s", "full"), ("sync", "delivered_s", "full"))
    for (brokers, (began, ended)), axes in zip(outages.items(), panels[:, 0], strict=True):
        here = batches[batches["brokers"] == brokers]
        for mode, column, fill in lines:
            each = here[here["mode"] == mode]
            look = {"color": COLOURS[mode], "fillstyle": fill, "ms": 4, "alpha": 0.7}
            name = mode if mode == "sync" else f"async, {'handed over' if fill == 'none' else 'until acknowledged'}"
            axes.plot(each["at_s"], 1000 * each[column], MARKERS[mode], label=name, **look)
        axes.axvspan(began, ended, color="#dddddd", zorder=0)
        axes.set(yscale="log")
        axes.text(began, 1.02, " killed", transform=axes.get_xaxis_transform(), fontsize=10, color=DARK)
        which = "One broker, started again" if brokers == 1 else "Three brokers, one gone for good"
        title = f"{which}: sync stands still for {approx(ended - began)} s\n"
        label(axes, title, "time when the batch began (s)", "time of a batch (ms)")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False)
    caption = "Time of each batch against the time when it began, on a log scale; grey: sync stands still."
    for (brokers, mode), each in batches.groupby(["brokers", "mode"]):
        acknowledged, handed_over = (approx(1000 * each[column].max()) for column in ("delivered_s", "elapsed_s"))
        caption += (
            f" {mode.capitalize()}, {counted(brokers, 'broker')}: at most {acknowledged} ms until a batch was "
            f"acknowledged, and {handed_over} ms until it was handed over."
        )
    return figure, caption


def losses(kills: pd.DataFrame) -> tuple[Figure, str]:
    """How many messages each kill cost; and the caption.

    Args:
        kills: columns ``place``, ``way``, ``lost``; a row for each kill.
    """
    groups = list(kills.groupby(["place", "way"], sort=False, observed=True))
    figure, axes = new_figure(figsize=(9, 0.55 * len(groups) + 1.5))
    jitter = random.Random(7)  # so that equal numbers can be told apart
    for height, ((_, way), each) in enumerate(groups):
        look = {"color": COLOURS.get(way, GREY), "marker": MARKERS.get(way, "D")}
        heights = [height + jitter.uniform(-0.25, 0.25) for _ in range(len(each))]
        axes.scatter(each["lost"], heights, s=22, alpha=0.7, **look)
    axes.set_yticks(range(len(groups)), [f"{way}, {place}" for (place, way), _ in groups])
    axes.set_xscale("symlog", linthresh=1)
    axes.invert_yaxis()
    largest = kills.groupby("way", observed=True)["lost"].max()
    title = f"Lost with the program: {largest['sync'] or 'none'} in sync, up to {largest['async']:,} in async"
    label(axes, "", "messages lost (of those after which the program had gone on)", "")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    axes.set_xticks([0, *(10**power for power in range(len(str(largest.max())) + 1))])
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlim(-0.3, 2 * largest.max() + 1)
    caption = "Messages lost, a point for each kill, on a log scale that begins at 0."
    for (place, way), each in groups:
        spread = f"{each['lost'].min():,} to {each['lost'].max():,}" if each["lost"].any() else "none"
        caption += f" {way.capitalize()}, {place}: {spread}."
    return figure, caption


def _name(axes: Axes, x: float, y: float, name: str, colour: str) -> None:
    axes.text(x, y, name, color=colour, va="center")
