"""A cluster that can't be used is told apart in one plain sentence, and no secret is in it.

Most causes are told only after four seconds, in case they pass; so all of them are asked for at once, in the fixture
``attempts``, and each test looks at one.
"""

import contextlib
import itertools
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from brokers import allow, new_topic
from confluent_kafka import KafkaError
from confluent_kafka.admin import AclOperation

from harness.client import explain
from harness.errors import ClusterError, ConfigError
from harness.read_back import STANDSTILL_S
from harness.topics import end_offsets, ensure_topic
from kafka_helpers import make_messages, produce_async, produce_sync, read_back
from local_kafka import LocalKafka
from local_kafka.settings import free_ports

ROOT = Path(__file__).resolve().parent.parent
READER_SECRET = "reader+secret/42="


@dataclass
class Attempt:
    """What came of something that has to fail."""

    error: BaseException | None
    seconds: float

    def told(self, *, kind: type[Exception] = ClusterError, hangs_after_s: float = 60) -> str:
        """The sentence it failed with, after making sure that it is one, came at all and stands alone."""
        error, sentence = self.error, str(self.error)
        print(f"\n{sentence} [{self.seconds:.1f} s]")
        assert type(error) is kind
        assert self.seconds < hangs_after_s
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


class WebServer(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(4096)
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


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
    """A Kafka with rights and with two further listeners: one without TLS, one that sends its clients elsewhere."""

    config: dict[str, str]
    reader: dict[str, str]  # configuration of a user without rights
    open: str  # address
    elsewhere: str  # address; clients are sent to a port where nobody listens


@pytest.fixture(scope="module")
def special() -> Iterator[SpecialKafka]:
    open_, elsewhere, reading = (f"127.0.0.1:{port}" for port in free_ports(3))
    listeners = f"{{default}},OPEN://{open_},READING://{reading},ELSEWHERE://"
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    settings = {
        "listeners": listeners + elsewhere,
        "advertised.listeners": listeners + "127.0.0.1:1",
        "listener.security.protocol.map": "{default},OPEN:PLAINTEXT,READING:SASL_SSL,ELSEWHERE:PLAINTEXT",
        "listener.name.reading.plain.sasl.jaas.config": f'{login} user_reader="{READER_SECRET}";',
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:local;User:ANONYMOUS",
    }
    with LocalKafka(settings=settings) as kafka:
        reader = {"bootstrap.servers": reading, "sasl.username": "reader", "sasl.password": READER_SECRET}
        yield SpecialKafka(kafka.config, {**kafka.config, **reader}, open_, elsewhere)


# --- Nobody there, somebody else, no login, no trust ------------------------------------------------------------------

NOT_KAFKA = "what answers there is not Kafka"
NO_TLS = "the server doesn't speak TLS there"
CLOSED = "most often the server wants TLS and a login"
TOO_SLOW = "the handshake with the server took too long"
UNTRUSTED = "certificate is not trusted, has expired or is for another name"
NO_SUCH_LOGIN = "offers no such login"
WRONG_KEY = "the API key or its secret is wrong, or of another cluster"
PLAINTEXT, SASL_PLAINTEXT = {"security.protocol": "PLAINTEXT"}, {"security.protocol": "SASL_PLAINTEXT"}
# What is wrong: the address, what else isn't as it should be ("": missing), and what has to be told of it.
NO_CONNECTION = {
    "unknown host": ("pkc-12345.invalid:9092", {}, "host name in bootstrap.servers is unknown"),
    "closed port": ("closed", {}, "nothing listens there"),
    "port that says nothing": ("silent", {}, TOO_SLOW),
    "port that says nothing, without TLS": ("silent", PLAINTEXT, TOO_SLOW),
    "web server": ("web", PLAINTEXT, NOT_KAFKA),
    "web server with TLS": ("web", {}, NO_TLS),
    "TLS where there is none": ("open", {}, NO_TLS),
    "no TLS": ("good", PLAINTEXT, CLOSED),
    "login without TLS": ("good", SASL_PLAINTEXT, CLOSED),
    "TLS without login": ("good", {"security.protocol": "SSL"}, CLOSED),
    "wrong key": ("good", {"sasl.username": READER_SECRET}, WRONG_KEY),
    "wrong secret": ("good", {"sasl.password": READER_SECRET}, WRONG_KEY),
    "wrong mechanism": ("good", {"sasl.mechanisms": "SCRAM-SHA-256"}, NO_SUCH_LOGIN),
    "login where there is none": ("open", SASL_PLAINTEXT, NO_SUCH_LOGIN),
    "certificate not trusted": ("good", {"ssl.ca.location": ""}, UNTRUSTED),
    "certificate for another name": ("misnamed", {}, UNTRUSTED),
}


@pytest.fixture(scope="module")
def attempts(special: SpecialKafka) -> dict[str, Attempt]:
    """Everything that takes some seconds, at once."""
    good, nowhere = special.config["bootstrap.servers"], {"bootstrap.servers": special.elsewhere}
    closed = f"127.0.0.1:{free_ports(1)[0]}"
    for topic in ("seen", "hidden"):
        ensure_topic(special.config, topic)
    actions: dict[str, Callable[[], object]] = {
        "not seen to write": lambda: produce_sync(special.reader, "hidden", []),
        "not seen to read": lambda: end_offsets(special.reader, "hidden"),
        "never made": lambda: produce_async(special.config, "never-made", []),
        "elsewhere to create": lambda: ensure_topic(nowhere, "elsewhere"),
        "elsewhere to write": lambda: produce_async(nowhere, "seen", []),
    }
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        web = stack.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), WebServer))
        threading.Thread(target=web.serve_forever).start()
        stack.callback(web.shutdown)
        ports = {"silent": silent.getsockname()[1], "web": web.server_address[1]}
        addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        addresses |= {"good": good, "open": special.open, "closed": closed, "misnamed": good.replace("0.0.", "")}
        configs = {"helped: debug": special.config | {"debug": "all"}}
        configs["helped: slow"] = stack.enter_context(proxy(special.config, delay_s=0.45))  # each way
        for chunks in range(9):
            lossy = proxy(special.config, lost_after=chunks)
            configs[f"helped: lost after {chunks}"] = stack.enter_context(lossy)
        for cause, (address, changes, _) in NO_CONNECTION.items():
            changed = {**special.config, "bootstrap.servers": addresses.get(address, address), **changes}
            configs[cause] = {key: value for key, value in changed.items() if value}
        actions |= {name: lambda c=config: ensure_topic(c, "any") for name, config in configs.items()}
        with ThreadPoolExecutor(len(actions)) as pool:
            return dict(zip(actions, pool.map(attempt, actions.values()), strict=True))


