"""Execute notebooks, and look at what they show."""

import json
import re
import shutil
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent


def execute(notebook: Path, folder: Path, **parameters: object) -> nbformat.NotebookNode:
    """Run a copy of a notebook in ``folder``, as `make run` does, with other parameters."""
    for file in ROOT.glob("*.py"):
        shutil.copy(file, folder)
    for package in ("harness", "local_kafka"):
        shutil.copytree(ROOT / package, folder / package, dirs_exist_ok=True)
    copy = nbformat.read(notebook, 4)
    (cell,) = (each for each in copy.cells if "parameters" in each.metadata.get("tags", []))
    for name, value in parameters.items():
        cell.source, changed = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value!r}", cell.source)
        assert changed == 1, name
    options = {"timeout": 600, "kernel_name": "python3"}
    return NotebookClient(copy, resources={"metadata": {"path": str(folder)}}, **options).execute()


def texts(notebook: nbformat.NotebookNode, *, below: str | None = None) -> list[str]:
    """All that the outputs say in words, of the cells below a heading or of all."""
    shown, reached = [], below is None
    for cell in notebook.cells:
        reached = reached or (cell.cell_type == "markdown" and f"# {below}" in cell.source)
        for output in cell.get("outputs", []) if reached else []:
            data = output.get("data", {})
            shown.append(output.get("text") or data.get("text/markdown") or data["text/plain"])
    return shown


def assert_same(again: nbformat.NotebookNode, first: nbformat.NotebookNode, below: str) -> None:
    """Every word below a heading is the same, and the answer; only the last cell has no cluster to stop."""
    assert texts(again, below=below) == texts(first, below=below)[:-1]
    assert texts(again)[0] == texts(first)[0]


def saved_folder(notebook: nbformat.NotebookNode) -> str:
    return re.search(r"Saved in (results/[\w-]+)", "\n".join(texts(notebook)))[1]


def headings(notebook: nbformat.NotebookNode) -> list[str]:
    return [line for line in prose_of(notebook).splitlines() if re.match("#+ ", line)]


def prose_of(notebook: nbformat.NotebookNode) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def check_outputs(notebook: nbformat.NotebookNode, secret: str = "no secret") -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    unwanted = r"Traceback \(most|Warning|%[0-7]\|\d+|/(root|tmp|work|home|Users)/|\\\\Users\\\\"
    for cell in code:
        for output in cell.outputs:
            shown = json.dumps(output)
            assert output.output_type != "error" and output.get("name") != "stderr", shown
            assert not re.search(unwanted, shown), shown
            assert secret not in shown
