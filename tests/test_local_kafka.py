"""The local Kafka: its command, what it writes and takes away again, and that the course's own programs can use it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kafka_helpers as kh
import local_kafka

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def command(tmp_path):
    """``python local_kafka.py`` with the given arguments in an own folder, started and ready; ended afterwards."""
    running = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, ROOT / "local_kafka.py", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process, process.stdout.readline()

    yield start
    for process in running:
        process.kill()


def test_command_serves_the_notebook_helper_and_a_getting_started_program(command, tmp_path, monkeypatch):
    process, said = command("getting_started.ini", "--topic", "purchases")
    assert re.match(r"Apache Kafka [\d.]+ runs on 127\.0\.0\.1:\d+\.", said)
    file = tmp_path / "getting_started.ini"
    comment, header, *_ = file.read_text().splitlines()
    assert comment.startswith("# ") and header == "[default]"
    if os.name == "posix":
        assert file.stat().st_mode & 0o777 == 0o600
    # In the way of Confluent's getting-started programs: configparser, its default section, straight into a Producer.
    program = (
        "import configparser, confluent_kafka; c = configparser.ConfigParser(); c.read('getting_started.ini')\n"
        "p = confluent_kafka.Producer(dict(c['default'])); p.produce('purchases', 'book', 'jsmith'); print(p.flush(10))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "0", done.stderr
    config = kh.load_config(file)
    assert sum(kh.end_offsets(config, "purchases").values()) == 1
    assert kh.produce_sync(config, "purchases", kh.make_messages("r", 10)).complete
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=10)
    assert process.returncode == 0 and rest.endswith("Kafka has ended.\n") and errors == ""
    assert not file.exists()
    assert not Path(config["ssl.ca.location"]).parent.exists()


def test_command_leaves_a_file_that_is_there_alone(command, tmp_path):
    (tmp_path / "client.properties").write_text("mine")
    process, _ = command()
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 1 and errors.startswith("client.properties can't be written (File exists)")
    assert (tmp_path / "client.properties").read_text() == "mine"


def test_killed_command_leaves_nothing(command, tmp_path):
    process, _ = command("c.properties")
    config = kh.load_config(tmp_path / "c.properties")
    process.kill()
    folder, file = Path(config["ssl.ca.location"]).parent, tmp_path / "c.properties"
    port = int(config["bootstrap.servers"].split(":")[1])
    deadline = time.monotonic() + 10
    while (folder.exists() or file.exists() or local_kafka.is_open(port)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not folder.exists() and not file.exists() and not local_kafka.is_open(port)


@pytest.mark.parametrize("brokers", [0, 2, 4, "1"])
def test_one_or_three_brokers(brokers):
    with pytest.raises(ValueError, match=r"brokers is .*; it has to be 1, or 3"):
        local_kafka.LocalKafka(brokers)


def test_configuration_has_the_keys_of_the_assignment(kafka):
    assert set(kafka.config) == {*kh.ENV_KEYS.values(), "ssl.ca.location"}
    assert kafka.config["sasl.password"] not in repr(kafka.config)


def test_topics_do_not_create_themselves(kafka):
    with pytest.raises(kh.ClusterError, match="can't be used"):
        kh.produce_sync(kafka.config, "not-made", [(b"k", b"v")])


def test_simulated_cluster_works_like_the_others():
    sent = {"r": kh.make_messages("r", 300)}
    with local_kafka.simulated_cluster(rtt_ms=1) as cluster:
        kh.ensure_topic(cluster.config, "t")
        assert kh.produce_async(cluster.config, "t", sent["r"]).complete
        assert kh.read_back(cluster.config, "t", sent)["received"].tolist() == [300]


def test_open_cluster_says_which_it_is(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for key in kh.ENV_KEYS:
        monkeypatch.delenv(key, raising=False)
    cluster = kh.open_cluster("simulated", rtt_ms=2)
    assert capsys.readouterr().out == "Cluster: simulated cluster, round trip 2 ms.\n"
    cluster.close()
    with pytest.raises(kh.ConfigError, match=r"No credentials found: copy client\.properties\.example"):
        kh.open_cluster("cloud")
    with pytest.raises(kh.ConfigError, match="'auto', 'cloud', 'local' or 'simulated'"):
        kh.open_cluster("clod")
