"""The second notebook: its form; its published state, drawn again from the files; a folder that doesn't serve."""

import itertools
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from notebooks import check_outputs, execute, headings, saved_folder, texts

from harness import answers
from harness.results import Record, Results
from harness.runs import ProducerRun

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "going_further.ipynb"
VERDICT = re.compile(r"\*\*(.+)\*\* The prediction: (as predicted|not as predicted|not decided)\.")


@pytest.fixture(scope="module")
def committed() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, 4)


@pytest.mark.published
def test_published_outputs_are_those_of_the_saved_tables(committed, tmp_path):
    check_outputs(committed)
    shutil.copytree(ROOT / "results", tmp_path / "results")
    again = execute(NOTEBOOK, tmp_path, saved_further=saved_folder(committed))
    check_outputs(again)
    assert texts(again) == [text for text in texts(committed) if not text.startswith("Ended after")]


@pytest.mark.published
def test_published_answers_are_judged_and_listed_and_figures_described(committed):
    found = [match.groups() for text in texts(committed) if (match := VERDICT.fullmatch(text))]
    assert len(found) == len(answers.QUESTIONS) and all(len(short.split()) <= 15 for short, _ in found)
    for line, (short, verdict) in zip(texts(committed)[0].splitlines()[2:], found, strict=True):
        assert line.endswith(f"| {short} | {verdict} |")
    outputs = [output for cell in committed.cells for output in cell.get("outputs", [])]
    figures = [output.metadata["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) == 3 and all(len(figure["alt"]) > 60 for figure in figures)


@pytest.mark.published
def test_it_is_read_in_ten_minutes(committed):
    """Prose and rendered sentences together."""
    prose = [cell.source for cell in committed.cells if cell.cell_type == "markdown"]
    outputs = [output.get("data", {}) for cell in committed.cells for output in cell.get("outputs", [])]
    said = " ".join(prose + [data.get("text/markdown", "") for data in outputs])
    assert len(re.sub(r"\(http[^)]*\)", "", said).split()) <= 2_000


def test_structure(committed):
    sections = "\n".join(cell.source for cell in committed.cells if cell.cell_type == "markdown").split("\n## ")
    numbered = [section for section in sections if re.match(r"\d+\. .*\?\n", section)]
    asked = [f"{number}. {question}" for number, question in enumerate(answers.QUESTIONS, start=1)]
    assert [section.splitlines()[0] for section in numbered] == asked
    for section in numbered:
        assert "**Prediction:**" in section or "**Prediction** for" in section
        assert section.count("*For your producer:*") == 1
    levels = [len(line.split(" ")[0]) for line in headings(committed)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    code = [cell.source for cell in committed.cells if cell.cell_type == "code"]
    assert sum(len(source.splitlines()) for source in code) <= 200
    assert max(len(line) for source in code for line in source.splitlines()) <= 88, "clipped in a narrow window"
    for before, cell in itertools.pairwise(committed.cells):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown", cell.source
            assert not before.source.splitlines()[-1].startswith("#"), "a sentence introduces each code cell"


def test_an_interrupted_measurement_is_judged_before_anything_is_measured(tmp_path):
    results = Results(tmp_path / "results" / "stopped", Record(kind="local", num_messages=500))
    results.add_run(ProducerRun("async", stopped="no acknowledgement within 5 s"))
    with pytest.raises(CellExecutionError, match="complete runs of both producers"):
        execute(NOTEBOOK, tmp_path, saved_run="results/stopped", saved_further="")
    assert [folder.name for folder in (tmp_path / "results").iterdir()] == ["stopped"]


def test_no_measured_number_is_typed_by_hand(committed):
    """Markdown cells have only numbers that are chosen, cited or defined; the measured ones are rendered."""
    chosen = {
        "0",
        "0.3",
        "0.6",
        "0.7",
        "0.9",
        "1",
        "1.1",
        "1.11",
        "1.5",
        "4",
        "9",
        "10",
        "20",
        "21",
        "25",
        "100",
        "1,000",
    }
    cited = {"5", "20,000", "100,000", "2374", "4953", "4989"}  # defaults of broker and client; issues
    for cell in committed.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"\(http[^)]*\)|`[^`]*`|(?m:^#+ \d+\.)", "", cell.source)
            assert set(re.findall(r"\d[\d,.]*\d|\d", prose)) <= chosen | cited, cell.source
