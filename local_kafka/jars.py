"""Kafka's jars, fetched once."""

import hashlib
import os
import sys
from multiprocessing.pool import ThreadPool
from pathlib import Path

from local_kafka import cache
from local_kafka.errors import LocalKafkaError

KAFKA_VERSION = "4.3.1"
LIST = Path(__file__).with_name("jars.txt").read_text(encoding="utf-8")
JARS = {f"{name.replace(':', '-')}.jar": (name, digest) for digest, name in map(str.split, LIST.splitlines())}
DOWNLOADS_AT_ONCE = 8


def install(spare: Path) -> Path:
    """The folder with the jars, each of them checked: the user's cache, or ``spare`` where that can't be used.

    Raises LocalKafkaError where a jar can't be fetched.
    """
    try:
        folder = cache.cache_folder()
        missing = _missing(folder)
        if missing:
            cache.work_folder(folder).cleanup()  # can it be written to?
    except (OSError, RuntimeError) as error:
        print(f"Kafka is fetched again by each start; set XDG_CACHE_HOME to a folder ({error}).", file=sys.stderr)
        folder = spare
        missing = _missing(spare)
    if missing:
        _fetch_all(missing, folder)
    return folder


def _fetch_all(missing: list[str], folder: Path) -> None:
    print(f"Downloading Apache Kafka {KAFKA_VERSION}, once (39 MB)", end="", file=sys.stderr, flush=True)
    try:
        # This pool, other than that of concurrent.futures, doesn't wait for its threads when it is interrupted.
        with cache.work_folder(folder) as work, ThreadPool(DOWNLOADS_AT_ONCE) as pool:
            for _fetched in pool.imap_unordered(lambda name: _fetch(name, folder, Path(work)), missing):
                pass
    except Exception as error:  # jgo raises whatever its HTTP and XML libraries raise
        raise LocalKafkaError(
            f"Apache Kafka {KAFKA_VERSION} could not be fetched from Maven Central ({type(error).__name__}); check the "
            f"network and the space in {folder}, or use a Confluent Cloud account with its client.properties."
        ) from None
    print(f"\r{'':60}\r", end="", file=sys.stderr, flush=True)  # a notebook keeps nothing of it


def _fetch(name: str, folder: Path, work: Path) -> None:
    from jgo.maven import MavenContext  # here, since only the first start needs it and its libraries

    group, artifact, version = JARS[name][0].split(":")
    fetched = MavenContext(repo_cache=work).project(group, artifact).at_version(version).artifact().resolve()
    if not _is_whole(fetched, name):
        raise ValueError(f"{name} is damaged")
    os.utime(fetched, (10**9, 10**9))  # the same for a jar that is fetched again: Java compares
    os.replace(fetched, folder / name)


def _missing(folder: Path) -> list[str]:
    return [name for name in JARS if not _is_whole(folder / name, name)]


def _is_whole(path: Path, name: str) -> bool:
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == JARS[name][1]
