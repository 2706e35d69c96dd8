"""A client's life: it connects, answers questions, can be stopped, is closed; its words as plain sentences."""

import contextlib
import logging
import re
import threading
import time
import tomllib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from harness.config import LEFT_OUT, ClientConfig, refused_settings
from harness.errors import ClusterError
from harness.stop import StopButton

EXPLANATIONS = tomllib.loads(Path(__file__).with_name("explanations.toml").read_text(encoding="utf-8"))
LASTING, PASSING = (list(EXPLANATIONS[name].items()) for name in ("lasting", "passing"))


def explain(error: object, heard: Iterable[str] = ()) -> str:
    """The client library's error, and what it had said before, as one plain clause with the remedy."""
    error = error.args[0] if isinstance(error, KafkaException) else error
    if meaning := known([str(error), *heard]):
        return meaning
    if isinstance(error, KafkaError) and error.code() > 0:  # the codes of the client itself are below 0
        return f"the cluster answered: {error.str().rstrip('.')}"
    return "no answer came in time; check the network, bootstrap.servers and security.protocol"


def known(said: Sequence[str], meanings: Iterable[tuple[str, str]] = (*LASTING, *PASSING)) -> str | None:
    """What the client's words mean, where that is known."""
    for pattern, meaning in meanings:
        for line in said:
            if match := re.search(pattern, line, re.IGNORECASE):
                return meaning.format(*match.groups())
    return None


CONNECT_TIMEOUT_S = 12.0
# Confluent advises more than 10 s on slow links; less than the above, so that the client can say what took so long.
HANDSHAKE_MS = 11_000
HANDSHAKE_SETTINGS = ("socket.connection.setup.timeout.ms", "api.version.request.timeout.ms")
PATIENCE_S = 4.0  # once the cause is known, no longer than that: it may go by itself, but seldom does
CLOSE_S = 1.0  # then the caller goes on, and the client ends when it can
GIVE_UP_S = 5.0  # to let go of what is still queued; purging takes a moment, or a second try


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

    def listen(self) -> None:
        """Hear what the client has to say; what it raises then is in that, too."""
        with contextlib.suppress(KafkaException, SystemError):
            self.client.poll(0.05)


@contextlib.contextmanager
def connect(make: Callable[..., Client], config: Mapping[str, Any], **more: Any) -> Iterator[Connection[Client]]:
    """A client that logs nothing on the screen; in the end it is closed, whatever happens.

    Left to the garbage collector, it would go on for a while and end in the middle of another measurement. ``make`` is
    the client's class; ``more`` are further arguments of it, such as ``stats_cb``.

    Raises:
        ClusterError: there is no cluster any more, or the client refuses a setting, which is named.
        KeyboardInterrupt: the user pressed the stop button.
    """
    if not config:
        raise ClusterError("The cluster is closed; run the cell that opens it again.")
    settings = ClientConfig(dict.fromkeys(HANDSHAKE_SETTINGS, HANDSHAKE_MS))
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
    said: Any = error if isinstance(error, KafkaException) else error.__cause__
    return said.args[0]


def ask(connection: Connection, question: Callable[[float], Any]) -> Any:
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
            connection.listen()
            if time.monotonic() - asked > (PATIENCE_S if known(heard, LASTING) else CONNECT_TIMEOUT_S):
                raise ClusterError(f"No connection to the cluster: {explain(error, heard)}.") from None
