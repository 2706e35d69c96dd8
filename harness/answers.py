"""What ``going_further.ipynb`` answers: what was predicted beside what was measured, and the answer in a few words."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

import numpy
import pandas as pd

from harness.report import approx, joint, ratio_of_medians, rounded, run_times, verdict
from harness.results import Results

Range = tuple[float, float]
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
    """A section's answer in a few words with one number, and its tables with predicted beside measured."""

    short: str
    tables: Sequence[pd.DataFrame]

    @property
    def verdict(self) -> str:
        """That of all predictions together."""
        return joint(*itertools.chain.from_iterable(table["verdict"] for table in self.tables))


def overview(answers: Mapping[int, Answer]) -> str:
    """All questions, and the answers so far, as a table in Markdown."""
    lines = ["| | question | answer | the prediction |", "|:---|:---|:---|:---|"]
    for number, question in enumerate(QUESTIONS, start=1):
        answer = answers.get(number)
        said = f"{answer.short} | {answer.verdict}" if answer else " | "
        lines.append(f"| {number} | {question} | {said} |")
    return "\n".join(lines)


# --- Predicted beside measured ---------------------------------------------------------------------------------------


def judge(frame: pd.DataFrame, what: str, measured: Sequence[Range], predicted: Sequence[Range]) -> pd.DataFrame:
    """The frame with a column each for what was predicted, what was measured, and the verdict on what is printed."""
    found = [(rounded(low), rounded(high)) for low, high in measured]
    expected = [(rounded(low), rounded(high)) for low, high in predicted]
    columns = {
        f"{what}: predicted": [_in_words(each) for each in expected],
        "measured": [_in_words(each) for each in found],
        "verdict": [verdict(*each) for each in zip(found, expected, strict=True)],
    }
    return frame.assign(**columns)


def _in_words(ends: Range) -> str:
    low, high = ends
    if high == inf:
        return f"at least {_printed(low)}"
    return _printed(low) if low == high else f"{_printed(low)} to {_printed(high)}"


def _printed(end: float) -> str:
    return f"{end:,.0f}" if end == round(end) else approx(end)


def extents(low: Iterable[float], high: Iterable[float] | None = None) -> list[Range]:
    """A range for each pair of values; without ``high`` each value is a range of its own."""
    values = list(low)
    return list(zip(values, values if high is None else high, strict=True))


