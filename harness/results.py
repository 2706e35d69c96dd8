"""Save a measurement, and load it again: whole files or none."""

import contextlib
import io
import itertools
import json
import os
import platform
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import confluent_kafka
import pandas as pd

from harness.client import StopButton
from harness.errors import ResultsError, RunInterrupted
from harness.runs import INTERRUPTED, BatchTiming, ProducerRun, batches_frame, counted

# Saved for those who read the file; computed again when it is loaded.
DERIVED = ("submitted", "acknowledged", "failed", "request_rate", "response_rate")


@dataclass
class Results:
    """A measurement's results, in memory and in a folder.

    The folder has ``results.json`` (the environment, the runs' totals, and the number of rows of each other file),
    ``batches.csv`` and a CSV file for each further table. Files are replaced as a whole and ``results.json`` last, so
    that a crash at any moment leaves what was saved before.
    """

    folder: Path
    environment: dict[str, object]
    runs: list[ProducerRun] = field(default_factory=list)
    token: str = field(default_factory=lambda: secrets.token_hex(3))  # tells this measurement's run ids from others
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)

    def add_run(self, run: ProducerRun) -> None:
        """Take in a run that has ended, and save.

        Raises:
            RunInterrupted: the run ended since the user interrupted it; it is saved all the same.
        """
        self.runs.append(run)
        self.save()
        if run.stopped == INTERRUPTED:
            raise RunInterrupted(
                f"Interrupted after {counted(run.acknowledged, 'message')} of run {len(self.runs)}. What was measured "
                f'is in {self.folder.as_posix()}; to draw it, set saved_run to "{self.folder.as_posix()}".'
            )

    def add_table(self, name: str, table: pd.DataFrame) -> None:
        """Take in a further table as ``NAME.csv``, and save."""
        self.tables[name] = table
        self.save()

    def save(self) -> None:
        """Write everything to the folder; an interrupt is raised once that is done."""
        with StopButton() as stop:
            stop.closing = True  # however often it is pressed
            self.folder.mkdir(parents=True, exist_ok=True)
            contents = {"batches": batches_frame(self.runs), **self.tables}
            for name, table in contents.items():
                _replace(self.folder / f"{name}.csv", table.to_csv(index=False, lineterminator="\n").encode())
            content = {
                "environment": self.environment,
                "runs": [_totals(run) for run in self.runs],
                "rows": {name: len(table) for name, table in contents.items()},
            }
            _replace(self.folder / "results.json", (json.dumps(content, indent=1) + "\n").encode())


def new_folder(kind: str, parent: str | Path = "results") -> Path:
    """Make a folder for a measurement's results, named by date and kind of cluster; never one that exists."""
    name = f"{datetime.now(UTC):%Y-%m-%d_%H-%M-%S}_{kind.split()[0].lower()}"
    for suffix in itertools.chain([""], map("-{}".format, itertools.count(2))):
        with contextlib.suppress(FileExistsError):
            folder = Path(parent) / (name + suffix)
            folder.mkdir(parents=True)
            return folder


def load_results(folder: str | Path) -> Results:
    """Read what :class:`Results` saved.

    Raises:
        ResultsError: a file is missing or was cut short.
    """
    folder = Path(folder)
    try:
        content = json.loads((folder / "results.json").read_bytes())
    except OSError:
        raise ResultsError(
            f"No saved run in {folder.name}: it has no results.json; check the name, or measure again."
        ) from None
    except ValueError:
        raise ResultsError(f"{folder.name}/results.json {CUT_SHORT}") from None
    try:
        tables = {name: _table(folder / f"{name}.csv", rows) for name, rows in content["rows"].items()}
        batches = tables.pop("batches").drop(columns=["mode", "batch"])
        runs = []
        for number, run in enumerate(content["runs"], start=1):
            totals = {key: value for key, value in run.items() if key not in DERIVED}
            timings = batches[batches["run"] == number].drop(columns="run").to_dict("records")
            runs.append(ProducerRun(**totals, batches=[BatchTiming(**timing) for timing in timings]))
        return Results(folder, content["environment"], runs, tables=tables)
    except (TypeError, KeyError, AttributeError):
        raise ResultsError(f"{folder.name}/results.json or batches.csv {CUT_SHORT}") from None


CUT_SHORT = "is not as it was saved, or was cut short; restore the folder, or measure again."


def _table(file: Path, rows: int) -> pd.DataFrame:
    """The first ``rows`` rows: after a crash in the middle of saving there may be more than results.json knows of."""
    name = f"{file.parent.name}/{file.name}"
    try:
        data = file.read_bytes()
        table = pd.read_csv(io.BytesIO(data), nrows=rows)
    except OSError:
        raise ResultsError(f"{name} is missing; restore the folder, or measure again.") from None
    except ValueError:
        raise ResultsError(f"{name} {CUT_SHORT}") from None
    if len(table) < rows or not data.endswith(b"\n"):
        raise ResultsError(f"{name} {CUT_SHORT}")
    return table


def _totals(run: ProducerRun) -> dict[str, object]:
    totals = {key: value for key, value in vars(run).items() if key not in ("batches", "undelivered")}
    totals["wait_quantiles_s"] = [round(wait, 7) for wait in run.wait_quantiles_s]
    return totals | {key: getattr(run, key) for key in DERIVED}


def _replace(path: Path, data: bytes) -> None:
    """Write a file such that it is there whole or, after a crash, as it was before."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def environment(**parameters: object) -> dict[str, object]:
    """What is measured with, and when; ``parameters`` are taken in as they are."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **parameters,
        "python": platform.python_version(),
        "confluent-kafka": confluent_kafka.__version__,
        "librdkafka": confluent_kafka.libversion()[0],
        "os": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
    }


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()
