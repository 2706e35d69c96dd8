"""Make a cluster ready to be measured: send messages that don't count, for a fixed time.

Java compiles what is used often while it runs, so a broker that has just been started gets faster for some time. A
cloud's brokers are warm, and its quotas forbid a crowd; they get the last step only.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from harness.cluster import Cluster
from harness.config import ClientConfig
from harness.runs import KeyValue, ProducerRun, require_complete
from harness.stop import StopButton

CROWD = 16  # producers at once
CROWD_S = {"local": 5.0, "distant": 45.0}  # for one broker, and for three
TURNS_S = 8.0
LEGS = 3  # short runs of both producers, the synchronous ones timed
Produce = Callable[..., ProducerRun]  # produce_async or produce_sync


def warm_up(
    cluster: Cluster,
    topic: str,
    messages: Sequence[KeyValue],
    produce_async: Produce,
    produce_sync: Produce,
    *,
    leg_s: float = 2.0,
) -> tuple[float, float]:
    """Warm the cluster up; then see how long a synchronous message takes.

    Args:
        cluster: local ones are warmed up by a crowd first; one at a distance is moved near for that time.
        topic: where the messages go.
        messages: what an asynchronous run sends; synchronous ones send as many as there is time for.
        produce_async, produce_sync: the two producers.
        leg_s: how long a timed synchronous run lasts, in seconds.

    Returns:
        Medians of three short synchronous runs, in milliseconds: the round trip of a request as the client's statistics
        have it, and the whole time of a message.

    Raises:
        ClusterError: the cluster can't be reached, or not all messages were delivered.
        KeyboardInterrupt: the user pressed the stop button.
    """

    def turn(seconds: float) -> ProducerRun:
        """Let both send, first the synchronous one, for so many seconds; its run is returned."""
        some = for_seconds(seconds, messages)
        run = require_complete(produce_sync(cluster.config, topic, some, batch_size=10))
        require_complete(produce_async(cluster.config, topic, messages))
        return run

    try:
        cluster.set_distance(0)
        if cluster.kind in CROWD_S:
            crowd(cluster.config, topic, messages, produce_sync, seconds=CROWD_S[cluster.kind])
            ends = time.monotonic() + TURNS_S
            while time.monotonic() < ends:  # so that the brokers get used to both kinds of request
                turn(1.0)
    finally:
        cluster.set_distance(cluster.distance_ms)
    legs = [turn(leg_s) for _ in range(LEGS)]
    round_trip_ms = median(leg.network["rtt_ms"] for leg in legs)
    message_ms = median(1000 * leg.elapsed_s / leg.acknowledged for leg in legs)
    return round_trip_ms, message_ms


def crowd(
    config: Mapping[str, str], topic: str, messages: Sequence[KeyValue], produce_sync: Produce, *, seconds: float
) -> None:
    """Let sixteen synchronous producers send at the same time, for so many seconds."""
    over = threading.Event()
    impatient = ClientConfig(config) | {"delivery.timeout.ms": "2000"}
    with StopButton() as stop, ThreadPoolExecutor(CROWD) as pool:
        for _ in range(CROWD):
            some = itertools.takewhile(lambda _: not over.is_set(), itertools.cycle(messages))
            pool.submit(produce_sync, impatient, topic, some, batch_size=1)
        try:
            ends = time.monotonic() + seconds
            while time.monotonic() < ends and not stop.pressed:
                time.sleep(0.05)
        finally:
            over.set()


def for_seconds(seconds: float, messages: Iterable[KeyValue]) -> Iterator[KeyValue]:
    """The messages, until so many seconds after the first has been dealt with; at least one."""
    rest = iter(messages)
    yield from itertools.islice(rest, 1)
    ends = time.monotonic() + seconds
    yield from itertools.takewhile(lambda _: time.monotonic() <= ends, rest)
