"""Two at once: two notebooks on one machine, and two runs on one topic, don't disturb each other."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from harness.errors import ClusterError, ConfigError
from kafka_helpers import ensure_topic, make_messages, new_folder, open_cluster, produce_async, produce_sync, read_back
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


def test_two_runs_on_one_topic(kafka: LocalKafka, topic: str) -> None:
    """An asynchronous and a synchronous run at the same time: each finds exactly its own messages."""
    messages = {mode: make_messages(mode, 4_000) for mode in ("async", "sync")}
    with ThreadPoolExecutor() as pool:
        runs = [
            pool.submit(produce, kafka.config, topic, messages[mode])
            for mode, produce in (("async", produce_async), ("sync", produce_sync))
        ]
    for run in (each.result() for each in runs):
        assert run.complete and run.acknowledged == 4_000
    for mode in messages:
        (row,) = read_back(kafka.config, topic, {mode: messages[mode]}).to_dict("records")
        assert row["received"] == row["expected"] == 4_000
        assert row["missing"] == row["duplicated"] == row["damaged"] == 0


def test_two_result_folders_at_the_same_second(tmp_path: Path) -> None:
    start, folders = threading.Barrier(8), []

    def make() -> None:
        start.wait()
        folders.append(new_folder("local", tmp_path))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 8 and all(folder.is_dir() for folder in folders)


def test_end_of_one_kafka_leaves_the_other_alone(kafka: LocalKafka) -> None:
    with LocalKafka() as other:
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
