"""A client's life: it connects, answers questions, can be stopped, and is closed where its work ends."""

import contextlib
import signal
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException, Producer

from harness.errors import ClusterError
from harness.explain import explain, explain_refusal, is_answer, known
from harness.settings import LEFT_OUT

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
