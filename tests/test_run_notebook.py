"""What executes a notebook for `make run`: in place, as a copy, failing, ended by whatever ends it."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from harness.execute import execute
from harness.results import load_results
from harness.show import seconds_left

ROOT = Path(__file__).resolve().parent.parent
PARAMETERS = "count = 3  # rounds\nword = 'none'\nsaved_run = 'results/one'"
ANSWER = """import sys
from pathlib import Path
from IPython.display import Markdown, display
from harness import show
print("Matplotlib builds the font cache", file=sys.stderr)
print("another library's warning", file=sys.stderr)
show.place_for_answer()"""
WORK = """with show.time_left([("round", 1.0)] * count) as begin:
    for each in range(count):
        begin(f"round {each + 1} of {count}")
        print("did", each + 1, word)
        print("done")
display(Markdown("a table"))"""
SAVE = """from IPython.display import display
from pathlib import Path
if saved_run:
    folder = Path(saved_run)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").touch()
    display({"text/plain": f"Saved in {saved_run}"}, raw=True, metadata={"saved_in": saved_run})"""
END = "show.fill_in_answer(f'**The answer is {count}** and `{word}`.')"
PLAIN_ERROR = """class PlainError(Exception):
    def _render_traceback_(self):
        return [f"PlainError: {self}"]"""
FAIL = "raise PlainError('The cluster is away; look for it.')"
WAIT = """import os, pathlib, time
pathlib.Path("kernel").write_text(str(os.getpid()))
time.sleep(60)"""
DEAF = f"import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n{WAIT}"
GO_ON = 'What was measured is in results/one.\nTo go on from there: make run P="saved_run=results/one"\n'


class Folder:
    """A folder with a notebook."""

    def __init__(self, path: Path):
        self.path, self.notebook = path, path / "assignment1.ipynb"
        (path / "harness").symlink_to(ROOT / "harness")
        (path / "tmp").mkdir()
        self.environment = {
            **os.environ,
            "TMPDIR": str(path / "tmp"),
            "JUPYTER_RUNTIME_DIR": str(path / "runtime"),
            "JUPYTER_PLATFORM_DIRS": "1",
        }

    def write(self, *sources: str, parameters: str = PARAMETERS, **metadata: list) -> bytes:
        """The notebook, as bytes; a source that starts with # is a heading."""
        cells = [new_markdown_cell(each) if each[0] == "#" else new_code_cell(each) for each in sources]
        cells.insert(1, new_code_cell(parameters, metadata=metadata))
        nbformat.write(new_notebook(cells=cells), self.notebook)
        return self.notebook.read_bytes()

    def start(self, *parameters: str, **options) -> subprocess.Popen:
        command = [sys.executable, "-m", "harness.run_notebook", self.notebook.name, *parameters]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "encoding": "utf-8"}
        return subprocess.Popen(command, cwd=self.path, env=self.environment, **{**streams, **options})

    def run(self, *parameters: str) -> tuple[int, str]:
        """The exit status and what is said; nothing of the runner's is left."""
        return self.finish(self.start(*parameters))

    def finish(self, started: subprocess.Popen) -> tuple[int, str]:
        said, _ = started.communicate(timeout=60)
        assert [*(self.path / "tmp").iterdir(), *self.path.rglob(".executed-*")] == []
        assert "Traceback" not in said or "ZeroDivisionError" in said, said
        return started.returncode, said

    def kernel(self, started: subprocess.Popen) -> psutil.Process:
        """The kernel, once its cell waits."""
        file, until = self.path / "kernel", time.monotonic() + 60
        while not (file.exists() and file.read_text()):
            assert started.poll() is None and time.monotonic() < until, started.communicate()
            time.sleep(0.05)
        return psutil.Process(int(file.read_text()))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_in_place(folder):
    folder.write("# Title: ä, 😀", ANSWER, "## 1. Work", WORK, SAVE, "## 2. End\n\nText.", END)
    folder.notebook.chmod(0o640)
    status, said = folder.run()
    assert status == 0, said
    lines = said.splitlines()
    assert lines[0] == "Executing assignment1.ipynb" and [line for line in lines if line[1:3] == ". "] == [
        "1. Work",
        "2. End",
    ]
    assert [line for line in lines if line.startswith("did")] == [f"did {i} none" for i in (1, 2, 3)]
    end = ["The answer is 3 and none.", "", "Results: results/one", "Executed notebook: assignment1.ipynb"]
    assert lines[-4:] == end and "Saved in results/one" in lines
    assert "a table" not in said and "Markdown object" not in said
    cells = nbformat.read(folder.notebook, 4).cells
    assert cells[2].outputs[-1]["data"]["text/markdown"] == "**The answer is 3** and `none`."
    kinds = [output.output_type for output in cells[4].outputs]
    assert kinds == ["display_data", "stream", "display_data"], "streams are joined"
    assert cells[4].outputs[0]["data"]["text/plain"].startswith("Ended after")
    assert [cell.execution_count for cell in cells if cell.cell_type == "code"] == [1, 2, 3, 4, 5]
    assert all("execution" not in cell.metadata for cell in cells), "no timing"
    assert folder.notebook.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("saved", ["results/other-2", "elsewhere", "", "."])
