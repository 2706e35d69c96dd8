"""A cluster that can't be used is told apart in one plain sentence within 15 s, and no secret is in it.

Most causes are told only after four seconds, in case they pass; so all of them are asked for at once, in the fixture
``attempts``, and each test looks at one.
"""

import contextlib
import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from brokers import allow, new_topic, reconfigure, wait_until_up
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation, AdminClient
from cryptography.hazmat.primitives import serialization

import local_kafka.broker
from harness.client import ask, connect
from kafka_helpers import ClusterError, end_offsets, ensure_topic, make_messages, produce_async, produce_sync, read_back
from local_kafka import LocalKafka, LocalKafkaError

ROOT = Path(__file__).resolve().parent.parent
READER_SECRET = "reader+secret/42="


@dataclass
class Attempt:
    """What came of something that has to fail."""

    error: BaseException | None
    seconds: float

    def told(self, *, kind: type[Exception] = ClusterError, within_s: float = 15) -> str:
        """The sentence it failed with, after making sure that it is one, came in time and stands alone."""
        error, sentence = self.error, str(self.error)
        print(f"\n{sentence} [{self.seconds:.1f} s]")
        assert type(error) is kind
        assert self.seconds < within_s
        assert "\n" not in sentence and sentence.endswith(".")
        assert error.__cause__ is None and (error.__suppress_context__ or not error.__context__)
        assert error._render_traceback_() == [f"{kind.__name__}: {sentence}"]
        assert READER_SECRET not in sentence
        return sentence


def attempt(action: Callable[[], object]) -> Attempt:
    began = time.monotonic()
    try:
        action()
    except Exception as error:
        return Attempt(error, time.monotonic() - began)
    return Attempt(None, time.monotonic() - began)


class Web(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


class Hasty(Web):
    def handle(self) -> None:
        self.connection.recv(4096)
        self.connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


@contextlib.contextmanager
def web_server(handler: type[Web]) -> Iterator[str]:
    """A web server: Python's, which waits for the end of a request, or one that answers at once and closes."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@dataclass
class SpecialKafka:
    """A Kafka with further listeners and with rights: an expired certificate, one for another name, and no TLS."""

    config: dict[str, str]
    reader: dict[str, str]  # configuration of a user without rights
    expired: dict[str, str]
    misnamed: dict[str, str]
    plaintext: str  # address


@pytest.fixture(scope="module")
def special() -> Iterator[SpecialKafka]:
    with LocalKafka() as kafka:
        ports = dict(zip(("EXPIRED", "MISNAMED", "OPEN"), local_kafka.broker.free_ports(3), strict=True))
        file = (kafka.folder / "broker-0.properties").read_text()
        written = dict(line.split("=", 1) for line in file.splitlines())
        login = written["listener.name.sasl_ssl.plain.sasl.jaas.config"].rstrip(";")
        settings = {
            "listeners": written["listeners"] + "".join(f",{name}://127.0.0.1:{port}" for name, port in ports.items()),
            "listener.security.protocol.map": written["listener.security.protocol.map"]
            + ",EXPIRED:SSL,MISNAMED:SSL,OPEN:PLAINTEXT",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{login} user_reader="{READER_SECRET}";',
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:local;User:ANONYMOUS",
            "listener.name.expired.ssl.keystore.location": kafka.folder / "expired-key.pem",
            "listener.name.misnamed.ssl.keystore.location": kafka.folder / "misnamed-key.pem",
        }
        yesterday = datetime.now(UTC) - timedelta(days=1)
        before = {"not_before": yesterday - timedelta(days=9), "not_after": yesterday}
        write_certificate(kafka.folder, "expired", "localhost", "127.0.0.1", **before)
        write_certificate(kafka.folder, "misnamed", "other.invalid")
        reconfigure(kafka, settings)
        wait_until_up(kafka.config)
        tls = {
            name: {
                "bootstrap.servers": f"127.0.0.1:{ports[name.upper()]}",
                "security.protocol": "SSL",
                "ssl.ca.location": str(kafka.folder / f"{name}.pem"),
            }
            for name in ("expired", "misnamed")
        }
        reader = {**kafka.config, "sasl.username": "reader", "sasl.password": READER_SECRET}
        yield SpecialKafka(kafka.config, reader, **tls, plaintext=f"127.0.0.1:{ports['OPEN']}")


def write_certificate(folder: Path, name: str, *identities: str, **validity: datetime) -> None:
    """Write a key with its certificate as Kafka reads them, and the authority's certificate for clients."""
    authority = trustme.CA()
    issued = authority.issue_cert(*identities, **validity)
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), password=None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / f"{name}-key.pem").write_bytes(key + issued.cert_chain_pems[0].bytes())
    authority.cert_pem.write_to_path(folder / f"{name}.pem")


