"""`make handin` and `make html`: whole or not made, without a secret, and nothing of the user's is lost."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from harness import handin, pages
from harness.report import where_measured
from harness.results import load_results, newest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("assignment1_jane_doe")
ZIP = Path("assignment1_jane_doe.zip")
SECRET = "s3cr3t/+="
PARTS = ["Makefile", "kafka_helpers.py", "requirements.txt", "constraints.txt", "harness", "local_kafka", "answers"]


def executed(count: int | None, *outputs: nbformat.NotebookNode) -> nbformat.NotebookNode:
    return new_code_cell("1 + 1", execution_count=count, outputs=list(outputs))


def said(text: str) -> nbformat.NotebookNode:
    return new_output("stream", text=text)


def write(name: str, *cells: nbformat.NotebookNode) -> None:
    links = "[a](answers/assignment1_answers.md), [f](going_further.ipynb), [w](https://kafka.apache.org), [s](#Work)"
    nbformat.write(new_notebook(cells=[new_markdown_cell(f"# Title\n\n{links}"), *cells]), name)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A small project whose notebooks were executed, with a secret where one may lie by mistake."""
    path = tmp_path / "project"
    path.mkdir()
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, path / part)
    measured = newest(["local"], parent=ROOT / "results").folder
    shutil.copytree(measured, path / "results" / "one")
    for place in ("harness/.env", "harness/key.txt", "client.properties", "client.properties.example", ".env.example"):
        (path / place).write_text(f"SASL_PASSWORD={SECRET}\n", encoding="utf-8")
    monkeypatch.chdir(path)
    shown = where_measured(load_results("results/one"))
    output = new_output("display_data", {"text/plain": "", "text/markdown": f"The answer.\n\n{shown}"})
    write("assignment1.ipynb", executed(1), new_markdown_cell("## Work"), executed(3, output), new_code_cell(""))
    write("going_further.ipynb", executed(1))
    return path


def refusal(name: str = "Jane Doe") -> str:
    with pytest.raises(SystemExit) as ended:
        handin.main(name)
    assert not list(Path().glob(".handin-*"))
    return str(ended.value)


def test_what_is_handed_in_is_whole_and_without_a_secret(project):
    os.utime("kafka_helpers.py", (0, 0))
    os.utime("requirements.txt", (4_400_000_000, 4_400_000_000))  # in 2109
    handin.main("Jane Doe")
    files = {path.as_posix(): path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()}
    with zipfile.ZipFile(ZIP) as archive:
        packed = [name for name in archive.namelist() if not name.endswith("/")]
        assert {name: archive.read(name) for name in packed} == files
    names = {name.removeprefix(f"{FOLDER}/") for name in files}
    wanted = "assignment1.ipynb assignment1.html assignment1_jane_doe.md going_further.html README.md kafka_helpers.py"
    assert names >= {*wanted.split(), "local_kafka/jars.txt", "harness/rules.toml", "results/one/results.json"}
    assert not names & {"client.properties", "client.properties.example", ".env.example", "harness/.env"}
    assert not [name for name, content in files.items() if SECRET.encode() in content]
    for page in ("assignment1.ipynb", "assignment1.html"):
        links = re.findall(r'(?:\]\(|href=")(?!http|#|data:)([^)"]+)', (FOLDER / page).read_text(encoding="utf-8"))
        assert set(links) == {"assignment1_jane_doe.md", "going_further.html"}
    assert not list(Path().glob("*.html"))


def test_a_measurement_without_figures_in_a_folder_of_any_name(project):
    """As after a rehearsal that was stopped at its end; and a notebook as an editor on Windows saves it."""
    place = Path("results/my run.v2 [a]*")
    Path("results/one").rename(place)
    for picture in place.glob("*.png"):
        picture.unlink()
    shown = where_measured(load_results(place))
    write("assignment1.ipynb", executed(1, new_output("display_data", {"text/markdown": shown})))
    Path("assignment1.ipynb").write_bytes(b"\xef\xbb\xbf" + Path("assignment1.ipynb").read_bytes())
    handin.main("Jane Doe")
    assert (FOLDER / place / "results.json").exists() and (FOLDER / "assignment1.html").exists()


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_a_name_comes_from_the_command_line_and_reaches_no_shell(project):
    command = ["make", "handin", f"BIN={Path(sys.executable).parent}", "BROKEN="]
    Path(".venv").mkdir()
    Path(".venv/run").touch()
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    asked = subprocess.run(command, env=outside | {"NAME": "computer"}, capture_output=True, text=True)
    assert asked.returncode != 0 and "Say whose it is" in asked.stderr and "Making" not in asked.stdout
    name = 'O\'Brien, `touch ran` "$(touch ran) $(shell touch ran)" $HOME\\ '
    done = subprocess.run([*command, f"NAME={name}"], env=outside, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path("assignment1_o_brien_touch_ran_touch_ran_shell_touch_ran_home.zip").exists()
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("name", "folder"),
    [(" Jane  Doe ", "jane_doe"), ("Zoë 李 Ångström", "zoë_李_ångström"), ("x" * 300, "x" * 50), ("../../etc", "etc")],
)
def test_a_folder_for_any_name(name, folder):
    assert handin.folder_for(name) == Path(f"assignment1_{folder}")


@pytest.mark.parametrize("name", ["", "  ", "?!", "😀"])
def test_a_name_without_letters_is_asked_for(project, name):
    assert refusal(name) == 'Say whose it is: make handin NAME="Jane Doe"'


