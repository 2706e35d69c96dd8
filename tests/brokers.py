"""What the fault tests do to a real Kafka, and what holds of every run whatever was done."""

import os
import signal
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from harness.read_back import reconcile
from harness.runs import ProducerRun
from harness.topics import ensure_topic
from kafka_helpers import read_back
from local_kafka import LocalKafka, quiet_logger


def admin(config: Mapping[str, str]) -> AdminClient:
    return AdminClient({**config, "logger": quiet_logger()})


def kill(kafka: LocalKafka, node: int = 0) -> None:
    """End a broker as a power cut would, without a word of farewell."""
    os.kill(kafka.processes[node].pid, signal.SIGKILL)
    kafka.processes[node].wait()


def freeze(kafka: LocalKafka, node: int = 0) -> None:
    """Stop a broker such that its connections stay open and nobody answers; return when all of it stands still."""
    pid = kafka.processes[node].pid
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)


def thaw(kafka: LocalKafka, node: int = 0) -> None:
    os.kill(kafka.processes[node].pid, signal.SIGCONT)


def wait_until_up(config: Mapping[str, str], brokers: int = 1, timeout_s: float = 60) -> None:
    client, deadline = admin(config), time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if len(client.list_topics(timeout=1).brokers) >= brokers:
                return
        except KafkaException:
            time.sleep(0.1)
    raise TimeoutError(f"no {brokers} brokers after {timeout_s} s")


def new_topic(config: Mapping[str, str], *, partitions: int = 6, **settings: str) -> str:
    """Create a topic that has settings of its own, and return its name."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    client = admin(config)
    topic = NewTopic(name, num_partitions=partitions, replication_factor=-1, config=settings)
    client.create_topics([topic])[name].result(15)
    ensure_topic(config, name)  # waits until it can be used
    return name


def remove_records(config: Mapping[str, str], topic: str, until: Mapping[int, int]) -> None:
    """Remove each partition's messages below an offset, as a topic's retention does."""
    client = admin(config)
    removed = client.delete_records([TopicPartition(topic, number, offset) for number, offset in until.items()])
    for future in removed.values():
        future.result(15)


def leader(config: Mapping[str, str], topic: str, partition: int = 0) -> int:
    return admin(config).list_topics(topic, timeout=10).topics[topic].partitions[partition].leader


def allow(config: Mapping[str, str], user: str, topic: str, operation: AclOperation) -> None:
    """Give a user a right, where the broker has an authorizer."""
    resource, yes = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL), AclPermissionType.ALLOW
    right = AclBinding(*resource, f"User:{user}", "*", operation, yes)
    client, deadline = admin(config), time.monotonic() + 30
    for future in client.create_acls([right]).values():
        future.result(15)
    asked = AclBindingFilter(*resource, f"User:{user}", "*", operation, yes)
    while not client.describe_acls(asked).result(15) and time.monotonic() < deadline:  # until the broker has applied it
        time.sleep(0.05)


def check_accounts(run: ProducerRun, run_id: str, messages: list, config: Mapping[str, str], topic: str) -> None:
    """Every message that was handed over is accounted for, in the run and in the topic, and none is there twice."""
    assert run.submitted <= len(messages) and run.failed == sum(run.errors.values()) == len(run.undelivered)
    sent, undelivered = {run_id: messages[: run.submitted]}, {run_id: run.undelivered}
    found = read_back(config, topic, sent, undelivered=undelivered)
    accounts = reconcile([replace(run, run_id=run_id)], found)
    print(f"\n{run.stopped}; {run.errors}; {accounts.to_dict('records')}")
    assert accounts["holds"].all() and found["expected"].item() == run.acknowledged
