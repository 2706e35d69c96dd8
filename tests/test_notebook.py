"""The assignment's notebook: executed from end to end, redrawn from saved files, and its committed state."""

import itertools
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from notebooks import ROOT, assert_same, check_outputs, execute, headings, prose_of, saved_folder, texts

from harness import analysis, report
from harness.results import Record, Results, load_results
from harness.runs import INTERRUPTED, BatchTiming, ProducerRun

NOTEBOOK = ROOT / "assignment1.ipynb"
BELOW = "Where the times are stored"  # from here on everything is made from the saved files


@pytest.fixture(scope="module")
def measured(tmp_path_factory, kafka):
    """The notebook executed against the tests' Kafka through a client.properties, as if it were Confluent Cloud."""
    folder = tmp_path_factory.mktemp("notebook")
    lines = "".join(f"{key}={value}\n" for key, value in kafka.config.items())
    (folder / "client.properties").write_text(lines, encoding="utf-8")
    (folder / "client.properties").chmod(0o600)
    notebook = execute(NOTEBOOK, folder, num_messages=1000, blocks=2, topic="nb")
    return folder, notebook


def test_measures_from_end_to_end(measured, kafka):
    folder, notebook = measured
    check_outputs(notebook, kafka.config["sasl.password"])
    shown = "\n".join(texts(notebook))
    assert "Configuration from client.properties" in shown
    assert "'sasl.username': '***'" in shown and "'sasl.password': '***'" in shown
    assert "send_async: " in shown and "send_sync: " in shown, "the two loops in short have run"
    assert "All 10,000 acknowledged messages arrived" in shown
    assert "Delete the cluster" not in shown, "it is no cluster on Confluent Cloud"
    assert "The asynchronous producer is faster" in texts(notebook)[0], "the first cell has the answer"
    results = load_results(folder / saved_folder(notebook))
    assert [run.mode for run in results.runs] == ["async", "async", "sync", "async", "async"] * 2
    assert all(run.acknowledged == 1000 for run in results.runs)
    assert set(results.tables) == {"accounts"} and results.tables["accounts"]["holds"].all()
    for file in results.folder.iterdir():
        assert kafka.config["sasl.password"].encode() not in file.read_bytes()


def test_redrawn_from_the_files_alone(measured, tmp_path):
    folder, notebook = measured
    shutil.copytree(folder / "results", tmp_path / "results")
    (tmp_path / "client.properties").write_text("bootstrap.servers=<BOOTSTRAP SERVER>\n", encoding="utf-8")
    # another size than was measured, and credentials that are not filled in: neither may matter
    again = execute(NOTEBOOK, tmp_path, saved_run=saved_folder(notebook), cluster_choice="cloud", batch_size=100)
    check_outputs(again)
    assert_same(again, notebook, BELOW)


# --- Results of any kind, drawn by the cells after loading -----------------------------------------------------------


def a_run(mode: str, *, batches: int = 2, failed: int = 0, stopped: str = "") -> ProducerRun:
    timings = [BatchTiming(500, 0.01, 0.02, 500 - failed, failed, reports=n) for n in range(batches)]
    errors = {"Local: Message timed out": failed * batches} if failed else {}
    run = ProducerRun(mode, f"{mode}-1", timings, 0.03 * batches, errors=errors, stopped=stopped)
    if not failed and batches:
        run.wait_quantiles_s = [0.01] * 201
        run.network = {"produce_requests": 4, "rtt_ms": 1.5, "throttle_ms": 0}
    return run


KINDS = {
    "complete": [a_run("async"), a_run("sync")],
    "stopped in the first run": [a_run("async", stopped=INTERRUPTED)],
    "stopped before any batch": [a_run("async"), a_run("sync", batches=0, stopped=INTERRUPTED)],
    "no runs": [],
    "all failed": [a_run("async", failed=500), a_run("sync", failed=500)],
    "only synchronous": [a_run("sync"), a_run("sync")],
}


