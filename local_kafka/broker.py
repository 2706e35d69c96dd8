"""Start, stop and disturb the brokers of a real Apache Kafka."""

import contextlib
import errno
import itertools
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trustme
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from local_kafka import guard, jars
from local_kafka.jars import LocalKafkaError
from local_kafka.simulated import ClientConfig, quiet_logger

HERE = Path(__file__).parent
SETTINGS = (HERE / "broker.properties.template").read_text()
PORTS = range(20_000, 32_768)
START_TIMEOUT_S = 60
ARCHIVE_TIMEOUT_S = 20
GUARD_TIMEOUT_S = 5
OWN_GROUP: dict[str, Any] = {
    "start_new_session": True
}  # Jupyter signals a kernel's whole group, and is not to stop the brokers
USER = "local"
LOGIN = 'org.apache.kafka.common.security.plain.PlainLoginModule required username="{0}" password="{1}" user_{0}="{1}";'
# What Kafka's own tool for a new data folder (kafka-storage format) writes; it would take a second.
IDENTITY = "version=1\ncluster.id={}\nnode.id={}\ndirectory.id={}\n"


class PortTaken(LocalKafkaError):
    """Another program has taken a port between its choice and Kafka's start."""


class LocalKafka:
    """A real Apache Kafka on 127.0.0.1, for as long as the ``with`` block lasts.

    Every listener asks for TLS and for a random password; the data, the key and the certificate are in a temporary
    folder. Nothing of it outlives this Python process, not even when that is killed.

    Args:
        brokers: 1, or 3 for replication factor 3 and ``min.insync.replicas=2`` as on Confluent Cloud.
        distance_ms: the round trip between clients and brokers in milliseconds, 0 to 1,000, on top of what it takes
            on this machine. Between the brokers there is no distance.
        file: a file to be made with the client configuration, for other programs; it goes with the cluster.

    Attributes:
        config: client configuration for confluent-kafka (the five keys of the course's sample and ``ssl.ca.location``).
        processes: the brokers' processes, by broker number from 0.
        folder: where the brokers keep their data, logs and keys; only this user can read it.

    Raises:
        LocalKafkaError: the jars can't be had, or a broker doesn't start; with the broker's last words.
        ValueError: another number of brokers, another distance.
    """

    def __init__(self, brokers: int = 1, *, distance_ms: float = 0, file: Path | None = None):
        if brokers not in (1, 3):
            raise ValueError(f"brokers is {brokers!r}; it has to be 1, or 3 (replicated as on Confluent Cloud)")
        if not (isinstance(distance_ms, (int, float)) and 0 <= distance_ms <= 1_000):
            raise ValueError(f"distance_ms is {distance_ms!r}; it has to be a number from 0 to 1,000")
        self.brokers = brokers
        self.distance_ms = distance_ms
        self._file = str(file.absolute()) if file else ""

    def __enter__(self) -> "LocalKafka":
        for attempts_left in (2, 1, 0):
            try:
                self._start()
                break
            except PortTaken:
                if not attempts_left:
                    raise
            except OSError as error:
                raise LocalKafkaError(
                    f"Kafka could not be started: {error.strerror} ({error.filename}); make room, or set TMPDIR to "
                    "another folder, or choose the simulated cluster."
                ) from None
        return self

    def __exit__(self, error_type: type | None, *_error: object) -> None:
        try:
            archive = self._jars / jars.KAFKA_ARCHIVE
            if not error_type and not archive.exists():
                # At the end of the first Kafka Java writes down which classes it has loaded.
                self.processes[0].terminate()
                with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                    self.processes[0].wait(ARCHIVE_TIMEOUT_S)
                    jars.store(self.folder / archive.name, archive)
        finally:
            self._stop()

    def start_broker(self, node: int) -> None:
        """Start broker ``node`` (from 0) again, on its old port and data, after it was killed."""
        self.processes[node].wait()
        self.processes[node] = self._start_broker(node)

    def reset_connections(self) -> int:
        """Break all connections of clients, as a bad network does: with a TCP reset, and what is under way is lost.

        Returns:
            How many connections it broke.

        Raises:
            ValueError: the clients are connected directly; that takes a ``distance_ms`` above 0, however small.
        """
        if not self.distance_ms:
            raise ValueError("connections can be reset only with a distance_ms above 0")
        proxy = self._helpers[1]
        assert proxy.stdin and proxy.stdout
        proxy.stdin.write(b"reset\n")
        return int(proxy.stdout.readline())

    def _start(self) -> None:
        self.processes: list[subprocess.Popen] = []
        self._helpers: list[subprocess.Popen] = []
        self._ports = free_ports(4 * self.brokers)
        self.folder = Path(tempfile.mkdtemp(prefix="local-kafka-"))
        # In the command line of each process that the guard has to end; to Java it says where to write.
        self._mark = f"-Djava.io.tmpdir={self.folder}"
        try:
            self._start_helper("guard", self.folder, self._file)
            self._jars = jars.install(self.folder)
            self._write_settings()
            if any(map(is_open, self._ports)):
                raise LocalKafkaError  # and PortTaken in the end; Kafka itself would notice late
            self.processes = [self._start_broker(node) for node in range(self.brokers)]
            if self.distance_ms:
                routes = [f"{port}:{broker}" for port, broker in zip(self._ports[3::4], self._ports[::4], strict=True)]
                self._start_helper("proxy", self._mark, self.distance_ms, *routes)
            self._wait_until_ready()
        except BaseException as error:
            full = shutil.disk_usage(self.folder).free < 2**20  # then the broker's log is empty
            self._stop()
            if isinstance(error, LocalKafkaError) and full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder)) from None
            if isinstance(error, LocalKafkaError) and any(map(is_open, self._ports)):
                raise PortTaken(
                    "Kafka could not be started: another program has just taken its port; start it again."
                ) from None
            raise

    def _start_helper(self, name: str, *arguments: object) -> None:
        """Start a program of this package; nothing in the user's directory can stand in for a module of it."""
        command = [sys.executable, "-P", str(HERE / f"{name}.py"), *map(str, arguments)]
        helper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, **OWN_GROUP)
        self._helpers.append(helper)
        assert helper.stdout
        if not helper.stdout.readline():
            raise LocalKafkaError(f"Kafka could not be started, since its {name} ended at once.")

    def _stop(self) -> None:
        for process in [*self.processes, *self._helpers[1:]]:
            process.kill()
        for process in self._helpers[:1]:
            with contextlib.suppress(subprocess.TimeoutExpired):  # it was stopped
                process.communicate(b"end", GUARD_TIMEOUT_S)
            process.kill()
        for process in [*self.processes, *self._helpers]:
            process.wait()
        if self.folder.exists():  # the guard could not
            guard.clean_up(self.folder, self._file)

    def _start_broker(self, node: int) -> subprocess.Popen:
        command = [*jars.java_command(self._jars), self._mark, "kafka.Kafka", f"broker-{node}.properties"]
        with open(self.folder / f"broker-{node}.log", "a") as log:
            return subprocess.Popen(command, cwd=self.folder, env=jars.ENVIRONMENT, stdout=log, stderr=log, **OWN_GROUP)

    def _write_settings(self) -> None:
        direct, internal, controllers, distant = (self._ports[place::4] for place in range(4))
        clients = distant if self.distance_ms else direct
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
        key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # Kafka reads no other form
        (self.folder / "key.pem").write_bytes(key_pem + b"".join(part.bytes() for part in issued.cert_chain_pems))
        certificate = self.folder / "certificate.pem"
        authority.cert_pem.write_to_path(certificate)
        password = secrets.token_urlsafe(24)
        self.config = ClientConfig(
            {
                "bootstrap.servers": ",".join(f"127.0.0.1:{port}" for port in clients),
                "security.protocol": "SASL_SSL",
                "sasl.mechanisms": "PLAIN",
                "sasl.username": USER,
                "sasl.password": password,
                "ssl.ca.location": str(certificate),
            }
        )
        cluster = secrets.token_urlsafe(16)
        for node in range(self.brokers):
            settings = SETTINGS.format(
                node=node,
                quorum=",".join(f"{number}@127.0.0.1:{port}" for number, port in enumerate(controllers)),
                direct=direct[node],
                internal=internal[node],
                controller=controllers[node],
                client=clients[node],
                login=LOGIN.format(USER, password),
                copies=self.brokers,
                in_sync=2 if self.brokers == 3 else 1,
            )
            (self.folder / f"broker-{node}.properties").write_text(settings)
            data = self.folder / f"data-{node}"
            data.mkdir()
            (data / "meta.properties").write_text(IDENTITY.format(cluster, node, secrets.token_urlsafe(16)))
        if self._file:
            self._write_client_file(Path(self._file))

    def _write_client_file(self, path: Path) -> None:
        header = "[default]\n" if path.suffix == ".ini" else ""
        text = "".join(f"{key}={value}\n" for key, value in self.config.items())
        original = self.folder / guard.CLIENT_FILE
        original.write_text(f"# Of a local Kafka on this machine; goes when that ends.\n{header}{text}")
        try:
            with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(original.read_bytes())
        except OSError as error:
            raise LocalKafkaError(f"{path} can't be written ({error.strerror}); name another file.") from None

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        at_once = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 20}
        with AdminClient({**self.config, **at_once}, logger=quiet_logger()) as admin:
            while True:
                with contextlib.suppress(KafkaException):
                    if len(admin.list_topics(timeout=1 + self.distance_ms / 100).brokers) == self.brokers:
                        return
                for node, process in enumerate(self.processes):
                    if process.poll() is not None or time.monotonic() > deadline:
                        log = (self.folder / f"broker-{node}.log").read_text(errors="replace")
                        lines = [line.strip() for line in log.splitlines() if not line.startswith("\tat ")]
                        said = " | ".join(lines[-5:]).replace(self.config["sasl.password"], "***")
                        raise LocalKafkaError(
                            f"Kafka's broker {node} could not be started: {said}; else choose the simulated cluster."
                        )
                time.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 on which nothing listens at the moment.

    They lie below those that a system hands out by itself, so that none is given to another program before Kafka
    starts, or while a broker is dead.
    """
    begin = secrets.randbelow(len(PORTS))  # so that two that look at once look elsewhere
    return list(itertools.islice(itertools.filterfalse(is_open, (*PORTS[begin:], *PORTS[:begin])), count))


def is_open(port: int) -> bool:
    """Whether something listens on this port of 127.0.0.1."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
