"""The local Kafka: its command, what it writes and takes away again, its distance, and who else can use it."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from brokers import kill, new_topic, wait_until_up

import local_kafka
from harness.config import ENV_KEYS
from kafka_helpers import (
    ClusterError,
    ConfigError,
    end_offsets,
    ensure_topic,
    load_config,
    make_messages,
    open_cluster,
    produce_async,
    produce_sync,
    read_back,
)
from local_kafka import LocalKafka

ROOT = Path(__file__).resolve().parent.parent
COMMAND = ROOT / "local_kafka.py"

# --- The command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path):
    """``python local_kafka.py`` with the given arguments in an own folder, started and ready; ended afterwards."""
    running = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, COMMAND, *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        for said in process.stdout:
            if not said.startswith(("Downloading", "Preparing")):
                return process, said
        return process, ""

    yield start
    for process in running:
        process.kill()


def test_command_serves_the_notebook_helper_and_a_getting_started_program(command, tmp_path):
    process, said = command("getting_started.ini", "--topic", "purchases", "--distance", "3")
    assert re.match(r"Apache Kafka [\d.]+ runs on 127\.0\.0\.1:\d+\.", said)
    file = tmp_path / "getting_started.ini"
    comment, header, *_ = file.read_text().splitlines()
    assert comment.startswith("# ") and "local Kafka" in comment and "Ctrl-C" in comment and header == "[default]"
    if os.name == "posix":
        assert file.stat().st_mode & 0o777 == 0o600
    # In the way of Confluent's getting-started programs: configparser, its default section, straight into a Producer.
    program = (
        "import configparser, confluent_kafka; c = configparser.ConfigParser(); c.read('getting_started.ini')\n"
        "p = confluent_kafka.Producer(dict(c['default'])); p.produce('purchases', 'book', 'jsmith'); print(p.flush(10))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "0", done.stderr
    config = load_config(file)
    assert sum(end_offsets(config, "purchases").values()) == 1
    run = produce_sync(config, "purchases", make_messages("r", 10))
    assert run.complete and run.elapsed_s > 10 * 0.003
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=10)
    assert process.returncode == 0 and rest.endswith("Kafka has ended.\n") and errors == ""
    assert not file.exists()
    assert not Path(config["ssl.ca.location"]).parent.exists()


def test_killed_command_leaves_nothing(command, tmp_path):
    process, _ = command("c.properties")
    config = load_config(tmp_path / "c.properties")
    process.kill()
    folder, file = Path(config["ssl.ca.location"]).parent, tmp_path / "c.properties"
    port = int(config["bootstrap.servers"].split(":")[1])
    wait_until(lambda: not folder.exists() and not file.exists() and not local_kafka.is_open(port))


def refused(tmp_path: Path, *arguments: str, python: tuple[str, ...] = ()) -> str:
    """What the command says to arguments with which it doesn't start anything."""
    done = subprocess.run(
        [sys.executable, *python, COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=10
    )
    assert done.returncode and not done.stdout and "Traceback" not in done.stderr
    return done.stderr


def test_command_leaves_a_file_that_is_there_alone(tmp_path):
    (tmp_path / "client.properties").write_text("mine")
    said = refused(tmp_path)
    assert said == "client.properties can't be written (File exists); name another file.\n"
    assert (tmp_path / "client.properties").read_text() == "mine"


@pytest.mark.parametrize("name", ["no spaces", "", ".", "..", "a/b", "ü", "x" * 250])
def test_command_judges_topic_names_before_it_starts(tmp_path, name):
    said = refused(tmp_path, "--topic", "good", "--topic", name)
    assert "can't be a topic's name: that has 1 to 249 of the letters" in said and "KafkaError" not in said
    assert not any(tmp_path.iterdir())


def test_command_judges_the_distance(tmp_path):
    assert "--distance is -1.0; it has to be a number from 0 to 10,000" in refused(tmp_path, "--distance", "-1")
    assert not any(tmp_path.iterdir())


def test_command_outside_the_environment_says_what_to_do(tmp_path):
    said = refused(tmp_path, python=("-S",))  # without the installed packages
    assert said.count("\n") == 1 and said.startswith("This Python lacks the package ")
    assert "make run" in said and ".venv/bin/python local_kafka.py" in said and "pip install" in said


# --- What it takes, and what it promises ------------------------------------------------------------------------------


@pytest.mark.parametrize("brokers", [0, 2, 4, "1"])
def test_one_or_three_brokers(brokers):
    with pytest.raises(ValueError, match=r"brokers is .*; it has to be 1, or 3"):
        LocalKafka(brokers)


@pytest.mark.parametrize("distance_ms", [-1, 10_001, float("nan"), "25", None])
def test_distance_is_a_number(distance_ms):
    with pytest.raises(ValueError, match=r"distance_ms is .*; it has to be a number from 0 to 10,000"):
        LocalKafka(distance_ms=distance_ms)


def test_configuration_has_the_keys_of_the_assignment(kafka):
    assert set(kafka.config) == {*ENV_KEYS.values(), "ssl.ca.location"}
    assert kafka.config["sasl.password"] not in repr(kafka.config)


@pytest.mark.skipif(os.name != "posix", reason="Windows has other rights")
def test_secrets_are_for_this_user_alone(kafka):
    assert kafka.folder.stat().st_mode & 0o777 == 0o700
    for file in kafka.folder.rglob("*"):
        if file.is_file() and file.name != "certificate.pem":
            assert file.stat().st_mode & 0o077 == 0, file
    for process in psutil.process_iter(["cmdline"]):
        assert kafka.config["sasl.password"] not in " ".join(process.info["cmdline"] or ())


def test_topics_do_not_create_themselves(kafka):
    with pytest.raises(ClusterError, match="can't be used"):
        produce_sync(kafka.config, "not-made", [(b"k", b"v")])


HOLD = """
import json, sys, time
from local_kafka import LocalKafka
with LocalKafka(distance_ms=float(sys.argv[1])) as kafka:
    print(json.dumps([str(kafka.folder), kafka.processes[0].pid]), flush=True)
    time.sleep(60)
"""


def hold(
    distance_ms: float = 0, *, before: str = "", where: Path = ROOT, **environment: str
) -> tuple[subprocess.Popen, Path, int]:
    """A Kafka in a process of its own: that process, the folder, and the broker's process number."""
    holder = subprocess.Popen(
        [sys.executable, "-c", before + HOLD, str(distance_ms)],
        cwd=where,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    folder, broker = json.loads(next(line for line in holder.stdout if line.startswith("[")))
    return holder, Path(folder), broker


def wait_until(reached: Callable[[], bool], within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert reached()


def wait_until_gone(folder: Path, *numbers: int) -> None:
    wait_until(lambda: not folder.exists() and not any(map(psutil.pid_exists, numbers)))


# The guard's first three attempts to end a process fail, as they do when it ends just then, or is somebody else's.
UNLUCKY = """
import psutil
errors, kill = [psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess], psutil.Process.kill
def unlucky(process):
    if errors:
        raise errors.pop()(process.pid)
    kill(process)
psutil.Process.kill = unlucky
"""

# The file changes once it has been imported, as by a `git pull` beside a running notebook.
CHANGE = """
import local_kafka
with open(local_kafka.__file__, "r+") as file:
    text = file.read()
    file.seek(0)
    file.write(100 * "# another line\\n" + text)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs tail and sh")
def test_guard_ends_what_was_started_and_nothing_else(tmp_path):
    """Whatever goes wrong with a process; and programs that name the folder, even as a broker does, live on."""
    (tmp_path / "sitecustomize.py").write_text(UNLUCKY)
    shutil.copy(COMMAND, tmp_path)
    holder, folder, broker = hold(1, before=CHANGE, where=tmp_path, PYTHONPATH=str(tmp_path))
    log = str(folder / "broker-0.log")
    others = [
        subprocess.Popen(["tail", "-f", log], stdout=subprocess.DEVNULL),
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", log]),
        subprocess.Popen(["sh", "-c", "sleep 60; true", f"-Djava.io.tmpdir={folder}"]),
    ]
    try:
        proxy = [each.pid for each in psutil.Process(holder.pid).children() if str(folder) in " ".join(each.cmdline())]
        holder.kill()
        holder.wait()
        wait_until_gone(folder, broker, *proxy)
        assert [each.poll() for each in others] == [None] * len(others)
    finally:
        for each in others:
            each.kill()


@pytest.mark.skipif(os.name != "posix", reason="Windows names folders otherwise")
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_temporary_folder_of_any_name(tmp_path, locale):
    folder = tmp_path / r"Größe \t 100% 日本 𝄞"
    folder.mkdir()
    holder, inside, broker = hold(TMPDIR=str(folder), LC_ALL=locale)
    assert inside.parent == folder
    holder.kill()
    wait_until_gone(inside, broker)
    assert not any(folder.iterdir())


# --- A faster start ---------------------------------------------------------------------------------------------------


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    holder, folder, broker = hold(XDG_CACHE_HOME=str(tmp_path / "file"), LOCALAPPDATA=str(tmp_path / "file"))
    assert "AOTCache" not in " ".join(psutil.Process(broker).cmdline())
    holder.kill()
    wait_until_gone(folder, broker)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="looks at a process's memory")
def test_cache_is_made_once_and_used(tmp_path):
    """Also by two at once, by one that is killed meanwhile, and never such that a damaged one stops a start."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}

    def start() -> subprocess.Popen:
        command = [sys.executable, "-c", HOLD, "0"]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)

    def said(process: subprocess.Popen) -> list[str]:
        """The lines until Kafka runs; after that it is ended."""
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("["):
                folder, broker = json.loads(line)
                lines.append("cached" if ".aot" in Path(f"/proc/{broker}/maps").read_text() else "not cached")
                process.kill()
                wait_until_gone(Path(folder), broker)
        return lines

    killed = start()
    assert killed.stdout.readline().startswith("Preparing faster starts, once")
    time.sleep(2)
    killed.kill()
    wait_until(lambda: not list(tmp_path.rglob("*.draft")))
    first = start()
    preparing = first.stdout.readline()
    assert preparing.startswith("Preparing faster starts, once")
    assert said(start())[1:] == ["not cached"]  # while the first one makes it
    assert said(first)[1:] == ["cached"]
    (cache,) = tmp_path.rglob("*.aot")
    assert cache.stat().st_mode & 0o077 == 0
    assert sorted(file.suffix for file in cache.parent.iterdir()) == [".aot", ".jars"]
    assert said(start())[1:] == ["cached"]
    whole = cache.read_bytes()
    for damaged in (whole[:1_000_000], b"x" * 1_000_000, whole[:40_000_000] + bytes(len(whole) - 40_000_000)):
        cache.write_bytes(damaged)
        assert len(said(start())) == 2
    cache.write_bytes(b"")  # a sign that it could not be made
    assert said(start())[1:] == ["not cached"]


# --- At a distance ----------------------------------------------------------------------------------------------------

DISTANCE_MS = 20


@pytest.fixture(scope="module")
def distant() -> Iterator[LocalKafka]:
    with LocalKafka(distance_ms=DISTANCE_MS) as started:
        yield started


def test_distance_is_a_round_trip_for_each_wait(distant):
    topic = new_topic(distant.config)
    sent = {"sync": make_messages("sync", 20), "async": make_messages("async", 20_000)}
    sync = produce_sync(distant.config, topic, sent["sync"])
    rest = produce_async(distant.config, topic, sent["async"])
    assert sync.complete and sync.elapsed_s >= 20 * DISTANCE_MS / 1_000
    assert rest.complete and rest.elapsed_s >= DISTANCE_MS / 1_000
    found = read_back(distant.config, topic, sent)
    assert found["received"].tolist() == [20, 20_000]
    assert not found[["missing", "duplicated", "damaged"]].to_numpy().any()


def test_connections_are_reset(distant):
    topic = new_topic(distant.config)
    resets = []
    sent = {"r": make_messages("r", 60)}
    run = produce_sync(
        distant.config,
        topic,
        sent["r"],
        batch_size=20,
        progress=lambda _count: resets or resets.append(distant.reset_connections()),
    )
    assert run.complete and resets[0] >= 1
    found = read_back(distant.config, topic, sent)
    assert found["received"].tolist() == [60] and not found["duplicated"].any()


def test_near_connections_cannot_be_reset(kafka):
    with pytest.raises(ValueError, match="only with a distance_ms above 0"):
        kafka.reset_connections()


def test_what_passes_between(distant):
    """In place of the killed broker: nobody, and then a server of this test's own."""
    settings = (distant.folder / "broker-0.properties").read_text()
    broker = int(re.search(r"^listeners=SASL_SSL://127\.0\.0\.1:(\d+)", settings, re.MULTILINE)[1])
    proxy = int(distant.config["bootstrap.servers"].rpartition(":")[2])
    kill(distant)
    wait_until(lambda: not local_kafka.is_open(proxy))  # refused, as there

    with socket.create_server(("127.0.0.1", broker)) as server:
        wait_until(lambda: local_kafka.is_open(proxy))

        def connect() -> tuple[socket.socket, socket.socket]:
            """A client, and the server's end of its connection, each having heard from the other."""
            client = socket.create_connection(("127.0.0.1", proxy), timeout=5)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(b"hello")
            while True:  # others connect to see whether somebody listens
                inside, _ = server.accept()
                inside.settimeout(0.5)
                with contextlib.suppress(TimeoutError):
                    if inside.recv(5) == b"hello":
                        return client, inside

        # Thousands of pieces are under way at once; a half-closed connection still answers; the end comes last.
        client, inside = connect()
        pieces = [b"%d," % number for number in range(5_000)]
        began = time.monotonic()
        for piece in pieces:
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: inside.recv(65_536), b""))
        one_way = time.monotonic() - began
        inside.sendall(received)
        inside.close()
        answer = b"".join(iter(lambda: client.recv(65_536), b""))
        there_and_back = time.monotonic() - began
        client.close()
        assert received == answer == b"".join(pieces)
        assert one_way >= DISTANCE_MS / 2_000 and there_and_back >= DISTANCE_MS / 1_000

        client, inside = connect()
        inside.sendall(b"last words")
        inside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        inside.close()  # with a reset
        assert client.recv(100) == b"last words"
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        client.close()

    distant.start_broker(0)
    wait_until_up(distant.config)
    assert produce_sync(distant.config, new_topic(distant.config), make_messages("again", 5)).complete