@pytest.mark.parametrize("cause", NO_CONNECTION)
def test_no_connection(attempts: dict[str, Attempt], special: SpecialKafka, cause: str) -> None:
    sentence = attempts[cause].told()
    assert sentence.startswith("No connection to the cluster: ") and NO_CONNECTION[cause][-1] in sentence
    assert special.config["sasl.password"] not in sentence


def test_what_a_patient_client_gets_over(attempts: dict[str, Attempt]) -> None:
    """A connection lost during the login, a slow link; and what it says when it is to say more is no error."""
    helped = {name: each.error for name, each in attempts.items() if name.startswith("helped")}
    assert helped == dict.fromkeys(helped) and len(helped) == 11


def test_one_address_of_two_is_enough(special: SpecialKafka) -> None:
    closed = free_ports(1)[0]
    good = special.config["bootstrap.servers"]
    ensure_topic({**special.config, "bootstrap.servers": f"127.0.0.1:{closed},{good}"}, "reached-all-the-same")


@pytest.mark.parametrize("purpose", ["create", "write"])
def test_brokers_elsewhere(attempts: dict[str, Attempt], purpose: str) -> None:
    """The cluster gives an address that can't be reached from here, as behind a wrong port forwarding."""
    said = attempts[f"elsewhere to {purpose}"].told()
    assert "the cluster was reached, but not its broker at 127.0.0.1:1" in said


