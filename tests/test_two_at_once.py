"""Two notebooks at once on one machine don't disturb each other. Two runs on one topic: see test_faults."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from harness.cluster import open_cluster
from harness.errors import ClusterError, ConfigError
from harness.results import new_folder
from harness.topics import ensure_topic
from kafka_helpers import make_messages, produce_async, read_back
from local_kafka import LocalKafka


def test_two_result_folders_at_the_same_second(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(new_folder, ["local"] * 8, [tmp_path] * 8))
    assert len(set(folders)) == 8 and all(folder.is_dir() and folder.name.endswith("_local") for folder in folders)


def test_another_kafka_has_messages_and_an_end_of_its_own(kafka: LocalKafka) -> None:
    other = open_cluster("local")
    assert other.kind == "local" and other.name.startswith("local Apache Kafka")
    folder = Path(other.config["ssl.ca.location"]).parent
    both = {300: kafka.config, 200: other.config}
    for count, config in both.items():  # with topics and run ids of the same names, as two notebooks have them
        ensure_topic(config, "same-name")
        produce_async(config, "same-name", make_messages("same-run", count))
    for count, config in both.items():
        found = read_back(config, "same-name", {"same-run": make_messages("same-run", 300)})
        assert found["received"].item() == count and found["duplicated"].item() == 0
    other.close()
    assert not folder.exists() and not [
        each for each in psutil.process_iter(["cmdline"]) if f"{folder}" in str(each.info)
    ]
    assert all(process.poll() is None for process in kafka.processes) and kafka.folder.exists()


def test_an_old_cluster_does_not_end_the_newer_one(kafka: LocalKafka) -> None:
    old = open_cluster("auto", kafka.config)
    new = open_cluster("auto", kafka.config)  # closes the old one
    old.close()
    ensure_topic(new.config, "still-there")
    with pytest.raises(ClusterError, match="The cluster is closed; run the cell that opens it again"):
        ensure_topic(old.config, "any")
    with pytest.raises(ClusterError, match="is closed"):  # before anything is waited for
        produce_async(old.config | {"linger.ms": "5"}, "any", [])
    for choice, refused in (("nowhere", "has to be one of auto, cloud"), ("cloud", "No credentials found: copy")):
        with pytest.raises(ConfigError, match=refused):
            open_cluster(choice)
    with pytest.raises(ClusterError, match="is closed"):  # later cells don't go on with what was there before
        ensure_topic(new.config, "any")
