"""What one producer's run has measured."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, TypeVar

import msgspec
import pandas as pd

from harness.errors import ClusterError

INTERRUPTED = "interrupted"
TOO_LARGE = "Broker: Message size too large"  # the client's words
KeyValue = tuple[bytes | None, bytes | None]  # a message
NEAR_MS = 5.0  # a shorter round trip is one within a building
# What a saved file may hold; anything else isn't of ours.
Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Mode = Annotated[str, msgspec.Meta(pattern=r"\A(async|sync)\Z")]
Thing = TypeVar("Thing")


@dataclass
class BatchTiming:
    """One batch of a run; times are in seconds."""

    messages: Count
    elapsed_s: Amount = 0.0  # its sender spent on it, from its first produce() until the next batch may begin
    delivered_s: Amount = 0.0  # from its first produce() to the last of its reports, which poll or flush serves
    acknowledged: Count = 0
    failed: Count = 0
    started_s: Amount = 0.0  # from the run's first produce() to this batch's first
    reports: Count = 0  # events that the poll() at its end served; one brings the reports of a whole request


@dataclass
class ProducerRun:
    """One producer sending all messages once; times are in seconds."""

    mode: Mode
    run_id: str = ""
    batches: list[BatchTiming] = field(default_factory=list, repr=False)
    elapsed_s: Amount = 0.0  # from the first produce() to the last acknowledgement (or report of failure)
    cpu_s: Amount = 0.0  # processor time of this process in elapsed_s, the client's own threads included
    errors: dict[str, Count] = field(default_factory=dict)  # why messages failed, with how many for each reason
    queue_full: Count = 0  # how often the client's queue was full and the sender had to wait
    stopped: str = ""  # why the run ended before all messages were acknowledged
    # Acknowledged messages' time from produce() to the report: quantiles 0, 0.5 % ... 100 %.
    wait_quantiles_s: list[Amount] = field(default_factory=list, repr=False)
    network: dict[str, Amount] = field(default_factory=dict, repr=False)  # as Network.summary() has it
    # Key and value of the failed messages, for whoever wants to send them again; not saved.
    undelivered: list[tuple[bytes | None, bytes | None]] = field(default_factory=list, repr=False)

    @property
    def submitted(self) -> int:
        """Messages given to the client, failed ones included."""
        return sum(batch.messages for batch in self.batches)

    @property
    def acknowledged(self) -> int:
        """Messages that the broker has acknowledged."""
        return sum(batch.acknowledged for batch in self.batches)

    @property
    def failed(self) -> int:
        """Messages that were not delivered, or of which it isn't known."""
        return sum(batch.failed for batch in self.batches)

    @property
    def complete(self) -> bool:
        """Whether every message was submitted and acknowledged."""
        return not self.stopped and self.acknowledged == self.submitted

    @property
    def request_rate(self) -> float:
        """Messages submitted / s while submitting, failed ones included (the course's "request rate").

        In sync that time includes every wait, in async not the last.
        """
        submitting_s = sum(batch.elapsed_s for batch in self.batches)
        return self.submitted / submitting_s if submitting_s else 0.0

    @property
    def response_rate(self) -> float:
        """Messages acknowledged / s, up to the last acknowledgement (the course's "response rate")."""
        return self.acknowledged / self.elapsed_s if self.elapsed_s else 0.0

    def wait_s(self, share: float) -> float:
        """The time in seconds within which such a share of the acknowledged messages had its report; 0 without any."""
        if not self.wait_quantiles_s:
            return 0.0
        return self.wait_quantiles_s[round(share * (len(self.wait_quantiles_s) - 1))]


def require_complete(run: ProducerRun) -> ProducerRun:
    """The run, if it is complete; else raises KeyboardInterrupt where the user stopped it, or ClusterError."""
    if run.stopped == INTERRUPTED:
        raise KeyboardInterrupt
    if not run.complete:
        remedy = "Try again once the cluster is well"
        if TOO_LARGE in run.errors:
            remedy = "The topic's max.message.bytes counts for a whole batch: raise it, or set batch.size well below it"
        raise ClusterError(f"Not all messages were delivered: {outcome(run)}. {remedy}.")
    return run


def outcome(run: ProducerRun) -> str:
    """What became of an incomplete run's messages, as a clause."""
    parts = [f"{quantity(run.acknowledged, 'message')} acknowledged, {run.failed:,} failed"]
    parts += [f"{count:,} with {reason!r}" for reason, count in run.errors.items()]
    if run.stopped:
        parts.append(f"stopped: {run.stopped}")
    return "; ".join(parts)


def quantity(number: int, thing: str) -> str:
    """``1 message``, ``20,000 messages``."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def printable(text: str) -> str:
    """The text without what would steer a terminal or can't be written."""
    return "".join(character if character.isprintable() else "?" for character in text)


def rounds(number: int, things: Iterable[Thing]) -> Iterator[tuple[int, Thing]]:
    """Each thing in turn, again and again; every second round backwards, so that a drift affects all alike."""
    order = list(things)
    for round_ in range(number):
        for thing in order:
            yield round_, thing
        order.reverse()


def order_of_runs(blocks: int) -> list[str]:
    """The modes in their order: more asynchronous runs, which vary more and cost less; for one block, one each."""
    if blocks == 1:
        return ["async", "sync"]
    return ["async", "async", "sync", "async", "async"] * blocks


def batches_frame(runs: Iterable[ProducerRun]) -> pd.DataFrame:
    """One row a batch: ``run`` and ``batch`` (both from 1), ``mode``, and what :class:`BatchTiming` has."""
    columns = ["run", "mode", "batch", *(column.name for column in fields(BatchTiming))]
    rows = [
        {"run": number, "mode": run.mode, "batch": batch, **asdict(timing)}
        for number, run in enumerate(runs, start=1)
        for batch, timing in enumerate(run.batches, start=1)
    ]
    return pd.DataFrame(rows, columns=columns)
