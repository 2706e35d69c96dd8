"""Kafka's jars, fetched once into the user's cache folder."""

import hashlib
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from local_kafka.errors import LocalKafkaError

KAFKA_VERSION = "4.3.1"
LIST = Path(__file__).with_name("jars.txt").read_text(encoding="utf-8")
JARS = {f"{name.replace(':', '-')}.jar": (name, digest) for digest, name in map(str.split, LIST.splitlines())}


def install(spare: Path) -> Path:
    """The folder with the jars, each of them checked: in the user's cache, or else ``spare``."""
    folder = _cache_folder(spare)
    missing = [name for name in JARS if not _is_whole(folder / name, name)]
    if not missing:
        return folder
    print(f"Downloading Apache Kafka {KAFKA_VERSION}, once (39 MB)", end="", file=sys.stderr, flush=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder) as work, ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: _fetch(name, folder, Path(work)), missing))
    except Exception as error:  # jgo raises whatever its HTTP and XML libraries raise
        raise LocalKafkaError(
            f"Apache Kafka {KAFKA_VERSION} could not be fetched from Maven Central ({type(error).__name__}); check the "
            f"network and the space in {folder}."
        ) from None
    print(f"\r{'':60}\r", end="", file=sys.stderr, flush=True)  # a notebook keeps nothing of it
    return folder


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