@pytest.mark.parametrize("taken", ["folder", "zip", "link"])
def test_what_is_there_stays_and_a_number_tells_the_next_one(project, taken, capsys):
    """Whatever of them is there: it may have been edited, or be another's."""
    Path("elsewhere").mkdir()
    Path("elsewhere/mine").touch()
    if taken == "folder":
        handin.main("Jane Doe")
        (FOLDER / "assignment1_jane_doe.md").write_text("mine", encoding="utf-8")
        ZIP.unlink()
    elif taken == "zip":
        ZIP.write_text("mine", encoding="utf-8")
    else:
        FOLDER.symlink_to("nowhere")
        Path(f"{FOLDER}_2").symlink_to("elsewhere")
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    handin.main("Jane Doe")
    place = f"{FOLDER}_3" if taken == "link" else f"{FOLDER}_2"
    assert f"To hand in: {place}, or the same as one file: {place}.zip" in capsys.readouterr().out
    assert Path(place, "assignment1_jane_doe.md").exists() and zipfile.is_zipfile(f"{place}.zip")
    after = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    assert {path: after.get(path) for path in before} == before


ERROR = new_output("error", ename="KeyboardInterrupt", evalue="", traceback=[])
WORK = new_markdown_cell("Text.\n\n## 3. Work (all)\n\nText.")
CELLS = {
    "error": ([executed(1), WORK, executed(2, ERROR)], 'in "3. Work (all)" a cell ended with KeyboardInterrupt.'),
    "not run": ([executed(1), WORK, executed(None)], 'in "3. Work (all)" a cell has not been run.'),
    "out of order": ([executed(2), WORK, executed(1)], 'in "3. Work (all)" a cell was not run after the one above it.'),
    "the same count": ([executed(1), executed(1)], 'in "Title" a cell was not run after the one above it.'),
}


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("file", ["assignment1.ipynb", "going_further.ipynb"])
def test_a_notebook_that_is_not_executed_as_a_whole_is_refused_with_the_cell(project, file, kind):
    cells, reason = CELLS[kind]
    write(file, *cells)
    sentence = refusal()
    command = "make run" if file.startswith("a") else "make further"
    assert sentence == f"{file}: {reason} Run all of it ({command}), then again." and not FOLDER.exists()


def nothing_saved() -> None:
    write("assignment1.ipynb", executed(1))


def damage_results() -> None:
    file = Path("results/one/results.json")
    file.write_bytes(file.read_bytes().replace(b"1", b"2"))


def not_a_notebook(text: str):
    return lambda: Path("assignment1.ipynb").write_text(text, encoding="utf-8")


def latin() -> None:
    Path("going_further.ipynb").write_bytes('{"a": "é"}'.encode("latin-1"))


NO_SOURCE = """{"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [{"cell_type": "code", "metadata": {}}]}"""
BROKEN = {
    "no measurement": (nothing_saved, "assignment1.ipynb shows no saved measurement: make run"),
    "no results": (lambda: shutil.rmtree("results/one"), "No saved run in results/one"),
    "changed results": (damage_results, "results/one/results.json"),
    "no notebook": (Path("assignment1.ipynb").unlink, "assignment1.ipynb can't be read"),
    "no answers": (Path("answers/assignment1_answers.md").unlink, "answers/assignment1_answers.md"),
    "no requirements": (Path("requirements.txt").unlink, "requirements.txt is missing: restore it"),
    "cut": (not_a_notebook('{"cells": ['), "assignment1.ipynb is no notebook that can be read; restore it"),
    "old": (not_a_notebook('{"nbformat": 3, "metadata": {}, "worksheets": []}'), "shows no saved measurement"),
    "no source": (not_a_notebook(NO_SOURCE), "is no notebook that can be read"),
    "not UTF-8": (latin, "going_further.ipynb is no notebook that can be read"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_missing_or_broken_part_is_named(project, kind):
    damage, sentence = BROKEN[kind]
    damage()
    assert sentence in refusal() and not FOLDER.exists() and not ZIP.exists()


def test_pages_stand_alone_and_need_no_settings_of_the_user(project, capsys):
    Path("jupyter_nbconvert_config.py").write_text("get_config().TemplateExporter.exclude_input = True\n", "utf-8")
    pages.main("assignment1.ipynb", "going_further.ipynb")
    page = Path("assignment1.html").read_text(encoding="utf-8")
    assert set(re.findall(r'<a href="([^"]+)"', page)) == {"https://kafka.apache.org", "#Work"}
    assert "results/one" in page and page.count('class="input_area"') == 3
    assert "Written: assignment1.html" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"^none\.ipynb can't be read"):
        pages.main("none.ipynb")


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory) -> Path:
    """What is handed in of the notebooks as they are here, unpacked elsewhere."""
    made, elsewhere = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("elsewhere")
    for part in [*PARTS, "results", "assignment1.ipynb", "going_further.ipynb"]:
        (made / part).symlink_to(ROOT / part)
    subprocess.run([sys.executable, "-m", "harness.handin", "Jane Doe"], cwd=made, check=True)
    shutil.unpack_archive(made / ZIP, elsewhere)
    return elsewhere / FOLDER


@pytest.mark.published
def test_the_notebooks_in_print_can_be_handed_in(handed_in):
    for page in ("assignment1.ipynb", "assignment1.html", "going_further.html"):
        links = re.findall(r'(?:\]\(|href=\\?")(?!http|#|data:)([^)"#\\]+)', (handed_in / page).read_text("utf-8"))
        assert [link for link in links if not (handed_in / link).exists()] == []
    assert len(list(handed_in.glob("results/*/results.json"))) == 2, "the measurement and the rehearsal"


@pytest.mark.long
@pytest.mark.published
def test_what_is_handed_in_can_be_run_from_there(handed_in):
    parameters = ["num_messages=1000", "blocks=1", "cluster_choice=local"]
    command = [sys.executable, "-m", "harness.run_notebook", "assignment1.ipynb", *parameters]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=handed_in, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "Results: results/" in done.stdout, done.stdout + done.stderr
