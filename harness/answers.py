"""What ``going_further.ipynb`` answers: what was predicted beside what was measured, and the answer in a few words."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

import pandas as pd

from harness.report import approx, joint, ratio_of_medians, rounded, run_times, summarize, verdict
from harness.results import Results

Range = tuple[float, float]
FAR_MS = 25
HERE, FAR = "here", f"{FAR_MS} ms away"
QUESTIONS = (
    "What if nobody looks?",
    "What if the program dies?",
    "What if a broker dies, and does order hold?",
    "How often to wait?",
    "How does distance matter, for both?",
    "What does safety cost?",
    "How to send one message from a web handler, and know that it arrived?",
    "Which mistakes make the comparison wrong?",
    "How sure are these numbers?",
)


@dataclass(frozen=True)
class Answer:
    """A section's answer: its tables with predicted beside measured, a few words with one number, and the verdict."""

    tables: Sequence[pd.DataFrame]
    short: str
    verdict: str


def overview(answers: Mapping[int, Answer]) -> str:
    """All questions and the answers so far, as a table in Markdown."""
    lines = ["| | question | answer | the prediction was |", "|---|---|---|---|"]
    for number, question in enumerate(QUESTIONS, start=1):
        found = answers.get(number)
        lines.append(
            f"| {number} | {question} | {found.short} | {found.verdict} |"
            if found
            else f"| {number} | {question} | | |"
        )
    return "\n".join(lines)


def judge(frame: pd.DataFrame, measured: Sequence[Range], predicted: Sequence[Range], what: str = "") -> pd.DataFrame:
    """The frame with a column for the predicted ranges, the measured ones, and the verdicts, as they are printed."""
    measured = [(rounded(low), rounded(high)) for low, high in measured]
    predicted = [(rounded(low), rounded(high)) for low, high in predicted]
    columns = {
        f"{what} measured".strip(): list(map(between, measured)),
        "predicted": list(map(between, predicted)),
        "verdict": list(map(verdict, measured, predicted)),
    }
    return frame.assign(**columns)


def between(ends: Range) -> str:
    """A range in words."""
    low, high = ends
    if high == inf:
        return f"at least {approx(low)}"
    return approx(low) if low == high else f"{approx(low)} to {approx(high)}"


def whole(*frames: pd.DataFrame) -> str:
    """The verdict of all predictions in these tables."""
    return joint(*itertools.chain.from_iterable(frame["verdict"] for frame in frames))


def nobody_looks(table: pd.DataFrame) -> Answer:
    """Of how many failures do careless programs know? Predicted: of none, but where ``produce()`` itself raises."""
    careful = table["program"] == "callback and flush"
    slips = table["program"].isin(["no poll", "waits for its callback, nobody polls"])
    predicted = (table["sent"] - table["arrived"]).where(careful, slips.astype(int))
    shown = table.rename(columns={"reason": "which"}).set_index(["fault", "program"])[["sent", "arrived", "which"]]
    shown = judge(shown, ends(table["known"]), ends(predicted), "errors seen,")
    careless = table[~careful & ~slips]
    lost = careless[careless["arrived"] < careless["sent"]]
    noticed = "none of them noticed" if not lost["known"].any() else f"{(lost['known'] > 0).sum()} noticed"
    short = f"{len(lost)} careless programs of {len(careless)} lost messages; {noticed}."
    return Answer([shown], short, whole(shown))


def ends(values: pd.Series) -> list[Range]:
    """Each value as a range of its own."""
    return [(float(value), float(value)) for value in values]


def program_dies(table: pd.DataFrame) -> Answer:
    """How many messages go with the program? Predicted: as many as it may have under way, at most."""
    may_lose = {"sync": (0, 0), "wait after every 100": (0, 100), "async": (1, 100_000)}
    lost = table.groupby("way", sort=False)["lost"].agg(["size", "min", "median", "max"])
    shown = pd.DataFrame({"kills": lost["size"], "lost in a kill, median": lost["median"].map(approx)})
    measured = list(zip(lost["min"], lost["max"], strict=True))
    shown = judge(shown, measured, [may_lose[str(way)] for way in lost.index], "lost in a kill,")
    sync = "sync none" if lost.loc["sync", "max"] == 0 else f"sync up to {lost.loc['sync', 'max']}"
    short = f"Async lost up to {approx(lost.loc['async', 'max'])} messages in a kill; {sync}."
    return Answer([shown.rename_axis(None)], short, whole(shown))


