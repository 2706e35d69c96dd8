"""A client's life: it connects, answers questions, can be stopped, is closed; its words as plain sentences."""

import contextlib
import re
import signal
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException, Producer

from harness.config import LEFT_OUT
from harness.errors import ClusterError

# What the client library reports, and what that means to somebody who has just filled in a file. First match counts,
# and what comes up late in a connection stands first: of several addresses, one that was reached tells most.
EXPLANATIONS = [
    ("replication factor", "the cluster refuses this replication factor; leave it out"),
    ("number of partitions", "the cluster refuses this number of partitions; ask for 1 or more"),
    ("topic name is invalid|TOPIC_EXCEPTION", "a topic's name can have letters, digits, '.', '_' and '-' only"),
    ("unknown topic", "it isn't there; ensure_topic() creates it"),
    (
        "not valid in current SASL state|Unsupported SASL mechanism",
        "the server offers no such login; check security.protocol and sasl.mechanisms (on Confluent Cloud SASL_SSL and "
        "PLAIN)",
    ),
    (
        "SASL authentication error|Authentication failed|SaslAuth",
        "the API key or its secret is wrong; check both, or make a new key",
    ),
    ("authoriz", "this API key lacks the right; give it one, or use a key with global access"),
    ("certificate has expired", "the server's certificate has expired; renew it"),
    ("hostname mismatch|IP address mismatch", "the server's certificate is for another name; check bootstrap.servers"),
    (
        "certificate verify failed",
        "the server's certificate is not trusted; check ssl.ca.location, or install ca-certificates",
    ),
    ("ssl.ca.location failed", "the file in ssl.ca.location can't be read; check its path"),
    (
        "wrong version number|PLAINTEXT broker listener",
        "the server doesn't speak TLS there; check security.protocol and the port",
    ),
    (
        "Invalid response size|ApiVersion.*timed out|timed out.* (SSL_HANDSHAKE|APIVERSION_QUERY)",
        "what answers there is not Kafka; check host and port in bootstrap.servers, and security.protocol",
    ),
    (
        "connection closed by peer.* APIVERSION_QUERY",
        "the server closed the connection, most often since it wants TLS; set security.protocol=SASL_SSL",
    ),
    (
        "SSL connection closed by peer.* (APIVERSION_QUERY|UP)",
        "the server closed the connection, since it wants a login or isn't Kafka; set security.protocol=SASL_SSL, and "
        "check the port",
    ),
    (
        "Connection refused",
        "nothing listens there; check host and port in bootstrap.servers, and that the cluster is running",
    ),
    (
        "Failed to resolve",
        "the host name in bootstrap.servers is unknown; check it for typing errors, and that the cluster exists",
    ),
]


def explain(error: object, heard: Iterable[str] = ()) -> str:
    """The client library's error, and what it had said before, as one plain clause with the remedy."""
    error = error.args[0] if isinstance(error, KafkaException) else error
    if meaning := known([str(error), *heard]):
        return meaning
    if is_answer(error):
        return f"the cluster answered: {error.str().rstrip('.')}"
    return "no answer came in time; check the network, bootstrap.servers and security.protocol"


def known(said: Iterable[str]) -> str | None:
    """What the client's words mean, where that is known."""
    said = " | ".join(said)
    return next((meaning for pattern, meaning in EXPLANATIONS if re.search(pattern, said, re.IGNORECASE)), None)


def is_answer(error: object) -> bool:
    """Whether that is the cluster's own answer: the codes of the client itself are below 0."""
    return isinstance(error, KafkaError) and error.code() > 0


def explain_refusal(error: Exception, settings: Mapping[str, object]) -> str:
    """Why the client refuses these settings when it is made: by name, since its own words may repeat a value."""
    if meaning := known([str(error)]):
        return meaning
    named = [key for key in settings if re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", str(error))]
    # The client may have another name for it: queue.buffering.max.ms for linger.ms.
    named = named or re.findall(r'property "([\w.]+)"', str(error))
    if not named:
        return "its settings don't fit each other; compare with the example file"
    return f"it refuses the setting {' with '.join(named)}; correct or remove it"


def in_words(error_name: str) -> str:
    """The client's name for an error, such as _MSG_TIMED_OUT, in words; another name stays as it is."""
    code = getattr(KafkaError, error_name, None)
    return KafkaError(code).str().partition(": ")[2].lower() if isinstance(code, int) else error_name


CONNECT_TIMEOUT_S = 12.0
PATIENCE_S = 4.0  # once the cause is known, no longer than that: it may go by itself, but seldom does
CLOSE_S = 1.0  # then the caller goes on, and the client ends when it can
GIVE_UP_S = 5.0  # to let go of what is still queued; purging takes a moment, or a second try


class StopButton:
    """The user's interrupt: the first is noted, a second one is raised as usual.

    Nothing is raised out of the signal handler at the first press: the client loses an exception that falls into one
    of its callbacks, and Python one that falls into a destructor. Whoever works under the button calls
    :meth:`check` between two short waits, or sets ``then``, which is called at the press and answers for the stop.
    While ``closing``, every press is noted only, so that a client is always closed.
    """

    def __init__(self) -> None:
        self.pressed = self.closing = False
        self.then: Callable[[], None] | None = None

    def __enter__(self) -> "StopButton":
        in_main = threading.current_thread() is threading.main_thread()  # the only one that is interrupted
        # Also in the place of asyncio's and a notebook's own handler, which would wait for this code to end; but not of
        # another stop button, whose owner answers for the stop.
        self._before = signal.getsignal(signal.SIGINT)
        another = isinstance(getattr(self._before, "__self__", None), StopButton)
        self._installed = in_main and callable(self._before) and not another
        if self._installed:
            signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._before)
        if kind is None:
            self.check()

    def _press(self, *_) -> None:
        if self.pressed and not self.closing:
            raise KeyboardInterrupt
        self.pressed = True
        if self.then:
            self.then()

    def check(self) -> None:
        """Raise KeyboardInterrupt if the button was pressed and nobody answers for it."""
        if self.pressed and not self.then:
            raise KeyboardInterrupt