# --- Nobody there, somebody else, no login, no trust ------------------------------------------------------------------

NOT_KAFKA = "what answers there is not Kafka"
NO_TLS = "the server doesn't speak TLS there"
WANTS_TLS = "it wants TLS; set security.protocol=SASL_SSL"
NO_SUCH_LOGIN = "offers no such login"
WRONG_KEY = "the API key or its secret is wrong"
# What is wrong, and what has to be told of it.
NO_CONNECTION = {
    "unknown_host": "host name in bootstrap.servers is unknown",
    "closed_port": "nothing listens there",
    "port_that_says_nothing": NOT_KAFKA,
    "port_that_says_nothing_without_tls": NOT_KAFKA,
    "web_server": NOT_KAFKA,
    "web_server_that_closes": NOT_KAFKA,
    "tls_against_web_server": NO_TLS,
    "tls_against_plaintext": NO_TLS,
    "plaintext_against_tls": WANTS_TLS,
    "login_without_tls_against_tls": WANTS_TLS,
    "tls_without_login": "it wants a login",
    "wrong_key": WRONG_KEY,
    "wrong_secret": WRONG_KEY,
    "wrong_mechanism": NO_SUCH_LOGIN,
    "login_where_there_is_none": NO_SUCH_LOGIN,
    "certificate_not_trusted": "certificate is not trusted",
    "certificate_expired": "certificate has expired",
    "certificate_for_another_name": "certificate is for another name",
}


@contextlib.contextmanager
def wrong_configurations(kafka: LocalKafka, special: SpecialKafka) -> Iterator[dict[str, dict[str, str]]]:
    """A configuration for each entry of ``NO_CONNECTION``."""
    good = kafka.config
    no_authority = {key: value for key, value in good.items() if key != "ssl.ca.location"}
    no_login = {key: value for key, value in good.items() if not key.startswith("sasl")}
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        web_server(Web) as web,
        web_server(Hasty) as hasty,
    ):
        silent_address = f"127.0.0.1:{silent.getsockname()[1]}"
        yield {
            "unknown_host": {**good, "bootstrap.servers": "pkc-12345.invalid:9092"},
            "closed_port": {**good, "bootstrap.servers": closed_port()},
            "port_that_says_nothing": {**good, "bootstrap.servers": silent_address},
            "port_that_says_nothing_without_tls": {"bootstrap.servers": silent_address},
            "web_server": {"bootstrap.servers": web},
            "web_server_that_closes": {"bootstrap.servers": hasty},
            "tls_against_web_server": {**good, "bootstrap.servers": hasty},
            "tls_against_plaintext": {**good, "bootstrap.servers": special.plaintext},
            "plaintext_against_tls": {"bootstrap.servers": good["bootstrap.servers"]},
            "login_without_tls_against_tls": {**no_authority, "security.protocol": "SASL_PLAINTEXT"},
            "tls_without_login": {**no_login, "security.protocol": "SSL"},
            "wrong_key": {**good, "sasl.username": READER_SECRET},
            "wrong_secret": {**good, "sasl.password": READER_SECRET},
            "wrong_mechanism": {**good, "sasl.mechanisms": "SCRAM-SHA-256"},
            "login_where_there_is_none": {
                **no_authority,
                "bootstrap.servers": special.plaintext,
                "security.protocol": "SASL_PLAINTEXT",
            },
            "certificate_not_trusted": no_authority,
            "certificate_expired": special.expired,
            "certificate_for_another_name": special.misnamed,
        }


@dataclass
class Attempts:
    no_connection: dict[str, Attempt]
    secrets: list[str]
    topic: str  # that the reader may not see
    not_seen: list[Attempt]
    never_made: Attempt


@pytest.fixture(scope="module")
def attempts(kafka: LocalKafka, special: SpecialKafka) -> Attempts:
    """Everything that is told only after some seconds, at once."""
    hidden = new_topic(special.config)
    with wrong_configurations(kafka, special) as configs, ThreadPoolExecutor(max_workers=30) as pool:

        def start(action: Callable[[], object]):
            return pool.submit(attempt, action)

        no_connection = {name: start(lambda c=config: ensure_topic(c, "any")) for name, config in configs.items()}
        not_seen = [
            start(lambda: produce_sync(special.reader, hidden, [])),
            start(lambda: end_offsets(special.reader, hidden)),
        ]
        never_made = start(lambda: produce_async(kafka.config, "never-made", []))
        return Attempts(
            {name: future.result() for name, future in no_connection.items()},
            [config["sasl.password"] for config in configs.values() if "sasl.password" in config],
            hidden,
            [future.result() for future in not_seen],
            never_made.result(),
        )


