"""What the notebook calls: configuration, cluster, messages, the two producers, read-back, results.

Read it from top to bottom in the order in which the notebook uses it. All times are in seconds unless a name says
otherwise; ``poll`` and ``flush`` of the client take seconds, too. Batch means: ``batch_size`` consecutive messages of
the test, not librdkafka's message batch.
"""

import contextlib
import difflib
import hashlib
import html
import inspect
import io
import itertools
import json
import math
import os
import platform
import random
import re
import secrets
import signal
import socket
import ssl
import stat
import statistics
import threading
import time
import typing
import uuid
import zlib
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import confluent_kafka
import dotenv.parser
import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from IPython.display import HTML, Markdown, display
from tqdm import tqdm

from local_kafka import KAFKA_VERSION, ClientConfig, LocalKafka, PlainError, quiet_logger, simulated_cluster

if typing.TYPE_CHECKING:
    import pandas as pd

# --- Configuration ---------------------------------------------------------------------------------------------------

# The course's keys for .env and the environment, and the client's own names for the same five settings.
ENV_KEYS = {
    "BOOTSTRAP_SERVERS": "bootstrap.servers",
    "SECURITY_PROTOCOL": "security.protocol",
    "SASL_MECHANISMS": "sasl.mechanisms",
    "SASL_USERNAME": "sasl.username",
    "SASL_PASSWORD": "sasl.password",
}
# The console's file may also hold these, for other programs. A Producer refuses them or warns of them.
NOT_FOR_PRODUCERS = ("schema.registry.", "basic.auth.", "session.timeout.ms", "group.id", "auto.offset.reset")
# The same for both producers, whatever a configuration file says: otherwise they could not be compared.
MEASURED_SETTINGS = {"acks": "all", "enable.idempotence": "true"}
PLACEHOLDER = re.compile(r"<.*>|\{\{.*\}\}|\.\.\.|x{4,}.*|pkc-x{3,}.*|your?[-_ ].*", re.IGNORECASE)


class ConfigError(PlainError):
    """The configuration can't be used; the message names file, line or key and the remedy, and never a value."""


def load_config(properties: str | Path = "client.properties", env: str | Path = ".env") -> dict[str, str] | None:
    """Read the client's configuration from wherever the user has put it, and say in a line which place that was.

    ``properties`` wins where it exists. Otherwise the five keys of ``ENV_KEYS`` count, each from the environment or,
    where that lacks it, from the file ``env``. What is wrong is said without repeating what the file holds, since a
    slip can put the secret anywhere.

    Args:
        properties: the file that the Confluent Cloud console gives (``key=value`` lines, with or without a
            ``[default]`` header as in Confluent's ``getting_started.ini``).
        env: a file of ``KEY=value`` lines as in the course.

    Returns:
        The configuration for a confluent-kafka client, or None where no credentials are given.

    Raises:
        ConfigError: a place was found, but what stands there can't be used.
    """
    file = Path(properties)
    if file.exists():
        entries = _read_properties(file)
        named = {name: name for name in ENV_KEYS.values()}
    else:
        file = Path(env)
        entries = _read_env(file)
        named = {name: key for key, name in ENV_KEYS.items()}
    if not entries:
        return None
    place = " and ".join(sorted({where.split(", ")[0] for _, where in entries.values()}))
    for key, (value, where) in entries.items():
        if key in named and not value:
            raise ConfigError(f"{where}: {named[key]} has no value; fill it in.")
        if PLACEHOLDER.fullmatch(value):
            raise ConfigError(
                f"{where}: the example's placeholder still stands there; put your own value in its place."
            )
    _check_complete(entries, named, place)
    _check_accepted(entries, named, place)
    config = ClientConfig((key, value) for key, (value, _) in entries.items())
    print(f"Configuration from {place}{_partly(config.get('sasl.username'))}.")
    if os.name == "posix" and file.exists() and file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        print(f"Others on this machine can read {file.name}; to keep it to yourself: chmod 600 {file.name}")
    return config


Entries = dict[str, tuple[str, str]]  # the client's key -> (value, "file, line N")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path.name} is not a text file in UTF-8; save it as UTF-8, or download it again.") from None
    except OSError as error:
        raise ConfigError(f"{path.name} can't be read ({error.strerror}); check that it is a file of yours.") from None


def _read_properties(path: Path) -> Entries:
    entries: Entries = {}
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        line, where = line.strip(), f"{path.name}, line {number}"
        if not line or line[0] in "#;!":
            continue
        if line[0] == "[":
            if line != "[default]":
                break  # getting_started.ini has a [consumer] section for another program
            continue
        key, equals, value = line.partition("=")
        key = {"sasl.mechanism": "sasl.mechanisms"}.get(key.strip(), key.strip())  # the client knows both
        if not equals or not key:
            raise ConfigError(f"{where} is not of the form key=value{_meant(key)}; correct or remove it.")
        if key.startswith(NOT_FOR_PRODUCERS):
            continue
        _add(entries, key, _bare(value), where)
    if not entries:
        raise ConfigError(f"{path.name} holds no setting; download it again from the console, or remove it.")
    return entries


def _read_env(path: Path) -> Entries:
    entries: Entries = {}
    if path.exists():
        for binding in dotenv.parser.parse_stream(io.StringIO(_read_text(path))):
            key, where = (binding.key or "").strip(), f"{path.name}, line {binding.original.line}"
            if binding.error or (key in ENV_KEYS and binding.value is None):
                raise ConfigError(f"{where} is not of the form KEY=value{_meant(key)}; correct or remove it.")
            if key in ENV_KEYS:
                _add(entries, ENV_KEYS[key], binding.value.strip(), where)
            elif key and (meant := _meant(key)):
                raise ConfigError(f"{where} has an unknown key{meant}.")
    for key, name in ENV_KEYS.items():
        if os.environ.get(key):
            entries[name] = (os.environ[key].strip(), "the environment")
    return entries


def _add(entries: Entries, key: str, value: str, where: str) -> None:
    if key in entries:
        raise ConfigError(f"{where} gives a key again that {entries[key][1].split(', ')[-1]} has; keep one of them.")
    entries[key] = (value, where)


def _bare(value: str) -> str:
    """The value without stray spaces, a comment after it, or quotes around it."""
    value = re.split(r"\s[#;]", value, maxsplit=1)[0].strip()
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _meant(key: str) -> str:
    """``" (did you mean sasl.username?)"`` where the key resembles one of the five; never the key itself."""
    close = difflib.get_close_matches(key, [*ENV_KEYS, *ENV_KEYS.values()], n=1, cutoff=0.8)
    return f" (did you mean {close[0]}?)" if close else ""


def _check_complete(entries: Entries, named: Mapping[str, str], place: str) -> None:
    protocol = entries.get("security.protocol", ("PLAINTEXT", ""))[0].upper()
    needed = list(named) if protocol.startswith("SASL_") or "sasl.password" in entries else ["bootstrap.servers"]
    missing = [key for key in needed if key not in entries]
    if not missing:
        return
    misspelt = [
        f" {where} may be meant for it{_meant(key)}."
        for key, (_, where) in entries.items()
        if key not in named and _meant(key)
    ]
    lacks = " and ".join(named[key] for key in missing)
    raise ConfigError(f"{place} lacks {lacks}; add it as in the example file.{''.join(misspelt[:1])}")


