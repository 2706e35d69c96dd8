"""The local Kafka: its command, what it writes and takes away again, its distance, and who else can use it."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from brokers import kill, new_topic, wait_until_up

from harness.credentials import ENV_KEYS, load_config
from harness.topics import end_offsets
from kafka_helpers import make_messages, produce_async, produce_sync, read_back
from local_kafka import LocalKafka, LocalKafkaError, prepare
from local_kafka.cache import cache_folder
from local_kafka.jars import JARS
from local_kafka.java import JAVA_ARCHIVE, KAFKA_ARCHIVE
from local_kafka.settings import free_ports

LONG = pytest.mark.long
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


@pytest.mark.parametrize(
    ("number", "to_all", "changed"),
    [
        (signal.SIGKILL, False, False),
        (signal.SIGTERM, True, True),  # as when a container ends
        pytest.param(signal.SIGHUP, True, False, marks=LONG),  # as when a terminal is closed
    ],
)
def test_end_leaves_nothing_but_what_the_user_has_put_in_its_file(command, tmp_path, number, to_all, changed):
    process, _ = command("client.properties", "--distance", "1")
    file = tmp_path / "client.properties"
    folder = Path(load_config(file)["ssl.ca.location"]).parent
    if changed:
        file.write_text(file.read_text().replace("SASL_SSL", "PLAINTEXT"))
    owner = psutil.Process(process.pid)
    started = owner.children()
    assert len(started) == 3
    for each in [*started, owner] if to_all else [owner]:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(number)
    process.communicate(timeout=10)
    wait_until_gone(folder, *[each.pid for each in started])
    assert file.exists() == changed


@LONG
def test_command_tells_what_has_died(command):
    process, _ = command("--brokers", "3")
    (dying,) = children_of(process.pid, "broker-2.properties")
    dying.kill()
    errors = process.communicate(timeout=20)[1]
    said = "Kafka has ended: broker-2 was killed, by somebody or for want of memory.\n"
    assert process.returncode and errors == said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["mine"], r".*mine can't be written \(File exists\); name another file\."),
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


def test_distance_of_a_kafka_that_began_without_or_does_not_run(kafka):
    for one in (kafka, LocalKafka(distance_ms=5)):
        with pytest.raises(ValueError, match="can be set while a Kafka runs that has begun with one"):
            one.distance_ms = 25


def test_configuration_has_the_keys_of_the_assignment_and_hides_its_values(kafka):
    assert set(kafka.config) == {*ENV_KEYS.values(), "ssl.ca.location"}
    for shown in (kafka.config, kafka.config | {"acks": "1"}, {"acks": "1"} | kafka.config, kafka.config.copy()):
        assert kafka.config["sasl.password"] not in repr(shown)


def test_secrets_are_for_this_user_alone(kafka):
    assert [folder.stat().st_mode & 0o777 for folder in (kafka.folder, CACHE)] == [0o700, 0o700]
    for process in psutil.process_iter(["cmdline", "environ"]):
        assert kafka.config["sasl.password"] not in str(process.info)


def test_processes_do_not_read_what_is_typed(kafka):
    started = children_of(os.getpid(), str(kafka.folder))
    assert {os.readlink(f"/proc/{each.pid}/fd/0") for each in started} == {os.devnull} and len(started) == 2


def test_broker_that_lives_is_not_started_again(kafka):
    with pytest.raises(LocalKafkaError, match="Broker 0 still runs; kill it first"):
        kafka.start_broker(0)


def test_has_no_door_to_other_hosts(kafka):
    """Every listener, the controller's too, is bound to 127.0.0.1 and to no other address of this machine."""
    addresses = {each.address for cards in psutil.net_if_addrs().values() for each in cards if each.family == 2}
    connections = psutil.Process(kafka.processes[0].pid).net_connections("tcp")
    listening = [each.laddr for each in connections if each.status == psutil.CONN_LISTEN]
    assert len(listening) == 3
    for ip, port in listening:
        assert ip.removeprefix("::ffff:") == "127.0.0.1"
        for address in addresses - {"127.0.0.1"}:
            with pytest.raises(OSError):
                socket.create_connection((address, port), timeout=2).close()


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


def test_child_that_leaves_the_block_ends_nothing(kafka, topic):
    child = os.fork()
    if not child:
        kafka.__exit__(None)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0 and kafka.processes[0].poll() is None
    assert produce_sync(kafka.config, topic, make_messages("r", 10)).complete


def test_guard_that_is_stopped():
    with LocalKafka() as kafka:
        (guard,) = children_of(os.getpid(), f"guard.py {os.getpid()} {kafka.folder}")
        guard.send_signal(signal.SIGSTOP)
    assert not kafka.folder.exists() and not guard.is_running() and not psutil.pid_exists(kafka.processes[0].pid)