@pytest.mark.long
def test_three_brokers_at_a_distance_are_near_each_other():
    with LocalKafka(3, distance_ms=100) as three:
        brokers = three.config["bootstrap.servers"].split(",")
        topic = new_topic(three.config)
        messages = make_messages("r", 20)
        run = produce_sync(three.config, topic, messages)
        # Replication doesn't make a second round trip; half of the messages say so, whatever stops the others.
        assert run.complete and 0.1 <= run.wait_quantiles_s[100] < 0.15
        kill(three, 1)
        three.start_broker(1)
        more = make_messages("more", 2_000)
        assert produce_async(three.config, topic, more).complete
        wait_until(lambda: all(local_kafka.is_open(int(each.rpartition(":")[2])) for each in brokers), 60)
        wait_until_up(three.config, 3)
        found = read_back(three.config, topic, {"r": messages, "more": more})
        assert found["received"].tolist() == [20, 2_000] and not found["duplicated"].any()


# --- The others -------------------------------------------------------------------------------------------------------


def test_simulated_cluster_works_like_the_others():
    sent = {"r": make_messages("r", 300)}
    with local_kafka.simulated_cluster(rtt_ms=1) as cluster:
        ensure_topic(cluster.config, "t")
        assert produce_async(cluster.config, "t", sent["r"]).complete
        assert read_back(cluster.config, "t", sent)["received"].tolist() == [300]


def test_open_cluster_says_which_it_is(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for key in ENV_KEYS:
        monkeypatch.delenv(key, raising=False)
    cluster = open_cluster("simulated", rtt_ms=2)
    assert capsys.readouterr().out == "Cluster: simulated cluster, round trip 2 ms.\n"
    cluster.close()
    with pytest.raises(ConfigError, match=r"No credentials found: copy client\.properties\.example"):
        open_cluster("cloud")
    with pytest.raises(ConfigError, match="auto, cloud, local, distant, simulated"):
        open_cluster("clod")
