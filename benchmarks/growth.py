"""How the cost of produce_async grows: with the number of messages, with partitions, with the messages' size.

    python benchmarks/growth.py                # measures, saves, prints the table
    python benchmarks/growth.py --report       # the table again, from the saved results

Each measurement is a process of its own, so that its largest memory is that of one run alone. The messages come from
a generator: what is measured is the producer's memory, not that of a list of messages.
"""

import argparse
import itertools
import json
import re
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the notebook's modules

from confluent_kafka.admin import AdminClient

import kafka_helpers as kh
from local_kafka import LocalKafka, quiet_logger

USUAL = {"messages": 200_000, "partitions": 6, "size": 100}
SERIES = {
    "messages": [20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000],
    "partitions": [1, 3, 6, 12, 24],
    "size": [100, 300, 1_000, 3_000, 10_000],
}
FEWER = {"size": {"messages": 50_000}}  # 10,000 bytes each are half a gigabyte then
REPEATS = 3  # of runs below a million messages


@dataclass
class Point:
    """One run. Sizes in bytes, times in seconds, memory in MB above that of a run of a single message."""

    series: str
    messages: int
    partitions: int
    size: int
    seconds: float
    cpu_s: float
    memory_mb: float
    requests: int
    queue_full: int


def one(task: dict) -> dict:
    """Measure one run; in a process of its own."""
    payload, count = b"x" * task["size"], task["messages"]
    kh.produce_async(task["config"], task["topic"], [(None, payload)])
    before, cpu_s = _memory_mb(), time.process_time()
    run = kh.produce_async(task["config"], task["topic"], ((None, payload) for _ in range(count)))
    if run.acknowledged != count:
        raise RuntimeError(f"not complete: {run}")
    return {
        "seconds": run.elapsed_s,
        "cpu_s": time.process_time() - cpu_s,
        "memory_mb": _memory_mb() - before,
        "requests": int(run.network["produce_requests"]),
        "queue_full": run.queue_full,
    }


def _memory_mb() -> float:
    """The largest memory that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss still knows the process that started this one
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) * 1024 / 1e6
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / 1e6 if sys.platform == "darwin" else largest * 1024 / 1e6


def measure(kafka: LocalKafka) -> list[Point]:
    """All series, in turn, each in a fresh topic that goes afterwards."""
    admin = AdminClient({**kafka.config, "logger": quiet_logger()})
    points = []
    for repeat, (series, values) in itertools.product(range(REPEATS), SERIES.items()):
        for value in values if repeat % 2 == 0 else values[::-1]:
            case = USUAL | FEWER.get(series, {}) | {series: value}
            if repeat and case["messages"] >= 1_000_000:
                continue
            topic = f"growth-{series}-{value}-{repeat}"
            kh.ensure_topic(kafka.config, topic, partitions=case["partitions"])
            task = json.dumps(case | {"config": dict(kafka.config), "topic": topic})  # not by the command line: secret
            done = subprocess.run([sys.executable, __file__, "--one"], input=task, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr[-500:])
            points.append(Point(series=series, **case, **json.loads(done.stdout.splitlines()[-1])))
            arrived = sum(kh.end_offsets(kafka.config, topic).values()) - 1 - 2 * case["partitions"]
            if arrived != case["messages"]:
                raise RuntimeError(f"{topic}: {case['messages']} messages sent, {arrived} in the topic")
            admin.delete_topics([topic], operation_timeout=30)[topic].result()
            print(f"{series} {value:,}: {points[-1].seconds:.2f} s", flush=True)
    return points


def table(points: list[Point]) -> str:
    """Medians as Markdown."""
    head = (
        "messages, partitions, bytes each, s, us a message, MB/s, CPU us a message, memory in MB, messages in a request"
    )
    names = [*head.split(", "), "queue full"]
    lines = [f"| {' | '.join(names)} |", "|" + "---:|" * len(names)]
    for series, values in SERIES.items():
        for value in values:
            same = [each for each in points if each.series == series and getattr(each, series) == value]
            if not same:
                continue
            p = Point(
                series,
                **{key: getattr(same[0], key) for key in USUAL},
                **{
                    key: statistics.median(getattr(each, key) for each in same)
                    for key in ("seconds", "cpu_s", "memory_mb", "requests", "queue_full")
                },
            )
            each_us = 1e6 * p.seconds / p.messages
            cells = [f"{p.messages:,}", f"{p.partitions}", f"{p.size:,}", f"{p.seconds:.2f}", f"{each_us:.2f}"]
            cells += [f"{p.size / each_us:.0f}", f"{1e6 * p.cpu_s / p.messages:.2f}", f"{p.memory_mb:.0f}"]
            cells += [f"{p.messages / p.requests:,.0f}", f"{p.queue_full:,.0f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    if sys.argv[1:] == ["--one"]:
        return print(json.dumps(one(json.load(sys.stdin))))
    import producers  # here, since the measured process needs none of it

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    if not producers.parse(parser, "growth.csv").report:
        before = producers.load_average()
        with LocalKafka() as kafka:
            kh.ensure_topic(kafka.config, "warm-up")
            kh.warm_up(kh.Cluster("local", kafka.config, False, lambda: None), "warm-up")
            points = measure(kafka)
        record = producers.environment(**{"load average": f"{before}, {producers.load_average()}"})
        producers.save(points, record, "growth")
    text = table(producers.load_rows("growth", Point))
    print(f"\n{text}")
    producers.into_readme("growth", text)
    return None


if __name__ == "__main__":
    main()
