"""What was tried on the asynchronous loop: variants of it in alternation, nothing measured in any of them.

python benchmarks/loops.py                # measures, saves, prints the table
python benchmarks/loops.py --report       # the table again, from the saved results
"""

import argparse
import gc
import statistics
from functools import partial

import producers
from producers import Contestant, bare_async, bare_batches, failures_only, usual_async

ROUNDS, MESSAGES = 20, 300_000


def frozen(config, load):
    """The loop without Python's garbage collector."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        return bare_async(config, load)
    finally:
        gc.enable()
        gc.unfreeze()


def small_queue(config, load):
    """The loop with a queue of 20,000 messages, of which more would stay in the processor's cache."""
    return bare_async({**config, "queue.buffering.max.messages": 20_000}, load)


def one_payload(config, load):
    """The loop with one and the same payload for all messages, as the C tool has it."""
    load.messages = load.messages[:1] * len(load.messages)
    return bare_async(config, load)


VARIANTS = [
    Contestant("as it is", bare_async, what="arguments by position, `poll(0)` every 500 messages"),
    Contestant("before", usual_async, what="arguments by name, `poll(0)` after each message"),
    Contestant("poll(0) every 100", partial(bare_async, batch=100), what="reports are served sooner"),
    Contestant("poll(0) every 2,000", partial(bare_async, batch=2_000), what="fewer calls"),
    Contestant("lists", bare_batches, what="`produce_batch` of 500"),
    Contestant("small queue", small_queue, what="20,000 messages instead of 100,000"),
    Contestant("no garbage collector", frozen, what="`gc.freeze()` and `gc.disable()`"),
    Contestant("one payload", one_payload, what="the same bytes again and again, as the C tool sends them"),
    Contestant("failures only", failures_only, what="`delivery.report.only.error`: successes aren't reported"),
]


def table(rows: list[producers.Row]) -> str:
    """How fast each variant is, as a ratio to the first, as Markdown; each value from two rounds."""
    lines = ["| variant | ratio to the loop as it is | interval (95 %) | what it is |", "|---|---:|---|---|"]
    by_round = producers.rates(rows, "100 bytes")
    for each in VARIANTS[1:]:
        ratios = producers.balanced(producers.ratios(by_round, each.name, VARIANTS[0].name))
        middle = statistics.median(ratios)
        lines.append(f"| {each.name} | **{middle:.2f}** | {producers.interval(ratios)} | {each.what} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    if not producers.parse(parser, "loops.csv").report:
        before = producers.load_average()
        with producers.LocalKafka() as kafka:
            messages = producers.hundred_bytes(MESSAGES)
            rows = producers.shown(producers.compete(kafka, VARIANTS, ROUNDS, "100 bytes", messages))
        sizes = {"rounds": ROUNDS, "messages": MESSAGES}
        record = producers.environment(**sizes, **{"load average": f"{before}, {producers.load_average()}"})
        producers.save(rows, record, "loops")
    text = table(producers.load_rows("loops"))
    print(f"\n{text}")
    producers.into_readme("loops", text)


if __name__ == "__main__":
    main()
