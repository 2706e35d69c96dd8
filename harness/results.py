"""Save a measurement, load it again, and say which of the saved ones is the newest.

``results.json`` is the whole truth, read as a whole or not at all; the CSV files beside it are for other programs.
"""

import contextlib
import hashlib
import os
import platform
import re
import secrets
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import confluent_kafka
import msgspec
import pandas as pd

from harness.errors import ResultsError, RunInterrupted
from harness.runs import INTERRUPTED, ProducerRun, batches_frame, quantity
from harness.stop import StopButton


def _cpu_model() -> str:
    with contextlib.suppress(OSError):  # there is no such file on macOS and Windows
        for model in re.findall(r"(?m)^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8")):
            return model
    return platform.processor() or platform.machine()


def _load_average() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


@dataclass
class Record:
    """What was measured, on what, with what: saved with every result. The machine's part is filled in by itself."""

    kind: str = ""  # of cluster: local, distant, cloud or other; further: what going_further.ipynb has measured
    cluster: str = ""  # its name, for people
    num_messages: int = 0  # in each run
    batch_size: int = 0
    planned_runs: int = 0
    estimated_s: float = 0.0  # of a synchronous run
    brokers: int = 0
    partitions: int = 0
    replication_factor: int = 0
    settings: dict[str, str] = field(default_factory=dict)  # of the client, those that may be shown
    saved_run: str = ""  # the folder of the measurement that going_further.ipynb examines
    rehearsal: str = ""  # the folder of the one at a distance
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    python: str = field(default_factory=platform.python_version)
    confluent_kafka: str = field(default_factory=lambda: str(confluent_kafka.__version__))
    librdkafka: str = field(default_factory=lambda: confluent_kafka.libversion()[0])
    os: str = field(default_factory=lambda: f"{platform.system()} {platform.machine()}")
    cpu: str = field(default_factory=_cpu_model)
    cores: int = field(default_factory=lambda: os.cpu_count() or 0)
    load_average: float | None = field(default_factory=_load_average)  # before anything was started