@pytest.mark.parametrize("cause", NO_CONNECTION)
def test_no_connection(attempts: Attempts, cause: str) -> None:
    sentence = attempts.no_connection[cause].told()
    assert sentence.startswith("No connection to the cluster: ") and NO_CONNECTION[cause] in sentence
    assert not any(secret in sentence for secret in attempts.secrets)


def test_second_address_of_two_helps(kafka: LocalKafka) -> None:
    """One of several addresses that is wrong is no error."""
    config = {**kafka.config, "bootstrap.servers": f"{closed_port()},{kafka.config['bootstrap.servers']}"}
    ensure_topic(config, "reached-all-the-same")


def test_missing_certificate_file(kafka: LocalKafka, tmp_path: Path) -> None:
    config = {**kafka.config, "ssl.ca.location": str(tmp_path / "none.pem")}
    assert "ssl.ca.location can't be read" in attempt(lambda: ensure_topic(config, "any")).told()


@pytest.mark.long
def test_an_answer_of_the_cluster_is_not_called_a_lack_of_connection(kafka: LocalKafka) -> None:
    """Such as that of a leader that was just elected; here it is given in place of one that can't be provoked."""

    def question(_timeout_s: float) -> None:
        raise KafkaException(KafkaError(KafkaError.OFFSET_NOT_AVAILABLE))

    with connect(AdminClient, kafka.config) as connection:
        said = attempt(lambda: ask(connection, question)).told()
    assert said == "The cluster can't say: the cluster answered: Broker: Leader high watermark is not caught up."


# --- Rights, and what the cluster refuses ----------------------------------------------------------------------------


def test_no_right_to_create(special: SpecialKafka) -> None:
    said = attempt(lambda: ensure_topic(special.reader, "forbidden")).told()
    assert said.startswith("The topic forbidden can't be created: this API key lacks the right")


def test_no_right_to_see(attempts: Attempts) -> None:
    for each in attempts.not_seen:
        assert f"The topic {attempts.topic} can't be used: this API key lacks the right" in each.told()


@pytest.mark.parametrize("produce", [produce_async, produce_sync])
def test_no_right_to_write(special: SpecialKafka, produce: Callable) -> None:
    topic = new_topic(special.config)
    allow(special.config, "reader", topic, AclOperation.DESCRIBE)
    ensure_topic(special.reader, topic)  # it is there, and may be seen
    said = attempt(lambda: produce(special.reader, topic, make_messages("a", 10))).told()
    assert said.startswith(f"The topic {topic} can't be written to: this API key lacks the right")
    # With the right to write to some other topic the client gets a producer id, and is refused later.
    allow(special.config, "reader", "another", AclOperation.WRITE)
    said = attempt(lambda: produce(special.reader, topic, make_messages("a", 10))).told()
    assert said.startswith(f"The topic {topic} can't be written to: this API key lacks the right")


def test_no_right_to_read(special: SpecialKafka) -> None:
    """It is asked for, and so told at once."""
    topic, messages = new_topic(special.config), make_messages("a", 10)
    produce_async(special.config, topic, messages)
    allow(special.config, "reader", topic, AclOperation.DESCRIBE)
    said = attempt(lambda: read_back(special.reader, topic, {"a": messages})).told(within_s=3)
    assert said.startswith(f"The topic {topic} can't be read to its end: this API key lacks the right")


def test_replication_factor_refused(kafka: LocalKafka) -> None:
    said = attempt(lambda: ensure_topic(kafka.config, "thrice", replication=3)).told()
    assert said == "The topic thrice can't be created: the cluster refuses this replication factor; leave it out."


def test_number_of_partitions_refused(kafka: LocalKafka) -> None:
    said = attempt(lambda: ensure_topic(kafka.config, "none", partitions=0)).told()
    assert "refuses this number of partitions" in said


def test_name_refused(kafka: LocalKafka) -> None:
    assert "a topic's name can have letters" in attempt(lambda: ensure_topic(kafka.config, "no spaces")).told()


