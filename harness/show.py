"""What the notebooks display: source, tables, progress."""

import difflib
import html
import inspect
import sys
from collections.abc import Callable, Iterable
from statistics import fmean

import pandas as pd
from IPython.core.getipython import get_ipython
from IPython.display import HTML, Code, display
from tqdm import tqdm

from harness.compare import approx
from harness.results import Results
from harness.runs import ProducerRun
from harness.words import accounted

METRICS = {
    "elapsed time per batch: the sender's (ms)": lambda each: 1000 * each["batch_s"],
    "elapsed time per batch: until acknowledged (ms)": lambda each: 1000 * each["delivered_s"],
    "request rate: messages submitted / s": lambda each: each["request_rate"],
    "response rate: messages acknowledged / s": lambda each: each["response_rate"],
    "network: Produce requests / s": lambda each: each["requests_rate"],
    "network: messages in a request": lambda each: each["messages_per_request"],
}


def source(*things: Callable) -> None:
    """Show the source of functions or classes, whole."""
    for thing in things:
        display(Code(inspect.getsource(thing).rstrip(), language="python"))


def difference(first: Callable, second: Callable) -> None:
    """Show the lines in which the source of two functions differs, as a diff."""
    lines = (inspect.getsource(function).splitlines() for function in (first, second))
    changed = [line for line in difflib.ndiff(*lines) if line[0] in "+-"]
    display(Code("\n".join(changed), language="diff"))


def table(frame: pd.DataFrame, *, prose: bool = False) -> None:
    """Show a table; one of prose is aligned to the left."""
    shown = frame.to_html(border=0)
    if prose:
        left = 'style="text-align: left"'
        shown = shown.replace("<td>", f"<td {left}>").replace("<th>", f"<th {left}>")
    display({"text/html": shown, "text/plain": frame.to_string()}, raw=True)


def settings(config: dict[str, str], hidden: Iterable[str] = ("sasl.username", "sasl.password")) -> None:
    """Show a configuration in the form of the assignment's sample: key and secret hidden, and without paths."""
    keys = ("bootstrap.servers", "security.protocol", "sasl.mechanisms", "sasl.username", "sasl.password")
    lines = [f"    {key!r}: {'***' if key in hidden else config[key]!r}," for key in keys if key in config]
    print("\n".join(["config = {", *lines, "}"]))


def record(environment: dict[str, object]) -> None:
    """Show what is measured with."""
    rows = {
        name: ", ".join(f"{key}={each}" for key, each in value.items()) if isinstance(value, dict) else value
        for name, value in environment.items()
    }
    table(pd.DataFrame({"": rows}, dtype=str), prose=True)


def runs_table(runs: Iterable[ProducerRun]) -> pd.DataFrame:
    """One row a run: its time, its rate, and the averages over its batches."""
    rows = {
        number: {
            "producer": run.mode,
            "time (s)": approx(run.elapsed_s),
            "acknowledged messages / s": approx(run.response_rate),
            "batch, sender (ms)": approx(1000 * fmean(batch.elapsed_s for batch in run.batches)),
            "batch, until acknowledged (ms)": approx(1000 * fmean(batch.delivered_s for batch in run.batches)),
        }
        for number, run in enumerate(runs, start=1)
        if run.batches
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")


def metrics_table(summary: dict[str, dict[str, float]]) -> pd.DataFrame:
    """The assignment's three metrics, and the network's own beside them."""
    rows = {name: [approx(value(each)) for each in summary.values()] for name, value in METRICS.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(summary))


def accounts(results: Results) -> None:
    """Show the accounts, a row a mode, and say whether every message is accounted for; in red where not."""
    found = results.tables.get("accounts")
    holds, sentence = accounted(found)
    if found is not None:
        counts = found.drop(columns=["run", "run_id", "holds"]).groupby("mode").sum()
        counts.insert(0, "runs", found.groupby("mode").size())
        table(counts.map("{:,}".format))
    if holds:
        print(sentence)
    else:
        display(HTML(f'<p style="color:#b00020"><b>{html.escape(sentence)}</b></p>'))


def progress_bar(messages: int) -> tqdm:
    """A progress bar with the time left; in a notebook one output that changes, so that its last state is saved."""
    form = "{bar:30} {n:,} of {total:,} messages, {remaining} left"
    file = _Redrawn() if get_ipython() else sys.stderr
    return tqdm(total=messages, file=file, mininterval=0.5, bar_format=form, ascii=False, ncols=90, position=0)


class _Redrawn:
    """A file for a progress bar: each text replaces the one before."""

    def __init__(self) -> None:
        self._shown = display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text: str) -> None:
        if text.strip():
            self._shown.update({"text/plain": text.strip()}, raw=True)

    def flush(self) -> None:
        """Nothing is held back."""