def _check_accepted(entries: Entries, named: Mapping[str, str], place: str) -> None:
    """Let the client itself judge the settings; that connects to nothing."""
    if _refusal({key: value for key, (value, _) in entries.items()}) is None:
        return
    # The client's sentence may repeat the value, so each setting is tried by itself, among others that are right.
    right = {"security.protocol": "SASL_SSL", "sasl.mechanisms": "PLAIN", "sasl.username": "-", "sasl.password": "-"}
    for key, (value, where) in entries.items():
        refusal = _refusal(right | {key: value})
        if refusal and "No such configuration property" in refusal:
            raise ConfigError(f"{where} has a key that the client doesn't know{_meant(key)}; correct or remove it.")
        if refusal:
            raise ConfigError(
                f"{where}: the client doesn't accept this value for {named.get(key, key)}; for Confluent Cloud copy "
                "the line from the console, for other settings see librdkafka's CONFIGURATION.md."
            )
    raise ConfigError(f"{place}: these settings don't fit each other; compare with the example file.")


def _refusal(config: dict[str, str]) -> str | None:
    try:
        Producer(config, logger=quiet_logger()).close()
    except Exception as error:  # the client raises exceptions of many kinds for settings it can't use
        return str(error)
    return None


def _partly(key: str | None) -> str:
    return f", API key {key[:3]}..." if key and len(key) > 8 else ""


# --- Cluster and topic -----------------------------------------------------------------------------------------------


class ClusterError(PlainError):
    """The cluster can't be reached or refuses something; the message says what it was and what to do."""


CONNECT_TIMEOUT_S = 12.0
PATIENCE_S = 4.0  # once the cause is known, no longer than that: it may go by itself, but seldom does

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
    ("Connection refused", "nothing listens on that port; check bootstrap.servers, and that the cluster is running"),
    (
        "Failed to resolve",
        "the host name in bootstrap.servers is unknown; check it for typing errors, and that the cluster exists",
    ),
]


def explain(error: object, heard: Iterable[str] = ()) -> str:
    """The client library's error, and what it had said before, as one plain clause with the remedy."""
    error = error.args[0] if isinstance(error, KafkaException) else error
    if known := _known([str(error), *heard]):
        return known
    if isinstance(error, KafkaError) and error.code() > 0:  # the cluster's own answer; codes of the client are below 0
        return f"the cluster answered: {error.str().rstrip('.')}"
    return "no answer came in time; check the network, bootstrap.servers and security.protocol"


def _known(said: Iterable[str]) -> str | None:
    said = " | ".join(said)
    return next((meaning for pattern, meaning in EXPLANATIONS if re.search(pattern, said, re.IGNORECASE)), None)


@dataclass
class Cluster:
    """A cluster to measure on: what it is, how to reach it, and how to let go of it."""

    kind: str
    config: ClientConfig
    configured: bool  # by the user's credentials, not started here
    close: Callable[[], None]


def open_cluster(choice: str = "auto", *, brokers: int = 1, rtt_ms: int = 20) -> Cluster:
    """Find or start a cluster, and say in a line which it is.

    Args:
        choice: ``auto`` takes credentials if there are any, else a local Kafka; ``cloud``, ``local`` or ``simulated``
            asks for that one.
        brokers: of a local Kafka.
        rtt_ms: of a simulated cluster, in milliseconds.

    Raises:
        ConfigError: the choice is unknown, or ``cloud`` without credentials.
        local_kafka.LocalKafkaError: Kafka can't be started here.
    """
    if choice not in ("auto", "cloud", "local", "simulated"):
        raise ConfigError("The cluster's choice has to be 'auto', 'cloud', 'local' or 'simulated'.")
    config = load_config() if choice in ("auto", "cloud") else None
    configured, stack = bool(config), contextlib.ExitStack()
    if configured:
        cloud = re.search(r"\.([a-z0-9-]+)\.([a-z]+)\.confluent\.cloud", config["bootstrap.servers"])
        kind = f"Confluent Cloud ({cloud[2]} {cloud[1]})" if cloud else "Kafka as configured"
    elif choice == "cloud":
        raise ConfigError("No credentials found: copy client.properties.example to client.properties and fill it in.")
    elif choice == "simulated":
        config = stack.enter_context(simulated_cluster(rtt_ms)).config
        kind = f"simulated cluster, round trip {rtt_ms} ms"
    else:
        config = stack.enter_context(LocalKafka(brokers)).config
        kind = f"local Apache Kafka {KAFKA_VERSION}"
    print(f"Cluster: {kind}.")
    return Cluster(kind, config, configured, stack.close)


class _Heard(deque):
    """The latest errors and log lines of a client, as text: the client takes this for its logger, too."""

    def __init__(self, config: Mapping[str, str]):
        super().__init__(maxlen=200)  # a client without a broker has something to say 20 times a second
        self.config = config
        self.interrupted = False

    def error(self, error: KafkaError) -> None:
        self.append(str(error))

    def log(self, _level: int, form: str, *words: str) -> None:
        self.append(form % words)

    def interrupt(self, _number: int, _frame: object) -> None:
        self.interrupted = True
        raise KeyboardInterrupt

    def check_interrupt(self) -> None:
        if self.interrupted:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _client(
    make: Callable, config: Mapping[str, str], *, on_interrupt: Callable | None = None, **more: object
) -> Iterator[tuple[object, _Heard]]:
    """A client that logs nothing on the screen, and what is heard of it; in the end it is closed.

    Left to the garbage collector, it would go on for a while, end in the middle of another measurement, and an
    interrupt that falls into its end would be lost.
    """
    wanted = {"socket.connection.setup.timeout.ms": 6_000, "api.version.request.timeout.ms": 6_000}
    wanted |= {key: value for key, value in config.items() if not key.startswith(NOT_FOR_PRODUCERS)}
    heard = _Heard(wanted)
    try:
        client = make({**wanted, "logger": heard, "error_cb": heard.error, **more})
    except KafkaException as error:
        raise ClusterError(f"The Kafka client can't be set up: {explain(error)}.") from None
    with _interrupts(on_interrupt or heard.interrupt):
        try:
            yield client, heard
            heard.check_interrupt()
        finally:
            if isinstance(client, Producer):
                _give_up(client)
                with contextlib.suppress(KafkaException, SystemError):  # as in _warm_up(); it is closed all the same
                    client.close()  # its __exit__() does this, too, but turns an interrupt into a SystemError
            else:
                client.__exit__(None, None, None)


def _give_up(producer: Producer) -> None:
    """Let all messages that are queued or under way fail, and serve their reports."""
    while len(producer):
        producer.purge()  # again and again: it may miss those of a partition that just changes its leader
        with contextlib.suppress(KafkaException, SystemError):  # as in _warm_up()
            producer.flush(0.2)


@contextlib.contextmanager
def _interrupts(handler: Callable) -> Iterator[None]:
    """Have the user's interrupts handled by ``handler`` in place of Python's own handler.

    The client (2.16.1, with Python 3.11) loses the exception of Python's own handler where that falls into a callback:
    ``cfl_exception_fetch`` in its confluent_kafka.h keeps the value alone, which only ``raise`` has made by then. And
    Python itself drops what is raised in a destructor, so a handler also has to note that it was called.
    """
    in_main = threading.current_thread() is threading.main_thread()  # the only one that is interrupted
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    try:
        signal.signal(signal.SIGINT, handler)
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


Answer = typing.TypeVar("Answer")


def _ask(client: object, heard: _Heard, question: Callable[[float], Answer]) -> Answer:
    """Ask the cluster something, in short steps (of so many seconds) so that a user's interrupt gets through."""
    asked = time.monotonic()
    while True:
        try:
            return question(0.8)
        except KafkaException as error:
            client.poll(0)  # hear what the client has to say
            waited = time.monotonic() - asked
            login_failed = any("authentication" in each.lower() for each in heard)
            if login_failed or waited > (PATIENCE_S if _known(heard) else CONNECT_TIMEOUT_S):
                if any("certificate verify failed" in each for each in heard):
                    heard.append(_certificate_fault(heard.config))
                raise ClusterError(f"No connection to the cluster: {explain(error, heard)}.") from None


