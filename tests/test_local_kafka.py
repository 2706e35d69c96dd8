"""The local Kafka: its command, what it writes and takes away again, its distance, and who else can use it."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from brokers import kill, new_topic, wait_until_up

from harness.config import ENV_KEYS, load_config
from harness.topics import end_offsets
from kafka_helpers import make_messages, produce_async, produce_sync, read_back
from local_kafka import LocalKafka, LocalKafkaError, prepare
from local_kafka.jars import JARS
from local_kafka.java import JAVA_ARCHIVE, KAFKA_ARCHIVE
from local_kafka.settings import free_ports

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-P", "-m", "local_kafka"]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "local-kafka"


def elsewhere(**environment: str) -> dict[str, str]:
    """An environment in which another folder's Python finds the package."""
    return os.environ | {"PYTHONPATH": str(ROOT)} | environment


def wait_until(reached: Callable[[], bool], within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_until_gone(folder: Path, *numbers: int) -> None:
    wait_until(lambda: not folder.exists() and not any(map(psutil.pid_exists, numbers)))


def children_of(of: int, said: str) -> list[psutil.Process]:
    return [child for child in psutil.Process(of).children() if said in " ".join(child.cmdline())]


@pytest.fixture
def command(tmp_path):
    """``python -m local_kafka`` with the given arguments in an own folder, started and ready; ended afterwards."""
    running = []

    def start(*arguments):
        pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen([*COMMAND, *arguments], cwd=tmp_path, env=elsewhere(), text=True, **pipes)
        running.append(process)
        return process, process.stdout.readline()

    yield start
    for process in running:
        process.kill()


def test_command_serves_the_notebook_helper_and_a_getting_started_program(command, tmp_path):
    process, said = command("getting_started.ini", "--topic", "purchases", "--distance", "3")
    assert re.match(r"Apache Kafka [\d.]+ runs on 127\.0\.0\.1:\d+\.", said)
    file = tmp_path / "getting_started.ini"
    assert re.match(r"# .*local Kafka.*\n\[default\]\n", file.read_text()) and file.stat().st_mode & 0o777 == 0o600
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
    assert not file.exists() and not Path(config["ssl.ca.location"]).parent.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("changed", [False, True])
def test_end_leaves_nothing_but_what_the_user_has_put_in_its_file(command, tmp_path, number, changed):
    process, _ = command("client.properties")
    file = tmp_path / "client.properties"
    folder = Path(load_config(file)["ssl.ca.location"]).parent
    if changed:
        file.write_text(file.read_text().replace("SASL_SSL", "PLAINTEXT"))
    process.send_signal(number)
    process.communicate(timeout=10)
    wait_until_gone(folder)
    assert file.exists() == changed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["mine"], r".*mine can't be written \(File exists\); name another file\."),
        (["no/folder"], r".*no/folder can't be written \(No such file or directory\); name another file\."),
        (["--distance", "-1"], r"distance_ms is -1\.0; it has to be a number from 0 to 1,000"),
        (["--brokers", "2"], r"brokers is 2; it has to be 1, or 3 \(.*\)"),
        (["--topic", "a/b"], r"The topic could not be made: .*"),
    ],
)
def test_command_that_cannot_run_says_so_in_a_sentence(command, tmp_path, arguments, sentence):
    (tmp_path / "mine").write_text("mine")
    process, said = command(*arguments)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode and not said and re.fullmatch(sentence + "\n", errors), errors
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("distance_ms", [-1, 1_001, float("nan"), "25", None])
def test_distance_is_a_number(distance_ms):
    with pytest.raises(ValueError, match=r"distance_ms is .*; it has to be a number from 0 to 1,000"):
        LocalKafka(distance_ms=distance_ms)


def test_configuration_has_the_keys_of_the_assignment_and_hides_its_values(kafka):
    assert set(kafka.config) == {*ENV_KEYS.values(), "ssl.ca.location"}
    for shown in (kafka.config, kafka.config | {"acks": "1"}, {"acks": "1"} | kafka.config, kafka.config.copy()):
        assert kafka.config["sasl.password"] not in repr(shown)