def standstills(table: pd.DataFrame) -> dict[int, Range]:
    """For each number of brokers from when to when sync stood still, in seconds on its run's clock."""
    found = {}
    for brokers, run in table[table["mode"] == "sync"].groupby("brokers"):
        answered = (run["started_s"] + run["delivered_s"]).sort_values()
        found[int(str(brokers))] = (float(run["killed_s"].iloc[0]), float(answered[answered.diff().idxmax()]))
    return found


def brokers_die(table: pd.DataFrame) -> Answer:
    """Is a message lost, doubled or reordered, and who stands still? Predicted: none; sync, but not async."""
    runs = table.groupby(["brokers", "mode"])
    faults = runs[["missing", "duplicated", "out_of_order"]].first().sum(axis=1)
    longest = runs["elapsed_s"].max()
    waits = [(0, 1) if mode == "async" else (1, inf) for _, mode in longest.index]
    messages = runs["messages"].sum().map("{:,}".format).rename("messages").to_frame()
    lost = judge(messages.assign(what="lost, doubled or out of order"), ends(faults), [(0, 0)] * len(faults))
    still = judge(messages.assign(what="longest handing over of a batch (s)"), ends(longest), waits)
    shown = pd.concat([lost, still]).set_index("what", append=True).sort_index(sort_remaining=False)
    seconds = approx(max(end - begin for begin, end in standstills(table).values()))
    count = "None" if not faults.sum() else f"{faults.sum():,}"
    short = f"{count} lost, doubled or reordered in four kills; sync stood still for {seconds} s."
    return Answer([shown], short, whole(shown))


