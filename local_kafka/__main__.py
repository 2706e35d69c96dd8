"""The command: run Kafka in a terminal until Ctrl-C, with its client configuration in a file for other programs."""

import argparse
import sys
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from local_kafka import KAFKA_VERSION, LocalKafka, LocalKafkaError, prepare, quiet_logger

PARTITIONS = 6  # of each topic, as on Confluent Cloud
TOPIC_TIMEOUT_S = 60


def main() -> None:
    """Read the command line and do what it says; exit with a sentence where that can't be done or Kafka dies."""
    parser = argparse.ArgumentParser("python -m local_kafka", description="Run Apache Kafka here until Ctrl-C.")
    parser.add_argument("file", nargs="?", type=Path, default="local.properties", help="for the client configuration")
    parser.add_argument("--brokers", type=int, default=1, help="1 or 3 (default: 1)")
    parser.add_argument("--distance", type=float, default=0, metavar="MS", help="round trip to the brokers in ms")
    parser.add_argument("--topic", action="append", default=[], help="make this topic; may be given several times")
    parser.add_argument("--prepare", action="store_true", help="fetch what a start needs, and start nothing")
    options = parser.parse_args()
    try:
        if options.prepare:
            prepare()
        else:
            run(options)
    except KeyboardInterrupt:
        if options.prepare:
            sys.exit("Interrupted; the next start fetches the rest.")
        print("Kafka has ended.")
    except KafkaException as error:
        sys.exit(f"The topic could not be made: {error.args[0].str()}")
    except (LocalKafkaError, ValueError) as error:
        sys.exit(str(error))


def run(options: argparse.Namespace) -> None:
    """Run Kafka until the user interrupts it, or raise a LocalKafkaError when a part of it has ended."""
    with LocalKafka(options.brokers, distance_ms=options.distance, file=options.file) as kafka:
        admin = AdminClient({**kafka.config}, logger=quiet_logger())
        for name in options.topic:
            admin.create_topics([NewTopic(name, PARTITIONS)])[name].result(TOPIC_TIMEOUT_S)
        print(f"Apache Kafka {KAFKA_VERSION} runs on {kafka.config['bootstrap.servers']}.")
        print(f"Its client configuration is in {options.file}. Ctrl-C ends it and removes that file.", flush=True)
        kafka.watch()


if __name__ == "__main__":
    main()
