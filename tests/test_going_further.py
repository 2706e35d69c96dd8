"""The second notebook: its form; its published state, drawn again from the files; a folder that doesn't serve."""

import itertools
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from test_notebook import check_outputs, execute, headings, saved_folder, texts

from harness.results import Results, environment
from harness.runs import ProducerRun

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "going_further.ipynb"
SECTIONS = 9
VERDICT = re.compile(r"That is (as predicted|not as predicted, because .+)\.\**$")


@pytest.fixture(scope="module")
def committed() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, 4)


@pytest.mark.published
def test_published_outputs_are_those_of_the_saved_tables(committed, tmp_path):
    check_outputs(committed)
    shutil.copytree(ROOT / "results", tmp_path / "results")
    again = execute(tmp_path, NOTEBOOK, saved_further=saved_folder(committed))
    check_outputs(again)
    assert texts(again) == texts(committed)


@pytest.mark.published
def test_published_answers_are_judged_and_listed_and_figures_described(committed):
    answers = [text for text in texts(committed) if text.startswith("**")]
    assert len(answers) == SECTIONS and all(map(VERDICT.search, answers)), answers
    listed = texts(committed)[0].splitlines()
    assert listed == [f"{number}. {answer.strip('*')}" for number, answer in enumerate(answers, 1)]
    outputs = [output for cell in committed.cells for output in cell.get("outputs", [])]
    figures = [output.metadata["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) >= 4 and all(len(figure["alt"]) > 60 for figure in figures)


def test_structure(committed):
    sections = "\n".join(cell.source for cell in committed.cells if cell.cell_type == "markdown").split("\n## ")
    numbered = [section for section in sections if re.match(r"\d+\. .*\?\n", section)]
    assert [int(section.partition(".")[0]) for section in numbered] == list(range(1, SECTIONS + 1))
    assert all("**Prediction:**" in section for section in numbered)
    levels = [len(line.split(" ")[0]) for line in headings(committed)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    for before, cell in itertools.pairwise(committed.cells):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown", cell.source
            assert not before.source.splitlines()[-1].startswith("#"), "a sentence introduces each code cell"


def test_an_interrupted_measurement_is_judged_before_anything_is_measured(tmp_path):
    results = Results(tmp_path / "results" / "stopped", environment(kind="local", num_messages=500))
    results.add_run(ProducerRun("async", stopped="no acknowledgement within 5 s"))
    with pytest.raises(CellExecutionError, match="complete runs of both producers"):
        execute(tmp_path, NOTEBOOK, saved_run="results/stopped")
    assert [folder.name for folder in (tmp_path / "results").iterdir()] == ["stopped"]


def test_no_measured_number_is_typed_by_hand(committed):
    """Markdown cells have only numbers that are chosen, cited or defined; the measured ones are rendered."""
    chosen = {"0", "0.9", "1", "1.11", "3", "4", "6", "10", "20", "21", "24", "25", "50", "100", "500", "1,000"}
    cited = {"9", "100,000"}  # defaults of broker and client
    for cell in committed.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"\(http[^)]*\)|`[^`]*`|(?m:^#+ \d+\.)", "", cell.source)
            assert set(re.findall(r"\d[\d,.]*\d|\d", prose)) <= chosen | cited, cell.source
