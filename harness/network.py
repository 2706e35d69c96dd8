"""The client's own statistics of a run: what the network and the broker see of it."""

import msgspec

INTERVAL_S = 0.2  # between two of the client's texts; a run waits for one before its clock and one after it


class _Window(msgspec.Struct):  # since the text before
    sum: int
    cnt: int
    max: int


class _Broker(msgspec.Struct):
    nodeid: int  # negative: known by its address only
    req: dict[str, int]  # requests so far, by kind
    rtt: _Window  # in microseconds
    throttle: _Window  # in milliseconds


class _Statistics(msgspec.Struct):  # what is used of a text; source: librdkafka's STATISTICS.md
    txmsgs: int
    brokers: dict[str, _Broker]


class Network:
    """The statistics' texts, decoded as they come: only sums stay in memory."""

    def __init__(self) -> None:
        self.sent = 0  # messages so far, those before the run included
        self._requests: dict[str, int] = {}  # of each broker that the latest text names, so far
        self.begin()

    def begin(self) -> None:
        """What came so far was before the run; what comes now is the run's."""
        self._produce_requests = self._rtt_sum_us = self._rtt_count = self._throttle_ms = self._unread = 0

    def take(self, text: str) -> None:
        """Take in a text: the client's ``stats_cb``. One that can't be read is passed over, and counted."""
        try:
            statistics = msgspec.json.decode(text, type=_Statistics)
        except msgspec.MsgspecError:
            self._unread += 1
            return
        self.sent = statistics.txmsgs
        before = self._requests
        self._requests = {}
        for name, broker in statistics.brokers.items():
            if broker.nodeid < 0:
                continue
            now = broker.req.get("Produce", 0)
            since = before.get(name, 0)
            self._requests[name] = now
            self._produce_requests += now - since if now >= since else now  # a broker that comes back begins at 0
            self._rtt_sum_us += broker.rtt.sum
            self._rtt_count += broker.rtt.cnt
            self._throttle_ms = max(self._throttle_ms, broker.throttle.max)

    def summary(self) -> dict[str, float]:
        """The run's Produce requests and, in ms, their mean round trip and a broker's longest delay for its quota.

        ``unread`` is there only if texts could not be read: how many; the rest is what the others say.
        """
        rtt_ms = self._rtt_sum_us / max(1, self._rtt_count) / 1000
        found = {"produce_requests": self._produce_requests, "rtt_ms": rtt_ms, "throttle_ms": self._throttle_ms}
        return found | {"unread": self._unread} if self._unread else found
