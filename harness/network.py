"""The client's own statistics of a run: what the network and the broker see of it."""

from collections import Counter

import msgspec

INTERVAL_S = 0.2  # between two of the client's texts; a run waits for one before its clock and one after it
WINDOWS = {"rtt": "rtt_ms", "int_latency": "queue_ms", "outbuf_latency": "outbuf_ms"}


class Network:
    """The statistics' texts, decoded as they come: only sums stay in memory. Source: librdkafka's STATISTICS.md.

    A broker's counters begin at 0 again when it comes back.
    """

    def __init__(self) -> None:
        self.sent = 0  # messages so far, those before the run included
        self._counters: dict[str, Counter] = {}  # of each broker that the latest text names
        self.begin()

    def begin(self) -> None:
        """What came so far was before the run; what comes now is the run's."""
        self._grown: Counter = Counter()
        self._throttle_ms = 0

    def take(self, text: str) -> None:
        """Take in a text: the client's ``stats_cb``."""
        statistics = msgspec.json.decode(text)
        self.sent = statistics["txmsgs"]
        before, self._counters = self._counters, {}
        for name, broker in statistics["brokers"].items():
            if broker["nodeid"] < 0:  # known by its address only
                continue
            now = Counter(produce_requests=broker["req"].get("Produce", 0), responses=broker["rx"])
            self._counters[name] = now
            since = before.get(name, Counter())
            began_anew = any(now[counter] < since[counter] for counter in now)
            self._grown += now if began_anew else now - since
            for window in WINDOWS:  # since the text before, in microseconds
                self._grown[f"{window} sum"] += broker[window]["sum"]
                self._grown[f"{window} count"] += broker[window]["cnt"]
            self._throttle_ms = max(self._throttle_ms, broker["throttle"]["max"])

    def summary(self, acknowledged: int) -> dict[str, float]:
        """What the network saw of a run of so many acknowledged messages.

        ``responses`` are those of every kind of request. Means in milliseconds: ``rtt_ms`` from sending a request to
        its response, ``queue_ms`` until a message is put into a request, ``outbuf_ms`` until a request is written to
        the socket. ``throttle_ms``: the longest that a broker had the client wait because of its quota.
        """
        grown = self._grown
        means = {key: grown[f"{name} sum"] / max(1, grown[f"{name} count"]) / 1000 for name, key in WINDOWS.items()}
        return {
            "produce_requests": grown["produce_requests"],
            "responses": grown["responses"],
            **means,
            "messages_per_request": acknowledged / max(1, grown["produce_requests"]),
            "throttle_ms": self._throttle_ms,
        }