def test_with_parameters_a_copy(folder, saved):
    """Beside the results, in this folder or in another, and never in the place of something."""
    saved = str(folder.path.parent / f"{folder.path.name}-2") if saved == "elsewhere" else saved
    long = folder.path / "tmp" / (130 * "x")  # too long for a socket's path
    long.mkdir()
    folder.environment["TMPDIR"] = str(long)
    before = folder.write("# Title", SAVE, parameters=PARAMETERS.replace(" = ", "="))
    started = folder.start("count=2", "word=it's", f"saved_run={saved}")
    said, _ = started.communicate()
    long.rmdir()  # it is empty
    assert started.returncode == 0, said
    assert f"Results: {saved or 'none saved'}\n" in said and folder.notebook.read_bytes() == before
    copy = folder.path / said.splitlines()[-1].removeprefix("Executed notebook: ")
    assert copy.parent == folder.path / saved or not saved
    source = nbformat.read(copy, 4).cells[1].source
    assert source == f'count = 2\nword = "it\'s"\nsaved_run = {saved!r}'


def rewritten(folder: Folder, change) -> None:
    notebook = json.loads(folder.notebook.read_text(encoding="utf-8"))
    change(notebook)
    folder.notebook.write_text(json.dumps(notebook), encoding="utf-8")


def without_ids(notebook: dict) -> None:
    notebook["nbformat_minor"] = 4
    for cell in notebook["cells"]:
        del cell["id"]


@pytest.mark.parametrize("minor", [4, 5])
def test_a_notebook_that_tools_have_rewritten(folder, minor):
    """Without a tag and, as Colab saves it, without ids: a copy is valid in the same format."""
    folder.write("# Title", ANSWER, SAVE, END)
    if minor == 4:
        rewritten(folder, without_ids)
    status, said = folder.run("saved_run=results/two")
    assert status == 0 and "The answer is 3 and none." in said
    copy = json.loads((folder.path / "results/two/assignment1.ipynb").read_text(encoding="utf-8"))
    assert copy["nbformat_minor"] == minor and all(("id" in cell) == (minor == 5) for cell in copy["cells"])
    nbformat.validate(copy)


def refusal(folder: Folder, *parameters: str) -> str:
    with pytest.raises(SystemExit) as ended, warnings.catch_warnings():
        execute([], str(folder.notebook), *parameters)
    return str(ended.value)


def test_what_cannot_be_executed_is_told_before_anything_runs(folder):
    assert folder.run() == (1, "assignment1.ipynb can't be read: No such file or directory.\n")
    before = folder.write("# Title", "import pathlib\npathlib.Path('ran').touch()")
    names = "write name=value, without blanks; the names are: count, word, saved_run."
    assert refusal(folder, "count=2", "counts=2") == f"counts=2 sets no parameter: {names}"
    assert refusal(folder, "count") == f"count sets no parameter: {names}"
    assert not (folder.path / "ran").exists() and folder.notebook.read_bytes() == before
    folder.write("# Title", parameters="count = 3")
    assert "no cell of the notebook sets saved_run or saved_further" in refusal(folder, "count=2")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"print(1)", b"\xff\xfe", b'{"cells": [3], "nbformat": 4}'])
def test_what_is_no_notebook_is_left_alone(folder, content):
    folder.notebook.write_bytes(content)
    said = refusal(folder)
    assert said.startswith("assignment1.ipynb is no notebook that can be read; restore it") and "\n" not in said
    assert folder.notebook.read_bytes() == content


