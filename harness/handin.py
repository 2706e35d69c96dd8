"""Put together what is handed in, as a folder and a zip of it: ``python -m harness.handin "Jane Doe"``.

Both are made in a temporary folder and moved to their place at the end, so that they are whole or not there.
"""

import html
import itertools
import os
import re
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from nbformat import NotebookNode

from harness.errors import PlainError
from harness.execute import read_notebook
from harness.pages import render
from harness.results import load_results

NOTEBOOK = "assignment1.ipynb"
FURTHER = "going_further.ipynb"
FURTHER_PAGE = "going_further.html"
ANSWERS = "answers/assignment1_answers.md"
# By name, so that nothing else that lies there goes along: it might be a credential.
PROGRAM = ["kafka_helpers.py", "requirements.txt", "constraints.txt"]
PROGRAM += ["harness/*.py", "harness/*.toml", "harness/page.html.j2"]
PROGRAM += ["local_kafka/*.py", "local_kafka/*.template", "local_kafka/java.options", "local_kafka/jars.txt"]
MEASUREMENT = ["results.json", "*.csv"]
README = """# Kafka producers, asynchronous and synchronous
- Read `assignment1.html`, the executed notebook as a page, and `{answers}`, Problem 2; `going_further.html` is extra.
- `results` has the data. To measure again: `pip install -c constraints.txt -r requirements.txt`, then \
`python -m harness.run_notebook assignment1.ipynb`.
- For Confluent Cloud, save the console's configuration for Python (*Clients*, *Python*) as `client.properties` here.
"""


def folder_for(name: str) -> Path:
    """Name the folder, with at most 50 of the name's letters and digits. Raises PlainError where it has none."""
    words = re.sub(r"\W+", "_", unicodedata.normalize("NFC", name).lower())
    shortened = words.strip("_")[:50].strip("_")
    if not shortened:
        raise PlainError('Say whose it is: make handin NAME="Jane Doe"')
    return Path(f"assignment1_{shortened}")


def fault(cell: NotebookNode, count_before: int) -> str:
    """Say what is wrong with an executed code cell, as the end of a sentence; nothing if all is well."""
    for output in cell.outputs:
        if output.output_type == "error":
            return f"ended with {output.ename}"
    if cell.execution_count is None:
        return "has not been run"
    return "" if cell.execution_count > count_before else "was not run after the one above it"


def require_executed(file: str, command: str) -> NotebookNode:
    """Read a notebook all of whose cells were run, in order, without an error. Raises PlainError otherwise."""
    notebook, _ = read_notebook(Path(file))
    heading = file
    count = 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for found in re.finditer(r"(?m)^#+ +(.+)", cell.source):
                heading = found[1]
        if cell.cell_type == "code" and cell.source.strip():
            if said := fault(cell, count):
                raise PlainError(f'{file}: in "{heading}" a cell {said}. Run all of it ({command}), then again.')
            count = cell.execution_count
    return notebook


def shown_measurements(notebook: NotebookNode) -> list[Path]:
    """Find the folders of results that the outputs name. Raises PlainError if there is none, or one is not whole."""
    named: set[str] = set()
    for output in [output for cell in notebook.cells for output in cell.get("outputs", [])]:
        for place in re.findall(r"Data: (.+)\.\*", output.get("data", {}).get("text/markdown", "")):
            named.add(html.unescape(place))  # as report.where_measured() writes it
    if not named:
        raise PlainError(f"{NOTEBOOK} shows no saved measurement: make run, then again.")
    return [load_results(folder).folder for folder in sorted(named)]


def copy(patterns: Iterable[str], source: Path, target: Path) -> None:
    """Copy files, as if written now. Raises PlainError where a pattern fits none."""
    for pattern in patterns:
        found = sorted(source.glob(pattern))
        if not found:
            raise PlainError(f"{source / pattern} is missing: restore it, then again.")
        for file in found:
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)


def fill(folder: Path, answers: str) -> None:
    """Write all that is handed in into this folder; ``answers`` is the name of the file with Problem 2.

    Raises PlainError or OSError where a part isn't whole.
    """
    notebook = require_executed(NOTEBOOK, "make run")
    require_executed(FURTHER, "make further")
    copy(PROGRAM, Path(), folder)
    for measurement in shown_measurements(notebook):
        pictures = [file.name for file in measurement.glob("*.png")]
        copy([*MEASUREMENT, *pictures], measurement, folder / "results" / measurement.name)
    shutil.copyfile(ANSWERS, folder / answers)
    text = Path(NOTEBOOK).read_text(encoding="utf-8").replace(ANSWERS, answers).replace(FURTHER, FURTHER_PAGE)
    (folder / NOTEBOOK).write_text(text, encoding="utf-8")
    (folder / "README.md").write_text(README.format(answers=answers), encoding="utf-8")
    page = render(folder / NOTEBOOK, linked=[answers, FURTHER_PAGE, "README.md"])
    (folder / NOTEBOOK).with_suffix(".html").write_text(page, encoding="utf-8")
    (folder / FURTHER_PAGE).write_text(render(Path(FURTHER), linked=[NOTEBOOK]), encoding="utf-8")


def free_place(folder: Path) -> Path:
    """Give the folder's name, with a number if there is a folder or a zip of that name: it may have been edited."""
    place = folder
    numbers = itertools.count(2)
    while os.path.lexists(place) or os.path.lexists(f"{place}.zip"):
        place = Path(f"{folder}_{next(numbers)}")
    return place


def hand_in(name: str) -> None:
    """Make folder and zip in the current folder, beside those of before. Raises PlainError or OSError."""
    wanted = folder_for(name)
    place = free_place(wanted)
    with tempfile.TemporaryDirectory(prefix=".handin-", dir=".") as made:
        fill(made / place, answers=f"{wanted}.md")
        packed = Path(shutil.make_archive(f"{made}/{place}", "zip", made, str(place)))
        (made / place).rename(place)
        packed.rename(f"{place}.zip")
    print(f"To hand in: {place}, or the same as one file: {place}.zip")


def main(name: str = "") -> None:
    """Hand in, or end with a sentence."""
    try:
        hand_in(name)
    except PlainError as error:
        sys.exit(str(error))
    except (OSError, ValueError) as error:  # the second where the clock shows a date before 1980
        sys.exit(f"Nothing was handed in: {error}.")
    except KeyboardInterrupt:
        sys.exit("Interrupted: nothing was handed in.")


if __name__ == "__main__":
    main(*sys.argv[1:])
