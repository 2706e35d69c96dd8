"""Kafka without an account: a real Apache Kafka on this machine, and the client's simulated cluster.

``LocalKafka`` starts Apache Kafka from its published jars on a Java that pip installs, set up like Confluent Cloud:
TLS with user name and password (SASL_SSL, PLAIN), and no topic creates itself; if wanted at a distance, too.
``simulated_cluster`` is a few hundred kilobytes of C inside the Kafka client: no download, but it keeps nothing and
protects nothing.

    python -m local_kafka local.properties     # runs it until Ctrl-C, for any Kafka program

The first start downloads Kafka (39 MB). Python 3.11 or later; no Java has to be installed.
"""

from local_kafka.broker import LocalKafka
from local_kafka.jars import KAFKA_VERSION, LocalKafkaError, prepare
from local_kafka.simulated import quiet_logger, simulated_cluster

__all__ = ["KAFKA_VERSION", "LocalKafka", "LocalKafkaError", "prepare", "quiet_logger", "simulated_cluster"]