def test_guard_that_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(LocalKafkaError, match="could not be started: guard ended with status 1"):
        LocalKafka().__enter__()
    assert not any(tmp_path.iterdir())


def test_odd_environment_and_an_end_before_that_of_a_child(hold, tmp_path):
    """Neither its options and its language nor the name of its temporary folder trouble a broker."""
    folder = tmp_path / r"Größe \t 100% 日本 𝄞"
    folder.mkdir()
    names = ("_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH")
    options = dict.fromkeys(names, "-Duser.language=tr -XX:+NoSuchOption")
    holder, inside, broker = hold(TMPDIR=str(folder), LC_ALL="C", **options)
    assert inside.parent == folder and not psutil.Process(broker).environ().keys() & set(names)
    holder.communicate("end\n", 10)
    wait_until_gone(inside, broker)
    assert not any(folder.iterdir())


# --- What is fetched and made once ------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path) -> Path:
    """A cache of this test's own, in which all is there."""
    prepare()
    shutil.copytree(CACHE, tmp_path / "local-kafka", copy_function=os.link)
    return tmp_path / "local-kafka"


def preparing(cache: Path, **more: str) -> subprocess.Popen:
    environment = elsewhere(XDG_CACHE_HOME=str(cache.parent), **more)
    return subprocess.Popen([*COMMAND, "--prepare"], env=environment, stderr=subprocess.PIPE)


def closed_proxy() -> dict[str, str]:
    """What lets nobody reach Maven Central."""
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    names = ("http_proxy", "https_proxy", "all_proxy")
    return {"no_proxy": "", "NO_PROXY": "", **dict.fromkeys((*names, *map(str.upper, names)), address)}


@pytest.mark.parametrize("damage", [lambda content: content[:-9] + b"x" * 9, None])
def test_jar_that_is_damaged_or_gone_is_noticed(cache, damage, monkeypatch):
    jar = cache / next(name for name in JARS if "slf4j-api" in name)
    content = jar.read_bytes()
    jar.unlink()
    if damage:
        jar.write_bytes(damage(content))
    for name, value in {"XDG_CACHE_HOME": str(cache.parent), **closed_proxy()}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LocalKafkaError, match=r"could not be fetched from Maven Central .* a Confluent Cloud account"):
        prepare()


@pytest.mark.long
def test_damaged_jar_is_fetched_again(cache):
    jar = cache / next(name for name in JARS if "slf4j-api" in name)
    content = jar.read_bytes()
    jar.unlink()
    jar.write_bytes(content[:1000])
    preparing(cache).communicate(timeout=60)
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


QUICK = """
from pathlib import Path
from local_kafka import LocalKafka
with LocalKafka() as kafka:
    complaints = [file.read_text() for file in kafka.folder.glob("archives-*.log")]
    print(complaints, Path(f"/proc/{kafka.processes[0].pid}/maps").read_text())
"""


def is_quick(cache: Path) -> bool:
    """Start a Kafka and end it; has it used the archive of Kafka's classes?"""
    environment = elsewhere(XDG_CACHE_HOME=str(cache.parent))
    said = subprocess.run([sys.executable, "-c", QUICK], env=environment, capture_output=True, text=True, timeout=120)
    return said.stdout.startswith("['']") and KAFKA_ARCHIVE in said.stdout


@pytest.mark.long
@pytest.mark.parametrize(("name", "zeros"), [(KAFKA_ARCHIVE, True), (JAVA_ARCHIVE, False)])
def test_damaged_archive_of_classes_is_renewed(cache, name, zeros):
    """One whose second half is zeros, or was cut off."""
    (cache / KAFKA_ARCHIVE).unlink(missing_ok=True)
    assert [is_quick(cache), is_quick(cache)] == [False, True]
    whole = (cache / name).read_bytes()
    half = len(whole) // 2
    (cache / name).unlink()
    (cache / name).write_bytes(whole[:half] + bytes(half if zeros else 0))
    assert [is_quick(cache), is_quick(cache), is_quick(cache)] == [False, False, True]