def test_secrets_are_for_this_user_alone(kafka):
    assert [folder.stat().st_mode & 0o777 for folder in (kafka.folder, CACHE)] == [0o700, 0o700]
    for process in psutil.process_iter(["cmdline", "environ"]):
        assert kafka.config["sasl.password"] not in str(process.info)


# --- However it ends, nothing is left ---------------------------------------------------------------------------------

HOLD = """
import json, os, sys, time
from local_kafka import LocalKafka
with LocalKafka(distance_ms=float(sys.argv[1])) as kafka:
    if not os.fork():  # a child, which has all that its parent has open
        os.closerange(0, 3)
        time.sleep(60)
        os._exit(0)
    print(json.dumps([str(kafka.folder), kafka.processes[0].pid]), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def hold():
    """A Kafka in a process of its own: that process, the folder, and the broker's process number."""
    children = []

    def start(distance_ms: float = 0, where: Path = ROOT, **environment: str) -> tuple[subprocess.Popen, Path, int]:
        command = [sys.executable, "-P", "-c", HOLD, str(distance_ms)]
        pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
        holder = subprocess.Popen(command, cwd=where, env=elsewhere(**environment), text=True, **pipes)
        folder, broker = json.loads(holder.stdout.readline())
        children.extend(children_of(holder.pid, "import json"))
        return holder, Path(folder), broker

    yield start
    for child in children:
        assert child.is_running()
        child.kill()


def test_guard_ends_what_was_started_and_nothing_else(hold, tmp_path):
    """A copy of the package, changed after its start as by a `git pull`; a program that names the folder lives on."""
    shutil.copytree(ROOT / "local_kafka", tmp_path / "copy" / "local_kafka")
    for module in ("psutil", "socket", "asyncio", "threading"):  # in the working directory: none of them may run
        (tmp_path / f"{module}.py").write_text("import os; os._exit(0)")
    holder, folder, broker = hold(1, where=tmp_path, PYTHONPATH=str(tmp_path / "copy"))
    (tmp_path / "copy" / "local_kafka" / "guard.py").write_text("")
    other = subprocess.Popen(["tail", "-f", folder / "broker-0.log"], stdout=subprocess.DEVNULL)
    (proxy,) = children_of(holder.pid, "proxy.py")
    holder.kill()
    holder.wait()
    wait_until_gone(folder, broker, proxy.pid)
    assert other.poll() is None
    other.kill()


def test_owner_that_ends_before_its_child(hold):
    holder, folder, broker = hold()
    holder.communicate("end\n", 10)
    wait_until_gone(folder, broker)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_guard_that_is_killed_or_stopped(number):
    with LocalKafka() as kafka:
        (guard,) = children_of(os.getpid(), f"guard.py {os.getpid()} {kafka.folder}")
        guard.send_signal(number)
    assert not kafka.folder.exists() and not guard.is_running() and not psutil.pid_exists(kafka.processes[0].pid)


def test_guard_that_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(LocalKafkaError, match="could not be started, guard said"):
        LocalKafka().__enter__()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("locale", ["C", "tr_TR.UTF-8"])
def test_odd_environment(hold, tmp_path, locale):
    """Neither its options and its language nor the name of its temporary folder trouble a broker."""
    folder = tmp_path / r"Größe \t 100% 日本 𝄞"
    folder.mkdir()
    names = ("_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH")
    options = dict.fromkeys(names, "-Duser.language=tr -XX:+NoSuchOption")
    holder, inside, broker = hold(TMPDIR=str(folder), LC_ALL=locale, **options)
    assert inside.parent == folder and not psutil.Process(broker).environ().keys() & set(names)
    holder.kill()
    wait_until_gone(inside, broker)
    assert not any(folder.iterdir())


# --- What is fetched and made once ------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path) -> Path:
    """A cache of this test's own, in which all is there."""
    prepare()
    shutil.copytree(CACHE, tmp_path / "local-kafka", copy_function=os.link)
    return tmp_path / "local-kafka"


def preparing(cache: Path) -> subprocess.Popen:
    environment = elsewhere(XDG_CACHE_HOME=str(cache.parent))
    return subprocess.Popen([*COMMAND, "--prepare"], env=environment, stderr=subprocess.PIPE)


