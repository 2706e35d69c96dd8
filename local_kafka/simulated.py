"""The client library's own simulated cluster: nothing to download, but nothing is stored or protected either."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from types import SimpleNamespace

from confluent_kafka import Producer


@contextlib.contextmanager
def simulated_cluster(rtt_ms: int = 20, brokers: int = 1) -> Iterator[SimpleNamespace]:
    """librdkafka's mock cluster (``test.mock.*``, not among its documented options) on 127.0.0.1: no TLS, no login.

    Each answer of a broker takes ``rtt_ms`` whole milliseconds; topics create themselves, with four partitions. It
    yields an object whose ``config`` is a client configuration.
    """
    host = Producer({"test.mock.num.brokers": brokers, "test.mock.broker.rtt": rtt_ms, "logger": quiet_logger()})
    try:
        addresses = (f"{broker.host}:{broker.port}" for broker in host.list_topics(timeout=10).brokers.values())
        config = ClientConfig({"bootstrap.servers": ",".join(addresses), "security.protocol": "PLAINTEXT"})
        yield SimpleNamespace(config=config)
    finally:
        host.close()


class ClientConfig(dict[str, str]):
    """A client configuration that can be shown, joined and copied without giving the secret away."""

    def __repr__(self) -> str:
        return f"<client configuration: {', '.join(self)}; values hidden>"

    def __or__(self, other: Mapping[str, str]) -> "ClientConfig":  # type: ignore[override]
        return ClientConfig({**self, **other})

    def __ror__(self, other: Mapping[str, str]) -> "ClientConfig":  # type: ignore[override]
        return ClientConfig({**other, **self})

    def copy(self) -> "ClientConfig":
        return ClientConfig(self)


def quiet_logger() -> logging.Logger:
    """A logger that keeps the client library's log lines off the screen; errors are reported where they are met."""
    logger = logging.getLogger("kafka.client")
    logger.disabled = True
    return logger