def _certificate_fault(config: Mapping[str, str]) -> str:
    """What is wrong with the server's certificate, which the client doesn't say: Python's own TLS looks at it again."""
    address = config["bootstrap.servers"].split(",")[0].rpartition("//")[2]
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


def _metadata(client: object, heard: _Heard):
    return _ask(client, heard, lambda timeout: client.list_topics(timeout=timeout))


def _topic_metadata(client: object, heard: _Heard, topic: str):
    """The topic's metadata, once it can be used: the brokers learn of a new topic one after the other."""
    asked = time.monotonic()
    while True:
        found = _ask(client, heard, lambda timeout: client.list_topics(topic, timeout=timeout)).topics[topic]
        if found.partitions and not found.error:
            return found
        if time.monotonic() - asked > PATIENCE_S:
            raise ClusterError(f"The topic {topic} can't be used: {explain(found.error)}.")
        time.sleep(0.1)


def ensure_topic(config: Mapping[str, str], topic: str, *, partitions: int = 6, replication: int = -1) -> None:
    """Create the topic unless it is there, and wait until it can be used.

    Args:
        config: client configuration.
        topic: its name.
        partitions: how many a new topic gets (6 is the Confluent Cloud console's default).
        replication: its replication factor; -1 leaves it to the cluster (on Confluent Cloud: 3).

    Raises:
        ClusterError: no connection, no right to create it, or the cluster refuses the replication factor.
    """
    with _client(AdminClient, config) as (admin, heard):
        metadata = _metadata(admin, heard)
        if topic in metadata.topics:
            return
        try:
            # A simulated cluster can't create topics on demand; its topics create themselves when first asked for.
            if not (metadata.cluster_id or "").startswith("mockCluster"):
                new = NewTopic(topic, num_partitions=partitions, replication_factor=replication)
                admin.create_topics([new], operation_timeout=CONNECT_TIMEOUT_S)[topic].result(CONNECT_TIMEOUT_S)
        except (KafkaException, TimeoutError) as error:
            if not error.args or error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise ClusterError(f"The topic {topic} can't be created: {explain(error, heard)}.") from None
        _topic_metadata(admin, heard, topic)


def describe_cluster(cluster: Cluster, topic: str) -> dict[str, object]:
    """What is measured on: kind, brokers, the topic's partitions and replication factor, and the settings."""
    with _client(AdminClient, cluster.config) as (admin, heard):
        partitions = _topic_metadata(admin, heard, topic).partitions
        brokers = _metadata(admin, heard).brokers
    return {
        "cluster": cluster.kind,
        "brokers": len(brokers),
        "partitions": len(partitions),
        "replication factor": max(len(each.replicas) for each in partitions.values()),
        "settings": telling_settings({**cluster.config, **MEASURED_SETTINGS}),
    }


def telling_settings(config: Mapping[str, str]) -> dict[str, str]:
    """Of a configuration, the settings whose value is a number or a known word, not a secret, a name or a path."""
    word = re.compile(r"true|false|\d{1,6}|all|none|gzip|snappy|lz4|zstd|(SASL_)?(SSL|PLAINTEXT)|PLAIN", re.IGNORECASE)
    return {key: value for key, value in sorted(config.items()) if word.fullmatch(str(value))}


def check_parameters(num_messages: int, batch_size: int) -> None:
    """Make sure that a run has at least one batch of at least one message.

    Raises:
        ConfigError: with the parameter's name.
    """
    _check_positive("num_messages", num_messages)
    _check_positive("batch_size", batch_size)
    if batch_size > num_messages:
        raise ConfigError("batch_size can't be larger than num_messages; make it smaller, or send more messages.")


def _check_positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} has to be a whole number, 1 or more.")


def alternating(first: str, second: str, each: int) -> list[str]:
    """``each`` runs of both, in the order first, second, second, first, ... so that a drift affects both alike."""
    return [name for pair in range(each) for name in ((first, second) if pair % 2 == 0 else (second, first))]


# --- Messages --------------------------------------------------------------------------------------------------------

STATIONS = ("Ferry Plaza", "Mission Bay", "Embarcadero", "North Beach", "Civic Center", "Golden Gate Park")


@dataclass(frozen=True, slots=True)
class RideEvent:
    """One event of a bicycle hire system: a bicycle was unlocked or locked somewhere."""

    run_id: str  # which run of the experiment sent it
    sequence: int  # 0, 1, 2, ... within the run
    event_time: datetime  # UTC
    bike_id: str  # the message's key: the events of one bicycle stay in order
    kind: typing.Literal["unlocked", "locked"]
    station: str
    latitude: float  # degrees north
    longitude: float  # degrees east
    battery: typing.Annotated[int, msgspec.Meta(ge=0, le=100)]  # per cent


encode: Callable[[RideEvent], bytes] = msgspec.json.Encoder().encode
"""An event as JSON."""
decode: Callable[[bytes], RideEvent] = msgspec.json.Decoder(RideEvent).decode
"""The event from its JSON; raises msgspec.ValidationError or msgspec.DecodeError where a field isn't as declared."""


def make_events(run_id: str, count: int, *, seed: int = 7) -> Iterator[RideEvent]:
    """The first ``count`` events of the stream that ``seed`` stands for; runs differ in their ``run_id`` only."""
    rng = random.Random(seed)
    time_of_event = datetime(2026, 1, 1, 6, tzinfo=UTC)
    for sequence in range(count):
        time_of_event += timedelta(milliseconds=rng.randint(1, 400))
        yield RideEvent(
            run_id=run_id,
            sequence=sequence,
            event_time=time_of_event,
            bike_id=f"bike-{rng.randint(1, 2000):04d}",
            kind=rng.choice(("unlocked", "locked")),
            station=rng.choice(STATIONS),
            latitude=round(rng.uniform(37.70, 37.82), 5),
            longitude=round(rng.uniform(-122.52, -122.38), 5),
            battery=rng.randint(5, 100),
        )


def make_messages(run_id: str, count: int, *, seed: int = 7) -> list[tuple[bytes, bytes]]:
    """The events of :func:`make_events` ready to send, as (key, value): serialized before any clock runs."""
    return [(event.bike_id.encode(), encode(event)) for event in make_events(run_id, count, seed=seed)]


# --- The two producers -----------------------------------------------------------------------------------------------

# Both producers give a ProducerRun. ``progress`` is told, between two batches, how many messages the last one had. The
# client is called with arguments by position, since names cost a noticeable part of the time that is measured.
Progress = Callable[[int], object]
WARM_UP = b"warm-up"
INTERRUPTED = "interrupted"
STATISTICS_INTERVAL_S = 0.2


def produce_async(
    config: Mapping[str, str],
    topic: str,
    messages: Iterable[tuple[bytes, bytes]],
    *,
    batch_size: int = 500,
    progress: Progress | None = None,
    delivery_timeout_s: float = 120.0,
) -> "ProducerRun":
    """Hand over all messages, and wait once, at the end."""
    with _Measurement("async", config, topic, delivery_timeout_s) as run:
        produce, poll = run.producer.produce, run.producer.poll
        batches = run.batches(messages, batch_size, progress)
        for batch, report in batches:
            for key, value in batch:
                try:
                    produce(topic, value, key, -1, report)  # -1: any partition
                except (BufferError, KafkaException) as refusal:
                    run.refused(refusal, key, value, report)
            poll(0)  # serve the reports that have come; wait for none
        run.producer.flush()  # wait once, for everything
    return run.result


