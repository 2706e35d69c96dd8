"""Two at once: two notebooks on one machine don't disturb each other. Two runs on one topic: see test_faults."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from harness.errors import ClusterError, ConfigError
from kafka_helpers import end_offsets, ensure_topic, new_folder, open_cluster
from local_kafka import LocalKafka

ROOT = Path(__file__).resolve().parent.parent

# What a notebook does, from the start of its own Kafka to the saved results.
NOTEBOOK = """
import json, sys
import kafka_helpers as kh
from local_kafka import LocalKafka
name = sys.argv[1]
with LocalKafka() as kafka:
    kh.ensure_topic(kafka.config, "rides")
    results = kh.Results(kh.new_folder("local"), {"name": name})
    found = []
    for number, produce in enumerate((kh.produce_async, kh.produce_sync)):
        messages = kh.make_messages(f"run-{number}", 1_000)
        run = produce(kafka.config, "rides", messages)
        run.run_id = f"run-{number}"
        results.add_run(run)
        found.append({run.run_id: messages})
    found = kh.read_back(kafka.config, "rides", found[0] | found[1]).to_dict("records")
    print(json.dumps({"found": found, "folder": str(results.folder), "kafka": str(kafka.folder),
                      "address": kafka.config["bootstrap.servers"]}))
"""


@pytest.mark.long
def test_two_notebooks_on_one_machine(tmp_path: Path) -> None:
    """In one directory, with topics and run ids of the same names: each has its own Kafka, counts and files."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    notebooks = [
        subprocess.Popen(
            [sys.executable, "-c", NOTEBOOK, name], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
        )
        for name in ("first", "second")
    ]
    said = [json.loads(notebook.communicate(timeout=180)[0].splitlines()[-1]) for notebook in notebooks]
    for each, name in zip(said, ("first", "second"), strict=True):
        assert [row["received"] for row in each["found"]] == [1_000, 1_000]
        assert all(row["missing"] == row["duplicated"] == row["damaged"] == 0 for row in each["found"])
        saved = json.loads((tmp_path / each["folder"] / "results.json").read_text())
        assert saved["environment"] == {"name": name} and len(saved["runs"]) == 2
        assert not Path(each["kafka"]).exists()
    for what in ("folder", "kafka", "address"):
        assert said[0][what] != said[1][what]


def test_two_result_folders_at_the_same_second(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(new_folder, ["local"] * 8, [tmp_path] * 8))
    assert len(set(folders)) == 8 and all(folder.is_dir() and folder.name.endswith("_local") for folder in folders)


def test_another_kafka_has_topics_and_an_end_of_its_own(kafka: LocalKafka) -> None:
    with LocalKafka() as other:
        for each in (kafka, other):
            ensure_topic(each.config, "same-name", partitions=2 if each is kafka else 3)
        assert (len(end_offsets(kafka.config, "same-name")), len(end_offsets(other.config, "same-name"))) == (2, 3)
        numbers = [process.pid for process in other.processes]
    assert not any(map(psutil.pid_exists, numbers)) and not other.folder.exists()
    assert all(process.poll() is None for process in kafka.processes) and kafka.folder.exists()


def test_an_old_cluster_does_not_end_the_newer_one() -> None:
    old = open_cluster("simulated")
    new = open_cluster("simulated")  # closes the old one
    old.close()
    ensure_topic(new.config, "still-there")
    with pytest.raises(ClusterError, match="The cluster is closed; run the cell that opens it again"):
        ensure_topic(old.config, "any")
    with pytest.raises(ConfigError):
        open_cluster("nowhere")
    with pytest.raises(ClusterError, match="is closed"):  # later cells don't go on with what was there before
        ensure_topic(new.config, "any")