FAILURES = {
    "plain error": (FAIL, "In Cluster and topic:\nPlainError: The cluster is away; look for it.\n"),
    "error nobody foresaw": ("x = 0\n1 / x", "1 / x\n\nZeroDivisionError: division by zero\n"),
    "kernel that dies": ("import os\nos._exit(1)", "In Cluster and topic: the kernel has ended by itself"),
    "kernel that is killed": ("import os\nos.kill(os.getpid(), 9)", "was killed, as happens when memory is short.\n"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_cell_leaves_the_notebook_as_it_was_and_says_why(folder, failure):
    cell, said_of_it = FAILURES[failure]
    before = folder.write("# Title", SAVE, PLAIN_ERROR, "## Cluster and topic\n\nText.", cell, "print('never')")
    status, said = folder.run()
    assert status == 1 and said_of_it in said and said.endswith(GO_ON)
    assert "never" not in said and "\x1b" not in said and "nbclient" not in said
    assert ("Traceback" in said) == ("nobody" in failure)
    assert folder.notebook.read_bytes() == before


def test_a_kernel_that_does_not_start_has_its_last_word(folder):
    folder.write("# Title")
    (folder.path / "ipykernel_launcher.py").write_text("print('first')\nraise SystemExit('I am not in the mood')")
    assert folder.run()[1].splitlines()[1:] == ["The kernel did not start: I am not in the mood"]


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        signal.SIGHUP,
        *(pytest.param(each, marks=pytest.mark.long) for each in (signal.SIGTERM, signal.SIGQUIT)),
    ],
)
def test_interrupted(folder, number):
    before = folder.write("# Title", SAVE, "## Measurement", WAIT, "print('never')")
    started = folder.start(start_new_session=True)
    kernel = folder.kernel(started)
    os.killpg(started.pid, number)  # as the terminal does; the kernel is not in this group
    status, said = folder.finish(started)
    assert status == 128 + number and said.endswith(f"In Measurement: interrupted.\n{GO_ON}") and "never" not in said
    assert not kernel.is_running() and folder.notebook.read_bytes() == before


@pytest.mark.long
def test_the_assignments_notebook_is_interrupted_while_it_measures(folder):
    for part in ("kafka_helpers.py", "local_kafka"):
        (folder.path / part).symlink_to(ROOT / part)
    shutil.copy(ROOT / "assignment1.ipynb", folder.path)
    started = folder.start("cluster_choice=local", "num_messages=2000", "blocks=40")
    while not started.stdout.readline().startswith("run 4 of 200"):
        assert started.poll() is None
    started.send_signal(signal.SIGINT)
    said, _ = started.communicate(timeout=60)
    ended = r"Benchmarking: interrupted\.\nWhat was measured is in (.+)\.\nTo go on .*: make run P=\"saved_run=\1\"\n"
    (place,) = re.findall(ended, said)
    assert started.returncode == 130 and load_results(folder.path / place).state == "interrupted"
    until = time.monotonic() + 30
    while list((folder.path / "tmp").iterdir()):  # the local Kafka ends with the kernel
        assert time.monotonic() < until
        time.sleep(0.2)


def test_a_second_press_ends_a_kernel_that_does_not_listen(folder):
    folder.write("# Title", SAVE, "## Measurement", DEAF, "print('never')")
    started = folder.start()
    kernel = folder.kernel(started)
    started.send_signal(signal.SIGINT)
    time.sleep(1)
    assert kernel.is_running()
    started.send_signal(signal.SIGINT)
    status, said = folder.finish(started)
    assert status == 130 and said.endswith(f"In Measurement: interrupted.\n{GO_ON}")
    assert not kernel.is_running()


@pytest.mark.long
def test_pressed_at_any_moment(folder):
    """Also at the end of a cell, where the kernel's reply gets lost, and before there is a kernel."""
    quick = [f"print('quick {number}', flush=True)" for number in range(6)]
    folder.write("# Title", SAVE, *quick, "import time", "print('late'); time.sleep(1)")
    choose = random.Random(1)
    for mark in ["Executing", "", "quick 1", "quick 5", "Saved in", "late"] * 3:
        started = folder.start()
        while mark and mark not in started.stdout.readline():
            assert started.poll() is None
        time.sleep(choose.uniform(0.1, 1) if not mark else choose.choice([0, 0, 0.001, 0.01]))
        started.send_signal(signal.SIGINT)
        pressed = time.monotonic()
        status, said = folder.finish(started)
        assert time.monotonic() - pressed < 30, "a generous limit against hanging"
        assert status == 130 and ("interrupted." in said or "Interrupted before anything ran." in said), said


def test_a_killed_runner_leaves_nothing(folder):
    folder.write("# Title", WAIT)
    started = folder.start()
    kernel = folder.kernel(started)
    started.kill()
    folder.finish(started)
    psutil.wait_procs([kernel], timeout=30)
    assert not kernel.is_running()