def rates(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Messages / s as they are printed: by the median of the repeats' times, the slowest and the fastest."""
    groups = table.groupby(columns, sort=False)
    times = groups["elapsed_s"].agg(["median", "max", "min"])
    found = times.rdiv(groups["messages"].first(), axis="index").map(rounded)
    return found.set_axis(["rate", "slowest", "fastest"], axis="columns")


def gains(found: pd.DataFrame, base: object, what: str) -> tuple[pd.DataFrame, list[Range]]:
    """How many times as fast each row is as that with ``base`` in the index's last place, and from what to what.

    The range is from the row's slowest beside the base's fastest repeat to the reverse.
    """
    others = found[found.index.get_level_values(-1) != base]
    bases = found.xs(base, level=-1).loc[others.reset_index(-1).index].set_axis(others.index)
    shown = pd.DataFrame({"messages / s": others["rate"].map(approx), f"with {what}": bases["rate"].map(approx)})
    shown["times as fast"] = (others["rate"] / bases["rate"]).map(approx)
    return shown, extents(others["slowest"] / bases["fastest"], others["fastest"] / bases["slowest"])


# --- 1 to 4: what is lost, and how often to wait ---------------------------------------------------------------------


def nobody_looks(table: pd.DataFrame) -> Answer:
    """Which errors do careless programs see? Predicted: none, unless ``produce()`` raises one or a wait ends."""
    careful = table["program"] == "callback and flush"
    without_poll = table["program"].isin(["no poll", "waits for its callback, nobody polls"])
    predicted = without_poll.astype(int)
    predicted[careful] = (table["sent"] - table["arrived"])[careful]  # whoever looks sees every failure
    shown = table.set_index(["fault", "program"])[["sent", "arrived", "reason"]]
    shown = judge(shown, "errors seen", extents(table["seen"]), extents(predicted))
    careless = table[~careful & ~without_poll]
    losers = careless[careless["arrived"] < careless["sent"]]
    noticed = int((losers["seen"] > 0).sum())
    short = f"Of {len(losers)} programs without callback or flush that lost messages, {noticed or 'none'} noticed."
    return Answer(short, [shown])


def program_dies(table: pd.DataFrame) -> Answer:
    """How many messages go with the program? Predicted: as many as it may have under way."""
    may_lose: dict[str, Range] = {"sync": (0, 0), "wait after every 100": (0, 100), "async": (101, 100_000)}
    lost = table.groupby("way", sort=False)["lost"].agg(["size", "median", "max"])
    shown = pd.DataFrame({"kills": lost["size"], "median loss": lost["median"].map(approx)})
    predicted = [may_lose[way] for way in lost.index.tolist()]
    shown = judge(shown.rename_axis(None), "largest loss", extents(lost["max"]), predicted)
    most = lost["max"].to_dict()
    return Answer(f"A kill cost async up to {approx(most['async'])} messages, sync {most['sync'] or 'none'}.", [shown])


def standstills(table: pd.DataFrame) -> dict[int, Range]:
    """For each number of brokers from the kill to the end of sync's slowest batch, in seconds on its run's clock."""
    sync = table[table["mode"] == "sync"]
    slowest = sync.loc[sync.groupby("brokers")["delivered_s"].idxmax()]
    spans = extents(slowest["killed_s"], slowest["started_s"] + slowest["delivered_s"])
    return dict(zip(slowest["brokers"].tolist(), spans, strict=True))


def brokers_die(table: pd.DataFrame) -> Answer:
    """Is a message lost, doubled or out of order, and who stands still? Predicted: none; sync, but not async."""
    runs = table.groupby(["brokers", "mode"])
    faults = runs[["missing", "duplicated", "out_of_order"]].first().sum(axis=1)
    messages = pd.DataFrame({"messages": runs["messages"].sum().map("{:,}".format)})
    lost = judge(messages, "lost, doubled or out of order", extents(faults), [(0, 0)] * len(faults))
    modes = [mode for _, mode in messages.index.tolist()]
    waits: list[Range] = [(0, 1) if mode == "async" else (1, inf) for mode in modes]
    still = judge(messages, "longest handing over (s)", extents(runs["elapsed_s"].max()), waits)
    still_s = approx(max(end - begin for begin, end in standstills(table).values()))
    waited_s = approx(table.loc[table["mode"] == "async", "delivered_s"].max())
    count = f"{int(faults.sum()):,}" if faults.any() else "None"
    short = f"{count} lost, doubled or disordered; sync stood still {still_s} s, async's messages waited {waited_s} s."
    return Answer(short, [lost, still])


def waits_between(table: pd.DataFrame, far: str) -> Answer:
    """What does one wait for k bring? Predicted: far away 0.7 k to k times the rate of k = 1, here less than half."""
    shown, measured = gains(rates(table[table["k"] > 0], ["place", "k"]), 1, "k = 1")
    predicted: list[Range] = [(0.7 * k, k) if place == far else (1, k / 2) for place, k in shown.index.tolist()]
    at_end = rates(table[table["k"] == 0], ["place"])["rate"].map(approx).to_dict()
    shown["with one wait"] = [at_end[place] for place, _ in shown.index.tolist()]
    gain = shown.xs(10, level="k")["times as fast"].to_dict()
    short = f"One wait for ten is {gain.get(far, '-')} times as fast as ten, far away."
    return Answer(short, [judge(shown, "times as fast", measured, predicted)])


# --- 5: distance -----------------------------------------------------------------------------------------------------


def points(table: pd.DataFrame) -> pd.DataFrame:
    """The runs at each distance, with the round trip that was measured apart and the time of a message, in ms."""
    questions = table[table["mode"] == "question"]
    round_trips = (1000 * questions.groupby("set_ms")["elapsed_s"].min()).to_dict()
    runs = table[table["mode"] != "question"]
    message_ms = 1000 * runs["elapsed_s"] / runs["messages"]
    return runs.assign(round_trip_ms=runs["set_ms"].map(round_trips), message_ms=message_ms)


def line(law: pd.DataFrame) -> tuple[float, float]:
    """The line through the synchronous runs' medians: ms of a message for each of round trip, and ms without any.

    The first is the median of the slopes of all pairs (Theil and Sen).
    """
    middle = law[law["mode"] == "sync"].groupby("set_ms")[["round_trip_ms", "message_ms"]].median()
    places = list(zip(middle["round_trip_ms"], middle["message_ms"], strict=True))
    slope = median((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in itertools.combinations(places, 2))
    return slope, median(y - slope * x for x, y in places)


def distance(law: pd.DataFrame, requests: pd.DataFrame, rehearsal: Results | None) -> Answer:
    """Do both laws hold? Sync: a round trip a message. Async: some round trips in all, by its requests."""
    slope, own_ms = line(law)
    slopes, owns = zip(*(line(some) for _, some in law.groupby("repeat")), strict=True)
    times = law[law["mode"] == "async"].groupby("set_ms")["elapsed_s"].agg(["median", "min", "max"])
    near = times.iloc[0]
    far = times.iloc[-1]
    far_s = times.index[-1] / 1000
    longer = ((far["min"] - near["max"]) / far_s, (far["max"] - near["min"]) / far_s)
    rows: dict[str, tuple[Range, Range]] = {
        "sync: ms a message for each ms of round trip": ((min(slopes), max(slopes)), (0.9, 1.1)),
        "sync: ms a message without any": ((min(owns), max(owns)), (0, 1.5)),
        "async: round trips more in a whole run": (longer, (1, 10)),
    }
    away = re.search(r"([\d.]+) ms away", rehearsal.record.cluster) if rehearsal else None
    if rehearsal and away:
        took = 1000 * rounded(median(run_times(rehearsal.runs, "sync"))) / rehearsal.record.num_messages
        foretold = own_ms + slope * (law["round_trip_ms"].min() + float(away[1]))
        rows["sync: ms a message in the rehearsal"] = ((took, took), (0.8 * foretold, 1.2 * foretold))
    measured, predicted = zip(*rows.values(), strict=True)
    shown = judge(pd.DataFrame(index=list(rows)), "law", measured, predicted)
    short = f"Sync pays {approx(slope)} round trips for each message, async at most {approx(max(longer))} a run."
    return Answer(short, [shown, law_of_requests(requests, near["median"])])


def law_of_requests(table: pd.DataFrame, near_s: float) -> pd.DataFrame:
    """The law: a partition's requests, one after another. Predicted: that, and at most the time without a distance.

    Without idempotence requests of a partition overlap, and the time may be less.
    """
    groups = table.groupby(["partitions", "idempotence", "linger_ms"], sort=False)
    middle = groups[["elapsed_s", "requests", "request_ms"]].median().map(rounded)
    partitions = middle.index.get_level_values("partitions")
    law_s = (middle["requests"] / partitions * middle["request_ms"] / 1000).map(rounded)
    shown = pd.DataFrame({"requests": middle["requests"].map(_printed)})
    shown["a request (ms)"] = middle["request_ms"].map(approx)
    shown["law (s)"] = law_s.map(approx)
    least = law_s.where(middle.index.get_level_values("idempotence") == "on", 0)
    measured = extents(groups["elapsed_s"].min(), groups["elapsed_s"].max())
    return judge(shown, "time (s)", measured, extents(least, law_s + near_s))


# --- 6 to 9: safety, a web handler, mistakes, certainty --------------------------------------------------------------


def safety(table: pd.DataFrame, first: pd.DataFrame) -> Answer:
    """What do acknowledgements and idempotence cost? Predicted: less than a factor of two, but sync with acks=0."""
    usual = "acks=all, idempotent"
    shown, measured = gains(
        rates(table, ["place", "mode", "settings"]).sort_index(level=[0, 1], sort_remaining=False), usual, usual
    )
    predicted: list[Range] = [
        (2, inf) if (mode, settings) == ("sync", "acks=0") else (0.5, 2) for _, mode, settings in shown.index.tolist()
    ]
    firsts = first_message(first)
    here = firsts["whole (s)"].xs(first["place"].iloc[0]).to_dict()
    took = f"{here['idempotent']} s with idempotence, {here['not idempotent']} s without"
    short = f"A new producer's first message takes {took}."
    return Answer(short, [judge(shown, "times as fast", measured, predicted), firsts])


def cost_of_idempotence(table: pd.DataFrame, requests: pd.DataFrame) -> str:
    """What idempotence costs the asynchronous producer, in two sentences: in each place, and with one partition."""
    found = rates(table[table["mode"] == "async"], ["place", "settings"])["rate"].map(approx).to_dict()
    pairs = []
    for place in table["place"].unique().tolist():
        pairs.append(f"{found[place, 'acks=all, idempotent']} and {found[place, 'acks=all']} {place}")
    alone = requests[(requests["partitions"] == 1) & (requests["linger_ms"] == 5)]
    seconds = alone.groupby("idempotence")["elapsed_s"].median().map(approx).to_dict()
    return (
        f"Messages a second, asynchronous, with idempotence and without: {'; '.join(pairs)}. "
        f"With a single partition far away a run took {seconds['on']} s and {seconds['off']} s. "
        "Less than a third apart, the medians of so few runs show no difference."
    )


def first_message(table: pd.DataFrame) -> pd.DataFrame:
    """A new producer's first message. Predicted: idempotence waits for its timer, half a second after the start."""
    groups = table.groupby(["place", "producer"], sort=False)
    middle = groups[["first_s", "second_s"]].median().map(rounded)
    plain = middle.xs("not idempotent", level="producer").loc[middle.index.get_level_values("place")]
    plain = plain.set_axis(middle.index)  # beside each producer that of its place without idempotence
    shown = pd.DataFrame({"whole (s)": middle["first_s"], "sending (s)": plain["second_s"]})
    shown["connecting (s)"] = plain["first_s"] - plain["second_s"]
    waiting = extents(groups["first_s"].min() - plain["first_s"], groups["first_s"].max() - plain["first_s"])
    predicted: list[Range] = [
        (0.3, 0.6) if producer == "idempotent" else (-0.1, 0.1) for _, producer in middle.index.tolist()
    ]
    return judge(shown.map(approx), "waiting (s)", waiting, predicted)


def web_handler(table: pd.DataFrame) -> Answer:
    """How long does a request wait? Predicted: seconds for AIOProducer's buffer, else the linger and a request."""
    groups = table.groupby("way", sort=False)
    waits_ms = 1000 * groups["wait_s"].quantile(numpy.linspace(0, 1, 5)).unstack()
    shown = pd.DataFrame({"messages": groups.size(), "answered in time": groups["in_time"].first()})
    shown["median wait (ms)"] = waits_ms[0.5].map(approx)
    shown["longest (ms)"] = waits_ms[1].map(approx)
    shown["to stop (ms)"] = (1000 * groups["stop_s"].first()).map(approx)
    as_it_comes = ("AIOProducer, one by one", "AIOProducer")
    predicted: list[Range] = [(1_000, inf) if way in as_it_comes else (0, 100) for way in shown.index.tolist()]
    recipe = shown["median wait (ms)"].to_dict()["Producer, a thread polls"]
    short = f"A plain producer and a thread that polls: a request waits {recipe} ms (median)."
    middle_half = extents(waits_ms[0.25], waits_ms[0.75])
    return Answer(short, [judge(shown.rename_axis(None), "middle half (ms)", middle_half, predicted)])


# Why each habit finds another ratio; and those that were predicted to find a larger one.
WHY = {
    "the clock stops when all is queued": "what is queued has not arrived",
    "a mean of rates": "fast batches weigh as much as slow ones, and the last wait is left out",
    "poll(0) after each": "a call for each message",
    "the callback prints": "a line for each message",
    "flush() after each batch": "40 waits instead of one",
    "serializing inside the clock": "json.dumps(asdict()) takes longer than sending",
    "the producer is made inside the clock": "connecting, and asking for a producer id",
    "a broker just started": "Java has compiled little yet",
    "a producer for each batch": "connecting 40 times",
    "poll(0.1) after each": "poll waits for the linger, flush does not",
    "sync by poll(0.1)": "poll waits for the linger, flush does not",
}
LARGER = ("the clock stops when all is queued", "a mean of rates", "sync by poll(0.1)")


def ratios_of_mistakes(runs: pd.DataFrame) -> pd.DataFrame:
    """What each habit makes of the comparison: ``habit``, ``async_s`` and ``sync_s`` for 20,000 messages, ``ratio``.

    ``why`` is in words. A habit of one producer only has the other's right time; *right* is without any.
    """
    scale = 20_000 / runs["messages"]
    connecting_s = runs["connecting_s"].fillna(0)
    connects_again = runs["habit"] == "a producer for each batch"
    seconds = (runs["elapsed_s"] + connecting_s.where(connects_again, 0)) * scale
    right = runs["habit"] == "right"
    queued = runs[right].assign(habit="the clock stops when all is queued", seconds=runs["queued_s"] * scale)
    inside = runs[right].assign(habit="the producer is made inside the clock", seconds=seconds + connecting_s)
    everything = pd.concat([runs.assign(seconds=seconds), queued, inside])
    groups = everything.groupby(["habit", "mode"])["seconds"]
    middle = _with_right(groups.median())
    least = _with_right(groups.min())
    most = _with_right(groups.max())
    found = pd.DataFrame({"async_s": middle["async"], "sync_s": middle["sync"]})
    found["ratio"] = middle["sync"] / middle["async"]
    found["lowest"] = least["sync"] / most["async"]
    found["highest"] = most["sync"] / least["async"]
    found["why"] = [WHY.get(habit, "") for habit in found.index.tolist()]
    return found.sort_values("ratio", ascending=False).reset_index()


def _with_right(seconds: pd.Series) -> pd.DataFrame:
    """Times as printed, by habit and mode; where a habit leaves a mode alone, its right ones."""
    times = seconds.map(rounded).unstack()
    return times.fillna(times.loc["right"].to_dict())


def mistakes(table: pd.DataFrame) -> Answer:
    """Which way does each habit move the ratio?"""
    right = float(table.loc[table["habit"] == "right", "ratio"].iloc[0])
    found = table[table["habit"] != "right"]
    habits = found["habit"].tolist()
    shown = pd.DataFrame({"async (s)": found["async_s"].map(approx), "sync (s)": found["sync_s"].map(approx)})
    predicted: list[Range] = [(right, inf) if habit in LARGER else (0, right) for habit in habits]
    shown["times as fast"] = found["ratio"].map(approx)
    shown = judge(shown.set_axis(habits), "times as fast", extents(found["lowest"], found["highest"]), predicted)
    extremes = f"{approx(found['ratio'].max())} down to {approx(found['ratio'].min())}"
    short = f"Where {approx(right)} times is right, such habits find {extremes}."
    return Answer(short, [shown.assign(why=found["why"].tolist())])


def how_sure(saved: Results, same: pd.DataFrame) -> Answer:
    """Is a producer as fast as itself, and does processor time vary less than time? Predicted: both."""
    rows: dict[str, tuple[Range, Range, str]] = {}
    for mode, runs in same.groupby("mode"):
        a_message = runs[["elapsed_s", "cpu_s"]].div(runs["messages"], axis="index")
        time_us, cpu_us = (1e6 * a_message.median()).map(approx)
        times = runs.groupby("name")["elapsed_s"].apply(list)
        _, low, high = ratio_of_medians(times["A again"], times["A"])
        rows[f"{mode}: time, divided by that of the same again"] = ((low, high), (0.9, 1.11), time_us)
        variation = (a_message.std() / a_message.mean()).map(rounded).to_dict()
        share = variation["cpu_s"] / variation["elapsed_s"]
        rows[f"{mode}: variation of processor time, divided by that of time"] = ((share, share), (0, 1), cpu_us)
    measured, predicted, costs = zip(*rows.values(), strict=True)
    shown = judge(pd.DataFrame(index=list(rows)), "prediction", measured, predicted)
    shown["a message (microseconds)"] = costs
    _, low, high = ratio_of_medians(run_times(saved.runs, "sync"), run_times(saved.runs, "async"))
    return Answer(f"A repeat at once would find a ratio of {approx(low)} to {approx(high)}.", [shown])
