"""The measurements behind the notebook's part "Going further": each function asks one question and returns a table."""

import asyncio
import contextlib
import dataclasses
import io
import json
import statistics
import time
import typing
from collections.abc import Callable, Mapping
from datetime import datetime

import fastavro
import pandas as pd
from confluent_kafka.aio import AIOProducer

import kafka_helpers as kh
from local_kafka import quiet_logger, simulated_cluster

ROUND_TRIPS_MS = (0, 1, 2, 5, 10, 20, 50)
WAITS = (1, 2, 5, 10, 50, 100, 500, 2_000, 10_000)
LOCAL_WAITS, SIMULATED_WAITS = 600, 25  # a run of wait_every waits so often, or has num_messages messages
LINGERS_MS, LINGER_MESSAGES = (0, 5, 100), 100
# For each part its question, and how many round trips it takes on the given cluster, from the messages of a run.
PARTS = {
    "same": ("the same producer twice", lambda messages: 12 * messages // 20),
    "law": ("the law of the round trip", lambda messages: 0),
    "between": ("waiting after every k", lambda messages: 3 * sum(min(LOCAL_WAITS, messages // k) for k in WAITS)),
    "ways": ("other ways to be asynchronous", lambda messages: 100),
    "serializing": ("what serializing costs", lambda messages: 0),
    "linger": ("whether linger.ms slows a flush", lambda messages: 3 * len(LINGERS_MS) * LINGER_MESSAGES),
}
COSTLY_S = 60.0


def choose_parts(wanted: set[str] | None, cluster: kh.Cluster, num_messages: int, round_trip_ms: float) -> set[str]:
    """Which parts to measure; those left out for the time they would take are named, with that time.

    Args:
        wanted: names from ``PARTS``; None stands for all that take less than a minute on this cluster, or, on a
            cluster that the notebook itself has started, for all.
        cluster: where the messages go.
        num_messages: of a run.
        round_trip_ms: of the cluster, in milliseconds.

    Raises:
        kafka_helpers.ConfigError: a name is unknown.
    """
    if unknown := set(wanted or ()) - set(PARTS):
        raise kh.ConfigError(f"further has unknown parts: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}.")
    if wanted is not None:
        return set(wanted)
    chosen = set()
    for name, (question, round_trips) in PARTS.items():
        seconds = round_trips(num_messages) * round_trip_ms / 1000
        if not cluster.configured or seconds < COSTLY_S:
            chosen.add(name)
        else:
            print(f"Left out: {question} (about {seconds / 60:.0f} minutes here); see the parameter further.")
    return chosen


def same_twice(config: Mapping[str, str], topic: str, num_messages: int) -> pd.DataFrame:
    """What does the harness call "no difference"? Each producer alternates with itself, six runs under each name.

    Returns:
        Columns ``mode``, ``name`` (``A`` or ``A again``), ``messages`` (acknowledged ones), ``elapsed_s``.
    """
    rows = []
    for name in kh.alternating("A", "A again", 6):
        for mode, produce, count in (
            ("async", kh.produce_async, num_messages),
            ("sync", kh.produce_sync, max(1, num_messages // 20)),
        ):
            run = produce(config, topic, kh.make_messages("same", count))
            rows.append({"mode": mode, "name": name, "messages": run.acknowledged, "elapsed_s": run.elapsed_s})
    return pd.DataFrame(rows)


def round_trip_law(num_messages: int, *, repeats: int = 6, seconds: float = 0.4) -> pd.DataFrame:
    """How does the time per message depend on the round trip? Measured on simulated clusters.

    Each synchronous run sends as many messages as should take about ``seconds``, the asynchronous one all of them.

    Returns:
        Columns ``repeat``, ``mode``, ``set_ms`` (the chosen round trip), ``round_trip_ms`` (the client's own mean),
        ``messages`` (acknowledged ones), ``elapsed_s``.
    """
    rows = []
    with contextlib.ExitStack() as stack:
        clusters = {rtt: stack.enter_context(simulated_cluster(rtt)) for rtt in ROUND_TRIPS_MS}
        for cluster in clusters.values():
            kh.ensure_topic(cluster.config, "law")
        for repeat in range(repeats):
            # Every second round goes backwards, so that a drift of the machine doesn't look like an effect.
            for rtt, cluster in list(clusters.items())[:: 1 if repeat % 2 == 0 else -1]:
                runs = {"sync": (kh.produce_sync, max(10, int(1000 * seconds / (rtt + 0.3))))}
                if repeat == 0:
                    runs["async"] = (kh.produce_async, num_messages)
                for mode, (produce, count) in runs.items():
                    run = produce(cluster.config, "law", kh.make_messages("law", count))
                    rows.append({"repeat": repeat, "mode": mode, "set_ms": rtt, "round_trip_ms": run.network["rtt_ms"]})
                    rows[-1] |= {"messages": run.acknowledged, "elapsed_s": run.elapsed_s}
    return pd.DataFrame(rows)


def wait_every(cluster: kh.Cluster, topic: str, num_messages: int, *, simulated_ms: int = 20) -> pd.DataFrame:
    """What lies between waiting after each message and waiting once? On the given cluster, and on a simulated one.

    Returns:
        Columns ``place``, ``k`` (wait after every k messages; 0: only at the end, ``produce_async``), ``repeat``,
        ``messages`` (acknowledged ones), ``elapsed_s``.
    """
    rows = []
    with simulated_cluster(simulated_ms) as simulated:
        kh.ensure_topic(simulated.config, topic)
        for place, config, waits, repeats in (
            (cluster.kind, cluster.config, LOCAL_WAITS, 3),
            (f"simulated, {simulated_ms} ms", simulated.config, SIMULATED_WAITS, 1),
        ):
            for repeat in range(repeats):
                for k in (*WAITS, 0)[:: 1 if repeat % 2 == 0 else -1]:
                    messages = kh.make_messages("between", min(num_messages, waits * k) if k else num_messages)
                    run = (
                        kh.produce_sync(config, topic, messages, batch_size=len(messages), wait_every=k)
                        if k
                        else kh.produce_async(config, topic, messages)
                    )
                    rows.append({"place": place, "k": k, "repeat": repeat})
                    rows[-1] |= {"messages": run.acknowledged, "elapsed_s": run.elapsed_s}
    return pd.DataFrame(rows)


async def other_ways(config: Mapping[str, str], topic: str, num_messages: int, *, rounds: int = 5) -> pd.DataFrame:
    """What do the client's other asynchronous calls change? In rounds, each in turn, forwards and backwards.

    Returns:
        Columns ``way``, ``round``, ``messages`` (acknowledged ones), ``elapsed_s``.
    """
    ways = ["produce", "produce_batch", "AIOProducer"]
    rows = []
    for number in range(rounds):
        for way in ways[:: 1 if number % 2 == 0 else -1]:
            messages = kh.make_messages("ways", num_messages)
            if way == "AIOProducer":
                acknowledged, elapsed_s = await _with_aio_producer(config, topic, messages)
            else:
                run = {"produce": kh.produce_async, "produce_batch": kh.produce_batches}[way](config, topic, messages)
                acknowledged, elapsed_s = run.acknowledged, run.elapsed_s
            rows.append({"way": way, "round": number, "messages": acknowledged, "elapsed_s": elapsed_s})
    return pd.DataFrame(rows)


async def _with_aio_producer(config: Mapping[str, str], topic: str, messages: list) -> tuple[int, float]:
    """Acknowledged messages, and seconds from the first one to the last acknowledgement, after a warm-up."""
    producer = AIOProducer({**config, **kh.MEASURED_SETTINGS, "logger": quiet_logger()})
    try:
        first = await producer.produce(topic, kh.WARM_UP)
        await producer.flush()
        await first
        started = time.perf_counter()
        futures = [await producer.produce(topic, value, key) for key, value in messages]
        await producer.flush()
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        elapsed_s = time.perf_counter() - started
    finally:
        await producer.close()
    return sum(not isinstance(outcome, Exception) for outcome in outcomes), elapsed_s


def serializing(num_messages: int, *, repeats: int = 7) -> pd.DataFrame:
    """What does it cost to turn an event into bytes? JSON by the standard library and by msgspec, Avro by fastavro.

    Returns:
        Columns ``way``, ``bytes`` (mean size), ``microseconds`` (a message; the median of the repeats).
    """
    events = list(kh.make_events("serializing", num_messages))
    ways = {"JSON, standard library": _standard_json, "JSON, msgspec": kh.encode, "Avro, fastavro": avro_encoder()}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(repeats):
        for way, encode in list(ways.items())[:: 1 if repeat % 2 == 0 else -1]:
            started = time.perf_counter()
            for event in events:
                encode(event)
            seconds[way].append(time.perf_counter() - started)
    return pd.DataFrame(
        {
            "way": way,
            "bytes": statistics.mean(len(encode(event)) for event in events),
            "microseconds": statistics.median(seconds[way]) / num_messages * 1e6,
        }
        for way, encode in ways.items()
    )


def linger(config: Mapping[str, str], topic: str) -> pd.DataFrame:
    """Does ``linger.ms``, the time a message may wait for company, slow a producer that flushes after each message?

    Returns:
        Columns ``linger_ms``, ``round``, ``messages`` (acknowledged ones), ``elapsed_s``.
    """
    rows = []
    for number in range(3):
        for linger_ms in LINGERS_MS[:: 1 if number % 2 == 0 else -1]:
            messages = kh.make_messages("linger", LINGER_MESSAGES)
            run = kh.produce_sync({**config, "linger.ms": str(linger_ms)}, topic, messages)
            rows.append({"linger_ms": linger_ms, "round": number})
            rows[-1] |= {"messages": run.acknowledged, "elapsed_s": run.elapsed_s}
    return pd.DataFrame(rows)


def _standard_json(event: kh.RideEvent) -> bytes:
    return json.dumps(dataclasses.asdict(event), default=datetime.isoformat, separators=(",", ":")).encode()


def avro_schema(cls: type = kh.RideEvent) -> dict:
    """The Avro schema of a dataclass.

    Source: Avro 1.12 specification, "Complex Types" and "Logical Types".
    """
    simple = {
        str: "string",
        int: "long",
        float: "double",
        datetime: {"type": "long", "logicalType": "timestamp-micros"},
    }

    def avro_type(name: str, hint: object) -> object:
        if typing.get_origin(hint) is typing.Literal:
            return {"type": "enum", "name": name.title(), "symbols": list(typing.get_args(hint))}
        return simple[hint]

    hints = typing.get_type_hints(cls)
    fields = [{"name": name, "type": avro_type(name, hint)} for name, hint in hints.items()]
    return {"type": "record", "name": cls.__name__, "fields": fields}


def avro_encoder(cls: type = kh.RideEvent) -> Callable[[kh.RideEvent], bytes]:
    """A function that turns an event into Avro's binary form, without the schema."""
    schema, names = fastavro.parse_schema(avro_schema(cls)), [each.name for each in dataclasses.fields(cls)]

    def encode(event: kh.RideEvent) -> bytes:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, {name: getattr(event, name) for name in names})
        return buffer.getvalue()

    return encode
