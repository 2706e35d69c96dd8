"""A cluster that can't be used is told apart in one plain sentence within 15 s, and no secret is in it.

Most causes are told only after four seconds, in case they pass; so all of them are asked for at once, in the fixture
``attempts``, and each test looks at one.
"""

import contextlib
import http.server
import itertools
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
from pathlib import Path

import pytest
import trustme
from brokers import allow, new_topic, reconfigure, wait_until_up
from confluent_kafka.admin import AclOperation
from cryptography.hazmat.primitives import serialization

import local_kafka.broker
from kafka_helpers import ClusterError, end_offsets, ensure_topic, make_messages, produce_async, produce_sync, read_back
from local_kafka import LocalKafka, LocalKafkaError
from local_kafka.broker import free_ports

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


@contextlib.contextmanager
def proxy(config: dict[str, str], *, lost_after: int = 10**9, delay_s: float = 0.05) -> Iterator[dict[str, str]]:
    """A way to the cluster with a delay, on which the first connection is lost after some chunks from the server."""
    host, port = config["bootstrap.servers"].split(":")
    limits = itertools.chain([lost_after], itertools.repeat(10**9))

    def carry(source: socket.socket, target: socket.socket, limit: int) -> None:
        with contextlib.suppress(OSError):
            while (chunk := source.recv(65536)) and (limit := limit - 1) >= 0:
                time.sleep(delay_s)
                target.sendall(chunk)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, server = listener.accept()[0], socket.create_connection((host, int(port)))
                for pair in ((client, server, 10**9), (server, client, next(limits))):
                    threading.Thread(target=carry, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield {**config, "bootstrap.servers": f"127.0.0.1:{listener.getsockname()[1]}"}
        listener.shutdown(socket.SHUT_RDWR)


@dataclass
class SpecialKafka:
    """A Kafka with rights and with further listeners: a certificate for another name, no TLS, a wrong address."""

    config: dict[str, str]
    reader: dict[str, str]  # configuration of a user without rights
    misnamed: dict[str, str]
    plaintext: str  # address
    elsewhere: str  # address of a listener that sends its clients to a port where nobody listens


@pytest.fixture(scope="module")
def special() -> Iterator[SpecialKafka]:
    with LocalKafka() as kafka:
        addresses = {name: closed_port() for name in ("MISNAMED", "OPEN", "ELSEWHERE")}
        file = (kafka.folder / "broker-0.properties").read_text()
        written = dict(line.split("=", 1) for line in file.splitlines() if "=" in line)
        login = written["listener.name.sasl_ssl.plain.sasl.jaas.config"].rstrip(";")
        further = "".join(f",{name}://{address}" for name, address in addresses.items())
        settings = {
            "listeners": written["listeners"] + further,
            "advertised.listeners": written["advertised.listeners"]
            + further.replace(addresses["ELSEWHERE"], "127.0.0.1:1"),
            "listener.security.protocol.map": written["listener.security.protocol.map"]
            + ",MISNAMED:SSL,OPEN:PLAINTEXT,ELSEWHERE:PLAINTEXT",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{login} user_reader="{READER_SECRET}";',
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:local;User:ANONYMOUS",
            "listener.name.misnamed.ssl.keystore.location": kafka.folder / "misnamed-key.pem",
        }
        authority = write_certificate(kafka.folder / "misnamed-key.pem", "other.invalid")
        reconfigure(kafka, settings)
        wait_until_up(kafka.config)
        misnamed = {
            "bootstrap.servers": addresses["MISNAMED"],
            "security.protocol": "SSL",
            "ssl.ca.location": str(authority),
        }
        reader = {**kafka.config, "sasl.username": "reader", "sasl.password": READER_SECRET}
        yield SpecialKafka(kafka.config, reader, misnamed, addresses["OPEN"], addresses["ELSEWHERE"])


def write_certificate(path: Path, identity: str) -> Path:
    """Write a key with its certificate as Kafka reads them, and beside it the authority's certificate for clients."""
    authority = trustme.CA()
    issued = authority.issue_cert(identity)
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), password=None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(key + issued.cert_chain_pems[0].bytes())
    authority.cert_pem.write_to_path(path.with_suffix(".ca"))
    return path.with_suffix(".ca")


