"""The client's own statistics of a run: what the network and the broker see of it."""

import msgspec

INTERVAL_S = 0.2  # between two of the client's texts; a run waits for one before its clock and one after it


class Network:
    """The statistics' texts, decoded as they come: only sums stay in memory. Source: librdkafka's STATISTICS.md."""

    def __init__(self) -> None:
        self.sent = 0  # messages so far, those before the run included
        self._requests: dict[str, int] = {}  # of each broker that the latest text names, so far
        self.begin()

    def begin(self) -> None:
        """What came so far was before the run; what comes now is the run's."""
        self._produce_requests = self._rtt_sum_us = self._rtt_count = self._throttle_ms = 0

    def take(self, text: str) -> None:
        """Take in a text: the client's ``stats_cb``."""
        statistics = msgspec.json.decode(text)
        self.sent = statistics["txmsgs"]
        before, self._requests = self._requests, {}
        for name, broker in statistics["brokers"].items():
            if broker["nodeid"] < 0:  # known by its address only
                continue
            self._requests[name] = now = broker["req"].get("Produce", 0)
            since = before.get(name, 0)
            self._produce_requests += now - since if now >= since else now  # a broker that comes back begins at 0
            self._rtt_sum_us += broker["rtt"]["sum"]  # since the text before
            self._rtt_count += broker["rtt"]["cnt"]
            self._throttle_ms = max(self._throttle_ms, broker["throttle"]["max"])

    def summary(self) -> dict[str, float]:
        """The run's Produce requests and, in ms, their mean round trip and a broker's longest delay for its quota."""
        rtt_ms = self._rtt_sum_us / max(1, self._rtt_count) / 1000
        return {"produce_requests": self._produce_requests, "rtt_ms": rtt_ms, "throttle_ms": self._throttle_ms}
