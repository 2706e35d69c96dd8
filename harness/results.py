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
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import confluent_kafka
import msgspec
import pandas as pd

from harness.errors import ClusterError, ResultsError, RunInterrupted
from harness.runs import INTERRUPTED, Amount, Count, Mode, ProducerRun, batches_frame, printable, quantity
from harness.stop import StopButton

ASSIGNMENT_KINDS = ("local", "distant", "cloud", "other")  # of cluster; measured and drawn by assignment1.ipynb
FURTHER_KINDS = ("further",)  # what going_further.ipynb has measured, and draws
SPACE_BYTES = 8_000_000  # more than a measurement takes
MEASUREMENTS_CSV = "results/measurements.csv"

# What a saved file may hold, beside what a run may.
Kind = Annotated[str, msgspec.Meta(pattern=rf"\A({'|'.join((*ASSIGNMENT_KINDS, *FURTHER_KINDS))})?\Z")]
Moment = Annotated[str, msgspec.Meta(pattern=r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00\Z")]
TableName = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9_]+\Z")]  # also the name of a file
Table = dict[str, list[str | int | float | bool | None]]


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

    kind: Kind = ""
    cluster: str = ""  # its name, for people
    num_messages: Count = 0  # in each run
    batch_size: Count = 0
    planned_runs: Count = 0
    estimated_s: Amount = 0.0  # of a synchronous run
    brokers: Count = 0
    partitions: Count = 0
    replication_factor: Count = 0
    settings: dict[str, str] = field(default_factory=dict)  # of the client, those that may be shown
    saved_run: str = ""  # the folder of the measurement that going_further.ipynb examines
    rehearsal: str = ""  # the folder of the one at a distance
    date: Moment = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    python: str = field(default_factory=platform.python_version)
    confluent_kafka: str = field(default_factory=lambda: str(confluent_kafka.__version__))
    librdkafka: str = field(default_factory=lambda: confluent_kafka.libversion()[0])
    os: str = field(default_factory=lambda: f"{platform.system()} {platform.machine()}")
    cpu: str = field(default_factory=_cpu_model)
    cores: Count = field(default_factory=lambda: os.cpu_count() or 0)
    load_average: Amount | None = field(default_factory=_load_average)  # before anything was started


@dataclass
class Results:
    """A measurement's results, in memory and in a folder."""

    folder: Path
    record: Record
    runs: list[ProducerRun] = field(default_factory=list)
    token: str = field(default_factory=lambda: secrets.token_hex(3))  # tells this measurement's run ids from others
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    _unwritten: set[str] = field(default_factory=set, repr=False)  # CSV files of which it was said

    def add_run(self, run: ProducerRun) -> None:
        """Take in a run that has ended, and save. Raises KeyboardInterrupt, then, where the user ended it."""
        self.runs.append(run)
        self.save()
        if run.stopped == INTERRUPTED:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Within this block RunInterrupted, after the stop button, and ClusterError say where the results are."""
        try:
            yield
        except KeyboardInterrupt:
            messages = self.runs[-1].acknowledged if self.runs else 0
            ended = f"Interrupted after {quantity(messages, 'message')} of run {len(self.runs) or 1}."
            raise RunInterrupted(f"{ended} {self._what_is_saved()}") from None
        except ClusterError as error:
            if not self.runs:
                raise
            raise ClusterError(f"{error} {self._what_is_saved()}") from None

    def _what_is_saved(self) -> str:
        self.save()
        folder = self.folder.as_posix()
        return f'What was measured is in {folder}; to draw it, set saved_run to "{folder}".'

    def add_table(self, name: str, table: pd.DataFrame) -> None:
        """Take in a further table, and save. Its name has small letters, digits and underscores."""
        self.tables[name] = table
        self.save()

    @property
    def state(self) -> str:
        """``complete``: each planned run is there, and delivered all messages; else what is wrong, in a few words."""
        if len(self.runs) < self.record.planned_runs or any(run.stopped for run in self.runs):
            return "interrupted"
        if any(not run.complete for run in self.runs):
            return "messages failed"
        if {run.mode for run in self.runs} != {"async", "sync"}:
            return "without runs of both producers"
        if any(run.submitted != self.record.num_messages for run in self.runs):
            return "its runs have other numbers of messages"
        return "complete"

    @property
    def complete(self) -> bool:
        """Whether each planned run is there, of both producers, and delivered all messages."""
        return self.state == "complete"

    def save(self) -> None:
        """Write everything, where that fails to a temporary folder; an interrupt is raised once that is done.

        Raises ResultsError where neither can be written.
        """
        with StopButton() as stop:
            stop.closing = True  # however often it is pressed
            try:
                self._write()
            except OSError as error:
                self._write_elsewhere(error)

    def _write_elsewhere(self, refusal: OSError) -> None:
        wanted = self.folder
        problem = f"{wanted} can't be written ({refusal.strerror})"
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=f"{wanted.name}_"))
            self._write()
        except OSError:
            with contextlib.suppress(OSError):
                self.folder.rmdir()  # an empty one
            self.folder = wanted
            remedy = "what was measured since the last save is lost. Make room, and measure again"
            raise ResultsError(f"{problem}, nor can {tempfile.gettempdir()}; {remedy}.") from None
        print(f"{problem}; the results are in {self.folder} instead.")

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(ResultsError):  # what another notebook has added to this folder stays
            self.tables = load_results(self.folder).tables | self.tables
        _replace(self.folder / "results.json", self._encoded())
        for name, table in (self.tables | {"batches": batches_frame(self.runs)}).items():
            file = self.folder / f"{name}.csv"
            try:
                _replace(file, table.to_csv(index=False, lineterminator="\n").encode())
            except OSError as error:
                if file.name not in self._unwritten:
                    self._unwritten.add(file.name)
                    print(f"{file} can't be written ({error.strerror}); results.json beside it has all of it.")

    def _encoded(self) -> bytes:
        tables = {name: table.to_dict("list") for name, table in self.tables.items()}
        runs = [{name: value for name, value in vars(run).items() if name != "undelivered"} for run in self.runs]
        content = msgspec.json.encode({"record": self.record, "tables": tables, "runs": runs})
        body = msgspec.json.format(content, indent=1).removeprefix(b"{\n")
        return _digest_line(body) + body


def _digest_line(body: bytes) -> bytes:
    """The line above the rest of results.json: with the digest of that rest, byte by byte."""
    return b'{"sha256": "%s",\n' % hashlib.sha256(body).hexdigest().encode()


def _replace(file: Path, content: bytes) -> None:
    """Write a file: after a crash or a failure it is as it was before, or whole. Raises OSError."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        draft.replace(file)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


# The columns of the table "accounts", as harness.read_back.reconcile makes it.
COUNTS = ("run", "submitted", "acknowledged", "failed", "received", "missing", "duplicated", "damaged", "out_of_order")
OTHERS = [("run_id", list[str]), ("mode", list[Mode]), ("holds", list[bool])]
Accounts = msgspec.defstruct("Accounts", [*((name, list[Count]) for name in COUNTS), *OTHERS])


@dataclass
class _Saved:
    """What results.json holds."""

    sha256: str
    record: dict[str, object]
    tables: dict[TableName, Table]
    runs: list[ProducerRun]


def load_results(folder: str | Path, kinds: Collection[str] | None = None) -> Results:
    """Read what :class:`Results` saved; where kinds are given, of these only, since each notebook draws its own.

    Raises:
        ResultsError: it is missing, is of another kind, or isn't as it was saved.
    """
    if not isinstance(folder, str | Path):
        raise ResultsError('A saved run is named by its folder in quotes, such as "results/2026-11-26_22-59-43_local".')
    folder = Path(folder)
    name = printable(folder.as_posix())
    file = folder / "results.json"
    missing = f"No saved run in {name}: {name}/results.json can't be read; check the name."
    try:
        if not file.is_file():  # what isn't there, or would be read for ever
            raise ResultsError(missing)
        results = _decoded(folder, file.read_bytes())
    except OSError:
        raise ResultsError(missing) from None
    except (ValueError, RecursionError):
        problem = "is not as it was saved, or by another version of this program"
        raise ResultsError(f"{name}/results.json {problem}; restore it, or measure again.") from None
    if kinds is not None and results.record.kind not in kinds:
        notebook = "assignment1.ipynb, where saved_run"
        if results.record.kind in FURTHER_KINDS:
            notebook = "going_further.ipynb, where saved_further"
        raise ResultsError(f"{name} is drawn by {notebook} names it; name another folder here.")
    return results


def _decoded(folder: Path, content: bytes) -> Results:
    """The results in a file's content. Raises ValueError or RecursionError where it isn't as it was saved."""
    first_line, line_end, body = content.partition(b"\n")
    if first_line + line_end != _digest_line(body):
        raise ValueError
    saved = msgspec.json.decode(content, type=_Saved)
    if set(saved.record) != {each.name for each in fields(Record)}:  # none may be filled in with this machine's
        raise ValueError
    record = msgspec.convert(saved.record, Record)
    if "accounts" in saved.tables:
        msgspec.convert(saved.tables["accounts"], Accounts)
    tables = {name: pd.DataFrame(columns) for name, columns in saved.tables.items()}
    return Results(folder, record, saved.runs, tables=tables)


def newest(
    kinds: Collection[str], *, parent: str = "results", num_messages: int | None = None, tables: Collection[str] = ()
) -> Results | None:
    """The newest measurement of these kinds that serves: a complete one, of so many messages if that is given.

    Where ``tables`` are named, one that has all of them serves, complete or not. None if there is none.
    """
    serving = []
    for file in Path(parent).glob("*/results.json"):
        with contextlib.suppress(ResultsError):
            saved = load_results(file.parent, kinds)
            whole = set(tables) <= set(saved.tables) if tables else saved.complete
            if whole and num_messages in (None, saved.record.num_messages):
                serving.append(saved)
    return max(serving, key=lambda saved: (saved.record.date, saved.folder.name), default=None)


def overview(parent: str | Path = "results") -> Iterator[str]:
    """A line for each saved measurement: on what, how much, whether it is complete."""
    for file in sorted(Path(parent).glob("*/results.json")):
        try:
            saved = load_results(file.parent)
        except ResultsError as error:
            yield str(error)
            continue
        record = saved.record
        holds = f"tables: {', '.join(saved.tables)}"
        if record.planned_runs:
            runs = f"{len(saved.runs)} of {record.planned_runs} runs"
            holds = f"{runs} of {record.num_messages:,} messages, {saved.state}"
        yield printable(f"{file.parent.as_posix()}: {record.cluster}; {holds}")


def load_measurements(file: str | Path = MEASUREMENTS_CSV) -> pd.DataFrame:
    """The runs of all whole measurements known, as README.md beside the file describes them; none without the file.

    Raises ResultsError where it holds something else.
    """
    columns = ["measurement", "date", "cpu", "cores", "warm_up", "order", "mode", "messages", "elapsed_s"]
    try:
        known = pd.read_csv(file)
        return known.astype({"messages": int, "elapsed_s": float}).dropna(subset=columns)
    except OSError:
        return pd.DataFrame(columns=columns)
    except (ValueError, KeyError):
        raise ResultsError(f"{file} is not the table of known measurements; restore it, or remove it.") from None


def check_folder(parent: str | Path = "results") -> None:
    """See, before anything is measured, whether results can be saved there. Raises ResultsError if not."""
    try:
        Path(parent).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=parent) as file:
            file.write(bytes(SPACE_BYTES))
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
