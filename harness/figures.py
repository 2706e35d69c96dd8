"""The figures of the assignment's notebook, and what all figures share."""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from statistics import fmean

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Image, Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from harness.compare import approx
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
