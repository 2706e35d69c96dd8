"""A client's life: it connects, answers questions, can be stopped, is closed; its words as plain sentences."""

import contextlib
import logging
import re
import threading
import time
import tomllib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from harness.config import IGNORED_PREFIXES, ClientConfig, refused_settings
from harness.errors import ClusterError
from harness.stop import StopButton

_tables = tomllib.loads(Path(__file__).with_name("explanations.toml").read_text(encoding="utf-8"))
LASTING: Mapping[str, str] = _tables["lasting"]  # a pattern -> what the client's words mean; these don't pass
EXPLANATIONS: Mapping[str, str] = LASTING | _tables["passing"]  # in the order in which they count


def meaning(lines: Iterable[str], explanations: Mapping[str, str] = EXPLANATIONS) -> str | None:
    """The first of the explanations that fits any of the client's lines; None if none does."""
    text = "\n".join(lines)
    for pattern, sentence in explanations.items():
        if match := re.search(pattern, text, re.IGNORECASE | re.MULTILINE):
            return sentence.format(*match.groups())
    return None


NO_ANSWER = {
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
}


def explain(error: object, heard: Iterable[str] = ()) -> str:
    """The client library's error, and what it had said before, as one plain clause with the remedy."""
    error = error.args[0] if isinstance(error, KafkaException) else error
    if known := meaning([str(error), *heard]):
        return known
    if isinstance(error, KafkaError) and error.code() not in NO_ANSWER:
        who = "cluster answered" if error.code() > 0 else "client reports"  # its own codes are below 0
        return f"the {who}: {error.str().rstrip('.')}"
    return "no answer came in time; check the network, bootstrap.servers and security.protocol"


CONNECT_TIMEOUT_S = 12.0
# For a topic's first messages: where a broker has died, the cluster takes 9 s to notice, then it may start again.
PRIME_TIMEOUT_S = 25.0
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
        """Take in an error: the client's ``error_cb``."""
        self.append(str(error))

    def log(self, level: int, form: str, *words: str) -> None:
        """Take in a log line, as a ``logging.Logger`` does."""
        if level > logging.DEBUG:  # what a setting debug=... adds is no error
            self.append(form % words)


Client = TypeVar("Client", bound=Producer | Consumer | AdminClient)
Answer = TypeVar("Answer")


@dataclass
class Connection(Generic[Client]):
    """A client, what is heard of it, and the user's stop button."""

    client: Client
    heard: Heard
    stop: StopButton

    def listen(self) -> None:
        """Let the client say for 50 ms what it has to say, into ``heard``; no error of its own gets out."""
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
    if not config.get("bootstrap.servers"):  # other settings may have been joined to what was emptied
        raise ClusterError("The cluster is closed; run the cell that opens it again.")
    settings = ClientConfig(dict.fromkeys(HANDSHAKE_SETTINGS, HANDSHAKE_MS))
    settings |= {key: value for key, value in config.items() if not key.startswith(IGNORED_PREFIXES)}
    heard = Heard()
    with StopButton() as stop:
        try:
            client = make(settings | {"logger": heard, "error_cb": heard.error} | more)
        except KafkaException as error:
            names = refused_settings(error, settings)
            refused = f"the setting {' with '.join(names)}" if names else "several settings"
            raise ClusterError(
                f"The Kafka client can't be set up: it refuses {refused}; correct or remove that."
            ) from None
        try:
            yield Connection(client, heard, stop)
        finally:
            stop.closing = True
            close(client)


def close(client: Producer | Consumer | AdminClient) -> None:
    """End a client within 1 s (CLOSE_S); a producer lets go of what it still holds before, within 5 s (GIVE_UP_S).

    What takes longer goes on by itself, in a thread that doesn't outlive this process.
    """
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
    """Let all messages that are queued or under way fail, and serve their reports; raises nothing.

    Returns whether none is left, after 5 s at most (GIVE_UP_S).
    """
    deadline = time.monotonic() + GIVE_UP_S
    while len(producer) and time.monotonic() < deadline:
        producer.purge()  # again and again: it may miss those of a partition that just changes its leader
        with contextlib.suppress(KafkaException, SystemError):  # see client_error()
            producer.flush(0.2)
    return not len(producer)


def client_error(error: KafkaException | SystemError) -> KafkaError:
    """What the client raises out of poll() or flush() when it has given up; it may trip over its own report of it."""
    cause = error if isinstance(error, KafkaException) else error.__cause__
    if isinstance(cause, KafkaException):
        return cause.args[0]
    return KafkaError(KafkaError._FAIL, f"{type(cause or error).__name__} in one of its callbacks")


def ask(connection: Connection, question: Callable[[float], Answer]) -> Answer:
    """The cluster's answer to a question, which is asked again and again until there is one.

    Args:
        connection: of the client that is asked.
        question: asks it, and waits for so many seconds at most: a short step, so that the stop button gets through,
            and a longer one as time goes by, since on a slow link an answer may take more than the first.

    Raises:
        ClusterError: no connection, or the cluster's refusal, in plain words; after 12 s (CONNECT_TIMEOUT_S), or
            4 s (PATIENCE_S) where the cause is known not to pass.
        KeyboardInterrupt: the user pressed the stop button.
    """
    asked = time.monotonic()
    while True:
        connection.stop.check()
        waited = time.monotonic() - asked
        try:
            return question(max(0.8, min(waited / 3, CONNECT_TIMEOUT_S - waited)))
        except KafkaException as error:
            connection.listen()
            patience = PATIENCE_S if meaning(connection.heard, LASTING) else CONNECT_TIMEOUT_S
            if time.monotonic() - asked > patience:
                raise ClusterError(f"No connection to the cluster: {explain(error, connection.heard)}.") from None
