"""What `make run` does: set parameters, execute the notebook, save it, and say how it ended."""

import ast
import asyncio
import contextlib
import itertools
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import NoReturn

import nbformat
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import NotebookNode

from harness.errors import PlainError
from harness.kernel import Execution, RunEnded

# The parameter that has saved results shown in place of measuring, and the target of the Makefile that takes it.
SAVED = {"saved_run": "run", "saved_further": "further"}
ASSIGNMENT = r"(?m)^(\w+)\s*=(?!=).*"


def read_notebook(path: Path) -> tuple[NotebookNode, bytes]:
    """Read a notebook; also returns the file as it is. Raises PlainError where that can't be done."""
    try:
        content = path.read_bytes()
        notebook = nbformat.reads(content.decode("utf-8-sig"), 4)
        nbformat.validate(notebook, relax_add_props=True)
        return notebook, content
    except OSError as error:
        raise PlainError(f"{path.name} can't be read: {error.strerror}.") from None
    except Exception as error:  # of many kinds
        reason = str(error).splitlines()[0]
        raise PlainError(
            f"{path.name} is no notebook that can be read; restore it, or save it anew: {reason}"
        ) from None


def parameters_cell(notebook: NotebookNode) -> NotebookNode | None:
    """The cell that sets ``saved_run`` or ``saved_further``, if any; one tagged ``parameters`` comes first."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code.sort(key=lambda cell: "parameters" not in cell.metadata.get("tags", []))
    for cell in code:
        if SAVED.keys() & set(re.findall(ASSIGNMENT, cell.source)):
            return cell
    return None


def set_parameter(cell: NotebookNode | None, setting: str) -> None:
    """Set what is given as name=value, a Python literal or else text. Raises PlainError where that can't be done."""
    if cell is None:
        raise PlainError(f"{setting} can't be set: no cell of the notebook sets {' or '.join(SAVED)}.")
    name, _, value = setting.partition("=")
    names = re.findall(ASSIGNMENT, cell.source)
    if name not in names or "=" not in setting:
        known = ", ".join(names)
        raise PlainError(f"{setting} sets no parameter: write name=value, without blanks; the names are: {known}.")
    with contextlib.suppress(ValueError, SyntaxError):
        value = ast.literal_eval(value)
    cell.source = re.sub(rf"(?m)^{name}\s*=(?!=).*", lambda _: f"{name} = {value!r}", cell.source)


def write_whole(notebook: NotebookNode, target: Path) -> None:
    """Write a notebook; whenever this ends, the target is as before or whole, and it keeps its mode."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".executed-") as folder:
        part = Path(folder) / target.name
        nbformat.write(notebook, part)
        if target.exists():
            shutil.copymode(target, part)
        part.replace(target)


def replace(notebook: NotebookNode, path: Path, before: bytes) -> str:
    """Put an executed notebook in the place of the one that was read as ``before``, or say why that can't be."""
    try:
        if path.read_bytes() != before:
            return f"{path.name} was changed while it ran, and stays as it is."
        if not os.access(path, os.W_OK):
            return f"{path.name} is write-protected, and stays as it is."
        write_whole(notebook, path)
    except OSError as error:
        return f"{path.name} can't be replaced: {error.strerror}."
    return ""


def save_copy(notebook: NotebookNode, folder: Path, path: Path) -> Path:
    """Save an executed notebook in a folder, under its name or, if that is taken, with a number. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    numbers = itertools.count(2)
    while os.path.lexists(target):
        target = folder / f"{path.stem}_{next(numbers)}{path.suffix}"
    write_whole(notebook, target)
    return target


def save(run: Execution, path: Path, before: bytes | None) -> Path:
    """Save what was executed: in its place if that still holds ``before``, else among the results, else elsewhere.

    Says why it went another way, and returns where it is. Raises OSError if it is nowhere.
    """
    CoalesceStreamsPreprocessor().preprocess(run.nb, {})  # after the run, in which an update counts the outputs
    if before is not None:
        problem = replace(run.nb, path, before)
        if not problem:
            return path
        run.terminal.write_line(problem)
    folder = path.parent / (run.saved_in or time.strftime("results/%Y-%m-%d_%H-%M-%S", time.gmtime()))
    try:
        return save_copy(run.nb, folder, path)
    except OSError as error:
        run.terminal.write_line(f"Nothing can be written in {folder}: {error.strerror}.")
        return save_copy(run.nb, Path(tempfile.mkdtemp(prefix="notebook-")), path)


def answer(notebook: NotebookNode) -> str:
    """What the notebook shows as its answer, by :func:`harness.show.fill_in_answer`, as plain text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    answers = [each for each in outputs if each.get("metadata", {}).get("role") == "answer"]
    return re.sub(r"[*`]", "", "\n".join(each.data.get("text/markdown", "") for each in answers))


def end(run: Execution, reason: str, status: int) -> NoReturn:
    """End the program when a run did not come to its end: what happened, where the results are, how to go on."""
    lines = [reason]
    folder = run.folder / run.saved_in
    if run.saved_in and folder.is_dir() and any(folder.iterdir()):
        lines.append(f"What was measured is in {run.saved_in}.")
        cell = parameters_cell(run.nb)
        names = [name for name in SAVED if cell and re.search(rf"(?m)^{name}\s*=", cell.source)]
        if names:
            lines.append(f'To go on from there: make {SAVED[names[-1]]} P="{names[-1]}={run.saved_in}"')
    run.terminal.end_line()
    with contextlib.suppress(OSError):
        print("\n".join(lines), file=sys.stderr, flush=True)
    sys.exit(status)


def execute(signals: list[signal.Signals], file: str, *given: str) -> None:
    """Execute a notebook with the parameters that are given, save it, and say what came of it; a signal ends it."""
    warnings.simplefilter("ignore")  # of what nbformat puts right in a notebook
    path = Path(file).resolve()
    try:
        notebook, before = read_notebook(path)
        for setting in given:
            set_parameter(parameters_cell(notebook), setting)
    except PlainError as error:
        sys.exit(str(error))
    run = Execution(notebook, path.parent)
    run.terminal.write_line("Executing " + (f"a copy of {path.name} with {', '.join(given)}" if given else path.name))
    try:
        asyncio.run(run.run(signals))
    except RunEnded as ended:
        end(run, str(ended), ended.status)
    try:
        saved = save(run, path, None if given else before)
    except OSError as error:
        end(run, f"The executed notebook can't be saved anywhere: {error.strerror}.", 1)
    shown = saved.relative_to(path.parent) if saved.is_relative_to(path.parent) else saved
    lines = [answer(notebook), "", f"Results: {run.saved_in or 'none saved'}", f"Executed notebook: {shown}"]
    run.terminal.write_line("\n".join(lines))