# --- Nobody there, somebody else, no login, no trust ------------------------------------------------------------------

NOT_KAFKA = "what answers there is not Kafka"
NO_TLS = "the server doesn't speak TLS there"
CLOSED = "most often the server wants TLS and a login"
TOO_SLOW = "the handshake with the server took too long"
UNTRUSTED = "certificate is not trusted, has expired or is for another name"
NO_SUCH_LOGIN = "offers no such login"
WRONG_KEY = "the API key or its secret is wrong, or of another cluster"
# What is wrong, and what has to be told of it.
NO_CONNECTION = {
    "unknown_host": "host name in bootstrap.servers is unknown",
    "closed_port": "nothing listens there",
    "port_that_says_nothing": TOO_SLOW,
    "port_that_says_nothing_without_tls": TOO_SLOW,
    "web_server": TOO_SLOW,
    "web_server_that_closes": NOT_KAFKA,
    "tls_against_web_server": NO_TLS,
    "tls_against_plaintext": NO_TLS,
    "plaintext_against_tls": CLOSED,
    "login_without_tls_against_tls": CLOSED,
    "tls_without_login": CLOSED,
    "wrong_key": WRONG_KEY,
    "wrong_secret": WRONG_KEY,
    "wrong_mechanism": NO_SUCH_LOGIN,
    "login_where_there_is_none": NO_SUCH_LOGIN,
    "certificate_not_trusted": UNTRUSTED,
    "certificate_for_another_name": UNTRUSTED,
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
            "certificate_for_another_name": special.misnamed,
        }


@dataclass
class Attempts:
    no_connection: dict[str, Attempt]
    secrets: list[str]
    topic: str  # that the reader may not see
    not_seen: list[Attempt]
    never_made: Attempt
    elsewhere: list[Attempt]
    helped: dict[str, Attempt]  # what has to go well


@pytest.fixture(scope="module")
def attempts(kafka: LocalKafka, special: SpecialKafka) -> Attempts:
    """Everything that takes some seconds, at once."""
    hidden, seen = new_topic(special.config), new_topic(special.config)
    nowhere = {"bootstrap.servers": special.elsewhere}
    with contextlib.ExitStack() as stack:
        configs = stack.enter_context(wrong_configurations(kafka, special))
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=40))

        def start(action: Callable[[], object]):
            return pool.submit(attempt, action)

        helped = {f"lost after {n}": proxy(kafka.config, lost_after=n) for n in range(9)}
        helped["slow link"] = proxy(kafka.config, delay_s=0.45)  # each way
        helped = {name: stack.enter_context(way) for name, way in helped.items()}
        helped["debug"] = {**kafka.config, "debug": "all"}
        no_connection = {name: start(lambda c=config: ensure_topic(c, "any")) for name, config in configs.items()}
        not_seen = [
            start(lambda: produce_sync(special.reader, hidden, [])),
            start(lambda: end_offsets(special.reader, hidden)),
        ]
        never_made = start(lambda: produce_async(kafka.config, "never-made", []))
        elsewhere = [start(lambda: ensure_topic(nowhere, "any")), start(lambda: produce_async(nowhere, seen, []))]
        helped = {name: start(lambda c=config: ensure_topic(c, "helped")) for name, config in helped.items()}
        return Attempts(
            {name: future.result() for name, future in no_connection.items()},
            [config["sasl.password"] for config in configs.values() if "sasl.password" in config],
            hidden,
            [future.result() for future in not_seen],
            never_made.result(),
            [future.result() for future in elsewhere],
            {name: future.result() for name, future in helped.items()},
        )


@pytest.mark.parametrize("cause", NO_CONNECTION)
def test_no_connection(attempts: Attempts, cause: str) -> None:
    sentence = attempts.no_connection[cause].told()
    assert sentence.startswith("No connection to the cluster: ") and NO_CONNECTION[cause] in sentence
    assert not any(secret in sentence for secret in attempts.secrets)


