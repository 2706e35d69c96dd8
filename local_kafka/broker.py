"""Start, stop and restart the brokers of a real Apache Kafka."""

import contextlib
import errno
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

import trustme
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from local_kafka import guard, jars
from local_kafka.jars import LocalKafkaError
from local_kafka.simulated import ClientConfig, quiet_logger

HERE = Path(__file__).parent
SETTINGS = (HERE / "broker.properties.template").read_text()
START_TIMEOUT_S = 60
ARCHIVE_TIMEOUT_S = 20
LOGIN = 'org.apache.kafka.common.security.plain.PlainLoginModule required username="{0}" password="{1}" user_{0}="{1}";'


class LocalKafka:
    """A real Apache Kafka on 127.0.0.1, for as long as the ``with`` block lasts.

    Every listener asks for TLS and for a random password. Nothing of it outlives this Python process, not even when
    that is killed.

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
        self.processes: list[subprocess.Popen] = []
        self._helpers: list[subprocess.Popen] = []
        self._sign, self._ports = free_ports(4 * self.brokers)
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="local-kafka-"))
            try:
                self._start()
            except BaseException:
                self._stop()
                raise
        except OSError as error:
            raise LocalKafkaError(
                f"Kafka could not be started: {error.strerror} ({error.filename}); make room, or set TMPDIR to "
                "another folder, or choose the simulated cluster."
            ) from None
        return self

    def __exit__(self, error_type: type | None, *_error: object) -> None:
        try:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                if not error_type and jars.NO_ARCHIVE in self._log(0):
                    # Asked to end, Java writes down which classes it has loaded; later starts need half the time.
                    self.processes[0].terminate()
                    self.processes[0].wait(ARCHIVE_TIMEOUT_S)
        finally:
            self._stop()

    def start_broker(self, node: int) -> None:
        """Start broker ``node`` (from 0) on its port and data, or start it again after it was killed."""
        for killed in self.processes[node : node + 1]:
            killed.wait()
        command = [*jars.java_command(self._jars), guard.MARK.format(self.folder)]
        command += ["kafka.Kafka", f"broker-{node}.properties"]
        with open(self.folder / f"broker-{node}.log", "a") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=jars.ENVIRONMENT, stdout=log, stderr=log, start_new_session=True
            )
        self.processes[node : node + 1] = [process]

    def _start(self) -> None:
        self._start_helper("guard", os.getpid(), self.folder, self._file)
        self._jars = jars.install(self.folder)
        self._write_settings()
        for node in range(self.brokers):
            self.start_broker(node)
        if self.distance_ms:
            routes = [f"{port}:{broker}" for port, broker in zip(self._ports[3::4], self._ports[::4], strict=True)]
            self._start_helper("proxy", guard.MARK.format(self.folder), self.distance_ms, *routes)
        self._wait_until_ready()

    def _start_helper(self, name: str, *arguments: object) -> None:
        """Start a program of this package; nothing in the user's directory can stand in for a module of it.

        As the brokers it is in a session of its own: Jupyter interrupts a kernel's whole group.
        """
        command = [sys.executable, "-P", str(HERE / f"{name}.py"), *map(str, arguments)]
        helper = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        self._helpers.append(helper)
        assert helper.stdout
        if not helper.stdout.readline():
            raise LocalKafkaError(f"Kafka could not be started, since its {name} ended at once.")

    def _stop(self) -> None:
        guard.clean_up(self.folder, self._file)
        for process in [*self._helpers, *self.processes]:
            process.kill()
            process.wait()
        self._sign.close()

    def _write_settings(self) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
        key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # Kafka reads no other form
        (self.folder / "key.pem").write_bytes(key_pem + b"".join(part.bytes() for part in issued.cert_chain_pems))
        authority.cert_pem.write_to_path(self.folder / "certificate.pem")
        addresses = [f"127.0.0.1:{port}" for port in self._ports[3 if self.distance_ms else 0 :: 4]]
        self.config = ClientConfig(
            {
                "bootstrap.servers": ",".join(addresses),
                "security.protocol": "SASL_SSL",
                "sasl.mechanisms": "PLAIN",
                "sasl.username": "local",
                "sasl.password": secrets.token_urlsafe(24),
                "ssl.ca.location": str(self.folder / "certificate.pem"),
            }
        )
        login = LOGIN.format(self.config["sasl.username"], self.config["sasl.password"])
        quorum = ",".join(f"{node}@127.0.0.1:{port}" for node, port in enumerate(self._ports[2::4]))
        count = self.brokers
        for node, address in enumerate(addresses):
            ports = self._ports[4 * node :]
            settings = SETTINGS.format(
                node=node, ports=ports, address=address, quorum=quorum, login=login, brokers=count, most=count // 2 + 1
            )
            (self.folder / f"broker-{node}.properties").write_text(settings)
            data = self.folder / f"data-{node}"
            data.mkdir()
            # What Kafka's own tool for a new data folder (kafka-storage format) writes; it would take a second.
            (data / "meta.properties").write_text(f"version=1\ncluster.id=local\nnode.id={node}\n")
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
                        self._give_up(node)
                time.sleep(0.02)

    def _give_up(self, node: int) -> NoReturn:
        if shutil.disk_usage(self.folder).free < 2**20:  # then the log is empty
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
        if jars.NO_ARCHIVE in self._log(0):  # what Java has written down now is too little
            (self._jars / jars.KAFKA_ARCHIVE).unlink(missing_ok=True)
        log = self._log(node)
        lines = [line for line in log[max(log.find(" ERROR "), 0) :].splitlines() if not line.startswith("\t")]
        said = " | ".join(lines[:3]).strip().replace(self.config["sasl.password"], "***")
        raise LocalKafkaError(f"Kafka's broker {node} could not be started: {said}; else choose the simulated cluster.")

    def _log(self, node: int) -> str:
        return (self.folder / f"broker-{node}.log").read_text(errors="replace")


def free_ports(count: int) -> tuple[socket.socket, list[int]]:
    """Ports that are free, and a socket on the one before them, which keeps other local Kafkas from choosing the same.

    No system hands out ports below 32,768 by itself: none goes to another program while a broker is dead.
    """
    for first in secrets.SystemRandom().sample(range(20_000, 32_752, 16), 700):
        with contextlib.suppress(OSError), contextlib.ExitStack() as attempt:
            sign = attempt.enter_context(socket.create_server(("127.0.0.1", first)))
            ports = [first + place for place in range(1, count + 1)]
            for port in ports:
                socket.create_server(("127.0.0.1", port)).close()
            attempt.pop_all()
            return sign, ports
    raise LocalKafkaError("Kafka could not be started: 127.0.0.1 has no free ports from 20,000 to 32,767.")