def test_good_archive_outlives_a_start_that_fails(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    (cache / KAFKA_ARCHIVE).touch()
    with pytest.raises(LocalKafkaError, match=r"broker-0 ended with status 1 and said: .* many for .*num.partitions"):
        LocalKafka(settings={"num.partitions": "many"}).__enter__()
    assert (cache / KAFKA_ARCHIVE).exists() and (cache / JAVA_ARCHIVE).exists()


def test_cache_is_closed_to_others_and_cleared_of_cut_downloads(cache, monkeypatch):
    """What they may have put there isn't used; a download of today may go on, and a user's folder is nobody else's."""
    cache.chmod(0o777)
    (cache / KAFKA_ARCHIVE).touch()
    for name, hours in (("unfinished-1", 2), ("unfinished-2", 0), ("mine", 2)):
        (cache / name / "jars").mkdir(parents=True)
        os.utime(cache / name, (time.time() - 3600 * hours,) * 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    assert cache_folder() == cache
    assert cache.stat().st_mode & 0o777 == 0o700 and not (cache / KAFKA_ARCHIVE).exists()
    assert [(cache / name).exists() for name in ("unfinished-1", "unfinished-2", "mine")] == [False, True, True]


def test_cache_that_can_only_be_read(cache):
    mounts = f"mount --bind '{cache}' '{cache}' && mount -o remount,ro,bind '{cache}'"
    command = [*among_mounts(mounts), *COMMAND, "--prepare"]
    done = subprocess.run(command, env=elsewhere(XDG_CACHE_HOME=str(cache.parent)), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_interrupt_of_a_download_that_hangs(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = preparing(tmp_path / "local-kafka", https_proxy=proxy, HTTPS_PROXY=proxy, no_proxy="", NO_PROXY="")
        wait_until(lambda: any(tmp_path.glob("local-kafka/unfinished-*")), 30)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10)[1].endswith(b"Interrupted; the next start fetches the rest.\n")
    assert process.returncode == 1 and not any((tmp_path / "local-kafka").iterdir())


# --- No start possible ------------------------------------------------------------------------------------------------


def start_elsewhere(environment: dict[str, str], *before: str) -> subprocess.CompletedProcess:
    """Start Kafka in a Python of its own; an uncaught error's last line is its sentence."""
    start = [*before, sys.executable, "-c", "from local_kafka import LocalKafka\nwith LocalKafka(): pass"]
    return subprocess.run(start, env=elsewhere(**environment), capture_output=True, text=True, timeout=90)


def among_mounts(mounts: str, *more: str) -> list[str]:
    """What runs a command where these mounts are made."""
    inside = ["unshare", "--user", "--map-root-user", "--mount", *more, "sh", "-c", mounts + ' && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("this machine doesn't let users mount a file system of their own")
    return inside


@contextlib.contextmanager
def rival(folder: Path, *places: int) -> Iterator[list[int]]:
    """Another program that takes a port of a start as soon as they are chosen: in each start that of the next place."""
    taken: dict[Path, socket.socket] = {}
    ended = threading.Event()

    def look() -> None:
        while len(taken) < len(places) and not ended.wait(0.005):
            for settings in set(folder.glob("*/client.properties")) - set(taken):
                if port := re.search(r"127\.0\.0\.1:(\d+)", settings.read_text()):  # it is written
                    first = int(port[1]) // 16 * 16
                    taken[settings] = socket.create_server(("127.0.0.1", first + places[len(taken)]))

    thread = threading.Thread(target=look)
    thread.start()
    yield taken
    ended.set()
    thread.join()
    for each in taken.values():
        each.close()


@pytest.mark.parametrize("places", [(0, 3), pytest.param((1, 2), marks=LONG)])
def test_ports_taken_since_they_were_free(monkeypatch, tmp_path, places):
    """A broker's for its clients, other brokers, its controller; the proxy's. Others are tried."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with rival(tmp_path, *places) as taken, LocalKafka(distance_ms=1) as kafka:
        assert len(taken) == 2 and kafka.folder not in {settings.parent for settings in taken}
        (proxy,) = children_of(os.getpid(), f"proxy.py -Djava.io.tmpdir={kafka.folder}")
        proxy.kill()
        with pytest.raises(LocalKafkaError, match="Kafka has ended: proxy was killed, by somebody or for want of mem"):
            kafka.watch()
    assert not any(tmp_path.iterdir())


@pytest.mark.long
def test_ports_taken_each_time(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with rival(tmp_path, *[0] * 9), pytest.raises(LocalKafkaError, match="Address already in use; other programs"):
        LocalKafka().__enter__()
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="looks up the system's range")
def test_ports_are_not_those_that_the_system_hands_out():
    """Else another program could be given one before Kafka starts, or while a broker is dead."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="utf-8").split())
    assert not any(first <= port <= last for _ in range(300) for port in free_ports(12))


def test_no_port_is_free():
    """In a network of its own, where a program holds a port of each block."""
    program = "import socket; s = [socket.create_server(('127.0.0.1', p)) for p in range(20_000, 32_768, 16)]\n"
    program += "import local_kafka; local_kafka.LocalKafka().__enter__()"
    command = [*among_mounts("true", "--net"), sys.executable, "-c", program]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit < 1_000:
        pytest.skip("this machine doesn't let a program have so many ports")
    done = subprocess.run(command, env=elsewhere(), capture_output=True, text=True, timeout=60)
    assert "Kafka finds no free ports from 20000 to 32767" in done.stderr.splitlines()[-1]


def test_too_few_open_files():
    done = start_elsewhere({}, "sh", "-c", 'ulimit -n 64; exec "$@"', "sh")
    assert "Too many open files; allow this program more of them" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("size", ["4k", "16k"])
def test_no_space(tmp_path, size):
    """On a file system of a few kilobytes: too small for the key, or for the broker's data."""
    inside = among_mounts(f"mount -t tmpfs -o size={size} none '{tmp_path}'")
    said = start_elsewhere({"TMPDIR": str(tmp_path)}, *inside).stderr.strip().splitlines()[-1]
    assert "No space left on device" in said and "make room, or set TMPDIR" in said


def test_folder_that_cannot_be_made(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    sentence = (
        rf"Kafka could not be started: No such file or directory \({tmp_path}/gone.*; set TMPDIR to another folder"
    )
    with pytest.raises(LocalKafkaError, match=sentence):
        LocalKafka().__enter__()


def test_time_is_up(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(LocalKafkaError, match=r"Kafka was not ready within 0\.2 s; .* set start_timeout_s\."):
        LocalKafka(start_timeout_s=0.2).__enter__()
    assert not any(tmp_path.iterdir())


# --- At a distance ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def distant() -> Iterator[LocalKafka]:
    with LocalKafka(distance_ms=20) as started:
        yield started


def test_distance_is_a_round_trip_for_each_wait(distant):
    topic = new_topic(distant.config)
    sync = produce_sync(distant.config, topic, make_messages("sync", 30))
    together = produce_async(distant.config, topic, make_messages("async", 30))
    assert sync.complete and sync.elapsed_s >= 30 * 0.02 and sync.elapsed_s > together.elapsed_s >= 0.02
    assert sync.network["rtt_ms"] >= 20 and sync.wait_quantiles_s[0] >= 0.02
    distant.distance_ms = 100
    farther = produce_sync(distant.config, topic, make_messages("farther", 10))
    distant.distance_ms = 20
    nearer = produce_sync(distant.config, topic, make_messages("nearer", 30))
    assert farther.wait_quantiles_s[0] >= 0.1 and farther.wait_quantiles_s[0] > nearer.wait_quantiles_s[0]


def test_bytes_stay_in_order_when_the_distance_shrinks(tmp_path):
    """The proxy itself, in front of a server that keeps what comes."""
    distance = tmp_path / "distance"
    sent = [b"%06d" % number for number in range(1_000)]
    with socket.create_server(("127.0.0.1", 0)) as server:
        (port,) = free_ports(1)
        route = f"{port}:{server.getsockname()[1]}"
        distance.write_bytes(struct.pack("d", 300))
        proxy = subprocess.Popen([sys.executable, "-P", ROOT / "local_kafka/proxy.py", "mark", distance, route])
        wait_until(lambda: psutil.Process(proxy.pid).net_connections("tcp"))
        with socket.create_connection(("127.0.0.1", port)) as client:
            broker = server.accept()[0]
            for number, part in enumerate(sent):
                client.sendall(part)
                if number % 100 == 99:  # 201, 101, 1, 0, ... ms
                    time.sleep(0.005)
                    with open(distance, "r+b") as file:
                        file.write(struct.pack("d", max(0, 300 - number)))
        with broker, broker.makefile("rb") as received:
            came = received.read()
    proxy.kill()
    proxy.wait()
    assert came == b"".join(sent)


def test_proxy_killed_and_started_again(distant):
    topic = new_topic(distant.config)
    sent = {"r": make_messages("r", 60)}

    def with_a_break() -> Iterator[tuple[bytes, bytes]]:
        yield from sent["r"][:30]
        (proxy,) = children_of(os.getpid(), f"proxy.py -Djava.io.tmpdir={distant.folder}")
        command = proxy.cmdline()
        proxy.kill()
        proxy.wait()
        subprocess.Popen(command, cwd=distant.folder, stdout=subprocess.DEVNULL)  # the guard knows it by its arguments
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
        assert run.complete and 0.1 <= run.wait_quantiles_s[100] < 0.2  # replication makes no second round trip
        kill(three, 1)
        three.start_broker(1)
        more = make_messages("more", 2_000)
        assert produce_async(three.config, topic, more).complete
        wait_until_up(three.config, 3)
        found = read_back(three.config, topic, {"r": messages, "more": more})
        assert found["received"].tolist() == [20, 2_000] and not found["duplicated"].any()