def test_what_a_patient_client_gets_over(attempts: Attempts) -> None:
    """A connection lost during the login, and a slow link; and what it says when it is to say more is no error."""
    assert len(attempts.helped) == 11
    assert {name: each.error for name, each in attempts.helped.items() if each.error} == {}


def test_second_address_of_two_helps(kafka: LocalKafka) -> None:
    """One of several addresses that is wrong is no error."""
    config = {**kafka.config, "bootstrap.servers": f"{closed_port()},{kafka.config['bootstrap.servers']}"}
    ensure_topic(config, "reached-all-the-same")


def test_brokers_elsewhere(attempts: Attempts) -> None:
    """The cluster gives an address that can't be reached from here, as behind a wrong port forwarding."""
    for each in attempts.elsewhere:
        assert "the cluster was reached, but not its broker at 127.0.0.1:1" in each.told(within_s=25)


def test_a_setting_that_the_client_refuses_is_named(kafka: LocalKafka, tmp_path: Path) -> None:
    for setting, value in (("ssl.ca.location", str(tmp_path / "none.pem")), ("linger.ms", "soon")):
        said = attempt(lambda s=setting, v=value: ensure_topic({**kafka.config, s: v}, "any")).told()
        assert said == f"The Kafka client can't be set up: it refuses the setting {setting}; correct or remove it."


# Raises in the middle of a run: what a notebook shows then, with the values of all variables.
VERBOSE = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell(colors="NoColor")
shell.run_line_magic("xmode", "Verbose")
shell.run_cell("import kafka_helpers as kh; config = kh.load_config(); kh.ensure_topic(config, 'verbose')")
shell.run_cell("kh.produce_async(config | {'linger.ms': 1}, 'verbose', (1 / 0 for _ in range(1)))")
shell.run_cell("kh.read_back(config, 'verbose', {'a': [(b'', b'')]}, undelivered={'a': [(1, 2)]})")
shell.run_cell("kh.end_offsets(config, 5)")
"""


def test_no_secret_in_a_verbose_traceback(kafka: LocalKafka, tmp_path: Path) -> None:
    (tmp_path / "client.properties").write_text("".join(f"{key}={value}\n" for key, value in kafka.config.items()))
    shown = subprocess.run(
        [sys.executable, "-c", VERBOSE],
        env=os.environ | {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "ZeroDivisionError" in shown.stdout and shown.stdout.count("Traceback") == 3, shown.stdout + shown.stderr
    assert "values hidden" in shown.stdout and "harness/client.py" in shown.stdout
    assert kafka.config["sasl.password"] not in shown.stdout + shown.stderr


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


def test_what_the_cluster_refuses(kafka: LocalKafka) -> None:
    said = attempt(lambda: ensure_topic(kafka.config, "no spaces")).told()
    assert said.startswith("The topic no spaces can't be created: the cluster answered: ") and "nvalid" in said
    said = attempt(lambda: ensure_topic(kafka.config, "thrice", replication=3)).told()
    assert said.startswith("The topic thrice can't be created: the cluster answered: ") and "eplication factor" in said


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


@pytest.mark.parametrize("which", [0, 1])
def test_port_taken(monkeypatch: pytest.MonkeyPatch, which: int) -> None:
    """By a stranger, between its choice and Kafka's start."""
    ports = free_ports(4)
    with socket.create_server(("127.0.0.1", ports[which])):
        monkeypatch.setattr(local_kafka.broker, "free_ports", lambda count: ports)
        starting = LocalKafka()
        said = attempt(starting.__enter__).told(kind=LocalKafkaError)
    assert f"127.0.0.1:{ports[which]}: Address already in use" in said and "simulated cluster" in said
    assert not starting.folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks up the system's range")
def test_ports_are_not_those_that_the_system_hands_out() -> None:
    """Else another program could be given one before Kafka starts, or while a broker is dead."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = free_ports(1_000)
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