def produce_sync(
    config: Mapping[str, str],
    topic: str,
    messages: Iterable[tuple[bytes, bytes]],
    *,
    batch_size: int = 500,
    progress: Progress | None = None,
    delivery_timeout_s: float = 120.0,
    wait_every: int = 1,
) -> "ProducerRun":
    """Hand over ``wait_every`` messages, wait for them, go on."""
    with _Measurement("sync", config, topic, delivery_timeout_s) as run:
        produce, flush = run.producer.produce, run.producer.flush
        batches = run.batches(messages, batch_size, progress)
        for batch, report in batches:
            for number, (key, value) in enumerate(batch, start=1):
                try:
                    produce(topic, value, key, -1, report)  # -1: any partition
                except (BufferError, KafkaException) as refusal:
                    run.refused(refusal, key, value, report)
                if number % wait_every == 0:
                    flush()  # wait until it is acknowledged
        flush()
    return run.result


def produce_batches(
    config: Mapping[str, str],
    topic: str,
    messages: Iterable[tuple[bytes, bytes]],
    *,
    batch_size: int = 500,
    progress: Progress | None = None,
    delivery_timeout_s: float = 120.0,
) -> "ProducerRun":
    """Hand over a batch at a time, as a list, and wait once, at the end: :func:`produce_async` with fewer calls.

    Where the queue is full in the middle of a list, the messages of one key may change places.
    """
    with _Measurement("async, lists", config, topic, delivery_timeout_s) as run:
        produce_batch, poll = run.producer.produce_batch, run.producer.poll
        for batch, report in run.batches(messages, batch_size, progress):
            entries = [{"key": key, "value": value} for key, value in batch]
            if produce_batch(topic, entries, on_delivery=report) < len(entries):
                for entry in entries:
                    if error := entry.get("_error"):
                        full = error.code() == KafkaError._QUEUE_FULL
                        refusal = BufferError() if full else KafkaException(error)
                        run.refused(refusal, entry["key"], entry["value"], report)
            poll(0)
        run.producer.flush()
    return run.result


@dataclass
class BatchTiming:
    """One batch of a run.

    Attributes:
        messages: how many were submitted in it.
        elapsed_s: the time its sender spent on it, from its first ``produce()`` until the next batch may begin.
        delivered_s: from its first ``produce()`` to the report on its last message.
        acknowledged, failed: what became of the messages.
    """

    messages: int
    elapsed_s: float = 0.0
    delivered_s: float = 0.0
    acknowledged: int = 0
    failed: int = 0


@dataclass
class ProducerRun:
    """One producer sending all messages once.

    Attributes:
        mode: ``async``, ``sync`` or, from :func:`produce_batches`, ``async, lists``.
        batches: one :class:`BatchTiming` a batch, in order.
        elapsed_s: from the first ``produce()`` to the last acknowledgement (or report of failure).
        errors: why messages failed, with how many for each reason.
        queue_full: how often the client's queue was full and the sender had to wait.
        stopped: empty, or why the run ended before all messages were submitted or settled.
        wait_quantiles_s: acknowledged messages' time from ``produce()`` to the report: quantiles 0, 0.5 % ... 100 %.
        network: of the client's own statistics what concerns this run, see :func:`_network`.
        undelivered: (key, value) of the failed messages, for whoever wants to send them again; not saved.
    """

    mode: str
    run_id: str = ""
    batches: list[BatchTiming] = field(default_factory=list, repr=False)
    elapsed_s: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)
    queue_full: int = 0
    stopped: str = ""
    wait_quantiles_s: list[float] = field(default_factory=list, repr=False)
    network: dict[str, float] = field(default_factory=dict, repr=False)
    undelivered: list[tuple[bytes | None, bytes | None]] = field(default_factory=list, repr=False)

    def __str__(self) -> str:
        end = f"; {self.failed:,} failed" if self.failed else ""
        end += f"; stopped: {self.stopped}" if self.stopped else ""
        return f"{self.acknowledged:,} messages acknowledged in {self.elapsed_s:.3g} s{end}"

    @property
    def submitted(self) -> int:
        """Messages given to the client, failed ones included."""
        return sum(batch.messages for batch in self.batches)

    @property
    def acknowledged(self) -> int:
        """Messages that the broker has acknowledged."""
        return sum(batch.acknowledged for batch in self.batches)

    @property
    def failed(self) -> int:
        """Messages that were not delivered, or of which it isn't known."""
        return sum(batch.failed for batch in self.batches)

    @property
    def complete(self) -> bool:
        """Whether every message was submitted and acknowledged."""
        return not self.stopped and not self.failed

    @property
    def request_rate(self) -> float:
        """Messages submitted a second, failed ones included (the course's "request rate")."""
        return self.submitted / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def response_rate(self) -> float:
        """Messages acknowledged a second (the course's "response rate")."""
        return self.acknowledged / self.elapsed_s if self.elapsed_s else 0.0


class _GaveUp(Exception):
    """Raised out of a delivery report, through poll() or flush(), to end a run that no longer gets anywhere."""


