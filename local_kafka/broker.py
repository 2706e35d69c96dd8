"""Start, stop and restart the brokers of a real Apache Kafka."""

import contextlib
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

import trustme
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from local_kafka import guard, java
from local_kafka.client import ClientConfig, quiet_logger
from local_kafka.errors import LocalKafkaError

HERE = Path(__file__).parent
SETTINGS = (HERE / "broker.properties.template").read_text(encoding="utf-8")
CLIENT_SETTINGS = (HERE / "client.properties.template").read_text(encoding="utf-8")
START_TIMEOUT_S = 60


class LocalKafka:
    """A real Apache Kafka on 127.0.0.1, for as long as the ``with`` block lasts.

    Every listener asks for TLS and a random password. Nothing outlives this Python process, even if that is killed.
    Raises LocalKafkaError where the jars can't be had or a broker doesn't start, ValueError for other numbers.

    Args:
        brokers: 1, or 3 for replication factor 3 and ``min.insync.replicas=2`` as on Confluent Cloud.
        distance_ms: the round trip between clients and brokers in milliseconds, 0 to 1,000; none between the brokers.
        file: a file to be made with the client configuration, for other programs; it goes with the cluster.

    Attributes:
        config: client configuration for confluent-kafka (the five keys of the course's sample and ``ssl.ca.location``).
        processes: the brokers' processes, by broker number from 0.
        folder: where the brokers keep their data, logs and keys; only this user can read it.
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
        self._helpers: dict[str, subprocess.Popen] = {}
        self._ports = free_ports(4 * self.brokers)
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
                "another folder."
            ) from None
        return self

    def __exit__(self, error_type: type | None, *_error: object) -> None:
        try:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                if not error_type and not (self._jars / java.KAFKA_ARCHIVE).exists():
                    # Asked to end, Java writes down which classes it has loaded; later starts need half the time.
                    self.processes[0].terminate()
                    self.processes[0].wait(20)
        finally:
            self._stop()

    def start_broker(self, node: int) -> None:
        """Start broker ``node`` (from 0) on its port and data, or start it again after it was killed."""
        for killed in self.processes[node : node + 1]:
            killed.wait()
        command = [*java.java_command(self._jars), guard.MARK.format(self.folder), "kafka.Kafka"]
        started = self._run(f"broker-{node}", *command, f"broker-{node}.properties", environment=java.ENVIRONMENT)
        self.processes[node : node + 1] = [started]

    def _start(self) -> None:
        python = [sys.executable, "-P"]  # nothing in the user's directory can stand in for a module
        self._helpers["guard"] = self._run("guard", *python, HERE / "guard.py", os.getpid(), self.folder, self._file)
        self._jars = java.install(self.folder)
        self._write_settings()
        for node in range(self.brokers):
            self.start_broker(node)
        if self.distance_ms:
            routes = [f"{port}:{broker}" for port, broker in zip(self._ports[3::4], self._ports[::4], strict=True)]
            mark = guard.MARK.format(self.folder)
            self._helpers["proxy"] = self._run("proxy", *python, HERE / "proxy.py", mark, self.distance_ms, *routes)
        self._wait_until_ready()

    def _run(self, name: str, *words: object, environment: dict[str, str] | None = None) -> subprocess.Popen:
        with open(self.folder / f"{name}.log", "a", encoding="utf-8") as log:
            # A session of its own, since Jupyter interrupts a kernel's whole group.
            return subprocess.Popen(
                [*map(str, words)], cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def _stop(self) -> None:
        guard.clean_up(self.folder, self._file)
        for process in [*self._helpers.values(), *self.processes]:
            process.kill()
            process.wait()

    def _write_settings(self) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
        key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # Kafka reads no other form
        (self.folder / "key.pem").write_bytes(key_pem + b"".join(part.bytes() for part in issued.cert_chain_pems))
        authority.cert_pem.write_to_path(self.folder / "certificate.pem")
        addresses = [f"127.0.0.1:{port}" for port in self._ports[3 if self.distance_ms else 0 :: 4]]
        header = "[default]\n" if self._file.endswith(".ini") else ""
        password = secrets.token_urlsafe(24)
        text = CLIENT_SETTINGS.format(header=header, servers=",".join(addresses), password=password, folder=self.folder)
        self.config = ClientConfig(line.split("=", 1) for line in text.split("\n") if "=" in line)
        quorum = ",".join(f"{node}@127.0.0.1:{port}" for node, port in enumerate(self._ports[2::4]))
        n = self.brokers
        for node, address in enumerate(addresses):
            ports = self._ports[4 * node :]
            settings = SETTINGS.format(
                node=node, address=address, ports=ports, quorum=quorum, password=password, copies=n, most=n // 2 + 1
            )
            (self.folder / f"broker-{node}.properties").write_text(settings)
            data = self.folder / f"data-{node}"
            data.mkdir()
            # What Kafka's own tool for a new data folder (kafka-storage format) writes; it would take a second.
            (data / "meta.properties").write_text(f"version=1\ncluster.id=local\nnode.id={node}\n")
        (self.folder / "client.properties").write_text(text)
        try:
            if self._file:
                with open(self._file, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                    file.write(text)
        except OSError as error:
            raise LocalKafkaError(f"{self._file} can't be written ({error.strerror}); name another file.") from None

    def _wait_until_ready(self) -> None:
        processes = {f"broker-{node}": process for node, process in enumerate(self.processes)} | self._helpers
        deadline = time.monotonic() + START_TIMEOUT_S
        at_once = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 20}
        ended: list[str] = []
        with AdminClient({**self.config, **at_once}, logger=quiet_logger()) as admin:
            while not ended and time.monotonic() < deadline:
                with contextlib.suppress(KafkaException):
                    if len(admin.list_topics(timeout=1 + self.distance_ms / 100).brokers) == self.brokers:
                        return
                time.sleep(0.02)
                ended = [name for name, process in processes.items() if process.poll() is not None]
        name = next(iter(ended), "broker-0")
        (self._jars / java.KAFKA_ARCHIVE).unlink(missing_ok=True)  # it may have been written by what failed, or be why
        log = (self.folder / f"{name}.log").read_text(errors="replace")
        lines = [line for line in log[max(log.find(" ERROR "), 0) :].splitlines() if not line.startswith(("\t", "["))]
        said = (" | ".join(lines[:3]).strip() or "nothing").replace(self.config["sasl.password"], "***")
        if shutil.disk_usage(self.folder).free < 2**20:  # then the log is empty
            said = f"No space left on device ({self.folder}); make room"
        raise LocalKafkaError(f"Kafka could not be started, {name} said: {said}.")


BLOCKS = itertools.count(37 * os.getpid())  # processes that start a Kafka at the same time choose other ports


def free_ports(count: int) -> list[int]:
    """Ports that are free; no system hands out those below 32,768 by itself, to others while a broker is dead."""
    while True:
        first = 20_000 + 16 * (next(BLOCKS) % 798)
        with contextlib.suppress(OSError):
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
            return list(range(first, first + count))