def test_no_such_topic(attempts: Attempts) -> None:
    said = attempts.never_made.told()
    assert said == "The topic never-made can't be used: it isn't there; ensure_topic() creates it."


# --- No local start possible -----------------------------------------------------------------------------------------

START = "from local_kafka import LocalKafka\nwith LocalKafka(): pass"


def start_elsewhere(environment: dict[str, str], *before: str) -> subprocess.CompletedProcess:
    """Start Kafka in a Python of its own; an uncaught error's last line is its sentence."""
    return subprocess.run(
        [*before, sys.executable, "-c", START],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_jars_cannot_be_fetched(tmp_path: Path) -> None:
    """An empty cache, and a proxy that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"http://127.0.0.1:{server.getsockname()[1]}"
    names = [f"{scheme}_proxy" for scheme in ("http", "https", "all")]
    homes = ("HOME", "USERPROFILE", "XDG_CACHE_HOME", "LOCALAPPDATA")
    environment = dict.fromkeys(homes, str(tmp_path)) | {"no_proxy": "", "NO_PROXY": ""}
    environment |= {each: closed for name in names for each in (name, name.upper())}
    began = time.monotonic()
    done = start_elsewhere(environment)
    said = done.stderr.strip().splitlines()[-1]
    print(f"\n{said} [{time.monotonic() - began:.1f} s]")
    assert done.returncode and time.monotonic() - began < 15
    assert "could not be fetched from Maven Central" in said and "simulated cluster" in said
    assert "another exception" not in done.stderr and "direct cause" not in done.stderr


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], None]]:
    """A function that has a stranger take one port, so many times, between its choice and Kafka's start."""
    free = local_kafka.broker.free_ports
    with socket.create_server(("127.0.0.1", 0)) as stranger:

        def take(which: int, times: int) -> None:
            left = iter(range(times))

            def ports(count: int) -> list[int]:
                chosen = free(count)
                if next(left, None) is not None:
                    chosen[which] = stranger.getsockname()[1]
                return chosen

            monkeypatch.setattr(local_kafka.broker, "free_ports", ports)

        yield take


@pytest.mark.parametrize("which", [0, 1])
def test_port_taken(taken: Callable, which: int) -> None:
    """Once or twice, other ports are chosen; after that it is told."""
    taken(which, 2)
    with LocalKafka() as kafka:
        ensure_topic(kafka.config, "other-ports")
    taken(which, 3)
    starting = LocalKafka()
    said = attempt(starting.__enter__).told(kind=local_kafka.broker.PortTaken)
    assert "another program has just taken its port; start it again" in said
    assert not starting.folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks up the system's range")
def test_ports_are_not_those_that_the_system_hands_out() -> None:
    """Else another program could be given one before Kafka starts, or while a broker is dead."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = local_kafka.broker.free_ports(1_000)
    assert len(set(ports)) == 1_000 and not any(first <= port <= last for port in ports)


@pytest.mark.parametrize("size", ["4k", "16k"])
def test_no_space(tmp_path: Path, size: str) -> None:
    """On a file system of a few kilobytes: too small for the key, or for the broker's data."""
    mount = f"mount -t tmpfs -o size={size} none '{tmp_path}' && exec "
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount + '"$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("this machine doesn't let users mount a file system of their own")
    done = start_elsewhere({"TMPDIR": str(tmp_path)}, *inside)
    said = done.stderr.strip().splitlines()[-1]
    print(f"\n{said}")
    assert "No space left on device" in said and "simulated cluster" in said


def test_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local_kafka.broker.tempfile, "tempdir", str(tmp_path / "gone"))
    said = attempt(LocalKafka().__enter__).told(kind=LocalKafkaError)
    assert said.startswith(f"Kafka could not be started: No such file or directory ({tmp_path / 'gone'}")
    assert "set TMPDIR to another folder" in said


# --- The local Kafka's own door --------------------------------------------------------------------------------------


def test_local_kafka_has_no_door_to_other_hosts(kafka: LocalKafka) -> None:
    """Every listener, the controller's too, is bound to 127.0.0.1 and to no other address of this machine."""
    import psutil

    listening = [
        connection.laddr
        for process in kafka.processes
        for connection in psutil.Process(process.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) == 3
    for ip, port in listening:
        assert ip.removeprefix("::ffff:") == "127.0.0.1"
        for address in {each.address for cards in psutil.net_if_addrs().values() for each in cards if each.family == 2}:
            if address != "127.0.0.1":
                with pytest.raises(OSError):
                    socket.create_connection((address, port), timeout=2).close()
