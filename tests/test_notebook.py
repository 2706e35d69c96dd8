"""The assignment's notebook: executed from end to end, redrawn from saved files, and its committed state."""

import itertools
import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from harness import report
from harness.results import load_results

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "assignment1.ipynb"


def execute(folder: Path, notebook: Path = NOTEBOOK, **parameters: object) -> nbformat.NotebookNode:
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
    options = {"timeout": 600, "kernel_name": "python3", "coalesce_streams": True}
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


def saved_folder(notebook: nbformat.NotebookNode) -> str:
    return re.search(r"Saved in (results/[\w-]+)", "\n".join(texts(notebook)))[1]


def check_outputs(notebook: nbformat.NotebookNode, secret: str = "no secret") -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell.outputs:
            said = json.dumps(output)
            assert output.output_type != "error" and output.get("name") != "stderr", said
            assert not re.search(
                r"Traceback \(most|Warning|%[0-7]\|\d+|/(root|tmp|work|home|Users)/|\\\\Users\\\\", said
            ), said
            assert secret not in said


@pytest.fixture(scope="module")
def measured(tmp_path_factory, kafka):
    """The notebook executed against the tests' Kafka through a client.properties, as if it were Confluent Cloud."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "client.properties").write_text("".join(f"{key}={value}\n" for key, value in kafka.config.items()))
    notebook = execute(folder, num_messages=1000, blocks=2, topic="nb")
    return folder, notebook


def test_measures_from_end_to_end(measured, kafka):
    folder, notebook = measured
    check_outputs(notebook, kafka.config["sasl.password"])
    said = "\n".join(texts(notebook))
    assert "Configuration from client.properties" in said
    assert "'sasl.username': '***'" in said and "'sasl.password': '***'" in said
    assert "All 10,000 acknowledged messages arrived" in said
    assert "Delete the cluster" not in said, "it is no cluster on Confluent Cloud"
    assert "The asynchronous producer is" in texts(notebook)[0], "the first cell has the answer"
    results = load_results(folder / saved_folder(notebook))
    assert [run.mode for run in results.runs] == ["async", "async", "sync", "async", "async"] * 2
    assert all(run.acknowledged == 1000 for run in results.runs)
    assert set(results.tables) == {"accounts"} and results.tables["accounts"]["holds"].all()
    for file in results.folder.iterdir():
        assert kafka.config["sasl.password"].encode() not in file.read_bytes()


def test_redrawn_from_the_files_alone(measured, tmp_path):
    folder, notebook = measured
    shutil.copytree(folder / "results", tmp_path / "results")
    # another size than was measured, and a cluster for which there are no credentials: neither may matter
    again = execute(tmp_path, saved_run=saved_folder(notebook), cluster_choice="cloud", batch_size=100)
    check_outputs(again)
    assert_same(again, notebook)


def assert_same(again: nbformat.NotebookNode, first: nbformat.NotebookNode) -> None:
    """Every word from the saved files is the same; only the last cell has no cluster to stop."""
    below = "Where the times are stored"
    assert texts(again, below=below) == texts(first, below=below)[:-1]
    assert texts(again)[0] == texts(first)[0]


@pytest.mark.long
def test_runs_on_the_simulated_cluster(tmp_path):
    notebook = execute(tmp_path, num_messages=200, batch_size=50, blocks=1, cluster_choice="simulated")
    check_outputs(notebook)
    said = "\n".join(texts(notebook))
    assert "simulated cluster, round trip 25 ms" in said
    assert "(one run each, which does not show how much" in said


# --- The committed state ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def committed() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, 4)


def test_committed_outputs(committed):
    check_outputs(committed)
    outputs = [output for cell in committed.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2


def test_committed_numbers_are_those_of_the_saved_run(committed, tmp_path):
    shutil.copytree(ROOT / "results", tmp_path / "results")
    assert_same(execute(tmp_path, saved_run=saved_folder(committed)), committed)


def test_a_reader_who_divides_printed_numbers_gets_the_printed_ratio(committed):
    answer = texts(committed)[0]
    found = re.search(r"about ([\d.,]+) times as fast: .* in ([\d.]+) s, .* in ([\d.]+) s", answer)
    factor, fast, slow = found.groups()
    assert report.approx(float(slow) / float(fast)) == factor
    summary = report.summarize(load_results(ROOT / saved_folder(committed)).runs)
    for each in summary.values():
        assert each["requests_rate"] * each["messages_per_request"] == pytest.approx(each["response_rate"])
        assert each["messages"] / report.rounded(each["time_s"]) == pytest.approx(each["response_rate"])


def test_published_measurement_has_not_drifted(committed):
    runs = load_results(ROOT / saved_folder(committed)).runs
    assert len(runs) == 30 and report.doubts(runs) == []


# Numbers in prose that are chosen, cited or defined; the measured ones are rendered.
GIVEN = {"1", "2", "5", "15", "25", "26", "44", "79", "80", "88.8", "157", "200", "500"}
GIVEN |= {"2,000", "20,000", "1.8.0", "2026", "3", "4", "6", "99", "100", "200,000"}


def test_no_measured_number_is_typed_by_hand(committed):
    for cell in committed.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"\([^()]*(http|#|\.md|\.ipynb)[^)]*\)|`[^`]*`|(?m:^\d\.)", "", cell.source)
            assert set(re.findall(r"\d[\d,.]*\d|\d", prose)) <= GIVEN, cell.source


def headings(notebook: nbformat.NotebookNode) -> list[str]:
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return [line for source in sources for line in source.splitlines() if re.match("#+ ", line)]


def test_structure(committed):
    levels = [len(line.split(" ")[0]) for line in headings(committed)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert len(committed.cells) <= 45
    for before, cell in itertools.pairwise(committed.cells):
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 30, cell.source
            assert max(map(len, cell.source.splitlines())) <= 88, "clipped in a narrow window"
            if before.cell_type == "markdown":
                assert not before.source.splitlines()[-1].startswith("#"), "a sentence introduces each code cell"


def test_the_map_leads_to_every_section_the_assignment_asks_for(committed):
    anchors = {line.lstrip("#").strip().replace(" ", "-") for line in headings(committed)}
    (table,) = (cell.source for cell in committed.cells if cell.source.startswith("| the assignment asks for"))
    links = re.findall(r"\]\(#(.+?)\)(?=[ ,|])", table)
    assert len(links) >= 7 and set(links) <= anchors
    for asked in ("Configuration", "asynchronous producer", "synchronous producer", "dataclass", "Serialization"):
        assert any(asked.lower() in line.lower() for line in headings(committed)), asked


def test_every_figure_has_a_text_alternative(committed):
    for cell in committed.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                assert len(output.metadata["image/png"]["alt"]) > 60


def test_the_analysis_is_long_enough(committed):
    prose = "\n".join(cell.source for cell in committed.cells if cell.cell_type == "markdown")
    for heading, words in (
        ("Possible reasons for the performance difference", 150),
        ("Advantages and disadvantages", 100),
    ):
        assert len(re.split(r"(?m)^#+ ", prose.split(f"### {heading}\n")[1])[0].split()) >= words
