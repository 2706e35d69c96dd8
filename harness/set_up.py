"""Make the folder .venv, and install packages in it; for ``make``, before any package is there.

``python3 -m harness.set_up`` makes it, ``.venv/bin/python -m harness.set_up requirements.txt`` installs, and with
``--fits`` it ends with 0 if this Python is that of a .venv which can be used.
"""

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

UV = "uv==0.13.9"  # installs in a quarter of pip's time; constraints.txt is made with it, too
PIP = [sys.executable, "-m", "pip"]
MADE_HERE = "made_by_make"  # without this file in it .venv is the user's, which `make clean` leaves
# Settings of pip's that the user may have made for other programs; with them .venv would get nothing.
ELSEWHERE = ("target", "prefix", "root", "python", "dry-run")


def fits() -> bool:
    """Tell whether this Python is .venv's, of a version that can be used, and its packages are of this version."""
    has_packages = Path(sysconfig.get_path("purelib")).is_dir()
    return sys.version_info >= (3, 11) and has_packages and Path(".venv").samefile(sys.prefix)


def make_venv() -> None:
    """Make .venv with this Python, in place of one that doesn't work. Ends the program if it is something else."""
    place = Path(".venv").resolve()  # a link stays one
    has_files = place.exists() and (place.is_file() or any(path.is_file() for path in place.rglob("*")))
    if has_files and not (place / "pyvenv.cfg").exists():
        sys.exit(".venv isn't a virtual environment of Python, and is left alone: move it away, then again.")
    anew = "anew, since it has no working Python of version 3.11 or later" if has_files else "for the Python packages"
    print(f"Making .venv {anew}.", flush=True)
    if subprocess.run([sys.executable, "-m", "venv", "--clear", place]).returncode:
        sys.exit("Making .venv failed: the lines above say why.")
    (place / MADE_HERE).touch()


def install(requirements: str) -> bool:
    """Install what the file lists in the .venv of this Python, and tell whether that succeeded.

    uv does it, but where pip is told of another index, which uv would not ask, and where uv can't: there pip does.
    """
    if not importlib.util.find_spec("pip"):
        subprocess.run([sys.executable, "-m", "ensurepip"])
    unwanted = [f"PIP_{name.upper().replace('-', '_')}" for name in ELSEWHERE]
    outside = {name: value for name, value in os.environ.items() if name not in unwanted} | {"PIP_USER": "0"}
    what = ["install", "-c", "constraints.txt", "-r", requirements]
    settings = subprocess.run([*PIP, "config", "list"], env=outside, stdout=subprocess.PIPE, text=True).stdout
    if found := re.search(rf"(?m)^[^=]+\.({'|'.join(ELSEWHERE)})=", settings):
        print(
            f"pip's configuration (pip config debug) sets {found[1]}, so that .venv gets nothing: take that out first."
        )
        return False
    if not re.search("index.*='[^']", settings):  # such as global.index-url='https://...'
        if not importlib.util.find_spec("uv"):
            subprocess.run([*PIP, "install", "--quiet", "--disable-pip-version-check", UV], env=outside)
        uv = [sys.executable, "-m", "uv", "pip", *what, "--python", sys.executable]
        if subprocess.run(uv, env=outside).returncode == 0:
            return True
    print("pip installs them, which takes two minutes longer than with uv.", flush=True)
    return subprocess.run([*PIP, *what], env=outside).returncode == 0


def main(what: str = "") -> None:
    """Look at .venv, make it, or install what a file lists."""
    if what == "--fits":
        sys.exit(not fits())
    elif not what:
        make_venv()
    elif not install(what):
        sys.exit(f"The packages of {what} couldn't be installed: the lines above say why.")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit("Interrupted; the same command again goes on.")
