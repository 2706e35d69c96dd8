"""A client's life: it connects, answers questions, can be stopped, is closed; its words as plain sentences."""

import contextlib
import logging
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeGuard, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from harness.config import LEFT_OUT, ClientConfig, refused_settings
from harness.errors import ClusterError

NOT_TLS = "the server doesn't speak TLS there; check security.protocol and the port"
CLOSED = (
    "the connection is closed before it can be used; most often the server wants TLS and a login "
    "(security.protocol=SASL_SSL), else check port and network"
)
SLOW = (
    "the handshake with the server took too long; check host, port and security.protocol, and that the network isn't "
    "too slow"
)
# These may go by themselves, when the client connects again.
PASSING = (NOT_TLS, CLOSED, SLOW)
# What the client library reports, and what that means to somebody who has just filled in a file. First match counts,
# and what comes up late in a connection stands first: of several addresses, one that was reached tells most.
EXPLANATIONS = [
    ("replication factor", "the cluster refuses this replication factor; leave it out"),
    ("number of partitions", "the cluster refuses this number of partitions; ask for 1 or more"),
    ("topic name is invalid|TOPIC_EXCEPTION", "a topic's name can have letters, digits, '.', '_' and '-' only"),
    ("unknown topic", "it isn't there; ensure_topic() creates it"),
    (
        r"\b_AUTHENTICATION\b.*(not valid in current SASL state|Unsupported SASL mechanism)",
        "the server offers no such login; check security.protocol and sasl.mechanisms (on Confluent Cloud SASL_SSL and "
        "PLAIN)",
    ),
    # Where the connection is lost during the login, the client uses that code, too, and then names the loss.
    (
        r"^(?!.*failed: Local:).*\b(_AUTHENTICATION|SASL_AUTHENTICATION_FAILED)\b",
        "the API key or its secret is wrong, or of another cluster; check them (a new key takes a couple of minutes)",
    ),
    ("authoriz", "this API key lacks the right; give it one, or use a key with global access"),
    (
        "certificate verify failed",
        "the server's certificate is not trusted, has expired or is for another name; check bootstrap.servers and "
        "ssl.ca.location, or install ca-certificates",
    ),
    ("ssl.ca.location failed", "the file in ssl.ca.location can't be read; check its path"),
    ("wrong version number|PLAINTEXT broker listener", NOT_TLS),
    (
        "Invalid response size",
        "what answers there is not Kafka; check host and port in bootstrap.servers, and security.protocol",
    ),
    ("closed by peer.* (APIVERSION_QUERY|AUTH\\w*|UP)", CLOSED),
    # A broker that the cluster has named is known by its number.
    (
        r"([^\s/]+)/\d+: (?:Failed to resolve|Connect to|Connection setup timed out)",
        "the cluster was reached, but not its broker at {}, the address that the cluster itself gives; check that it "
        "can be reached from here (advertised.listeners)",
    ),
    ("ApiVersion.*timed out|timed out.* (SSL_HANDSHAKE|APIVERSION_QUERY|AUTH)", SLOW),
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
    said = list(said)
    for pattern, meaning in EXPLANATIONS:
        for line in said:
            if match := re.search(pattern, line, re.IGNORECASE):
                return meaning.format(*match.groups())
    return None


def is_answer(error: object) -> TypeGuard[KafkaError]:
    """Whether that is the cluster's own answer: the codes of the client itself are below 0."""
    return isinstance(error, KafkaError) and error.code() > 0


def in_words(error_name: str) -> str:
    """The client's name for an error, such as _MSG_TIMED_OUT, in words; another name stays as it is."""
    code = getattr(KafkaError, error_name, None)
    return KafkaError(code).str().partition(": ")[2].lower() if isinstance(code, int) else error_name


CONNECT_TIMEOUT_S = 12.0
# Confluent advises more than 10 s on slow links; less than the above, so that the client can say what took so long.
HANDSHAKE_MS = 11_000
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
        self._installed = in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._installed:
            signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
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


class Heard(deque[str]):
    """The latest errors and log lines of a client, as text: the client takes this for its logger, too."""

    def __init__(self) -> None:
        super().__init__(maxlen=200)  # a client without a broker has something to say 20 times a second

    def error(self, error: KafkaError) -> None:
        self.append(str(error))

    def log(self, level: int, form: str, *words: str) -> None:
        if level > logging.DEBUG:  # what a setting debug=... adds is no error
            self.append(form % words)


Client = TypeVar("Client", bound=Producer | Consumer | AdminClient)


@dataclass
class Connection(Generic[Client]):
    """A client, what is heard of it, and the user's stop button."""

    client: Client
    heard: Heard
    stop: StopButton


@contextlib.contextmanager
def connect(make: Callable[..., Client], config: Mapping[str, Any], **more: Any) -> Iterator[Connection[Client]]:
    """A client that logs nothing on the screen; in the end it is closed, whatever happens.

    Left to the garbage collector, it would go on for a while and end in the middle of another measurement.

    Args:
        make: the client's class.
        config: client configuration.
        more: further arguments of the client, such as ``stats_cb``.

    Raises:
        ClusterError: there is no cluster any more, or the client refuses a setting, which is named.
        KeyboardInterrupt: the user pressed the stop button.
    """
    if not config:
        raise ClusterError("The cluster is closed; run the cell that opens it again.")
    settings = ClientConfig(
        {"socket.connection.setup.timeout.ms": HANDSHAKE_MS, "api.version.request.timeout.ms": HANDSHAKE_MS}
    )
    settings |= {key: value for key, value in config.items() if not key.startswith(LEFT_OUT)}
    heard = Heard()
    with StopButton() as stop:
        try:
            client = make(settings | {"logger": heard, "error_cb": heard.error} | more)
        except KafkaException as error:
            refused = " with ".join(refused_settings(error, settings)) or "that the client's log names"
            cause = known([str(error)]) or f"it refuses the setting {refused}; correct or remove it"
            raise ClusterError(f"The Kafka client can't be set up: {cause}.") from None
        try:
            yield Connection(client, heard, stop)
        finally:
            stop.closing = True
            close(client)


def close(client: Producer | Consumer | AdminClient) -> None:
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

    The steps get longer as time goes by: on a slow link an answer may take more than the first.

    Raises:
        ClusterError: no connection, or the cluster's refusal, in plain words.
    """
    asked, heard = time.monotonic(), connection.heard
    while True:
        connection.stop.check()
        waited = time.monotonic() - asked
        try:
            return question(max(0.8, min(waited / 3, CONNECT_TIMEOUT_S - waited)))
        except KafkaException as error:
            connection.client.poll(0.05)  # hear what the client has to say
            cause = known(heard)
            lasting = cause and cause not in PASSING
            if time.monotonic() - asked > (PATIENCE_S if lasting else CONNECT_TIMEOUT_S):
                what = (
                    "The cluster can't say"
                    if is_answer(error.args[0]) and not cause
                    else "No connection to the cluster"
                )
                raise ClusterError(f"{what}: {explain(error, heard)}.") from None