@pytest.mark.parametrize("kind", KINDS)
def test_cells_after_loading_draw_results_of_any_kind(kind, tmp_path, monkeypatch, capsys):
    planned = 10 if "stopped" in kind else 2
    record = Record("local", "a cluster", num_messages=1000, batch_size=500, planned_runs=planned, brokers=1)
    results = Results(tmp_path / "results" / "of-this-kind", record, KINDS[kind])
    results.save()
    monkeypatch.chdir(tmp_path)
    code = [cell.source for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
    namespace: dict[str, object] = {}
    for source in code:
        source = source.replace('saved_run = ""', 'saved_run = "results/of-this-kind"')
        exec(compile(source, "a cell", "exec"), namespace)
    shown = capsys.readouterr().out
    assert ("interrupted" in shown) == (kind.startswith("stopped") or kind == "no runs")
    assert ("No comparison" in shown) == (kind != "complete")


# --- The written analysis --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["local", "distant"])
def test_the_analysis_is_concise(folder):
    runs = {"local": [a_run("async"), a_run("sync", batches=40)], "distant": [a_run("async"), a_run("sync", batches=9)]}
    written = analysis.concise(Results(Path("nowhere"), Record(folder), runs[folder]))
    assert 150 <= len(written.split()) <= 200
    for word in ["faster", "Waiting", "Grouping", "Overlap", "Advantages", "*Asynchronous*", "*Synchronous*"]:
        assert word in written


def test_without_a_faster_asynchronous_producer_nothing_is_explained():
    for batches in (40, 21):  # slower, or as fast but for some per cent
        slow = [a_run("async", batches=batches), a_run("sync")]
        assert "was not clearly faster" in analysis.concise(Results(Path("nowhere"), Record("local"), slow))
    assert "both producers" in analysis.concise(Results(Path("nowhere"), Record("local"), []))


# --- The committed state ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def committed() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, 4)


def test_committed_outputs(committed):
    check_outputs(committed)


def test_committed_numbers_are_those_of_the_saved_run(committed, tmp_path):
    shutil.copytree(ROOT / "results", tmp_path / "results")
    assert_same(execute(NOTEBOOK, tmp_path, saved_run=saved_folder(committed)), committed, BELOW)


def numbers_of(table: str) -> dict[str, list[float]]:
    """The rows of a table of two columns as it is printed, by their names."""
    rows = re.findall(r"(?m)^(.+?)\s{2,}([\d.,]+)\s+([\d.,]+)$", table)
    return {name: [float(number.replace(",", "")) for number in pair] for name, *pair in rows}


def test_a_reader_who_divides_printed_numbers_gets_the_printed_ones(committed):
    answer = texts(committed)[0]
    numbers = r"messages take ([\d.]+) s and ([\d.]+) s: about ([\d.,]+) times as fast"
    fast, slow, factor = re.search(numbers, answer).groups()
    assert report.approx(float(slow) / float(fast)) == factor
    times = [float(fast), float(slow)]
    tables = [numbers_of(text) for text in texts(committed)]
    (metrics,) = (table for table in tables if "network: Produce requests / s" in table)
    reasons = next(table for table in tables if "2. grouping: requests in a run" in table)
    messages = float(re.search(r"([\d,]+) messages take", answer)[1].replace(",", ""))
    for column in (0, 1):
        requests = reasons["2. grouping: requests in a run"][column]
        quotients = {
            reasons["1. waiting: time of a message (μs)"][column]: 1e6 * times[column] / messages,
            reasons["2. grouping: messages in a request"][column]: messages / requests,
            metrics["network: messages in a request"][column]: messages / requests,
            metrics["network: Produce requests / s"][column]: requests / times[column],
            metrics["response rate: messages acknowledged / s"][column]: messages / times[column],
        }
        for printed, divided in quotients.items():
            assert printed == report.rounded(divided)


def test_published_measurement_has_nothing_against_it(committed):
    results = load_results(ROOT / saved_folder(committed))
    assert results.complete and len(results.runs) == 30 and report.doubts(results.runs) == []


# Numbers in prose that are chosen, cited or defined; the measured ones are rendered.
GIVEN = {"1", "2", "3", "4", "5", "6", "15", "24", "25", "26", "44", "79", "88.8", "99", "100", "157", "200", "500"}
GIVEN |= {"2,000", "20,000", "1.8.0", "2.16.0", "2026"}


def test_no_measured_number_is_typed_by_hand(committed):
    for cell in committed.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"\([^()]*(http|#|\.md|\.ipynb)[^)]*\)|`[^`]*`|(?m:^\d\.)", "", cell.source)
            assert set(re.findall(r"\d[\d,.]*\d|\d", prose)) <= GIVEN, cell.source


both_notebooks = pytest.mark.parametrize("name", ["assignment1.ipynb", "going_further.ipynb"])


@pytest.mark.published
@both_notebooks
def test_structure(name):
    notebook = nbformat.read(ROOT / name, 4)
    levels = [len(line.split(" ")[0]) for line in headings(notebook)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert len(prose_of(notebook).split()) <= 2_200
    for before, cell in itertools.pairwise(notebook.cells):
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 30, cell.source
            assert max(map(len, cell.source.splitlines())) <= 88, "clipped in a narrow window"
            introduced = before.cell_type == "markdown" and not before.source.splitlines()[-1].startswith("#")
            assert introduced, "a sentence introduces each code cell"


def test_the_map_leads_to_every_section_the_assignment_asks_for(committed):
    anchors = {line.lstrip("#").strip().replace(" ", "-") for line in headings(committed)}
    (table,) = (cell.source for cell in committed.cells if "| the assignment asks for" in cell.source)
    links = re.findall(r"\]\(#(.+?)\)(?=[ ,|])", table)
    assert len(links) >= 7 and set(links) <= anchors
    for asked in ("Configuration", "asynchronous producer", "synchronous producer", "dataclass", "Serialization"):
        assert any(asked.lower() in line.lower() for line in headings(committed)), asked


@pytest.mark.published
@pytest.mark.parametrize(("name", "number"), [("assignment1.ipynb", 2), ("going_further.ipynb", 3)])
def test_every_figure_has_a_text_alternative(name, number):
    outputs = [output for cell in nbformat.read(ROOT / name, 4).cells for output in cell.get("outputs", [])]
    figures = [output.metadata["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) == number and all(len(figure["alt"]) > 60 for figure in figures)


def test_sources_are_shown_whole_at_the_width_of_a_page(committed):
    for cell in committed.cells:
        for output in cell.get("outputs", []):
            if "show_source" in cell.source and "text/html" in output.get("data", {}):
                assert max(map(len, output.data["text/plain"].splitlines())) <= 112, output.data["text/plain"]


def test_the_analysis_answers_the_three_questions_in_150_to_200_words(committed):
    (written,) = (text for text in texts(committed, below="6. Analysis") if "**Why:**" in text)
    assert 150 <= len(written.split()) <= 200
    detail = prose_of(committed).split("### In detail\n")[1].split("\n## ")[0]
    assert len(detail.split()) <= 350
