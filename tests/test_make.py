"""`make run`, and what executes the notebook for it: in place, as a copy, failing, interrupted."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from harness.run_notebook import set_parameter

ROOT = Path(__file__).resolve().parent.parent
PARAMETERS = "count = 3  # rounds\nword = 'none'\nsaved_run = 'results/one'"
ANSWER = """import sys
from IPython.display import Markdown, display
print("Matplotlib builds the font cache", file=sys.stderr)
answer = display(Markdown("*later*"), display_id="answer")"""
WORK = """bar = display({"text/plain": ""}, raw=True, display_id=True)
for each in range(count):
    bar.update({"text/plain": f"{each + 1} of {count} rounds"}, raw=True)
    print("round", each + 1, word)
    print("done")
display(Markdown("a table"))"""
SAVE = """import pathlib, types
if saved_run:
    results = types.SimpleNamespace(folder=pathlib.Path(saved_run))
    results.folder.mkdir(parents=True)"""
END = "answer.update(Markdown(f'**The answer is {count}** and `{word}`.'))"
PLAIN_ERROR = """class PlainError(Exception):
    def _render_traceback_(self):
        return [f"PlainError: {self}"]"""
FAIL = "raise PlainError('The cluster is away; look for it.')"
WAIT = """import os, pathlib, time
pathlib.Path("kernel").write_text(str(os.getpid()))
time.sleep(60)"""
DEAF = f"import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n{WAIT}"

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="there is no make")


class Folder:
    """A folder in which `make run` works, with the packages that are installed already."""

    def __init__(self, path: Path):
        self.path, self.notebook = path, path / "assignment1.ipynb"
        for file in ("Makefile", "requirements.txt", "constraints.txt"):
            shutil.copy(ROOT / file, path)
        shutil.copytree(ROOT / "harness", path / "harness")
        for folder in (".venv/bin", "tmp", "runtime"):
            (path / folder).mkdir(parents=True)
        for stamp in ("pyvenv.cfg", "run"):
            (path / ".venv" / stamp).touch()
        self.command = ["make", "--no-print-directory", "run", f"BIN={Path(sys.executable).parent}", "BROKEN="]
        outside_make = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
        self.options = {
            "cwd": path,
            # the tests may themselves be run by make
            "env": {**outside_make, "TMPDIR": str(path / "tmp"), "JUPYTER_RUNTIME_DIR": str(path / "runtime")},
            "text": True,
            "encoding": "utf-8",
            "stderr": subprocess.STDOUT,
        }

    def write(self, *sources: str) -> bytes:
        """The notebook, as bytes; a source that starts with # is a heading."""
        cells = [new_markdown_cell(each) if each[0] == "#" else new_code_cell(each) for each in sources]
        for cell in cells:
            cell.id = "answer" if cell.source == ANSWER else cell.id
        cells.insert(1, new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}))
        nbformat.write(new_notebook(cells=cells), self.notebook)
        return self.notebook.read_bytes()

    def run(self, parameters: str = "") -> subprocess.CompletedProcess:
        return subprocess.run([*self.command, f"P={parameters}"], stdout=subprocess.PIPE, **self.options)

    def start(self) -> tuple[subprocess.Popen, psutil.Process]:
        """`make run` as in a terminal, and the kernel once its cell waits."""
        started = subprocess.Popen(self.command, stdout=subprocess.PIPE, start_new_session=True, **self.options)
        file, until = self.path / "kernel", time.monotonic() + 60
        while not (file.exists() and file.read_text()):
            assert started.poll() is None and time.monotonic() < until, started.communicate()
            time.sleep(0.05)
        return started, psutil.Process(int(file.read_text()))

    def check_clean(self) -> None:
        """No connection file, socket or half notebook is left."""
        left = [*(self.path / "tmp").iterdir(), *(self.path / "runtime").iterdir(), *self.path.rglob("*.part")]
        assert not left


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_in_place(folder):
    folder.write("# Title: ä, 😀", ANSWER, "## Work", WORK, SAVE, "## End\n\nText.", END)
    done = folder.run()
    folder.check_clean()
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == "Executing assignment1.ipynb" and "Section 1 of 2: Work" in lines
    assert [line for line in lines if line.startswith("round")] == [f"round {i} none" for i in (1, 2, 3)]
    end = ["The answer is 3 and none.", "", "Results: results/one", "Executed notebook: assignment1.ipynb"]
    assert lines[-4:] == end and "Section 2 of 2: End" in lines
    assert "a table" not in done.stdout and "Markdown object" not in done.stdout
    cells = nbformat.read(folder.notebook, 4).cells
    assert cells[2].outputs[-1]["data"]["text/markdown"] == "**The answer is 3** and `none`."
    work = cells[4]
    assert [output.output_type for output in work.outputs] == ["display_data", "stream", "display_data"]
    assert work.outputs[0]["data"]["text/plain"] == "3 of 3 rounds"
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5]
    assert all("execution" not in cell.metadata for cell in cells), "no timing"