class _Measurement:
    """The clocks and counts around one run, and its connected, warmed-up producer.

    Used as ``with _Measurement(...) as run``: connection, metadata and warm-up come before the clock; the reports are
    complete, and ``run.result`` is ready, after it. An interrupt or a cluster that is gone for good ends the block
    early: what is still queued is then given up and counted as failed.
    """

    def __init__(self, mode: str, config: Mapping[str, str], topic: str, delivery_timeout_s: float):
        self.result = ProducerRun(mode)
        self._topic, self._delivery_timeout_s = topic, delivery_timeout_s
        self._statistics: list[str] = []
        self._batches: list[tuple[BatchTiming, array, int]] = []  # with the messages' waits, and the start in ns
        self._report_code = None
        self._interrupted = self._ending = False
        self.producer = ()  # none yet
        own = {"request.required.acks", "message.timeout.ms", *MEASURED_SETTINGS}
        self._config = {key: value for key, value in config.items() if key not in own} | MEASURED_SETTINGS
        self._config["delivery.timeout.ms"] = int(delivery_timeout_s * 1000)
        self._config["statistics.interval.ms"] = int(STATISTICS_INTERVAL_S * 1000)

    def __enter__(self) -> "_Measurement":
        with contextlib.ExitStack() as stack:
            client = _client(Producer, self._config, on_interrupt=self._interrupt, stats_cb=self._statistics.append)
            self.producer, self._heard = stack.enter_context(client)
            self._warm_up()
            self._close = stack.pop_all().close
        return self

    def _warm_up(self) -> None:
        """Send a message to each partition, and wait for the statistics to know of them."""
        found = _topic_metadata(self.producer, self._heard, self._topic)
        failures: list[KafkaError] = []
        try:
            for partition in found.partitions:
                self.producer.produce(
                    self._topic,
                    WARM_UP,
                    partition=partition,
                    on_delivery=lambda error, _: error and failures.append(error),
                )
            deadline = time.monotonic() + CONNECT_TIMEOUT_S
            while (unsettled := self.producer.flush(0.5)) and not failures and time.monotonic() < deadline:
                pass
        except (KafkaException, SystemError) as error:  # the client has given up; it may trip over its own report of it
            failures.append(error.args[0] if isinstance(error, KafkaException) else error.__cause__.args[0])
        if failures or unsettled:
            said = failures[0] if failures else ""
            raise ClusterError(f"The topic {self._topic} can't be written to: {explain(said, self._heard)}.")
        self._warm_up_messages = len(found.partitions)
        self._await_statistics(self._warm_up_messages)
        del self._statistics[:-1]

    def _interrupt(self, number: int, frame: object) -> None:
        """Handle the user's interrupt; a report that it falls into counts its message before it is broken off."""
        if self._ending:
            self.result.stopped = INTERRUPTED
            return
        if len(self.producer):  # it is there, is not closed, and has messages
            self.producer.purge()  # a flush() that has called back would not end before all is settled
        while frame and frame.f_code is not self._report_code:
            frame = frame.f_back
        self._interrupted = True  # for the report to raise; any one, should Python ignore it here (as in a destructor)
        if frame is None:
            raise KeyboardInterrupt

    def batches(
        self, messages: Iterable[tuple[bytes, bytes]], size: int, progress: Progress | None
    ) -> Iterator[tuple[list, Callable]]:
        """Cut the messages into batches; yield each with its delivery report, and time it until the next is due."""
        _check_positive("batch_size", size)
        messages = iter(messages)
        while chunk := list(itertools.islice(messages, size)):
            timing, waits = BatchTiming(len(chunk)), array("f")
            started = time.perf_counter_ns()
            self._batches.append((timing, waits, started))
            yield chunk, self._reporter(timing, waits, started)
            timing.elapsed_s = (time.perf_counter_ns() - started) / 1e9
            if progress:
                progress(len(chunk))

    def _reporter(self, timing: BatchTiming, waits: array, started: int) -> Callable:
        """The delivery report of one batch: for each message its wait, and for the last one the time."""
        pending, waited, clock = timing.messages, waits.append, time.perf_counter_ns

        def report(error: KafkaError | None, message) -> None:
            nonlocal pending
            pending -= 1
            if not pending:
                timing.delivered_s = (clock() - started) / 1e9
            if error is None:
                waited(message.latency())
            else:
                self._failed(timing, error, message)
            if self._interrupted:
                raise KeyboardInterrupt

        self._report_code = report.__code__
        return report

    def refused(self, refusal: Exception, key: bytes, value: bytes, report: Callable) -> None:
        """Deal with a message that ``produce()`` did not take: wait while the queue is full, else it has failed."""
        while isinstance(refusal, BufferError):
            self.result.queue_full += 1
            self.producer.poll(0.1)
            try:
                return self.producer.produce(self._topic, value, key, on_delivery=report)
            except (BufferError, KafkaException) as again:
                refusal = again
        report(refusal.args[0], Message(key=key, value=value))

    def _failed(self, timing: BatchTiming, error: KafkaError, message: Message) -> None:
        timing.failed += 1
        self.result.undelivered.append((message.key(), message.value()))
        self.result.errors[error.name()] = self.result.errors.get(error.name(), 0) + 1
        if (error.code() == KafkaError._MSG_TIMED_OUT or error.fatal()) and not self.result.stopped:
            self.result.stopped = f"no acknowledgement within {self._delivery_timeout_s:g} s"
            if error.fatal():
                self.result.stopped = f"the client gave up: {error.name()}"
            raise _GaveUp

    def __exit__(self, _kind, error, _traceback) -> bool:
        self._ending = True
        fatal = any(isinstance(each, KafkaException) for each in (error, error and error.__cause__))  # as in _warm_up()
        try:
            if self._interrupted or isinstance(error, KeyboardInterrupt):
                self.result.stopped = INTERRUPTED
            elif error is not None:
                self.result.stopped = self.result.stopped or ("the client gave up" if fatal else type(error).__name__)
            self._interrupted = False
            self._settle(given_up=error is not None)
        finally:
            self._close()
        return fatal or isinstance(error, (KeyboardInterrupt, _GaveUp))

    def _settle(self, given_up: bool) -> None:
        """Serve the last reports, and bring the counts and times together."""
        result = self.result
        if given_up:
            _give_up(self.producer)
        ended = time.perf_counter_ns()
        for timing, waits, started in self._batches:
            timing.acknowledged = len(waits)
            if given_up:
                timing.messages = min(timing.messages, timing.acknowledged + timing.failed)
                timing.elapsed_s = timing.elapsed_s or (ended - started) / 1e9
                timing.delivered_s = timing.delivered_s or (ended - started) / 1e9
        result.batches = [timing for timing, _, _ in self._batches]
        if self._batches:
            last = max(started / 1e9 + timing.delivered_s for timing, _, started in self._batches)
            result.elapsed_s = last - self._batches[0][2] / 1e9
        result.wait_quantiles_s = _quantiles([waits for _, waits, _ in self._batches])
        if not result.stopped:
            self._await_statistics(self._warm_up_messages + result.acknowledged)
            result.network = _network(self._statistics, result)

    def _await_statistics(self, messages: int) -> None:
        """Wait for statistics, which the client gives at fixed intervals, that know of so many messages sent."""
        deadline = time.monotonic() + 2 * STATISTICS_INTERVAL_S + 1
        while time.monotonic() < deadline and not self.result.stopped:
            self.producer.poll(0.05)
            if self._statistics and json.loads(self._statistics[-1])["txmsgs"] >= messages:
                return


def _quantiles(waits: list[array]) -> list[float]:
    """The quantiles 0, 0.5 % ... 100 % of all the batches' waits; of millions, too, without an object for each."""
    import numpy

    ordered = numpy.concatenate(waits or [numpy.empty(0)])
    ordered.sort()
    return [float(ordered[round(share * (len(ordered) - 1) / 200)]) for share in range(201)] if len(ordered) else []


def _network(statistics_json: list[str], run: ProducerRun) -> dict[str, float]:
    """What the client's statistics say of a run: the first of them was given before it, the last after it.

    Keys: ``produce_requests`` and ``responses`` (Produce requests sent; responses of every kind received),
    ``messages_per_request``, and as means ``rtt_ms`` (from sending a request to its response), ``queue_ms`` (a
    message's time in the client before it is put into a request), ``outbuf_ms`` (a request's time until it is written
    to the socket). Source: librdkafka's STATISTICS.md; ``rtt`` and the like are windows since the statistics before.
    """
    each = [[b for b in json.loads(text)["brokers"].values() if b["nodeid"] >= 0] for text in statistics_json]

    def grown(counter: Callable[[dict], int]) -> int:
        return sum(map(counter, each[-1])) - sum(map(counter, each[0]))

    def mean_ms(window: str) -> float:
        windows = [broker[window] for brokers in each[1:] for broker in brokers]
        return sum(w["sum"] for w in windows) / max(1, sum(w["cnt"] for w in windows)) / 1000

    requests = grown(lambda broker: broker["req"]["Produce"])
    return {
        "produce_requests": requests,
        "responses": grown(lambda broker: broker["rx"]),
        "messages_per_request": run.acknowledged / max(1, requests),
        "rtt_ms": mean_ms("rtt"),
        "queue_ms": mean_ms("int_latency"),
        "outbuf_ms": mean_ms("outbuf_latency"),
    }


def warm_up(cluster: Cluster, topic: str) -> float:
    """Send messages that don't count, until cluster and client have done everything once, and return the round trip.

    A Kafka that has just been started is several times slower in its first seconds, until Java has compiled what is
    used; there, more is sent. The round trip, in milliseconds, is the mean time from sending a Produce request to its
    response, from the client's statistics, over the last messages, sent one by one for two seconds at most.
    """
    if not cluster.configured:
        produce_async(cluster.config, topic, make_messages("warm-up", 50_000))
        produce_sync(cluster.config, topic, _for_seconds(10, make_messages("warm-up", 3_000)), batch_size=10)
    last = _for_seconds(2, make_messages("warm-up", 1_000))
    return round(produce_sync(cluster.config, topic, last, batch_size=10).network["rtt_ms"], 3)