def rates(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Messages / s, as they are printed: by the median of the repeats' times, the slowest and the fastest."""
    times = table.groupby(columns, sort=False)["elapsed_s"].agg(["median", "max", "min"])
    messages = table.groupby(columns, sort=False)["messages"].first()
    found = times.rdiv(messages, axis="index").map(rounded)
    return found.set_axis(["rate", "slowest", "fastest"], axis="columns")


def gains(
    found: pd.DataFrame, base: Callable[[tuple[str, ...]], tuple[str, ...]], predict: Callable[..., Range], to: str
) -> pd.DataFrame:
    """How many times as fast as its base each row is, and what was predicted: quotients of printed rates."""
    rows = [index for index in found.index if index != base(index)]
    bases = [found.loc[base(index), "rate"] for index in rows]
    some = found.loc[rows]
    shown = pd.DataFrame({"messages / s": some["rate"].map(approx), f"{to} has": list(map(approx, bases))}, some.index)
    shown["times as fast"] = [approx(rate / by) for rate, by in zip(some["rate"], bases, strict=True)]
    measured = [(low / by, high / by) for low, high, by in zip(some["slowest"], some["fastest"], bases, strict=True)]
    return judge(shown, measured, list(itertools.starmap(predict, rows)), "times,")


def waits_between(table: pd.DataFrame) -> Answer:
    """What does one wait for k bring? Predicted: far away nearly k times the rate, here less than half that."""

    def predict(place: str, k: int) -> Range:
        return (0.7 * k, k) if place == FAR else (1, k / 2)

    found = rates(table[table["k"] > 0], ["place", "k"])
    shown = gains(found, lambda index: (index[0], 1), predict, "k = 1")
    at_end = rates(table[table["k"] == 0], ["place"])["rate"]
    shown["one wait at the end (messages / s)"] = [approx(at_end[place]) for place, _ in shown.index]
    place = FAR if FAR in at_end else HERE
    gain = shown.loc[(place, 10), "times as fast"]
    short = f"One wait for ten messages was {gain} times as fast as ten waits, {place}."
    return Answer([shown], short, whole(shown))


@dataclass(frozen=True)
class Line:
    """Milliseconds a synchronous message takes: ``slope`` for each of round trip, and ``own_ms`` without any."""

    slope: float
    own_ms: float

    def at(self, round_trip_ms: float) -> float:
        """What a message takes at this round trip, in ms."""
        return self.slope * round_trip_ms + self.own_ms


def line(law: pd.DataFrame) -> Line:
    """The line through the medians: its slope is the median of those between all pairs (Theil and Sen)."""
    middle = law.groupby(["mode", "set_ms"])[["round_trip_ms", "message_ms"]].median().loc["sync"]
    x, y = middle["round_trip_ms"], middle["message_ms"]
    pairs = itertools.combinations(zip(x, y, strict=True), 2)
    slope = median((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in pairs)
    return Line(slope, float((y - slope * x).median()))


def points(table: pd.DataFrame) -> pd.DataFrame:
    """The runs at each distance, with the round trip that was measured apart and the time of a message, in ms."""
    asked = 1000 * table[table["mode"] == "question"].set_index("set_ms")["elapsed_s"]
    runs = table[table["mode"] != "question"]
    message_ms = 1000 * runs["elapsed_s"] / runs["messages"]
    return runs.assign(round_trip_ms=runs["set_ms"].map(asked), message_ms=message_ms)


def distance(law: pd.DataFrame, requests: pd.DataFrame, rehearsal: Results | None) -> Answer:
    """Do both laws hold? Sync: a message takes a round trip. Async: a partition's requests, one after another."""
    lines = [line(some) for _, some in law.groupby("repeat")]
    asyn = law[law["mode"] == "async"].groupby("set_ms")["elapsed_s"].agg(["median", "min", "max"])
    near, farthest = asyn.index.min(), asyn.index.max()
    grown = [1000 * (asyn.loc[farthest, end] - asyn.loc[near, "median"]) / farthest for end in ("min", "max")]
    rows: dict[str, tuple[Range, Range]] = {
        "sync: ms a message for each ms of round trip": (extent([each.slope for each in lines]), (0.9, 1.1)),
        "sync: ms a message without any": (extent([each.own_ms for each in lines]), (0, 1.5)),
        "async: round trips in a whole run": (extent(grown), (1, 10)),
    }
    if rehearsal:
        sync = summarize(rehearsal.runs)["sync"]
        took = 1000 * sync["time_s"] / sync["messages"]
        away_ms = float(re.findall(r"([\d.]+) ms away", rehearsal.record.cluster)[0])
        foretold = line(law).at(law.loc[law["set_ms"] == 0, "round_trip_ms"].median() + away_ms)
        rows["sync: ms a message in the rehearsal"] = ((took, took), (0.8 * foretold, 1.2 * foretold))
    measured, predicted = zip(*rows.values(), strict=True)
    shown = judge(pd.DataFrame(index=list(rows)), measured, predicted)
    by_law = law_of_requests(requests, asyn.loc[near, "median"])
    far_s = approx(requests.query("partitions == 6 and idempotence == 'on' and linger_ms == 5")["elapsed_s"].median())
    short = f"Sync pays a round trip for each message; async took {far_s} s in all."
    return Answer([shown, by_law], short, whole(shown, by_law))


def extent(values: Sequence[float]) -> Range:
    """From the least to the greatest."""
    return min(values), max(values)


def law_of_requests(table: pd.DataFrame, near_s: float) -> pd.DataFrame:
    """Waiting, by the law, is a partition's requests one after another; with it comes at most the time without a way.

    Without idempotence requests of a partition overlap, and the time may be anything up to that.
    """
    columns = ["partitions", "idempotence", "linger_ms"]
    middle = table.groupby(columns, sort=False)[["elapsed_s", "requests", "request_ms"]].median().map(rounded)
    a_partition = middle["requests"] / middle.index.get_level_values("partitions")
    law = (a_partition * middle["request_ms"] / 1000).map(rounded)
    shown = middle.rename(columns={"elapsed_s": "time (s)", "request_ms": "a request (ms)"}).map(approx)
    shown["law (s)"] = law.map(approx)
    least = [s if idempotence == "on" else 0 for s, (_, idempotence, _) in zip(law, law.index, strict=True)]
    spread = table.groupby(columns, sort=False)["elapsed_s"].agg(["min", "max"])
    measured = list(zip(spread["min"], spread["max"], strict=True))
    return judge(shown, measured, list(zip(least, law + near_s, strict=True)), "time,")


def safety(table: pd.DataFrame, first: pd.DataFrame) -> Answer:
    """What do acknowledgements and idempotence cost? Predicted: nobody gains twofold, but sync with acks=0."""

    def predict(place: str, mode: str, settings: str) -> Range:
        if (mode, settings) == ("sync", "acks=0"):
            return (2, inf)
        return (0.5, 2)

    usual = "acks=all, idempotent"
    found = rates(table, ["place", "mode", "settings"]).sort_index(level=[0, 1], sort_remaining=False)
    shown = gains(found, lambda index: (*index[:2], usual), predict, usual)
    firsts = first_message(first)
    seconds = firsts.loc[(HERE, "idempotent"), "whole (s)"]
    short = f"Little while it runs; with idempotence the first message takes {seconds} s."
    return Answer([shown, firsts], short, whole(shown, firsts))


def first_message(table: pd.DataFrame) -> pd.DataFrame:
    """A new producer's first message. Predicted: idempotence waits for a timer, half a second after the start."""
    rows = []
    for (place, producer), runs in table.groupby(["place", "producer"], sort=False):
        plain = table[(table["place"] == place) & (table["producer"] == "not idempotent")]
        without_s = rounded(plain["first_s"].median())
        sending_s = rounded(plain["second_s"].median())
        whole_s = rounded(runs["first_s"].median())
        times = (whole_s, sending_s, without_s - sending_s, runs["first_s"].min(), runs["first_s"].max(), without_s)
        rows.append((place, producer, *times))
    columns = ["place", "producer", "whole (s)", "sending (s)", "connecting (s)", "least", "most", "without"]
    found = pd.DataFrame(rows, columns=columns).set_index(["place", "producer"])
    measured = list(zip(found["least"] - found["without"], found["most"] - found["without"], strict=True))
    predicted = [(0.3, 0.6) if producer == "idempotent" else (-0.1, 0.1) for _, producer in found.index]
    shown = found[["whole (s)", "sending (s)", "connecting (s)"]].map(approx)
    return judge(shown, measured, predicted, "waiting (s),")


def web_handler(table: pd.DataFrame) -> Answer:
    """How long does a request wait? Predicted: seconds for AIOProducer's buffer, else the linger and a request."""
    found = table.groupby("way", sort=False)
    waits = 1000 * found["wait_s"].quantile([0, 0.25, 0.5, 0.75, 1]).unstack()
    shown = pd.DataFrame({"messages": found.size(), "answered in time": found["in_time"].first()})
    shown["median wait (ms)"] = waits[0.5].map(approx)
    shown["longest (ms)"] = waits[1.0].map(approx)
    shown["to stop (ms)"] = (1000 * found["stop_s"].first()).map(approx)
    predicted = [
        (1_000, inf) if way.startswith("AIOProducer") and "polls" not in way else (0, 100) for way in waits.index
    ]
    shown = judge(shown, list(zip(waits[0.25], waits[0.75], strict=True)), predicted, "middle half (ms),")
    recipe = shown.loc["Producer, a thread polls", "median wait (ms)"]
    short = f"The plain producer with a polling thread: {recipe} ms; not AIOProducer as it comes."
    return Answer([shown.rename_axis(None)], short, whole(shown))


# habit -> whether it was predicted to flatter async, and why
WHY = {
    "the clock stops when all is queued": (True, "what is queued has not arrived"),
    "a mean of rates": (True, "fast batches count as much as slow ones, and the last wait is in none"),
    "poll(0) after each": (False, "a call for each message"),
    "the callback prints": (False, "a line for each message"),
    "flush() after each batch": (False, "40 waits instead of one"),
    "serializing inside the clock": (False, "json.dumps(asdict()) takes longer than sending"),
    "the producer is made inside the clock": (False, "connecting, and idempotence's timer"),
    "a broker just started": (False, "Java has compiled nothing yet"),
    "a producer for each batch": (False, "connecting 40 times"),
    "poll(0.1) after each": (False, "poll waits for the linger, flush does not"),
    "sync by poll(0.1)": (True, "poll waits for the linger, flush does not"),
}


def ratios_of_mistakes(runs: pd.DataFrame) -> pd.DataFrame:
    """What each habit makes of the comparison: columns habit, async_s and sync_s (for 20,000), ratio, and why."""
    scale = 20_000 / runs["messages"]
    connecting_s = runs["connecting_s"].fillna(0)
    each = runs["habit"] == "a producer for each batch"
    seconds = runs["elapsed_s"].where(~each, runs["elapsed_s"] + connecting_s) * scale
    runs = runs.assign(elapsed_s=seconds)
    right = runs["habit"] == "right"
    early = runs[right].assign(habit="the clock stops when all is queued", elapsed_s=runs["queued_s"] * scale)
    inside = runs[right].assign(habit="the producer is made inside the clock", elapsed_s=seconds + connecting_s)
    times = pd.concat([runs, early, inside]).groupby(["habit", "mode"])["elapsed_s"].median().map(rounded).unstack()
    times = times.fillna(times.loc["right"])[["async", "sync"]].add_suffix("_s")
    found = times.assign(ratio=times["sync_s"] / times["async_s"], why="")
    for habit, (_, why) in WHY.items():
        found.loc[habit, "why"] = why
    return found.sort_values("ratio", ascending=False).reset_index()


def mistakes(table: pd.DataFrame) -> Answer:
    """Which way does each habit move the ratio?"""
    right = rounded(table.set_index("habit").loc["right", "ratio"])
    found = table[table["habit"] != "right"].set_index("habit")
    predicted = [(right, inf) if WHY[str(habit)][0] else (0, right) for habit in found.index]
    shown = pd.DataFrame({"async (s)": found["async_s"].map(approx), "sync (s)": found["sync_s"].map(approx)})
    shown = judge(shown, ends(found["ratio"]), predicted, "sync / async,").assign(why=found["why"])
    low, high = extent(found["ratio"].tolist())
    short = f"Where {approx(right)} times is right, habits find {approx(high)} down to {approx(low)}."
    return Answer([shown.rename_axis(None)], short, whole(shown))


def how_sure(saved: Results, same: pd.DataFrame) -> Answer:
    """Is a producer as fast as itself, and does processor time vary less than time? Predicted: yes, both."""
    rows: dict[str, tuple[Range, Range]] = {}
    for mode, runs in same.groupby("mode"):
        times = runs.groupby("name")["elapsed_s"].apply(list)
        _, low, high = ratio_of_medians(times["A again"], times["A"])
        rows[f"{mode} / the same again: ratio of times"] = ((low, high), (0.9, 1.11))
        variation = runs[["elapsed_s", "cpu_s"]].std() / runs[["elapsed_s", "cpu_s"]].mean()
        share = float(variation["cpu_s"] / variation["elapsed_s"])
        rows[f"{mode}: variation of processor time / of time"] = ((share, share), (0, 1))
    measured, predicted = zip(*rows.values(), strict=True)
    shown = judge(pd.DataFrame(index=list(rows)), measured, predicted)
    cost = same.assign(time=same["elapsed_s"] / same["messages"], cpu=same["cpu_s"] / same["messages"])
    cost = (1e6 * cost.groupby("mode")[["time", "cpu"]].median()).map(approx)
    cost = cost.set_axis(["time of a message (microseconds)", "of processors"], axis="columns").rename_axis(None)
    _, low, high = ratio_of_medians(*(run_times(saved.runs, mode) for mode in ("sync", "async")))
    short = f"Repeated at once, the ratio would lie within {approx(low)} and {approx(high)}."
    return Answer([shown, cost], short, whole(shown))
