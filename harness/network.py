"""The client's own statistics of a run: what the network and the broker see of it."""

from collections import Counter

import msgspec

INTERVAL_S = 0.2  # between two of the client's texts; a run waits for one before its clock and one after it
WINDOWS = {"rtt": "rtt_ms", "int_latency": "queue_ms", "outbuf_latency": "outbuf_ms"}


class Window(msgspec.Struct):
    """Measured times since the text before, in microseconds."""

    sum: int
    cnt: int


class Broker(msgspec.Struct):
    """Of one broker, the fields that are used here; the rest is skipped in decoding."""

    nodeid: int  # -1: known by its address only
    rx: int
    req: dict[str, int]
    rtt: Window
    int_latency: Window
    outbuf_latency: Window


class Text(msgspec.Struct):
    """One text of statistics."""

    txmsgs: int
    brokers: dict[str, Broker]


decode = msgspec.json.Decoder(Text).decode


class Network:
    """The statistics' texts, decoded as they come: only sums are kept, however long the run.

    Source: librdkafka's STATISTICS.md. Its counters grow for the life of the client; times are windows since the
    text before.
    """

    def __init__(self) -> None:
        self.sent = 0  # messages so far, the warm-up's included
        self._counters: Counter = Counter()
        self.begin()

    def begin(self) -> None:
        """What came so far was the warm-up's; what comes now is the run's."""
        self._before = self._counters.copy()
        self._sums: Counter = Counter()
        self._counts: Counter = Counter()

    def take(self, text: str) -> None:
        """Take in a text: the client's ``stats_cb``."""
        statistics = decode(text)
        brokers = [broker for broker in statistics.brokers.values() if broker.nodeid >= 0]
        self.sent = statistics.txmsgs
        self._counters = Counter(
            produce_requests=sum(broker.req.get("Produce", 0) for broker in brokers),
            responses=sum(broker.rx for broker in brokers),
        )
        for name in WINDOWS:
            for broker in brokers:
                window = getattr(broker, name)
                self._sums[name] += window.sum
                self._counts[name] += window.cnt

    def summary(self, acknowledged: int) -> dict[str, float]:
        """What the network saw of a run of so many acknowledged messages.

        Returns:
            ``produce_requests`` and ``responses`` (Produce requests sent; responses of every kind received),
            ``messages_per_request``, and as means in milliseconds ``rtt_ms`` (from sending a request to its response),
            ``queue_ms`` (a message's time in the client before it is put into a request) and ``outbuf_ms`` (a
            request's time until it is written to the socket).
        """
        grown = {name: self._counters[name] - self._before[name] for name in ("produce_requests", "responses")}
        means = {key: self._sums[name] / max(1, self._counts[name]) / 1000 for name, key in WINDOWS.items()}
        return grown | {"messages_per_request": acknowledged / max(1, grown["produce_requests"])} | means