def _for_seconds(seconds: float, messages: list[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """The messages until so many seconds after the first was asked for."""
    ends = time.monotonic() + seconds
    yield from itertools.takewhile(lambda _: time.monotonic() < ends, messages)


# --- Did every message arrive? ---------------------------------------------------------------------------------------


def end_offsets(config: Mapping[str, str], topic: str) -> dict[int, int]:
    """The offset that the next message of each partition will have: where a later :func:`read_back` may begin."""
    with _reader(config) as (consumer, heard):

        def end(number: int) -> int:
            partition = TopicPartition(topic, number)
            return _ask(consumer, heard, lambda timeout: consumer.get_watermark_offsets(partition, timeout=timeout))[1]

        return {number: end(number) for number in _topic_metadata(consumer, heard, topic).partitions}


def read_back(
    config: Mapping[str, str],
    topic: str,
    sent: Mapping[str, Iterable[tuple[bytes, bytes]]],
    *,
    undelivered: Mapping[str, Iterable[tuple[bytes | None, bytes | None]]] | None = None,
    start: Mapping[int, int] | None = None,
) -> "pd.DataFrame":
    """Read the topic again and look for every message of the runs, by run id and sequence number.

    Messages of other runs are passed over, so two users of one topic don't disturb each other.

    Args:
        config: client configuration.
        topic: where the runs were sent to.
        sent: for each run id its messages in order, as they were submitted.
        undelivered: for each run id the messages that failed; it is no loss if these are not found.
        start: offset by partition where to begin, as from :func:`end_offsets`; the topic's beginning by default.

    Returns:
        One row a run: ``expected`` (acknowledged messages), ``received`` (of all sent ones, at least once),
        ``missing`` (acknowledged, not found intact), ``duplicated`` (further copies), ``damaged`` (not as sent). Should
        messages be found that can't be decoded, and so belong to no run, a row ``unknown`` counts them as damaged.

    Raises:
        ClusterError: no connection, or the reading comes to a standstill.
    """
    checksums = {
        run_id: array("I", (zlib.crc32(value, zlib.crc32(key)) for key, value in each)) for run_id, each in sent.items()
    }
    excused = {run_id: {decode(value).sequence for _, value in each} for run_id, each in (undelivered or {}).items()}
    copies = {run_id: bytearray(len(each)) for run_id, each in checksums.items()}
    duplicated, damaged = Counter(), Counter()
    with contextlib.closing(_read_all(config, topic, start or {})) as found:
        for key, value in found:
            if value == WARM_UP:
                continue
            try:
                event = decode(value or b"")
            except (msgspec.MsgspecError, UnicodeDecodeError):
                damaged["unknown"] += 1
                continue
            expected = checksums.get(event.run_id)
            if expected is None:
                continue
            if (
                not 0 <= event.sequence < len(expected)
                or zlib.crc32(value, zlib.crc32(key or b"")) != expected[event.sequence]
            ):
                damaged[event.run_id] += 1
            elif copies[event.run_id][event.sequence]:
                duplicated[event.run_id] += 1
            else:
                copies[event.run_id][event.sequence] = 1
    import pandas as pd  # here and below: pandas takes longer to import than all the rest

    rows = [
        {
            "run_id": run_id,
            "expected": len(found) - len(excused.get(run_id, ())),
            "received": sum(found),
            "missing": sum(not seen and number not in excused.get(run_id, ()) for number, seen in enumerate(found)),
            "duplicated": duplicated[run_id],
            "damaged": damaged[run_id],
        }
        for run_id, found in copies.items()
    ]
    if damaged["unknown"]:
        rows.append(
            {
                "run_id": "unknown",
                "expected": 0,
                "received": 0,
                "missing": 0,
                "duplicated": 0,
                "damaged": damaged["unknown"],
            }
        )
    return pd.DataFrame(rows)


def _reader(config: Mapping[str, str]) -> contextlib.AbstractContextManager[tuple[Consumer, _Heard]]:
    """A consumer that joins no group and commits nothing."""
    own = {"group.id": f"read-back-{uuid.uuid4()}", "enable.auto.commit": False, "enable.partition.eof": True}
    return _client(Consumer, {key: value for key, value in config.items() if key not in MEASURED_SETTINGS}, **own)


def _read_all(
    config: Mapping[str, str], topic: str, start: Mapping[int, int]
) -> Iterator[tuple[bytes | None, bytes | None]]:
    ends = end_offsets(config, topic)
    with _reader(config) as (consumer, heard):
        consumer.assign([TopicPartition(topic, number, start.get(number, 0)) for number in ends])
        unfinished = {number for number, end in ends.items() if end > start.get(number, 0)}
        progress = time.monotonic()
        while unfinished:
            heard.check_interrupt()
            refusal = None
            for message in consumer.consume(10_000, timeout=0.5):
                if message.error() is None:
                    progress = time.monotonic()
                    yield message.key(), message.value()
                    if message.offset() + 1 >= ends[message.partition()]:
                        unfinished.discard(message.partition())
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(message.partition())
                else:
                    refusal = message.error()
            stuck = time.monotonic() - progress > 2 * CONNECT_TIMEOUT_S
            if stuck or (refusal and refusal.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED):
                cause = _known([str(refusal), *heard]) or "no message came; check that this API key may read it"
                raise ClusterError(f"The topic {topic} can't be read to its end: {cause}.")


# --- Results ---------------------------------------------------------------------------------------------------------


class RunInterrupted(PlainError):
    """The user stopped a measurement; the message says where the part that was measured is saved."""


class ResultsError(PlainError):
    """A saved run can't be used; the message names the file and the remedy."""


def batches_frame(runs: Iterable[ProducerRun]) -> "pd.DataFrame":
    """One row a batch, runs numbered from 1 in the order given.

    Columns: ``run``, ``mode``, ``batch`` (from 1) and what :class:`BatchTiming` has.
    """
    import pandas as pd

    columns = ["run", "mode", "batch", "messages", "elapsed_s", "delivered_s", "acknowledged", "failed"]
    rows = [
        {"run": run, "mode": each.mode, "batch": batch, **asdict(timing)}
        for run, each in enumerate(runs, start=1)
        for batch, timing in enumerate(each.batches, start=1)
    ]
    return pd.DataFrame(rows, columns=columns)


def environment(**parameters: object) -> dict[str, object]:
    """What is measured with, and when; ``parameters`` are taken in as they are."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **parameters,
        "python": platform.python_version(),
        "confluent-kafka": confluent_kafka.__version__,
        "librdkafka": confluent_kafka.libversion()[0],
        "os": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
    }


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


# Saved for those who read the file; computed again when it is loaded.
DERIVED = ("submitted", "acknowledged", "failed", "request_rate", "response_rate")


@dataclass
class Results:
    """A measurement's results, in memory and in a folder.

    The folder has ``results.json`` (the environment, the runs' totals, and each other file's length and checksum),
    ``batches.csv`` and a CSV file for each further table. Files are replaced as a whole and ``results.json`` last, so
    that a crash at any moment leaves what was saved before.
    """

    folder: Path
    environment: dict[str, object]
    runs: list[ProducerRun] = field(default_factory=list)
    token: str = field(default_factory=lambda: secrets.token_hex(3))  # tells this measurement's run ids from others
    tables: dict[str, "pd.DataFrame"] = field(default_factory=dict)

    def add_run(self, run: ProducerRun) -> None:
        """Take in a run that has ended, and save.

        Raises:
            RunInterrupted: the run ended since the user interrupted it; it is saved all the same.
        """
        self.runs.append(run)
        self.save()
        if run.stopped == INTERRUPTED:
            raise RunInterrupted(
                f"Interrupted after {run.acknowledged:,} messages of run {len(self.runs)}. What was measured is in "
                f"{self.folder.as_posix()}; set saved_run to that to draw it."
            )

    def add_table(self, name: str, table: "pd.DataFrame") -> None:
        """Take in a further table as ``NAME.csv``, and save."""
        self.tables[name] = table
        self.save()

    def save(self) -> None:
        """Write everything to the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        contents = {"batches.csv": batches_frame(self.runs)}
        contents |= {f"{name}.csv": table for name, table in self.tables.items()}
        files = {}
        for name, table in contents.items():
            data = table.to_csv(index=False, lineterminator="\n").encode()
            files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            _replace(self.folder / name, data)
        runs = [_totals(run) for run in self.runs]
        content = {"environment": self.environment, "runs": runs, "files": files}
        sealed = {"sha256": _seal(content), **content}
        _replace(self.folder / "results.json", (json.dumps(sealed, indent=1) + "\n").encode())


def new_folder(kind: str, parent: str | Path = "results") -> Path:
    """Make a folder for a measurement's results, named by date and kind of cluster; never one that exists."""
    name = f"{datetime.now(UTC):%Y-%m-%d_%H-%M-%S}_{kind.split()[0].lower()}"
    for suffix in itertools.chain([""], map("-{}".format, itertools.count(2))):
        with contextlib.suppress(FileExistsError):
            folder = Path(parent) / (name + suffix)
            folder.mkdir(parents=True)
            return folder


def accounts(runs: list[ProducerRun], found: "pd.DataFrame") -> "pd.DataFrame":
    """What the runs counted beside what :func:`read_back` found; ``holds`` says whether nothing is lost."""
    import pandas as pd

    rows = [
        {"run": number, "run_id": run.run_id, "mode": run.mode, "submitted": run.submitted}
        | {"acknowledged": run.acknowledged, "failed": run.failed}
        for number, run in enumerate(runs, start=1)
    ]
    table = pd.DataFrame(rows).merge(found.drop(columns="expected"), on="run_id", how="outer").fillna(0)
    table["holds"] = (table.submitted == table.acknowledged + table.failed) & (
        table[["missing", "duplicated", "damaged"]].sum(axis=1) == 0
    )
    return table.astype(dict.fromkeys(table.select_dtypes("number").columns, int))


def compare(runs: Iterable[ProducerRun], first: str = "async", second: str = "sync") -> dict[str, object] | None:
    """How two modes compare, from complete runs only.

    Returns:
        For each mode, under its name: ``runs``, ``rate`` (acknowledged messages of all runs / time of all runs), the
        ``median``, ``low`` and ``high`` rate of the runs (see :func:`median_interval`), ``total_s`` (median time of a
        run), ``batch_s`` (median time that the sender spent on a batch) and ``delivered_s`` (median time until a batch
        was acknowledged). Under ``ratio``: median and interval of the ratios of each run of ``first`` to the run of
        ``second`` beside it, with the interval's ``coverage``. None where a mode has no complete run.
    """
    by_mode = {mode: [run for run in runs if run.mode == mode and run.complete] for mode in (first, second)}
    if not all(by_mode.values()):
        return None
    compared: dict[str, object] = {}
    for mode, each in by_mode.items():
        middle, low, high, _ = median_interval(run.response_rate for run in each)
        compared[mode] = {
            "runs": len(each),
            "rate": sum(run.acknowledged for run in each) / sum(run.elapsed_s for run in each),
            "median": middle,
            "low": low,
            "high": high,
            "total_s": statistics.median(run.elapsed_s for run in each),
            "batch_s": statistics.median(batch.elapsed_s for run in each for batch in run.batches),
            "delivered_s": statistics.median(batch.delivered_s for run in each for batch in run.batches),
        }
    compared["ratio"] = ratio_interval(*([run.response_rate for run in each] for each in by_mode.values()))
    return compared


def ratio_interval(first: Iterable[float], second: Iterable[float]) -> dict[str, float]:
    """``median``, ``low``, ``high`` and ``coverage`` of the ratios first/second, pair by pair; see median_interval."""
    ratios = [a / b for a, b in zip(first, second, strict=False)]
    return dict(zip(("median", "low", "high", "coverage"), median_interval(ratios), strict=True))


def incomplete(runs: Iterable[ProducerRun]) -> list[str]:
    """A sentence for each run that is not complete, and therefore left out of rates and ratios."""
    return [
        f"Run {number} ({run.mode}) is incomplete: {run.acknowledged:,} messages acknowledged, {run.failed:,} failed"
        + _reasons(run.errors)
        + (f"; stopped: {run.stopped}" if run.stopped else "")
        + ". It is shown, but left out of rates and ratios."
        for number, run in enumerate(runs, start=1)
        if not run.complete
    ]


def _reasons(errors: Mapping[str, int]) -> str:
    """Why messages failed, in the client's words; a name that the client doesn't know stays as it is."""

    def words(name: str) -> str:
        code = getattr(KafkaError, name, None)
        return KafkaError(code).str().partition(": ")[2].lower() if isinstance(code, int) else name

    listed = ", ".join(f"{words(name)}: {count:,}" for name, count in errors.items())
    return f" ({listed})" if errors else ""


def median_interval(values: Iterable[float]) -> tuple[float, float, float, float]:
    """The median, and an interval for it that assumes nothing of the distribution's shape.

    Returns:
        (median, low, high, coverage): low and high are the k-th smallest and k-th largest value, with the largest k
        that covers the true median with a probability of at least 0.95; where there are too few values for that, the
        smallest and the largest one. coverage is that probability, for independent values.

    Source: order statistics; the number of values below the median is binomial with probability 1/2.
    """
    ordered = sorted(values)
    n = len(ordered)

    def coverage(k: int) -> float:
        return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2**n

    k = max((k for k in range(1, (n + 1) // 2 + 1) if coverage(k) >= 0.95), default=1)
    return statistics.median(ordered), ordered[k - 1], ordered[n - k], max(0.0, coverage(k))


def load_results(folder: str | Path) -> Results:
    """Read what :class:`Results` saved, and make sure that it is what was saved.

    Raises:
        ResultsError: a file is missing, cut short or was edited.
    """
    import pandas as pd

    folder = Path(folder)
    remedy = "restore the folder, or measure again"
    try:
        content = json.loads((folder / "results.json").read_bytes())
        seal = content.pop("sha256")
        intact = seal == _seal(content)
    except OSError:
        raise ResultsError(
            f"No saved run in {folder.name}: it has no results.json; check the name, or measure again."
        ) from None
    except (ValueError, AttributeError, KeyError):
        intact = False
    if not intact:
        raise ResultsError(f"{folder.name}/results.json was cut short or edited; {remedy}.")
    tables = {}
    for name, saved in content["files"].items():
        try:
            data = (folder / name).read_bytes().replace(b"\r\n", b"\n")[: saved["bytes"]]
        except OSError:
            raise ResultsError(f"{folder.name}/{name} is missing; {remedy}.") from None
        if hashlib.sha256(data).hexdigest() != saved["sha256"]:
            raise ResultsError(f"{folder.name}/{name} was cut short or edited; {remedy}.")
        tables[name.removesuffix(".csv")] = pd.read_csv(io.BytesIO(data))
    batches = tables.pop("batches").groupby("run")
    runs = []
    for number, totals in enumerate(content["runs"], start=1):
        rows = (
            batches.get_group(number).drop(columns=["run", "mode", "batch"]).to_dict("records")
            if number in batches.groups
            else []
        )
        stored = {key: value for key, value in totals.items() if key not in DERIVED}
        runs.append(ProducerRun(**stored, batches=[BatchTiming(**row) for row in rows]))
    return Results(folder, content["environment"], runs, tables=tables)


def _totals(run: ProducerRun) -> dict[str, object]:
    totals = {key: value for key, value in vars(run).items() if key not in ("batches", "undelivered")}
    totals["wait_quantiles_s"] = [round(wait, 7) for wait in run.wait_quantiles_s]
    return totals | {key: getattr(run, key) for key in DERIVED}


def _seal(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _replace(path: Path, data: bytes) -> None:
    """Write a file such that it is there whole or, after a crash, as it was before."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(draft, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


# --- Shown in the notebook -------------------------------------------------------------------------------------------


def approx(value: float) -> str:
    """A number with three significant digits, for prose: 0.0123, 4.56, 78.9, 123, 45,600."""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{float(f'{value:.3g}'):,.{digits}f}"


def finding(results: Results) -> str:
    """The answer in three sentences, with this measurement's numbers."""
    compared = compare(results.runs)
    a, s, ratio = compared["async"], compared["sync"], compared["ratio"]
    messages = results.runs[0].submitted
    runs, times = (
        "one run each",
        f"{approx(ratio['median'])} times as fast; one run says nothing of how much this varies",
    )
    if a["runs"] > 1:
        runs = f"medians of {a['runs']} runs each"
        times = (
            f"{approx(ratio['median'])} times as fast ({approx(ratio['low'])} to {approx(ratio['high'])} in the "
            f"{a['runs']} pairs, a range that covers the true median with {ratio['coverage']:.0%} probability if the "
            "runs are independent)"
        )
    return (
        f"**The asynchronous producer is faster: it delivered {messages:,} messages in {approx(a['total_s'])} s, the "
        f"synchronous one in {approx(s['total_s'])} s ({runs}).** Compared run beside run it was {times}. The reason "
        "is the wait: the synchronous producer spends a round trip on each message, the asynchronous one sends many "
        "messages in a request and does not stop for the answer."
    )


def where_measured(results: Results) -> str:
    """One line on where and when the results come from."""
    e = results.environment
    return (
        f"*Measured on {e['date'][:10]}: {e['cluster']}, brokers: {e['brokers']}, round trip "
        f"{approx(e['round trip ms'])} ms; {e['cores']} cores ({e['cpu']}), {e['os']}, Python {e['python']}, "
        f"confluent-kafka {e['confluent-kafka']}. Data: {results.folder.as_posix()}.*"
    )


def metrics_frame(runs: Iterable[ProducerRun]) -> "pd.DataFrame":
    """The assignment's three metrics and the network's own, from complete runs: rates from totals, times as medians."""
    import pandas as pd

    rows: dict[str, dict[str, str]] = {}
    for mode in ("async", "sync"):
        each = [run for run in runs if run.mode == mode and run.complete]
        if not each:
            continue
        seconds = sum(run.elapsed_s for run in each)
        batches = [batch for run in each for batch in run.batches]
        requests = sum(run.network["produce_requests"] for run in each)
        rows[mode] = {
            "elapsed time per batch, sender (ms)": approx(1000 * statistics.median(b.elapsed_s for b in batches)),
            "elapsed time per batch, until acknowledged (ms)": approx(
                1000 * statistics.median(b.delivered_s for b in batches)
            ),
            "request rate: messages submitted a second": approx(sum(run.submitted for run in each) / seconds),
            "response rate: messages acknowledged a second": approx(sum(run.acknowledged for run in each) / seconds),
            "network: Produce requests a second": approx(requests / seconds),
            "network: messages in a request": approx(sum(run.acknowledged for run in each) / max(1, requests)),
        }
    return pd.DataFrame(rows)


def network_frame(runs: Iterable[ProducerRun]) -> "pd.DataFrame":
    """What the client's statistics say of complete runs, by mode: medians over the runs."""
    import pandas as pd

    def middle(each: list[ProducerRun], value: Callable[[ProducerRun], float]) -> str:
        return approx(statistics.median(map(value, each)))

    columns = {}
    for mode in ("async", "sync"):
        each = [run for run in runs if run.mode == mode and run.complete]
        if each:
            columns[mode] = {
                "Produce requests a second": middle(each, lambda run: run.network["produce_requests"] / run.elapsed_s),
                "responses of any kind a second": middle(each, lambda run: run.network["responses"] / run.elapsed_s),
                "messages in a request": middle(each, lambda run: run.network["messages_per_request"]),
                "queue time of a message (ms)": middle(each, lambda run: run.network["queue_ms"]),
                "time of a request until it is on the socket (ms)": middle(each, lambda run: run.network["outbuf_ms"]),
                "round trip of a request (ms)": middle(each, lambda run: run.network["rtt_ms"]),
            }
    return pd.DataFrame(columns)


def show_ratios(ratios: Mapping[str, Mapping[str, float]]) -> None:
    """Show ratios of rates with their intervals, a row each; see :func:`ratio_interval`."""
    import pandas as pd

    rows = {
        name: {
            "ratio": approx(ratio["median"]),
            "interval": f"{approx(ratio['low'])} to {approx(ratio['high'])}",
            "coverage": f"{ratio['coverage']:.1%}",
        }
        for name, ratio in ratios.items()
    }
    display(pd.DataFrame.from_dict(rows, orient="index"))


def show_accounts(accounts: "pd.DataFrame | None") -> None:
    """Show the table of accounts, and say, in red where it doesn't hold, whether every message is accounted for."""
    if accounts is None:
        display(HTML('<p style="color:#b00020"><b>Not checked: the topic was not read again after these runs.</b></p>'))
        return
    display(accounts.set_index("run").drop(columns="run_id"))
    if accounts["holds"].all():
        print(f"All {accounts['submitted'].sum():,} messages are accounted for: none missing, duplicated or damaged.")
    else:
        bad = ", ".join(map(str, accounts.loc[~accounts["holds"], "run"]))
        display(
            HTML(f'<p style="color:#b00020"><b>The accounts do not hold for run {bad}: do not use its numbers.</b></p>')
        )


def progress_bar(messages: int) -> tqdm:
    """A progress bar whose ``update`` the producers can call; it is redrawn twice a second at most."""
    form = "{bar:40} {n:,} of {total:,} messages"
    return tqdm(total=messages, file=_Redrawn(), mininterval=0.5, bar_format=form, ascii=False, ncols=90)


class _Redrawn:
    """A file for a progress bar, shown as one output that changes: a saved notebook then has its last state alone."""

    def __init__(self):
        self._shown = display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text: str) -> None:
        if text.strip():
            self._shown.update({"text/plain": text.strip()}, raw=True)

    def flush(self) -> None:
        """Nothing is held back."""


def show_source(thing: object) -> Markdown:
    """The source of a function or class of this module, for display."""
    return Markdown(f"```python\n{inspect.getsource(thing).rstrip()}\n```")


def side_by_side(left: Callable, right: Callable) -> HTML:
    """The source of two functions beside each other; lines that the other one lacks are bold and shaded."""
    sources = [inspect.getsource(function).rstrip().splitlines() for function in (left, right)]
    same = difflib.SequenceMatcher(None, *sources, autojunk=False).get_matching_blocks()
    columns = []
    for side, lines in enumerate(sources):
        shared = {block[side] + i for block in same for i in range(block.size)}
        shown = (
            html.escape(line)
            if number in shared
            else f'<b style="background:#ffe3b3;color:#000">{html.escape(line)}</b>'
            for number, line in enumerate(lines)
        )
        columns.append("\n".join(shown))
    code = '<pre style="font:11px monospace;white-space:pre">'
    cells = "".join(f'<td style="text-align:left;vertical-align:top">{code}{column}</pre></td>' for column in columns)
    return HTML(f"<table><tr>{cells}</tr></table>")