def test_nobody_reads_what_it_says(folder):
    folder.write("# Title", SAVE, WAIT.replace("time.sleep(60)", "while True:\n    print('more')\n    time.sleep(0.1)"))
    started = folder.start(stderr=subprocess.PIPE)
    folder.kernel(started)
    started.stdout.close()
    time.sleep(0.5)
    started.send_signal(signal.SIGINT)  # as with `make run | tee log`
    assert started.stderr.read() == f"In the first cell: interrupted.\n{GO_ON}" and started.wait() == 130
    assert list((folder.path / "tmp").iterdir()) == []


def test_words_written_meanwhile_stay(folder):
    touch = "Path('assignment1.ipynb').write_text(Path('assignment1.ipynb').read_text() + ' ')"
    before = folder.write("# Title", SAVE, touch)
    status, said = folder.run()
    assert status == 0 and folder.notebook.read_bytes() == before + b" "
    assert said.endswith(
        "assignment1.ipynb was changed while it ran, and stays as it is.\n\n\n"
        "Results: results/one\nExecuted notebook: results/one/assignment1.ipynb\n"
    )


def test_results_that_cannot_be_written(folder):
    (folder.path / "results").touch()
    folder.write("# Title")
    started = folder.start("count=2")
    said, _ = started.communicate()
    assert started.returncode == 0 and "results/" in said and "can be written in" in said
    assert list((folder.path / "tmp").glob("notebook-*/assignment1.ipynb"))


def test_what_is_set_for_other_programs_stays_out(folder):
    foreign = folder.path / "foreign"
    for name in ("numpy", "harness"):
        (foreign / name).mkdir(parents=True)
        (foreign / name / "__init__.py").write_text("raise SystemExit('foreign')")
    (foreign / "startup.py").write_text("raise SystemExit('start-up file')")
    startup = foreign / "ipython/profile_default/startup"
    startup.mkdir(parents=True)
    (startup / "10.py").write_text("print('foreign start-up'); import os; os._exit(3)")
    spec = foreign / "jupyter/kernels/python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "x", "language": "python"}))
    folder.environment |= {
        "PYTHONPATH": str(foreign),
        "PYTHONSAFEPATH": "1",
        "PYTHONSTARTUP": str(foreign / "startup.py"),
        "PYTHONWARNINGS": "error",
        "IPYTHONDIR": str(foreign / "ipython"),
        "JUPYTER_PATH": str(foreign / "jupyter"),
        "JUPYTER_DEFAULT_PROVISIONER_NAME": "foreign",
        "MPLCONFIGDIR": str(foreign),
    }
    cell = "import os, sys, numpy\nprint(sys.executable, [name for name in os.environ if name[:6] == 'PYTHON'])"
    folder.write("# Title", ANSWER, cell)
    command = [sys.executable, "-E", "-m", "harness.run_notebook", "assignment1.ipynb"]  # as the Makefile has it
    said = subprocess.run(command, cwd=folder.path, env=folder.environment, capture_output=True, text=True)
    assert said.returncode == 0 and f"{sys.executable} []" in said.stdout, said.stdout + said.stderr


def test_progress_on_a_terminal_is_one_line(folder):
    folder.write("# Title", ANSWER, WORK, FAIL)
    terminal, its_end = os.openpty()
    started = folder.start(stdout=its_end, stderr=its_end)
    os.close(its_end)
    shown = b""
    try:
        while part := os.read(terminal, 4096):
            shown += part
    except OSError:  # how a terminal's end is told
        pass
    os.close(terminal)
    assert started.wait() == 1
    lines = shown.decode().replace("\r\n", "\n").split("\n")
    assert sum("round " in line for line in lines) == 3, "each is overwritten by the text after it"
    assert [line.split("\x1b[K")[-1] for line in lines if "round " in line] == [f"did {i} none" for i in (1, 2, 3)]
    after = next(number for number, line in enumerate(lines) if "Ended after" in line)
    assert lines[after + 1].startswith("In the first cell:")


@pytest.mark.parametrize(
    ("ended_s", "left_s"),
    [([], 1 + 1 + 9 + 1), ([0.2], 0.2 + 9 + 0.2), ([0.2, 0.4], 9 + 0.3), ([0.2, 0.4, 3], 0.3), ([0.2, 0.4, 3, 5], 0)],
)
def test_the_time_left_follows_what_has_ended(ended_s, left_s):
    parts = [("async", 1.0), ("async", 1.0), ("sync", 9.0), ("async", 1.0)]
    assert seconds_left(parts, ended_s) == pytest.approx(left_s)