class Heard(deque):
    """The latest errors and log lines of a client, as text: the client takes this for its logger, too."""

    def __init__(self) -> None:
        super().__init__(maxlen=200)  # a client without a broker has something to say 20 times a second

    def error(self, error: KafkaError) -> None:
        self.append(str(error))

    def log(self, _level: int, form: str, *words: str) -> None:
        self.append(form % words)


@dataclass
class Connection:
    """A client, its settings, what is heard of it, and the user's stop button."""

    client: object
    settings: dict[str, object]
    heard: Heard
    stop: StopButton


@contextlib.contextmanager
def connect(make: Callable, config: Mapping[str, str], **more: object) -> Iterator[Connection]:
    """A client that logs nothing on the screen; in the end it is closed, whatever happens.

    Left to the garbage collector, it would go on for a while and end in the middle of another measurement.

    Args:
        make: the client's class.
        config: client configuration.
        more: further arguments of the client, such as ``stats_cb``.

    Raises:
        ClusterError: the client refuses a setting, which is named.
        KeyboardInterrupt: the user pressed the stop button.
    """
    settings: dict[str, object] = {
        "socket.connection.setup.timeout.ms": 6_000,
        "api.version.request.timeout.ms": 6_000,
    }
    settings |= {key: value for key, value in config.items() if not key.startswith(LEFT_OUT)}
    heard = Heard()
    with StopButton() as stop:
        try:
            client = make({**settings, "logger": heard, "error_cb": heard.error, **more})
        except KafkaException as error:
            raise ClusterError(f"The Kafka client can't be set up: {explain_refusal(error, settings)}.") from None
        try:
            yield Connection(client, settings, heard, stop)
        finally:
            stop.closing = True
            close(client)


def close(client: object) -> None:
    """End a client in bounded time; a producer first lets go of what it still holds."""
    if isinstance(client, Producer) and not give_up(client):
        return  # it is left to its destructor: close() would wait for the rest, for ever

    def end() -> None:
        with contextlib.suppress(KafkaException, SystemError):  # see client_error(); it is closed all the same
            client.__exit__(None, None, None)

    # In a thread of its own, since it waits for a name server that doesn't answer, as long as the system does.
    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    ending.join(CLOSE_S)


def give_up(producer: Producer) -> bool:
    """Let all messages that are queued or under way fail, serve their reports, and say whether none is left."""
    deadline = time.monotonic() + GIVE_UP_S
    while len(producer) and time.monotonic() < deadline:
        producer.purge()  # again and again: it may miss those of a partition that just changes its leader
        with contextlib.suppress(KafkaException, SystemError):  # see client_error()
            producer.flush(0.2)
    return not len(producer)


def client_error(error: KafkaException | SystemError) -> KafkaError:
    """What the client raises out of poll() or flush() when it has given up; it may trip over its own report of it."""
    return (error if isinstance(error, KafkaException) else error.__cause__).args[0]


Answer = TypeVar("Answer")


def ask(connection: Connection, question: Callable[[float], Answer]) -> Answer:
    """Ask the cluster something, in short steps (of so many seconds) so that the stop button gets through.

    Raises:
        ClusterError: no connection, or the cluster's refusal, in plain words.
    """
    asked, heard = time.monotonic(), connection.heard
    while True:
        connection.stop.check()
        try:
            return question(0.8)
        except KafkaException as error:
            connection.client.poll(0)  # hear what the client has to say
            waited = time.monotonic() - asked
            login_failed = any("authentication" in each.lower() for each in heard)
            if login_failed or waited > (PATIENCE_S if known(heard) else CONNECT_TIMEOUT_S):
                if any("certificate verify failed" in each for each in heard):
                    heard.append(_certificate_fault(connection.settings))
                answered = is_answer(error.args[0]) and not known(heard)
                what = "The cluster can't say" if answered else "No connection to the cluster"
                raise ClusterError(f"{what}: {explain(error, heard)}.") from None


def _certificate_fault(config: Mapping[str, object]) -> str:
    """What is wrong with the server's certificate, which the client doesn't say: Python's own TLS looks at it again."""
    address = str(config["bootstrap.servers"]).split(",")[0].rpartition("//")[2]
    host, _, port = address.rpartition(":")
    host, authorities = host.strip("[]"), config.get("ssl.ca.location")
    try:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if not authorities:
            tls.load_default_certs()
        elif Path(authorities).is_dir():
            tls.load_verify_locations(capath=authorities)
        else:
            tls.load_verify_locations(cafile=authorities)
        with socket.create_connection((host, int(port)), timeout=2) as connection:
            tls.wrap_socket(connection, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except (OSError, ValueError):
        pass
    return ""
