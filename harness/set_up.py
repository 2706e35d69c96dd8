"""Make the folder .venv, and install packages in it; for ``make``, before any package is there.

``python3 -m harness.set_up`` makes it, ``.venv/bin/python -m harness.set_up requirements.txt`` installs, and with
``--fits`` it ends with 0 if this Python is that of a .venv which can be used.
"""

import ast
import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

UV = "uv==0.13.9"  # installs in a quarter of pip's time; constraints.txt is made with it, too
PIP = [sys.executable, "-m", "pip"]
MADE_HERE = "made_by_make"  # without this file in it .venv is the user's, which `make clean` leaves
# pip's settings on where packages come from, and uv's names for them.
FOR_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}
ELSEWHERE = {"target", "prefix", "root", "user", "python", "dry-run"}  # those by which .venv would get nothing


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


def pip_settings() -> dict[str, str]:
    """Give what pip's files and variables say, but for where it installs."""
    # Where pip installs for the user only, it would list that user's settings only.
    environment = os.environ | {"PIP_USER": "0"}
    listed = subprocess.check_output([*PIP, "config", "list"], env=environment, text=True)
    settings = {}
    for section in ("global.", "install.", ":env:."):  # the later one wins
        for line in listed.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(section):
                settings[name.removeprefix(section)] = ast.literal_eval(value)
    return {name: value for name, value in settings.items() if value and name not in ELSEWHERE}


def install(requirements: str) -> bool:
    """Install what the file lists in the .venv of this Python, with uv or else with pip; tell whether it succeeded."""
    if not importlib.util.find_spec("pip"):
        subprocess.run([sys.executable, "-m", "ensurepip"])
    settings = pip_settings()
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    for_pip = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings.items()}
    for_pip = outside | for_pip | {"PIP_CONFIG_FILE": os.devnull}
    for_uv = {FOR_UV[name]: value for name, value in settings.items() if name in FOR_UV} | outside
    what = ["install", "-c", "constraints.txt", "-r", requirements]
    if not importlib.util.find_spec("uv"):
        subprocess.run([*PIP, "install", "--quiet", "--disable-pip-version-check", UV], env=for_pip)
    uv = [sys.executable, "-m", "uv", "pip", *what, "--python", sys.executable]
    if "no-index" not in settings and subprocess.run(uv, env=for_uv).returncode == 0:
        return True
    print("uv can't install them here; pip does, which takes longer.", flush=True)
    return subprocess.run([*PIP, *what], env=for_pip).returncode == 0


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
