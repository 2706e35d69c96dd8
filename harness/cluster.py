"""Choose a cluster, and describe it."""

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka.admin import AdminClient

from harness.client import connect
from harness.config import ClientConfig, producer_settings, shown_settings
from harness.errors import ConfigError
from harness.topics import metadata, topic_metadata

CHOICES = ("auto", "cloud", "local", "distant")


@dataclass
class Cluster:
    """A cluster to measure on."""

    kind: str  # local, distant (three local brokers that seem far away), cloud or other
    name: str
    config: ClientConfig  # empty once the cluster is closed
    close: Callable[[], None]  # lets go of it; what was started here ends
    distance_ms: float = 0  # the round trip that was chosen for a distant one, in ms
    set_distance: Callable[[float], None] = lambda ms: None  # moves a distant one, in ms


_opened = contextlib.ExitStack()  # of the cluster that was opened last


def open_cluster(choice: str = "auto", config: Mapping[str, str] | None = None, *, rtt_ms: int = 25) -> Cluster:
    """Find or start a cluster, and say in a line which it is. One that was opened before is closed first.

    ``auto`` takes the credentials if there are any, else a local Kafka; ``distant`` is three local brokers behind a
    round trip of ``rtt_ms`` milliseconds.

    Raises:
        ConfigError: the choice is unknown, or ``cloud`` without credentials.
        local_kafka.LocalKafkaError: Kafka can't be started here.
    """
    global _opened
    _opened.close()  # before anything is judged: a wrong parameter must not leave the old cluster in use
    _opened = stack = contextlib.ExitStack()
    if choice not in CHOICES:
        raise ConfigError(f"cluster_choice has to be one of {', '.join(CHOICES)}.")
    if choice == "cloud" and config is None:
        raise ConfigError("No credentials found: copy client.properties.example to client.properties and fill it in.")
    given = config if choice in ("auto", "cloud") else None
    cluster = _configured(ClientConfig(given), stack) if given else start_cluster(choice, rtt_ms, stack)
    stack.callback(cluster.config.clear)
    print(f"Cluster: {cluster.name}.")
    return cluster


def _configured(config: ClientConfig, stack: contextlib.ExitStack) -> Cluster:
    cloud = re.search(r"\.([a-z0-9-]+)\.([a-z]+)(?:\.glb|\.private)?\.confluent\.cloud", config["bootstrap.servers"])
    if cloud:
        return Cluster("cloud", f"Confluent Cloud ({cloud[2]} {cloud[1]})", config, stack.close)
    return Cluster("other", "Kafka as configured", config, stack.close)


def start_cluster(kind: str, rtt_ms: int, stack: contextlib.ExitStack) -> Cluster:
    """Start a Kafka here that ends with the stack: ``distant`` at a round trip of so many ms, else a local one.

    Raises local_kafka.LocalKafkaError where it can't be started.
    """
    # only here, so that with credentials neither Java nor its packages have to be there
    from local_kafka import KAFKA_VERSION, LocalKafka

    if kind != "distant":
        kafka = stack.enter_context(LocalKafka())
        name = f"local Apache Kafka {KAFKA_VERSION} (on this machine)"
        return Cluster("local", name, ClientConfig(kafka.config), stack.close)
    kafka = stack.enter_context(LocalKafka(3, distance_ms=rtt_ms))
    name = f"distant Apache Kafka {KAFKA_VERSION} (on this machine, {rtt_ms} ms away)"

    def set_distance(ms: float) -> None:
        kafka.distance_ms = ms

    return Cluster("distant", name, ClientConfig(kafka.config), stack.close, rtt_ms, set_distance)


def describe_cluster(cluster: Cluster, topic: str) -> dict[str, Any]:
    """What is measured on: kind, brokers, the topic's partitions and replication factor, and the settings."""
    with connect(AdminClient, cluster.config) as connection:
        partitions = topic_metadata(connection, topic).partitions
        brokers = metadata(connection).brokers
    return {
        "kind": cluster.kind,
        "cluster": cluster.name,
        "brokers": len(brokers),
        "partitions": len(partitions),
        "replication_factor": max(len(each.replicas) for each in partitions.values()),
        "settings": shown_settings(producer_settings(cluster.config)),
    }
