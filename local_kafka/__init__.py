"""Kafka without an account: a real Apache Kafka on this machine, and the client's simulated cluster.

``LocalKafka`` is set up like Confluent Cloud: TLS, user name, password, no topic creates itself. Its first start
downloads Kafka (39 MB); no Java has to be installed. ``simulated_cluster`` needs no download, but keeps nothing and
protects nothing. ``python -m local_kafka`` runs Kafka in a terminal.
"""

from local_kafka.broker import LocalKafka
from local_kafka.jars import KAFKA_VERSION, LocalKafkaError, prepare
from local_kafka.simulated import quiet_logger, simulated_cluster

__all__ = ["KAFKA_VERSION", "LocalKafka", "LocalKafkaError", "prepare", "quiet_logger", "simulated_cluster"]