@pytest.mark.parametrize(
    ("parameters", "place"),
    [("count=2 word=it's saved_run=results/other-2", "results/other-2"), ("count=2 word=it's saved_run=", "results/*")],
    ids=["beside the results", "without results"],
)
def test_with_parameters_a_copy(folder, parameters, place):
    long = folder.path / "tmp" / (130 * "x")  # too long for a socket's path
    long.mkdir()
    folder.options["env"]["TMPDIR"] = str(long)
    before = folder.write("# Title", ANSWER, SAVE, END)
    done = folder.run(parameters)
    long.rmdir()  # it is empty
    folder.check_clean()
    assert done.returncode == 0, done.stdout
    assert "The answer is 2 and it's." in done.stdout
    (copy,) = folder.path.glob(f"{place}/assignment1.ipynb")
    saved = "results/other-2" if "other" in place else "none saved"
    where = f"Results: {saved}\nExecuted notebook: {copy.relative_to(folder.path)}\n"
    assert done.stdout.endswith(where) and folder.notebook.read_bytes() == before
    source = nbformat.read(copy, 4).cells[1].source
    assert source.splitlines()[:2] == ["count = 2", 'word = "it\'s"'] and parameters.split("=")[-1] in source


def test_what_cannot_be_executed_is_told_before_anything_runs(folder):
    done = folder.run()
    assert done.returncode != 0 and "No such file" in done.stdout and "Traceback" not in done.stdout
    before = folder.write("# Title", "import pathlib\npathlib.Path('ran').touch()")
    done = folder.run("word=x count = 2")
    said = "count sets no parameter: write name=value, without blanks; the names are: count, word, saved_run."
    assert done.returncode != 0 and done.stdout.splitlines()[0] == said
    assert not (folder.path / "ran").exists() and folder.notebook.read_bytes() == before
    with pytest.raises(ValueError, match="counts=2 sets no parameter"):
        set_parameter(new_code_cell(PARAMETERS), "counts=2")


FAILURES = {
    "plain error": (FAIL, "In Cluster and topic:\nPlainError: The cluster is away; look for it.\n"),
    "error nobody foresaw": ("x = 0\n1 / x", "1 / x\n\nZeroDivisionError: division by zero\n"),
    "kernel that dies": ("import os\nos._exit(1)", "Kernel died\n"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_cell_leaves_the_notebook_as_it_was_and_says_why(folder, failure):
    cell, said = FAILURES[failure]
    before = folder.write("# Title", PLAIN_ERROR, "## Cluster and topic\n\nText.", cell, "print('never')")
    done = folder.run()
    assert done.returncode != 0 and said in done.stdout
    assert "never" not in done.stdout and "\x1b" not in done.stdout and "nbclient" not in done.stdout
    assert ("Traceback" in done.stdout) == ("nobody" in failure)
    assert folder.notebook.read_bytes() == before


@pytest.mark.parametrize("cell", [WAIT, DEAF], ids=["once", "twice"])
def test_interrupted(folder, cell):
    before = folder.write("# Title", SAVE, "## Measurement", cell, "print('never')")
    started, kernel = folder.start()
    os.killpg(started.pid, signal.SIGINT)  # as the terminal does; the kernel is not in this group
    if cell == DEAF:
        time.sleep(1)
        assert kernel.is_running()
        os.killpg(started.pid, signal.SIGINT)
    said, _ = started.communicate(timeout=30)
    assert started.returncode != 0 and "Traceback" not in said and "never" not in said
    where = 'what was measured is in results/one. To go on, add P="saved_run=results/one".'
    assert (f"In Measurement: interrupted; {where}\n" in said) == (cell == WAIT)
    assert not kernel.is_running() and folder.notebook.read_bytes() == before
    folder.check_clean()


def test_progress_on_a_terminal_is_one_line(folder):
    folder.write("# Title", ANSWER, WORK)
    terminal, its_end = os.openpty()
    started = subprocess.Popen(folder.command, **{**folder.options, "stdout": its_end, "stderr": its_end})
    os.close(its_end)
    shown = b""
    try:
        while part := os.read(terminal, 4096):
            shown += part
    except OSError:  # how a terminal's end is told
        pass
    os.close(terminal)
    assert started.wait() == 0
    lines = shown.decode().replace("\r\n", "\n").split("\n")
    assert sum("of 3 rounds" in line for line in lines) == 3, "each is overwritten by the text after it"
    shown = [line.split("\x1b[K")[-1] for line in lines if "of 3 rounds" in line]
    assert shown == [f"round {i} none" for i in (1, 2, 3)]