@pytest.mark.parametrize("damage", [lambda content: content[:1000], lambda content: content[:-9] + b"x" * 9, None])
def test_damaged_jar_is_fetched_again(cache, damage):
    jar = cache / next(name for name in JARS if "slf4j-api" in name)
    content = jar.read_bytes()
    jar.unlink()
    if damage:
        jar.write_bytes(damage(content))
    preparing(cache).wait(60)
    assert jar.read_bytes() == content


@pytest.mark.long
def test_first_starts_at_once_and_interrupted(tmp_path):
    cache = tmp_path / "local-kafka"
    interrupted = preparing(cache)
    wait_until(lambda: cache.exists() and len(list(cache.iterdir())) > 3, 30)
    interrupted.kill()
    both = [preparing(cache), preparing(cache)]
    assert [(process.communicate(timeout=120), process.returncode)[1] for process in both] == [0, 0]
    assert {name for name in JARS if (cache / name).exists()} == set(JARS) and cache.stat().st_mode & 0o077 == 0


@pytest.mark.long
@pytest.mark.parametrize("place", ["file/cache", ""])
def test_no_cache_folder(hold, tmp_path, place):
    """It can't be made, or there is no home; the start fetches for itself."""
    (tmp_path / "file").touch()
    cache = str(tmp_path / place) if place else ""
    holder, folder, broker = hold(XDG_CACHE_HOME=cache, HOME=str(tmp_path / "file"))
    assert (folder / next(iter(JARS))).exists()
    holder.kill()
    wait_until_gone(folder, broker)


@pytest.mark.long
def test_archive_of_classes_is_written_once_and_used_and_may_be_damaged(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    archive = cache / KAFKA_ARCHIVE

    def used() -> bool:
        with LocalKafka() as kafka:
            return KAFKA_ARCHIVE in Path(f"/proc/{kafka.processes[0].pid}/maps").read_text()

    archive.unlink(missing_ok=True)
    assert [used(), used()] == [False, True]
    whole = archive.read_bytes()
    for damaged in (whole[:1_000_000], b"x" * 1_000_000, whole[:20_000_000] + bytes(len(whole) - 20_000_000)):
        archive.write_bytes(damaged)
        used()


@pytest.fixture(scope="module")
def distant() -> Iterator[LocalKafka]:
    with LocalKafka(distance_ms=20) as started:
        yield started


def test_distance_is_a_round_trip_for_each_wait(distant):
    topic = new_topic(distant.config)
    sync = produce_sync(distant.config, topic, make_messages("sync", 20))
    messages = make_messages("async", 20_000)
    rest = produce_async(distant.config, topic, messages)
    assert sync.complete and rest.complete and sync.elapsed_s >= 20 * 20 / 1_000 and rest.elapsed_s >= 20 / 1_000
    (found,) = read_back(distant.config, topic, {"async": messages}).to_dict("records")
    assert found["received"] == 20_000 and not found["missing"] + found["duplicated"] + found["damaged"]


def test_proxy_killed_and_started_again(distant):
    topic = new_topic(distant.config)
    sent = {"r": make_messages("r", 60)}

    def with_a_break() -> Iterator[tuple[bytes, bytes]]:
        yield from sent["r"][:30]
        (proxy,) = children_of(os.getpid(), f"{distant.folder} 20")
        command = proxy.cmdline()
        proxy.kill()
        proxy.wait()
        subprocess.Popen(command, stdout=subprocess.DEVNULL)  # the guard knows it by its arguments
        yield from sent["r"][30:]

    assert produce_sync(distant.config, topic, with_a_break()).complete
    found = read_back(distant.config, topic, sent)
    assert found["received"].tolist() == [60] and not found["duplicated"].any()


@pytest.mark.long
def test_three_brokers_at_a_distance_are_near_each_other():
    with LocalKafka(3, distance_ms=100) as three:
        topic = new_topic(three.config)
        messages = make_messages("r", 20)
        run = produce_sync(three.config, topic, messages)
        assert run.complete and 0.1 <= run.wait_quantiles_s[100] < 0.15  # replication makes no second round trip
        kill(three, 1)
        three.start_broker(1)
        more = make_messages("more", 2_000)
        assert produce_async(three.config, topic, more).complete
        wait_until_up(three.config, 3)
        found = read_back(three.config, topic, {"r": messages, "more": more})
        assert found["received"].tolist() == [20, 2_000] and not found["duplicated"].any()
