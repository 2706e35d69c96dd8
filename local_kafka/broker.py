"""Start, stop and restart the brokers of a real Apache Kafka."""

import contextlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from local_kafka import guard, java
from local_kafka.client import quiet_logger
from local_kafka.errors import PORT_TAKEN, LocalKafkaError, PortTakenError, described, last_words
from local_kafka.settings import choose_ports, write_certificate, write_settings

START_ATTEMPTS = 4  # if ports turn out to be taken
DYING_S = 5  # a killed broker needs a moment to be gone
WRITING_S = 20  # the longest that Java may need to write an archive of classes
KILLED = -9  # what the system says of a process that was ended by force
CONNECT_ROUND_TRIPS = 10  # connection, TLS, login and the question
AT_ONCE = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 20}
DISTANCE = "distance"  # the file in which the proxy looks for it


class LocalKafka:
    """A real Apache Kafka on 127.0.0.1, for as long as the ``with`` block lasts.

    Every listener asks for TLS and a random password. Nothing outlives this Python process, even if that is killed; a
    child that it forks can leave the block and ends nothing.

    Args:
        brokers: 1, or 3 for replication factor 3 and ``min.insync.replicas=2`` as on Confluent Cloud.
        distance_ms: the round trip between clients and brokers in milliseconds, 0 to 1,000; none between the brokers.
        file: a file to be made with the client configuration, for other programs; it goes with the cluster.
        settings: broker settings to add or to replace; ``{default}`` in a value stands for what this cluster would
            have, as in ``{"listener.security.protocol.map": "{default},OPEN:PLAINTEXT"}``.
        start_timeout_s: how long the brokers may take to be ready, in seconds.

    Attributes:
        config: client configuration for confluent-kafka (the five keys of the course's sample and ``ssl.ca.location``).
        processes: the brokers' processes, by broker number from 0.
        folder: where the brokers keep their data, logs and keys; only this user can read it.

    Raises:
        ValueError: other numbers.
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        distance_ms: float = 0,
        file: Path | None = None,
        settings: Mapping[str, str] | None = None,
        start_timeout_s: float = 60,
    ):
        if brokers not in (1, 3):
            raise ValueError(f"brokers is {brokers!r}; it has to be 1, or 3 (replicated as on Confluent Cloud)")
        self.brokers = brokers
        self.start_timeout_s = start_timeout_s
        self._distance_ms = _checked_distance(distance_ms)
        self._settings = dict(settings or {})
        self._file = str(file.absolute()) if file else ""
        self._helpers: dict[str, subprocess.Popen] = {}  # guard and proxy

    def __enter__(self) -> "LocalKafka":
        """Start the brokers, and return when a client can use them.

        Raises LocalKafkaError where the jars can't be had, a process has ended, or the time is up.
        """
        for _attempt in range(START_ATTEMPTS - 1):
            with contextlib.suppress(PortTakenError):
                return self._start()
        return self._start()

    def __exit__(self, error_type: type | None, *_error: object) -> None:
        if os.getpid() != self._owner:
            return  # in a child made by fork
        try:
            is_kept = self._jars != self.folder  # else what is written goes with the folder
            if error_type is None and is_kept and not (self._jars / java.KAFKA_ARCHIVE).exists():
                self._write_archive()
        finally:
            self._stop()

    @property
    def distance_ms(self) -> float:
        """The round trip in milliseconds. It can be set while a cluster runs that began with one; else ValueError."""
        return self._distance_ms

    @distance_ms.setter
    def distance_ms(self, distance_ms: float) -> None:
        checked = _checked_distance(distance_ms)
        if "proxy" not in self._helpers:
            raise ValueError("distance_ms can be set while a Kafka runs that has begun with one: distance_ms=1")
        self._distance_ms = checked
        self._tell_proxy()

    def start_broker(self, node: int) -> None:
        """Start broker ``node`` (from 0) again on its port and data after it was killed; don't wait until it is ready.

        Raises LocalKafkaError where it still runs.
        """
        try:
            self.processes[node].wait(DYING_S)
        except subprocess.TimeoutExpired:
            raise LocalKafkaError(f"Broker {node} still runs; kill it first: processes[{node}].kill().") from None
        self.processes[node] = self._run_broker(node)

    def watch(self) -> None:
        """Wait until a broker, the proxy or the guard ends by itself, and raise a LocalKafkaError that says which."""
        while not (ended := self._ended()):
            time.sleep(0.5)
        raise LocalKafkaError(f"Kafka has ended: {ended}.")

    def _start(self) -> "LocalKafka":
        self.processes: list[subprocess.Popen] = []
        self._owner = os.getpid()
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="local-kafka-"))
            try:
                self._start_processes()
                self._wait_until_ready()
            except BaseException:
                self._stop()
                raise
        except OSError as error:
            raise LocalKafkaError(f"Kafka could not be started: {described(error)}.") from None
        java.remove_unfit_archives(self._jars, self.folder)
        return self

    def _start_processes(self) -> None:
        self._run_helper("guard", os.getpid(), self.folder, self._file)
        self._jars = java.install(self.folder)
        write_certificate(self.folder)
        ports = choose_ports(self.brokers)
        distant = self._distance_ms > 0
        header = "[default]\n" if self._file.endswith(".ini") else ""
        self.config = write_settings(self.folder, ports, through_proxy=distant, more=self._settings, header=header)
        if self._file:
            self._write_file()
        for node in range(self.brokers):
            self.processes.append(self._run_broker(node))
        if distant:
            (self.folder / DISTANCE).touch()
            self._tell_proxy()
            routes = [f"{each.proxy}:{each.clients}" for each in ports]
            self._run_helper("proxy", guard.MARK.format(self.folder), DISTANCE, *routes)

    def _run_broker(self, node: int) -> subprocess.Popen:
        command = [*java.java_command(self._jars), guard.MARK.format(self.folder), "kafka.Kafka"]
        return self._run(f"broker-{node}", *command, f"broker-{node}.properties", environment=java.ENVIRONMENT)

    def _run_helper(self, name: str, *words: object) -> None:
        script = Path(__file__).with_name(f"{name}.py")
        with _signals_held_back():
            # -P: nothing in the user's directory can stand in for a module.
            self._helpers[name] = self._run(name, sys.executable, "-P", script, *words)

    def _run(self, name: str, *words: object, environment: dict[str, str] | None = None) -> subprocess.Popen:
        with open(self.folder / f"{name}.log", "a", encoding="utf-8") as log:
            return subprocess.Popen(
                [str(word) for word in words],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # since Jupyter interrupts a kernel's whole group
            )

    def _write_file(self) -> None:
        file = Path(self._file)
        made = False
        try:
            file.touch(mode=0o600, exist_ok=False)
            made = True
            shutil.copyfile(self.folder / "client.properties", file)
        except OSError as error:
            if made:
                file.unlink(missing_ok=True)  # it is cut
            raise LocalKafkaError(f"{self._file} can't be written ({error.strerror}); name another file.") from None

    def _tell_proxy(self) -> None:
        with open(self.folder / DISTANCE, "r+b") as file:  # in place, since the proxy has it in its memory
            file.write(struct.pack("d", self._distance_ms))

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        answer_s = 1 + CONNECT_ROUND_TRIPS * self._distance_ms / 1_000
        with AdminClient({**self.config, **AT_ONCE}, logger=quiet_logger()) as admin:
            while time.monotonic() < deadline:
                with contextlib.suppress(KafkaException):
                    if len(admin.list_topics(timeout=answer_s).brokers) == self.brokers:
                        return
                if ended := self._ended():
                    kind = PortTakenError if PORT_TAKEN in ended.lower() else LocalKafkaError
                    raise kind(f"Kafka could not be started: {ended}.")
                time.sleep(0.02)
        limit = f"{self.start_timeout_s:g} s"
        raise LocalKafkaError(f"Kafka was not ready within {limit}; end other programs, or set start_timeout_s.")

    def _ended(self) -> str | None:
        """Which process has ended by itself, and its last words."""
        brokers = {f"broker-{node}": process for node, process in enumerate(self.processes)}
        for name, process in (brokers | self._helpers).items():
            if process.poll() == KILLED:
                return f"{name} was killed, by somebody or for want of memory"
            if process.returncode is not None:
                said = last_words(self.folder / f"{name}.log", secret=self.config["sasl.password"])
                return f"{name} ended with status {process.returncode} and said: {said}"
        return None

    def _write_archive(self) -> None:
        """Let Java write down, at its end, which classes it has loaded; later starts need half the time."""
        self.processes[0].terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.processes[0].wait(WRITING_S)
            java.keep_archive(self.folder / java.KAFKA_ARCHIVE, self._jars)

    def _stop(self) -> None:
        guard.clean_up(self.folder, self._file)
        for process in [*self._helpers.values(), *self.processes]:
            process.kill()
            process.wait()
        self._helpers.clear()


def _checked_distance(distance_ms: float) -> float:
    if not (isinstance(distance_ms, (int, float)) and 0 <= distance_ms <= 1_000):
        raise ValueError(f"distance_ms is {distance_ms!r}; it has to be a number from 0 to 1,000")
    return distance_ms


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """A process started meanwhile never gets these signals: who ends all at once must not end the guard first."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
