"""Make a topic, and ask the cluster about it."""

import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ClusterMetadata, NewTopic, TopicMetadata

from harness.client import CONNECT_TIMEOUT_S, PATIENCE_S, Connection, ask, connect, explain
from harness.config import READER_SETTINGS, check_text
from harness.errors import ClusterError


def metadata(connection: Connection) -> ClusterMetadata:
    """The cluster's metadata: brokers and topics."""
    return ask(connection, lambda timeout: connection.client.list_topics(timeout=timeout))


def topic_metadata(connection: Connection, topic: str) -> TopicMetadata:
    """The topic's metadata, once it can be used: the brokers learn of a new topic one after the other.

    Raises:
        ClusterError: there is no such topic, or no right to use it.
    """
    asked = time.monotonic()
    while True:
        found = ask(connection, lambda timeout: connection.client.list_topics(topic, timeout=timeout)).topics[topic]
        if found.partitions and not found.error:
            return found
        if time.monotonic() - asked > PATIENCE_S:
            reason = explain(found.error) if found.error else "it has no partitions; is it being deleted?"
            raise ClusterError(f"The topic {topic} can't be used: {reason}.")
        time.sleep(0.1)


def ensure_topic(config: Mapping[str, Any], topic: str, *, partitions: int = 6, replication: int = -1) -> None:
    """Create the topic unless it is there, and wait until it can be used.

    A new one gets as many partitions (6 is the Confluent Cloud console's default), and the replication factor, which -1
    leaves to the cluster (on Confluent Cloud: 3).

    Raises:
        ClusterError: no connection, no right to create it, or the cluster refuses name, partitions or replication.
        ConfigError: ``topic`` is no text.
    """
    check_text("topic", topic)
    with connect(AdminClient, config) as connection:
        if topic in metadata(connection).topics:
            return
        _create(connection, NewTopic(topic, num_partitions=partitions, replication_factor=replication))
        topic_metadata(connection, topic)


def _create(connection: Connection[AdminClient], topic: NewTopic) -> None:
    limits = {"operation_timeout": CONNECT_TIMEOUT_S, "request_timeout": CONNECT_TIMEOUT_S}
    created = connection.client.create_topics([topic], **limits)[topic.topic]
    while not created.done():
        connection.client.poll(0.05)
        connection.stop.check()
    refusal = created.exception()
    code = refusal.args[0].code() if isinstance(refusal, KafkaException) else None
    if refusal and code != KafkaError.TOPIC_ALREADY_EXISTS:
        raise ClusterError(f"The topic {topic.topic} can't be created: {explain(refusal, connection.heard)}.")


def offsets(config: Mapping[str, Any], topic: str) -> dict[int, tuple[int, int]]:
    """For each partition the offset of the oldest message that is still there, and that of the next one to come."""
    with connect(Consumer, config, **READER_SETTINGS) as connection:

        def watermarks(number: int) -> tuple[int, int]:
            partition = TopicPartition(topic, number)
            return ask(connection, lambda timeout: connection.client.get_watermark_offsets(partition, timeout=timeout))

        return {number: watermarks(number) for number in topic_metadata(connection, topic).partitions}


def end_offsets(config: Mapping[str, Any], topic: str) -> dict[int, int]:
    """The offset that the next message of each partition will have: where a later ``read_back`` may begin."""
    return {number: end for number, (_, end) in offsets(config, topic).items()}
