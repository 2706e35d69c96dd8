"""What the notebooks show: sources, tables, figures, settings, and how much time is left."""

import contextlib
import difflib
import inspect
import itertools
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import Code, Image, Markdown, display
from matplotlib.figure import Figure

from harness.report import duration


def _show(data: Mapping[str, str], **options: Any) -> None:
    """Show one thing in several forms; in a program that is no notebook, its text."""
    if InteractiveShell.initialized():
        display(data, raw=True, **options)
    else:
        print(data["text/plain"])


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
    _show({"text/html": shown, "text/plain": frame.to_string()})


def show_settings(config: Mapping[str, str]) -> None:
    """Show a configuration in the form of the assignment's sample: key and secret hidden, and without paths."""
    hidden = ("sasl.username", "sasl.password")
    keys = ("bootstrap.servers", "security.protocol", "sasl.mechanisms", *hidden)
    lines = [f"    {key!r}: {'***' if key in hidden else config[key]!r}," for key in keys if key in config]
    print("\n".join(["config = {", *lines, "}"]))


def place_for_answer() -> None:
    """Show where the answer will stand, at the top of a notebook and before anything is measured."""
    later = "*The answer comes with the results.*"
    _show({"text/markdown": later, "text/plain": later}, display_id="answer", metadata={"role": "answer"})


def fill_in_answer(markdown: str) -> None:
    """Show the answer in the place that was made for it."""
    shown = {"text/markdown": markdown, "text/plain": markdown}
    _show(shown, display_id="answer", metadata={"role": "answer"}, update=True)


def saved_in(folder: Path) -> None:
    """Say where the results are saved; who executes the notebook finds it in the output's metadata, too."""
    place = folder.as_posix()
    _show({"text/plain": f"Saved in {place}"}, metadata={"saved_in": place})


def seconds_left(parts: Sequence[tuple[str, float]], ended_s: Sequence[float]) -> float:
    """How long the rest takes, in seconds: a part takes as long as those of its kind did on average.

    ``parts`` are a kind and an estimate in seconds each; ``ended_s`` is how long the first of them took. As long as
    none of a kind has ended, its estimates hold.
    """
    measured: dict[str, list[float]] = {}
    for (kind, _), seconds in zip(parts, ended_s, strict=False):
        measured.setdefault(kind, []).append(seconds)
    return sum(fmean(measured.get(kind, [estimate])) for kind, estimate in parts[len(ended_s) :])


@contextlib.contextmanager
def time_left(parts: Sequence[tuple[str, float]]) -> Iterator[Callable[[str], None]]:
    """Show in one line what is under way and how much time is left, and at the end how long everything took.

    ``parts`` are what is done, in order: its kind, and an estimate in seconds that holds until one of that kind has
    ended. The block calls what it is given at the start of each part, with a few words on it, such as
    ``"run 3 of 30, sync"``. In between nothing is drawn, so that no measurement is disturbed.
    """
    display_id = uuid.uuid4().hex
    started = time.monotonic()
    began: list[float] = []  # when each part began

    def begin(what: str) -> None:
        began.append(time.monotonic())
        left_s = seconds_left(parts, [after - before for before, after in itertools.pairwise(began)])
        until = datetime.now() + timedelta(seconds=left_s)
        show_line(f"{what}; about {duration(left_s)} left, until {until:%H:%M}")

    def show_line(line: str, update: bool = True) -> None:
        _show({"text/plain": line}, display_id=display_id, update=update)

    show_line(f"Starting; about {duration(seconds_left(parts, []))}.", update=False)
    try:
        yield begin
    finally:
        show_line(f"Ended after {duration(time.monotonic() - started)}.")


def show_figure(figure: Figure, name: str, caption: str, folder: Path | None = None) -> None:
    """Show a figure with a caption that says the same in words, and save it as ``NAME.png`` if a folder is given."""
    png = BytesIO()
    figure.savefig(png, format="png", dpi=100, metadata={"Software": None})
    if folder:
        with contextlib.suppress(OSError):  # it is shown all the same
            (folder / f"{name}.png").write_bytes(png.getvalue())
    display(Image(png.getvalue(), alt=caption), Markdown(f"*{caption}*"))
