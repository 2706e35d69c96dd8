"""The notebook: executed from end to end, redrawn from saved files, and its committed state."""

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import kafka_helpers as kh

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "assignment1.ipynb"


def execute(folder: Path, **parameters: object) -> nbformat.NotebookNode:
    """Run a copy of the notebook in ``folder``, as `make run` does, with other parameters."""
    for file in [NOTEBOOK, *ROOT.glob("*.py")]:
        shutil.copy(file, folder)
    notebook = nbformat.read(folder / NOTEBOOK.name, 4)
    (cell,) = (each for each in notebook.cells if "parameters" in each.metadata.get("tags", []))
    for name, value in parameters.items():
        cell.source, changed = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value!r}", cell.source)
        assert changed == 1, name
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    return client.execute()


def texts(notebook: nbformat.NotebookNode, *, below: str | None = None) -> list[str]:
    """All that the outputs say in words, of the cells below a heading or of all."""
    shown, reached = [], below is None
    for cell in notebook.cells:
        reached = reached or (cell.cell_type == "markdown" and cell.source.startswith(f"## {below}"))
        for output in cell.get("outputs", []) if reached else []:
            shown.append(
                output.get("text") or output.get("data", {}).get("text/markdown") or output["data"]["text/plain"]
            )
    return shown


def saved_folder(notebook: nbformat.NotebookNode) -> str:
    return re.search(r"results/[\w-]+", "\n".join(texts(notebook)))[0]


def check_outputs(notebook: nbformat.NotebookNode, secret: str = "sasl.password") -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell.outputs:
            said = json.dumps(output)
            assert output.output_type != "error" and output.get("name") != "stderr", said
            assert not re.search(r"Traceback|Warning|%[0-7]\|\d+|/(root|tmp|work|home|Users)/|\\\\Users\\\\", said), (
                said
            )
            assert secret not in said


@pytest.fixture(scope="module")
def measured(tmp_path_factory, kafka):
    """The notebook executed against the tests' Kafka through a client.properties, as if it were Confluent Cloud."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "client.properties").write_text("".join(f"{key}={value}\n" for key, value in kafka.config.items()))
    notebook = execute(folder, num_messages=1000, runs_each=2, further={"same", "ways", "serializing"}, topic="nb")
    return folder, notebook


def test_measures_from_end_to_end(measured, kafka):
    folder, notebook = measured
    check_outputs(notebook, kafka.config["sasl.password"])
    said = "\n".join(texts(notebook))
    assert "Configuration from client.properties" in said
    assert "All 4,000 messages are accounted for" in said
    assert "The asynchronous producer is faster" in texts(notebook)[0], "the first cell has the answer"
    results = kh.load_results(folder / saved_folder(notebook))
    assert [run.mode for run in results.runs] == ["async", "sync", "sync", "async"]
    assert all(run.acknowledged == 1000 for run in results.runs)
    assert {"accounts", "same", "ways", "serializing"} == set(results.tables)
    assert results.tables["accounts"]["holds"].all()
    for file in results.folder.iterdir():
        assert kafka.config["sasl.password"].encode() not in file.read_bytes()


def test_redrawn_from_the_files_alone(measured, tmp_path):
    folder, notebook = measured
    shutil.copytree(folder / "results", tmp_path / "results")
    again = execute(tmp_path, saved_run=saved_folder(notebook), cluster_choice="cloud")  # no credentials: it would fail
    check_outputs(again)
    assert_same(texts(again, below="Results"), texts(notebook, below="Results"))


def assert_same(again: list[str], first: list[str]) -> None:
    """Every word is the same, but that there is no cluster to stop."""
    assert again == [text for text in first if "cluster has ended" not in text and "Delete the cluster" not in text]


def test_runs_on_the_simulated_cluster(tmp_path):
    notebook = execute(
        tmp_path, num_messages=200, batch_size=50, runs_each=1, cluster_choice="simulated", further=set()
    )
    check_outputs(notebook)
    assert "simulated cluster, round trip 20 ms" in "\n".join(texts(notebook))


def test_a_failing_cell_leaves_the_notebook_as_it_was_and_says_why(tmp_path):
    for file in [NOTEBOOK, *ROOT.glob("*.py"), ROOT / "Makefile", ROOT / "requirements.txt"]:
        shutil.copy(file, tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / ".venv" / "run").touch()
    (tmp_path / "client.properties").write_text("bootstrap.servers=127.0.0.1:1\nsecurity.protocol=SASL\n")
    before = (tmp_path / NOTEBOOK.name).read_bytes()
    done = subprocess.run(["make", "run"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0 and "ConfigError: client.properties, line 2: the client doesn't accept" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert (tmp_path / NOTEBOOK.name).read_bytes() == before


# --- The committed state ---


@pytest.fixture(scope="module")
def committed() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, 4)


def test_committed_outputs(committed):
    check_outputs(committed)
    assert (
        sum("image/png" in output.get("data", {}) for cell in committed.cells for output in cell.get("outputs", []))
        >= 5
    )


def test_committed_numbers_are_those_of_the_saved_run(committed, tmp_path):
    folder = saved_folder(committed)
    shutil.copytree(ROOT / folder, tmp_path / folder)
    again = execute(tmp_path, saved_run=folder)
    assert_same(texts(again, below="Results"), texts(committed, below="Results"))
    answer = texts(committed)[0].split("\n\n")[0]
    assert answer in texts(again, below="Which is faster")


def test_no_measured_number_is_typed_by_hand(committed):
    """Markdown cells have only numbers that are chosen, cited or defined; the measured ones are rendered."""
    given = {"1", "2", "5", "6", "10", "44", "78", "200", "500", "2,000", "20,000", "1.8", "2.16.0"}
    for cell in committed.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"\(http[^)]*\)|`[^`]*`|(?m:^\d\.)", "", cell.source)
            assert set(re.findall(r"\d[\d,.]*\d|\d", prose)) <= given, cell.source


def test_structure(committed):
    headings = [
        line
        for cell in committed.cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if re.match("#+ ", line)
    ]
    levels = [len(line.split(" ")[0]) for line in headings]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    for before, cell in zip(committed.cells, committed.cells[1:], strict=False):
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 30, cell.source
            if before.cell_type == "markdown":
                assert not before.source.splitlines()[-1].startswith("#"), "a sentence introduces each code cell"


def test_every_figure_has_a_text_alternative(committed):
    for cell in committed.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                assert len(output.metadata["image/png"]["alt"]) > 60


def test_the_analysis_is_long_enough(committed):
    prose = {cell.source.splitlines()[0]: cell.source for cell in committed.cells if cell.cell_type == "markdown"}
    assert len(prose["Three things make the difference."].split()) >= 150
    assert len(prose["## Advantages and disadvantages"].split()) >= 100
