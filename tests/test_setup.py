"""What `make` does with .venv, pip's settings and other programs' variables. Nothing is downloaded."""

import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WHEEL = "tiny-1.0-py3-none-any.whl"
PASSWORD = "s3cr3t"

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="there is no make")


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project that needs one package, which lies in the folder ``simple/tiny``, as in a mirror."""
    path = tmp_path / "project"
    path.mkdir()
    shutil.copy(ROOT / "Makefile", path)
    for package in ("harness", "local_kafka"):
        shutil.copytree(ROOT / package, path / package)
    (path / "local_kafka" / "__init__.py").write_text("", encoding="utf-8")
    (path / "local_kafka" / "__main__.py").write_text("", encoding="utf-8")
    for file in ("requirements.txt", "constraints.txt"):
        (path / file).write_text("tiny==1.0\n", encoding="utf-8")
    (path / "simple" / "tiny").mkdir(parents=True)
    with zipfile.ZipFile(path / "simple" / "tiny" / WHEEL, "w") as wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    monkeypatch.chdir(path)
    return path


def make(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run make with these variables, and without pip's and uv's own; give its code and what it said."""
    ours = ("MAKE", "MFLAGS", "PIP_", "UV_")  # the tests may themselves be run by make
    outside = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = ["make", f"PYTHON={sys.executable}", *arguments]
    done = subprocess.run(command, env=outside | variables, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def installed(**variables: str) -> str:
    """What `make` says while it installs from the folder; afterwards the package is in .venv."""
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{Path('simple/tiny').absolute()}"}
    code, said = make(".venv/run", **(offline | variables))
    assert code == 0, said
    subprocess.run([".venv/bin/python", "-c", "import tiny"], check=True)
    assert make("-q", ".venv/run")[0] == 0, "it need not be done twice"
    return said


def users_venv(place: str = ".venv") -> Path:
    """A virtual environment of the user's, with this one's pip and uv, and a file in it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    (packages,) = Path(place, "lib").glob("python3*/site-packages")
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    mine = Path(place, "mine.txt")
    mine.touch()
    return mine


def dangling_link() -> None:
    Path(".venv").symlink_to("elsewhere")


def dangling_python() -> None:
    users_venv()
    for python in Path(".venv/bin").glob("python*"):
        python.unlink()
        python.symlink_to("/nowhere/python")


def half_made() -> None:
    Path(".venv/bin").mkdir(parents=True)
    for file in ("pyvenv.cfg", "run"):
        Path(".venv", file).touch()


def another_version() -> None:
    users_venv()
    (library,) = Path(".venv/lib").glob("python3*")
    library.rename(".venv/lib/python3.1")


@pytest.mark.parametrize("state", [dangling_python, another_version])
def test_what_does_not_work_is_found(project, state):
    state()
    assert "-m harness.set_up\n" in make("-n", ".venv/run")[1]


@pytest.mark.parametrize("state", [dangling_link, half_made])
def test_one_that_does_not_work_is_made_anew(project, state):
    state()
    said = installed()
    anew = "Making .venv anew, since it has no working Python of version 3.11 or later."
    assert ("Making .venv for" if state is dangling_link else anew) in said
    assert Path(".venv").is_symlink() == (state is dangling_link)
    make("clean")
    assert Path(".venv").exists() == (state is dangling_link)


@pytest.mark.parametrize("file", [".venv", ".venv/thesis.txt"])
def test_what_is_no_venv_is_left_alone(project, file):
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).touch()
    code, said = make(".venv/run")
    assert code != 0 and "isn't a virtual environment of Python, and is left alone: move it away" in said
    assert Path(file).exists()


@pytest.fixture
def mirror(project) -> Iterator[tuple[str, list[str]]]:
    """The address of an index of packages on this machine, with a password, and the programs that asked it."""
    asked = []

    class Index(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.headers.get("User-Agent", "").split("/")[0])

    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://me:{PASSWORD}@127.0.0.1:{server.server_port}/simple/", asked
        server.shutdown()


def test_packages_come_from_the_index_that_pip_is_told_of_and_the_users_venv_stays(project, mirror):
    index, asked = mirror
    mine = users_venv("elsewhere")
    Path(".venv").symlink_to("elsewhere")
    Path("pip.conf").write_text(f"[global]\nindex-url = {index}\nuser = true\n", encoding="utf-8")
    other_programs = {"PIP_TARGET": "target", "PIP_PREFIX": "prefix", "PIP_USER": "1"}
    said = installed(PIP_NO_INDEX="", PIP_FIND_LINKS="", PIP_CONFIG_FILE="pip.conf", **other_programs)
    assert set(asked) == {"pip"} and PASSWORD not in said and "Making .venv" not in said
    assert not Path("target").exists() and list(Path("elsewhere/lib").glob("python3*/site-packages/tiny.py"))
    kept = (mine, Path("results/one/results.json"), Path("assignment1_jane_doe.zip"))
    kept[1].parent.mkdir(parents=True)
    for file in kept:
        file.touch()
    code, said = make("clean")
    assert (
        code == 0
        and all(file.exists() for file in kept)
        and Path(".venv").is_symlink()
        and not Path(".venv/run").exists()
    ), said


def test_a_damaged_file_of_pips_settings_is_told_by_pip(project):
    users_venv()
    Path("pip.conf").write_text("no section\n", encoding="utf-8")
    code, said = make(".venv/run", PIP_CONFIG_FILE="pip.conf", PIP_NO_INDEX="1")
    assert code != 0 and "couldn't be installed: the lines above say why" in said and "Traceback" not in said


def test_a_setting_by_which_nothing_would_be_installed_is_named(project):
    users_venv()
    Path("pip.conf").write_text("[install]\ntarget = elsewhere\n", encoding="utf-8")
    code, said = make(".venv/run", PIP_CONFIG_FILE="pip.conf", PIP_NO_INDEX="1")
    assert code != 0 and "sets target, so that .venv gets nothing: take that out" in said
    assert not Path("elsewhere").exists()


def test_uv_installs_where_it_can_and_else_pip_does(project):
    users_venv()
    (packages,) = Path(".venv/lib").glob("python3*/site-packages")
    folder = f"{Path('simple/tiny').absolute()}"
    by_uv = {"UV_NO_INDEX": "1", "UV_FIND_LINKS": folder, "PIP_NO_INDEX": "", "PIP_FIND_LINKS": ""}
    assert "pip installs them" not in installed(**by_uv)
    make("clean")
    Path("requirements.txt").touch()
    (packages / "uv.py").write_text("raise SystemExit(1)", encoding="utf-8")  # one that doesn't work
    assert "pip installs them" in installed()


def test_what_is_set_for_other_programs_reaches_no_target(project):
    for name in ("numpy", "harness"):
        Path("foreign", name).mkdir(parents=True)
        Path("foreign", name, "__init__.py").write_text("raise SystemExit('a foreign package')", encoding="utf-8")
    Path(".venv").mkdir()
    Path(".venv/run").touch()
    ready = (f"BIN={Path(sys.executable).parent}", "BROKEN=")
    shutil.copytree(ROOT / "results", "results")
    code, said = make("results", *ready, PYTHONPATH="foreign", PYTHONSAFEPATH="1", PYTHONHOME="/nowhere")
    assert code == 0 and "complete" in said, said
    foreign = {"P": "a=1", "FLAGS": "--x", "PYTEST": "-k x", "ALL_PROXY": "socks5://127.0.0.1:1", "JUPYTER_PATH": "x"}
    code, said = make("-n", "run", "lab", *ready, **foreign)
    assert "a=1" not in said and "--x" not in said and "-u ALL_PROXY" in said
    code, said = make("lab", "FLAGS=--version", *ready, **foreign)
    assert code == 0, said
