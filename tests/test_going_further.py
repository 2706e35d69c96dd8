"""The second notebook: its committed state, drawn again from the files, and continued where a table is missing."""

import itertools
import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from test_notebook import check_outputs, execute, headings, saved_folder, texts

import kafka_helpers as kh

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "going_further.ipynb"
SECTIONS = 10


@pytest.fixture(scope="module")
def committed() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, 4)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with the saved runs."""
    shutil.copytree(ROOT / "results", tmp_path / "results")
    return tmp_path


def words_of(notebook: nbformat.NotebookNode) -> list[str]:
    """All that the outputs say, but for what a cluster says when it is opened."""
    return [text for text in texts(notebook) if not text.startswith("Cluster:")]


def test_committed_outputs_are_those_of_the_saved_tables(committed, folder):
    """Whatever has been measured since then, or on another machine."""
    check_outputs(committed)
    examined = next((folder / "results").glob("*_local"))
    shutil.copytree(examined, folder / "results" / "2999-01-01_00-00-00_local")
    elsewhere = shutil.copytree(examined, folder / "results" / "2000-01-01_00-00-00_local") / "results.json"
    content = json.loads(elsewhere.read_text())
    content["environment"]["cpu"] = "another"
    elsewhere.write_text(json.dumps(content))
    again = execute(folder, NOTEBOOK, saved_further=saved_folder(committed))
    check_outputs(again)
    assert words_of(again) == words_of(committed)


def test_goes_on_where_a_table_is_missing(committed, folder):
    """It measures what is not there, on a Kafka that it starts, and leaves the rest as it is."""
    missing = {"linger", "looks"}
    results = folder / saved_folder(committed)
    content = json.loads((results / "results.json").read_text())
    content["rows"] = {name: rows for name, rows in content["rows"].items() if name not in missing}
    (results / "results.json").write_text(json.dumps(content))
    for name in missing:
        (results / f"{name}.csv").unlink()
    kept = {file: file.read_bytes() for file in results.glob("*.csv")}
    notebook = execute(folder, NOTEBOOK, saved_further=saved_folder(committed))
    check_outputs(notebook)
    assert "Cluster: local" in "\n".join(texts(notebook))
    assert missing <= set(kh.load_results(results).tables)
    assert {file: file.read_bytes() for file in kept} == kept


def test_each_section_has_a_prediction_and_an_answer(committed):
    sections = "\n".join(cell.source for cell in committed.cells if cell.cell_type == "markdown").split("\n## ")
    numbered = [each for each in sections if re.match(r"\d+\. ", each)]
    assert [int(each.partition(".")[0]) for each in numbered] == list(range(1, SECTIONS + 1))
    for each in numbered:
        assert each.partition("\n")[0].endswith("?") and "**Prediction:**" in each, each
    answers = [text for text in texts(committed) if text.startswith("**")]
    assert len(answers) == SECTIONS
    listed = texts(committed)[0].splitlines()
    assert listed == [f"{number}. {answer.strip('*')}" for number, answer in enumerate(answers, 1)]


def test_structure(committed):
    cells = committed.cells
    levels = [len(line.split(" ")[0]) for line in headings(committed)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    for before, cell in itertools.pairwise(cells):
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 30, cell.source
            assert before.cell_type == "markdown", cell.source
            assert not before.source.splitlines()[-1].startswith("#"), "a sentence introduces each code cell"


def test_no_measured_number_is_typed_by_hand(committed):
    """Markdown cells have only numbers that are chosen, cited or defined; the measured ones are rendered."""
    chosen = {"0", "1", "3", "5", "10", "20", "25", "50", "100", "1,000", "20,000", "50,000"}
    cited = {"1.8", "9", "100,000"}  # the version of librdkafka; defaults of broker and client
    for cell in committed.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"\(http[^)]*\)|`[^`]*`|(?m:^#+ \d+\.)", "", cell.source)
            assert set(re.findall(r"\d[\d,.]*\d|\d", prose)) <= chosen | cited, cell.source


def test_every_figure_has_a_text_alternative(committed):
    outputs = [output for cell in committed.cells for output in cell.get("outputs", [])]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) >= 5
    assert all(len(figure.metadata["image/png"]["alt"]) > 60 for figure in figures)
