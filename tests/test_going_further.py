"""The second notebook: its form; its published state, drawn again from the files; a folder that doesn't serve."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from notebooks import check_outputs, execute, saved_folder, texts

import experiments
from harness import answers
from harness.errors import ResultsError
from harness.results import Record, Results
from harness.runs import BatchTiming, ProducerRun

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "going_further.ipynb"
VERDICT = re.compile(r"\*\*(.+)\*\* The prediction: (as predicted|not as predicted|not decided)\.")


@pytest.fixture(scope="module")
def committed() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, 4)


def test_published_outputs_are_those_of_the_saved_tables(committed, tmp_path):
    check_outputs(committed)
    shutil.copytree(ROOT / "results", tmp_path / "results")
    again = execute(NOTEBOOK, tmp_path, saved_further=saved_folder(committed))
    check_outputs(again)
    assert texts(again) == [text for text in texts(committed) if not text.startswith("Ended after")]


def test_published_answers_are_judged_and_listed(committed):
    found = [match.groups() for text in texts(committed) if (match := VERDICT.fullmatch(text))]
    assert len(found) == len(answers.QUESTIONS) and all(len(short.split()) <= 15 for short, _ in found)
    for line, (short, verdict) in zip(texts(committed)[0].splitlines()[2:], found, strict=True):
        assert line.endswith(f"| {short} | {verdict} |")


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
    code = [cell.source for cell in committed.cells if cell.cell_type == "code"]
    assert sum(len(source.splitlines()) for source in code) <= 200


def test_an_interrupted_measurement_is_judged_before_anything_is_measured(tmp_path, monkeypatch):
    results = Results(tmp_path / "results" / "stopped", Record(kind="local", num_messages=500))
    results.add_run(ProducerRun("async", stopped="no acknowledgement within 5 s"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ResultsError, match="complete runs of both producers"):
        experiments.open_results("results/stopped")
    assert [folder.name for folder in (tmp_path / "results").iterdir()] == ["stopped"]


def test_the_measurement_that_is_examined_can_be_named_anew(tmp_path, monkeypatch):
    """Also where the one that was examined before is gone."""
    runs = [ProducerRun(mode, "r", [BatchTiming(1, 0.1, 0.1, 1)], 0.1) for mode in ("async", "sync")]
    Results(tmp_path / "results/new", Record(kind="local", num_messages=1, planned_runs=2), runs).save()
    Results(
        tmp_path / "results/further", Record(kind="further", saved_run="results/gone", rehearsal="results/gone")
    ).save()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ResultsError, match="No saved run in results/gone"):
        experiments.open_results(saved_further="results/further")
    results, examined, rehearsal = experiments.open_results("results/new", "results/further")
    assert (results.folder.name, examined.folder.name, rehearsal) == ("further", "new", None)
    assert results.record.saved_run == "results/new"


def test_no_measured_number_is_typed_by_hand(committed):
    """Markdown cells have only numbers that are chosen, cited or defined; the measured ones are rendered."""
    chosen = {"0", "0.3", "0.6", "0.7", "0.9", "1", "1.1", "1.11", "1.5"}
    chosen |= {"4", "9", "10", "20", "21", "25", "100", "1,000"}
    cited = {"5", "20,000", "100,000", "2374", "4953", "4989"}  # defaults of broker and client; issues
    for cell in committed.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"\(http[^)]*\)|`[^`]*`|(?m:^#+ \d+\.)", "", cell.source)
            assert set(re.findall(r"\d[\d,.]*\d|\d", prose)) <= chosen | cited, cell.source