@pytest.mark.parametrize(
    ("name", "value"), [("linger.ms", "soon"), ("plugin.library.paths", "none"), ("retries", "-9")]
)
def test_a_setting_that_the_client_refuses_is_named(special: SpecialKafka, name: str, value: str) -> None:
    said = attempt(lambda: ensure_topic({**special.config, name: value}, "any")).told()
    assert f"it refuses the setting {name};" in said


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


def test_no_secret_in_a_verbose_traceback(special: SpecialKafka, tmp_path: Path) -> None:
    (tmp_path / "client.properties").write_text("".join(f"{key}={value}\n" for key, value in special.config.items()))
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
    assert special.config["sasl.password"] not in shown.stdout + shown.stderr


# --- Rights, and what the cluster refuses ----------------------------------------------------------------------------


def test_no_right_to_create(special: SpecialKafka) -> None:
    said = attempt(lambda: ensure_topic(special.reader, "forbidden")).told()
    assert said.startswith("The topic forbidden can't be created: this API key lacks the right")


@pytest.mark.parametrize("purpose", ["write", "read"])
def test_no_right_to_see(attempts: dict[str, Attempt], purpose: str) -> None:
    said = attempts[f"not seen to {purpose}"].told()
    assert said.startswith("The topic hidden can't be used: this API key lacks the right")


def test_no_right_to_write(special: SpecialKafka) -> None:
    topic = new_topic(special.config)
    allow(special.config, "reader", topic, AclOperation.DESCRIBE)
    ensure_topic(special.reader, topic)  # it is there, and may be seen
    for produce in (produce_async, produce_sync):
        said = attempt(lambda p=produce: p(special.reader, topic, make_messages("a", 10))).told()
        assert said.startswith(f"The topic {topic} can't be written to: this API key lacks the right")
        # With the right to write to some other topic the client gets a producer id, and is refused later.
        allow(special.config, "reader", "another", AclOperation.WRITE)


def test_no_right_to_read(special: SpecialKafka) -> None:
    """It is asked for, and so told before the reading comes to a standstill."""
    topic, messages = new_topic(special.config), make_messages("a", 10)
    produce_async(special.config, topic, messages)
    allow(special.config, "reader", topic, AclOperation.DESCRIBE)
    said = attempt(lambda: read_back(special.reader, topic, {"a": messages})).told(hangs_after_s=STANDSTILL_S)
    assert said.startswith(f"The topic {topic} can't be read to its end: this API key lacks the right")


def test_what_the_cluster_refuses(special: SpecialKafka) -> None:
    said = attempt(lambda: ensure_topic(special.config, "thrice", replication=3)).told()
    assert said.startswith("The topic thrice can't be created: the cluster answered: ") and "eplication factor" in said


@pytest.mark.parametrize("topic", [2026, None, ""])
def test_a_topic_that_is_no_text(special: SpecialKafka, topic: object) -> None:
    said = attempt(lambda: ensure_topic(special.config, topic)).told(kind=ConfigError)
    assert said == "topic has to be a text in quotation marks."


def test_a_timeout_that_is_too_short_is_named() -> None:
    """In the client's own words; how soon a broker acknowledges is nobody's to say."""
    told = explain(KafkaError(KafkaError._MSG_TIMED_OUT))
    assert told.startswith("no acknowledgement came within delivery.timeout.ms")


def test_no_such_topic(attempts: dict[str, Attempt]) -> None:
    assert "The topic never-made can't be used: it isn't there" in attempts["never made"].told()
