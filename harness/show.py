"""What the notebooks show: sources, tables, figures, settings, and how much time is left."""

import contextlib
import difflib
import inspect
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path

import pandas as pd
from IPython.display import Code, Image, Markdown, display
from matplotlib.figure import Figure

from harness.report import duration


def show_source(*things: Callable) -> None:
    """Show the source of functions or classes, whole."""
    for thing in things:
        display(Code(inspect.getsource(thing).rstrip(), language="python"))


def show_difference(first: Callable, second: Callable) -> None:
    """Show the lines in which the source of two functions differs, as a diff."""
    before, after = (inspect.getsource(function).splitlines() for function in (first, second))
    changed = [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
    display(Code("\n".join(changed), language="diff"))


def show_table(frame: pd.DataFrame, *, prose: bool = False) -> None:
    """Show a table; one of prose is aligned to the left."""
    align = "left" if prose else "right"
    shown = re.sub("<(t[dh])>", f'<\\1 style="text-align: {align}">', frame.to_html(border=0))
    display({"text/html": shown, "text/plain": frame.to_string()}, raw=True)


def show_settings(config: Mapping[str, str]) -> None:
    """Show a configuration in the form of the assignment's sample: key and secret hidden, and without paths."""
    hidden = ("sasl.username", "sasl.password")
    keys = ("bootstrap.servers", "security.protocol", "sasl.mechanisms", *hidden)
    lines = [f"    {key!r}: {'***' if key in hidden else config[key]!r}," for key in keys if key in config]
    print("\n".join(["config = {", *lines, "}"]))


@contextlib.contextmanager
def time_left(seconds: float) -> Iterator[Callable[[str], None]]:
    """Show in one line what is under way, of which the block tells, and how much is left of an estimated time.

    A thread draws the line again after eight seconds: a short run is never disturbed by it.
    """
    shown = display({"text/plain": ""}, raw=True, display_id=True)
    began, coming, over = time.monotonic(), queue.SimpleQueue[str](), "over"

    def draw() -> None:
        what = ""
        while what != over:
            with contextlib.suppress(queue.Empty):
                what = coming.get(timeout=8)
            elapsed = time.monotonic() - began
            left = f"about {duration(seconds - elapsed)} left" if elapsed < seconds else "longer than estimated"
            said = f"Ended after {duration(elapsed)}." if what == over else f"{what}; {left}"
            shown.update({"text/plain": said}, raw=True)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        yield coming.put
    finally:
        coming.put(over)
        thread.join()


def show_figure(figure: Figure, name: str, caption: str, folder: Path | None = None) -> None:
    """Show a figure with a caption that says the same in words, and save it as ``NAME.png`` if a folder is given."""
    png = BytesIO()
    figure.savefig(png, format="png", dpi=100, metadata={"Software": None})
    if folder:
        with contextlib.suppress(OSError):  # it is shown all the same
            (folder / f"{name}.png").write_bytes(png.getvalue())
    display(Image(png.getvalue(), alt=caption), Markdown(f"*{caption}*"))
