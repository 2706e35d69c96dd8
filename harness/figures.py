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
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
}
SPIKE = 3.0  # a batch that took so many times the average of its mode


def new_figure(rows: int = 1, columns: int = 1, **options: object) -> tuple[Figure, Axes]:
    """A figure in the notebooks' style, and its axes."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, layout="constrained", **options)
    return figure, axes


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Title and axes' labels; numbers on a log axis are written plainly (1, 10, 100)."""
    axes.set_title(title)
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
    figure, (left, right) = new_figure(1, 2, figsize=(9.6, 4.8), sharey=True)
    last, size = int(batches["batch"].max()), int(batches["messages"].max())
    lines = [
        (left, "sync", "elapsed_s", "-"),
        (right, "async", "delivered_s", "-"),
        (right, "async", "elapsed_s", "--"),
    ]
    for axes, mode, column, style in lines:
        fill = "none" if style == "--" else "full"
        for _, run in batches[batches["mode"] == mode].groupby("run"):
            look = {"marker": MARKERS[mode], "fillstyle": fill, "color": COLOURS[mode]}
            axes.plot(run["batch"], 1000 * run[column], style, ms=3.5, lw=0.9, alpha=0.6, **look)
    left.set(yscale="log")
    for axes in (left, right):
        axes.set_xlim(0, last + 1)
    y = f"time per batch of {counted(size, 'message')} (ms)"
    label(left, "sync", "batch, in the order sent", y)
    label(right, "async", "batch, in the order sent", "")
    _name_lines(right, batches)
    figure.suptitle(_batch_title(summary), x=0.01, ha="left", fontweight="bold")
    return figure, _batch_caption(batches, summary)


def _name_lines(axes: Axes, batches: pd.DataFrame) -> None:
    """Say beside the two bundles of async lines what they are; where they are close, one name goes up, one down."""
    points = batches[batches["mode"] == "async"]
    for column, name, up in (("delivered_s", "until acknowledged", True), ("elapsed_s", "handed over", False)):
        if len(points):
            edge = 1000 * (points[column].max() if up else points[column].min())
            where = {"ha": "right", "va": "bottom" if up else "top", "color": BLUE}
            axes.text(points["batch"].max(), edge * (1.15 if up else 0.87), name, **where)


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
    names = {"sync": "elapsed_s", "async": "delivered_s"}
    if "sync" in summary:
        said.append(f"Sync (squares): {approx(1000 * summary['sync']['batch_s'])} ms a batch on average.")
    if "async" in summary:
        handed, arrived = (approx(1000 * summary["async"][key]) for key in ("batch_s", "delivered_s"))
        said.append(
            f"Async: {handed} ms until a batch was handed over (open circles, dashed), {arrived} ms until poll or "
            "flush had served the report on its last message (filled circles)."
        )
    for mode, column in names.items():
        points = batches[batches["mode"] == mode]
        if len(points) > 1:
            longest = points.loc[points[column].idxmax()]
            times = longest[column] / points[column].mean()
            if times >= SPIKE:
                said.append(
                    f"The longest {mode} batch ({longest['batch']} of run {longest['run']}) took {approx(times)} times "
                    "the average."
                )
    return " ".join(said)


def waits(runs: Iterable[ProducerRun]) -> tuple[Figure, str]:
    """The distribution of a message's wait for its acknowledgement, a line for each run; and the caption."""
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
    label(axes, title, "wait for the acknowledgement (ms)", "messages that waited no longer (%)")
    caption = (
        f"From produce() to the report, for each message: the share of messages that waited no longer, on a log scale. "
        f"Each line is one run. Half of the messages wait no longer than {halves}, on average over the runs."
    )
    return figure, caption