@dataclass
class Results:
    """A measurement's results, in memory and in a folder."""

    folder: Path
    record: Record
    runs: list[ProducerRun] = field(default_factory=list)
    token: str = field(default_factory=lambda: secrets.token_hex(3))  # tells this measurement's run ids from others
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)

    def add_run(self, run: ProducerRun) -> None:
        """Take in a run that has ended, and save. Raises KeyboardInterrupt, then, where the user ended it."""
        self.runs.append(run)
        self.save()
        if run.stopped == INTERRUPTED:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Within this block the stop button is answered with where the results are: RunInterrupted."""
        try:
            yield
        except KeyboardInterrupt:
            self.save()
            messages, folder = self.runs[-1].acknowledged if self.runs else 0, self.folder.as_posix()
            raise RunInterrupted(
                f"Interrupted after {quantity(messages, 'message')} of run {len(self.runs) or 1}. What was measured is "
                f'in {folder}; to draw it, set saved_run to "{folder}".'
            ) from None

    def add_table(self, name: str, table: pd.DataFrame) -> None:
        """Take in a further table, and save."""
        self.tables[name] = table
        self.save()

    @property
    def complete(self) -> bool:
        """Whether all planned runs are there, none was stopped, and both producers have a complete one."""
        modes = {run.mode for run in self.runs if run.complete}
        planned = len(self.runs) >= self.record.planned_runs
        return planned and len(modes) == 2 and not any(run.stopped for run in self.runs)

    def save(self) -> None:
        """Write everything, where that fails to a temporary folder; an interrupt is raised once that is done.

        Raises ResultsError where neither can be written; the results are still in memory then.
        """
        with StopButton() as stop:
            stop.closing = True  # however often it is pressed
            try:
                self._write()
            except OSError as error:
                wanted, self.folder = self.folder, Path(tempfile.gettempdir(), self.folder.name)
                said = f"{wanted} can't be written ({error.strerror})"
                if wanted == self.folder:
                    raise ResultsError(f"{said}; nothing is lost yet: make room, and call results.save().") from None
                print(f"{said}; the results are in {self.folder} instead.")
                self.save()

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(ResultsError):  # what another notebook has added to this folder stays
            self.tables = load_results(self.folder).tables | self.tables
        tables = {name: table.to_dict("list") for name, table in self.tables.items()}
        runs = [{name: value for name, value in vars(run).items() if name != "undelivered"} for run in self.runs]
        content = {"record": vars(self.record), "tables": tables, "runs": runs}
        encoded = msgspec.json.encode({"digest": _digest(content), **content})
        draft = self.folder / f".results.json.{os.getpid()}"  # after a crash the file is as it was before, or whole
        draft.write_bytes(msgspec.json.format(encoded, indent=1))
        draft.replace(self.folder / "results.json")
        for name, table in (self.tables | {"batches": batches_frame(self.runs)}).items():
            table.to_csv(self.folder / f"{name}.csv", index=False, lineterminator="\n")


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


def load_results(folder: str | Path) -> Results:
    """Read what :class:`Results` saved. Raises ResultsError where it is missing or, as a digest tells, was changed."""
    folder, file = Path(folder), Path(folder, "results.json").as_posix()
    try:
        content = msgspec.json.decode(Path(file).read_bytes(), type=dict[str, Any])
        if content.pop("digest", None) != _digest(content):
            raise ValueError
        runs = msgspec.convert(content["runs"], list[ProducerRun])
        tables = {name: pd.DataFrame(columns) for name, columns in content["tables"].items()}
        return Results(folder, msgspec.convert(content["record"], Record), runs, tables=tables)
    except OSError:
        raise ResultsError(f"No saved run in {folder.as_posix()}: {file} can't be read; check the name.") from None
    except (ValueError, RecursionError):
        raise ResultsError(f"{file} is not as it was saved; restore it, or measure again.") from None


def newest(kinds: Collection[str], *, parent: str = "results", num_messages: int | None = None) -> Results | None:
    """The newest complete measurement on one of these kinds of cluster, of so many messages if given, or None."""
    serving = []
    for file in Path(parent).glob("*/results.json"):
        with contextlib.suppress(ResultsError):
            saved = load_results(file.parent)
            if saved.complete and saved.record.kind in kinds and num_messages in (None, saved.record.num_messages):
                serving.append(saved)
    return max(serving, key=lambda saved: (saved.record.date, saved.folder.name), default=None)


def overview(parent: str | Path = "results") -> Iterator[str]:
    """A line for each saved measurement: on what, when, how much, whether it is complete."""
    for file in sorted(Path(parent).glob("*/results.json")):
        try:
            saved = load_results(file.parent)
            of, what = saved.record, f"tables: {', '.join(saved.tables)}"
            if of.planned_runs:
                state = "complete" if saved.complete else "interrupted, or messages failed"
                what = f"{len(saved.runs)} of {of.planned_runs} runs of {of.num_messages:,} messages, {state}"
            yield f"{file.parent.as_posix()}: {of.cluster}, {of.date[:16]}; {what}"
        except ResultsError as error:
            yield str(error)


def check_folder(parent: str | Path = "results") -> None:
    """See, before anything is measured, whether results can be saved there. Raises ResultsError if not."""
    try:
        Path(parent).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=parent) as file:
            file.write(bytes(8_000_000))  # more than a measurement takes
    except OSError as error:
        reason = f"({error.strerror}); it has to be a folder that can be written, with 8 MB free"
        raise ResultsError(f"Results can't be saved in {parent} {reason}.") from None


def new_folder(kind: str, parent: str | Path = "results") -> Path:
    """Make a folder for a measurement's results, named by date and kind of cluster; never one that exists."""
    check_folder(parent)
    while True:
        folder = Path(parent, f"{datetime.now(UTC):%Y-%m-%d_%H-%M-%S}_{kind}")
        with contextlib.suppress(FileExistsError):  # another measurement began in this second
            folder.mkdir()
            return folder
        time.sleep(0.1)
