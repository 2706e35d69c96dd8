"""What happens on a producer's connection before the clock starts."""

import time

from confluent_kafka import KafkaError, KafkaException, Producer

from harness.client import CONNECT_TIMEOUT_S, Connection, client_error
from harness.errors import ClusterError
from harness.explain import explain
from harness.statistics import INTERVAL_S, Network
from harness.topics import topic_metadata

WARM_UP = b"warm-up"  # its key, too: a compacted topic refuses a message without one


def warm_up(connection: Connection, topic: str) -> int:
    """Send a message to each partition, and return how many that are."""
    producer: Producer = connection.client
    partitions = topic_metadata(connection, topic).partitions
    failures: list[KafkaError] = []
    unsettled, deadline = len(partitions), time.monotonic() + CONNECT_TIMEOUT_S
    try:
        for partition in partitions:
            producer.produce(
                topic, WARM_UP, WARM_UP, partition, on_delivery=lambda error, _: error and failures.append(error)
            )
        while unsettled and not failures and time.monotonic() < deadline:
            unsettled = producer.flush(0.5)
            connection.stop.check()
    except (KafkaException, SystemError) as error:
        failures.append(client_error(error))
    if failures or unsettled:
        said = failures[0] if failures else ""
        raise ClusterError(f"The topic {topic} can't be written to: {explain(said, connection.heard)}.")
    return len(partitions)


def await_statistics(connection: Connection, network: Network, sent: int) -> None:
    """Wait for statistics, which the client gives at fixed intervals, that know of so many messages sent.

    Those that came before don't do: a text counts a message before the request that it goes out with.
    """
    connection.client.poll(0)
    network.sent = -1
    deadline = time.monotonic() + 2 * INTERVAL_S + 1
    while network.sent < sent and time.monotonic() < deadline and not connection.stop.pressed:
        connection.client.poll(0.05)
    connection.stop.check()
