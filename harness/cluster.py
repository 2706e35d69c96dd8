"""Choose a cluster, and describe it."""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka.admin import AdminClient

from harness.client import connect
from harness.config import ClientConfig, check_choice, load_config, producer_settings, shown_settings
from harness.errors import ConfigError
from harness.topics import metadata, topic_metadata


@dataclass
class Cluster:
    """A cluster to measure on.

    Attributes:
        kind: what it is, in a few words.
        config: client configuration.
        close: lets go of it; what was started here ends.
        farewell: what there is to say, or still to do for the user, once it is closed.
    """

    kind: str
    config: ClientConfig
    close: Callable[[], None]
    farewell: str = "The local cluster has ended, and its data with it."


_opened = contextlib.ExitStack()


def open_cluster(choice: str = "auto", *, rtt_ms: int = 25) -> Cluster:
    """Find or start a cluster, and say in a line which it is. One that was opened before is closed first.

    Args:
        choice: ``auto`` takes credentials if there are any, else a local Kafka; or ``cloud``, ``local``, ``distant``
            (three local brokers behind a round trip) or ``simulated`` (the client's own mock cluster).
        rtt_ms: the round trip of a distant or simulated cluster, in milliseconds.

    Raises:
        ConfigError: the choice is unknown, or ``cloud`` without credentials.
        local_kafka.LocalKafkaError: Kafka can't be started here.
    """
    check_choice(choice)
    _opened.close()
    config = load_config() if choice in ("auto", "cloud") else None
    if config:
        cluster = _configured(config)
    elif choice == "cloud":
        raise ConfigError("No credentials found: copy client.properties.example to client.properties and fill it in.")
    else:
        # only here, so that with credentials neither Java nor its packages have to be there
        from local_kafka import KAFKA_VERSION, LocalKafka, simulated_cluster

        if choice == "simulated":
            started, kind = simulated_cluster(rtt_ms), f"simulated cluster, round trip {rtt_ms} ms"
        elif choice == "distant":
            started = LocalKafka(3, distance_ms=rtt_ms)
            kind = f"distant Apache Kafka {KAFKA_VERSION} (on this machine, {rtt_ms} ms away)"
        else:
            started, kind = LocalKafka(), f"local Apache Kafka {KAFKA_VERSION}"
        cluster = Cluster(kind, ClientConfig(_opened.enter_context(started).config), _opened.close)
    print(f"Cluster: {cluster.kind}.")
    return cluster


def _configured(config: ClientConfig) -> Cluster:
    cloud = re.search(r"\.([a-z0-9-]+)\.([a-z]+)\.confluent\.cloud", config["bootstrap.servers"])
    if cloud:
        farewell = "Delete the cluster in the Confluent Cloud console now, unless you still need it."
        return Cluster(f"Confluent Cloud ({cloud[2]} {cloud[1]})", config, _opened.close, farewell)
    return Cluster("Kafka as configured", config, _opened.close, "Your Kafka goes on: it was not started here.")


def describe_cluster(cluster: Cluster, topic: str) -> dict[str, object]:
    """What is measured on: kind, brokers, the topic's partitions and replication factor, and the settings."""
    with connect(AdminClient, cluster.config) as connection:
        partitions = topic_metadata(connection, topic).partitions
        brokers = metadata(connection).brokers
    return {
        "cluster": cluster.kind,
        "brokers": len(brokers),
        "partitions": len(partitions),
        "replication factor": max(len(each.replicas) for each in partitions.values()),
        "settings": shown_settings(producer_settings(cluster.config)),
    }
