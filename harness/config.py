"""Credentials, settings and parameters: from wherever the user has put them, judged before anything is sent.

What is wrong is said without repeating what a file holds, since a slip can put the secret anywhere.
"""

import difflib
import logging
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from harness.errors import ConfigError


class ClientConfig(dict[str, Any]):
    """A client configuration that can be shown, joined and copied without giving the secret away."""

    def __repr__(self) -> str:
        return f"<client configuration: {', '.join(self)}; values hidden>"

    def __or__(self, other: Mapping[str, Any]) -> "ClientConfig":  # type: ignore[override]
        return ClientConfig({**self, **other})

    def __ror__(self, other: Mapping[str, Any]) -> "ClientConfig":  # type: ignore[override]
        return ClientConfig({**other, **self})

    def copy(self) -> "ClientConfig":
        return ClientConfig(self)


def quiet_logger() -> logging.Logger:
    """A logger that keeps the client library's log lines off the screen; errors are reported where they are met."""
    logger = logging.getLogger("kafka.client")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


# What begins like this is left out. The console's file may hold the first five, for other programs: a Producer refuses
# them or warns of them. With the last one, reports of successes would not come, and no message could be accounted for.
LEFT_OUT = (
    "schema.registry.",
    "basic.auth.",
    "session.timeout.ms",
    "group.id",
    "auto.offset.reset",
    "delivery.report.only.error",
)
# A consumer that joins no group, commits nothing, never jumps over what is there, and isn't held up by a transaction
# of another program that is still open. The client wants a group's name.
READER_SETTINGS = {
    "group.id": "read-back",
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_uncommitted",
}
# The same for both producers, whatever a configuration file says: otherwise they could not be compared.
MEASURED_SETTINGS = {"acks": "all", "enable.idempotence": "true"}
# What a file may set, but the measurement sets itself: other names of these settings, and its own clock's.
SET_BY_THE_RUN = ("request.required.acks", "message.timeout.ms", "delivery.timeout.ms", "statistics.interval.ms")
# Settings whose values may be shown and saved. By name, not by value: a secret may look like a number or a word.
SHOWN_SETTINGS = (
    "acks",
    "batch.size",
    "compression.type",
    "enable.idempotence",
    "linger.ms",
    "max.in.flight.requests.per.connection",
    "message.max.bytes",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "retries",
    "sasl.mechanisms",
    "security.protocol",
)


def producer_settings(config: Mapping[str, Any]) -> ClientConfig:
    """The settings of both producers: the user's, but for what has to be the same in every measurement."""
    return ClientConfig({key: value for key, value in config.items() if key not in SET_BY_THE_RUN} | MEASURED_SETTINGS)


def shown_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Of a configuration, what may be shown and saved: never a secret, a name or a path."""
    return {key: str(config[key]) for key in SHOWN_SETTINGS if key in config}


def refused_settings(error: Exception, settings: Iterable[str]) -> list[str]:
    """Which of the settings the client's refusal names; the refusal isn't shown, since it may repeat their values."""
    said = str(error).replace("queue.buffering.max.ms", "linger.ms").replace("compression.codec", "compression.type")
    return [key for key in settings if re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", said)]


# --- Parameters ------------------------------------------------------------------------------------------------------

CLUSTER_CHOICES = ("auto", "cloud", "local", "distant", "simulated")
LONGEST_TIMEOUT_S = 2_147_483  # the client takes milliseconds in 32 bits


def check_whole(name: str, value: object) -> None:
    """Raise ConfigError, with the parameter's name, unless it is a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} has to be a whole number, 1 or more.")


def check_seconds(name: str, value: object) -> None:
    """Raise ConfigError unless it is a time in seconds that the client can be given; 0 would mean "for ever" to it."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not 0.001 <= float(value) <= LONGEST_TIMEOUT_S:  # type: ignore[arg-type]
        raise ConfigError(f"{name} has to be a number of seconds, from 0.001 to {LONGEST_TIMEOUT_S:,}.")


def check_choice(choice: object) -> None:
    """Raise ConfigError, with the names there are, unless a cluster of that name can be opened."""
    if choice not in CLUSTER_CHOICES:
        raise ConfigError(f"cluster_choice has to be one of {', '.join(CLUSTER_CHOICES)}.")


def check_parameters(
    num_messages: int,
    batch_size: int,
    *,
    blocks: int | None = None,
    cluster_choice: str = "auto",
    saved_run: str = "",
) -> None:
    """Judge the notebook's parameters, all of them, before anything is sent.

    Raises:
        ConfigError: with the parameter's name and what it has to be.
    """
    check_whole("num_messages", num_messages)
    check_whole("batch_size", batch_size)
    if batch_size > num_messages:
        raise ConfigError("batch_size can't be larger than num_messages; make it smaller, or send more messages.")
    if blocks is not None:
        check_whole("blocks (unless it is None)", blocks)
    check_choice(cluster_choice)
    if not isinstance(saved_run, str):
        raise ConfigError('saved_run has to be a folder\'s name in quotes, or "" to measure.')
    if saved_run and not Path(saved_run).is_dir():
        beside = Path("results") / saved_run
        hint = f'write "{beside.as_posix()}"' if beside.is_dir() else 'it has to be like "results/2026-11-22_..."'
        raise ConfigError(f"saved_run names no folder; {hint}.")


# --- Credentials -----------------------------------------------------------------------------------------------------

# The course's keys for .env and the environment, and the client's own names for the same settings.
ENV_KEYS = {
    "BOOTSTRAP_SERVERS": "bootstrap.servers",
    "SECURITY_PROTOCOL": "security.protocol",
    "SASL_MECHANISMS": "sasl.mechanisms",
    "SASL_USERNAME": "sasl.username",
    "SASL_PASSWORD": "sasl.password",
    "SSL_CA_LOCATION": "ssl.ca.location",
}
FIVE = list(ENV_KEYS.values())[:5]  # what a login needs
PLACEHOLDER = re.compile(
    r"<.*>|\{\{.*\}\}|\.\.\.|x{4,}.*|pkc-x{3,}.*|your?[-_ ].*|\$\{.*\}|\$\(.*\)|%\w+%|(?-i:\$[A-Z_]+)", re.IGNORECASE
)
ADDRESS = r"\s*((SASL_)?(PLAINTEXT|SSL)://)?([\w.-]+|\[[\da-f:.]+\])(:\d{1,5})?\s*"
# What some values have to look like. Those of the first three are shown, so a line that was joined to another, with
# the secret, must not pass for one. A long client.id is cut in the client's statistics, which it then can't read.
FORMS = {
    "bootstrap.servers": (f"({ADDRESS},)*{ADDRESS},?", "host:port, or several of these with commas"),
    "security.protocol": ("(SASL_)?(PLAINTEXT|SSL)", "SASL_SSL for Confluent Cloud"),
    "sasl.mechanisms": ("PLAIN|SCRAM-SHA-(256|512)|OAUTHBEARER|GSSAPI", "PLAIN for Confluent Cloud"),
    "client.id": ("[ -~]{0,200}", "at most 200 letters, digits and signs of ASCII"),
    "queue.buffering.max.messages": (r"0|[1-9]\d{2,}", "100 or more"),
}
QUOTED = re.compile(r"""(["'])(.*?)\1\s*([#;].*)?""")
ANSWERED = {
    "sasl.jaas.config": "is the console's Java form; copy the Python form instead, or write its username and password "
    "as two lines, sasl.username=... and sasl.password=...",
    "transactional.id": "is for transactions, which these producers don't use; remove the line",
}
Entries = dict[str, tuple[str, str]]  # the client's key -> (value, "file, line N")


def load_config(properties: str | Path = "client.properties", env: str | Path = ".env") -> dict[str, str] | None:
    """Read the client's configuration from wherever the user has put it, and say in a line which place that was.

    ``properties`` wins where it exists. Otherwise the keys of ``ENV_KEYS`` count, each from the environment or, where
    that lacks it, from the file ``env``; what other programs have there is passed over.

    Args:
        properties: the file that the Confluent Cloud console gives (``key=value`` lines, with or without a
            ``[default]`` header as in Confluent's ``getting_started.ini``).
        env: a file of ``KEY=value`` lines as in the course.

    Returns:
        The configuration for a confluent-kafka client, or None where no credentials are given.

    Raises:
        ConfigError: a place was found, but what stands there can't be used.
    """
    file, named = Path(properties), {name: name for name in ENV_KEYS.values()}
    if file.exists():
        entries, near = _read_properties(file)
    else:
        file, named = Path(env), {name: key for key, name in ENV_KEYS.items()}
        entries, near = _read_env(file)
    place = " and ".join(sorted({where.split(", ")[0] for _, where in entries.values()}))
    stray = place == "the environment" or "sasl.password" not in entries
    if file == Path(env) and stray and "bootstrap.servers" not in entries:
        _say_what_was_found(Path(properties), file, [*entries], near)
        return None
    for key, (value, where) in entries.items():
        if fault := _fault(key, value):
            raise ConfigError(f"{where}: the value{f' of {named[key]}' if key in named else ''} {fault}.")
    login = "sasl.password" in entries or entries.get("security.protocol", ("", ""))[0].upper().startswith("SASL_")
    if missing := [named[key] for key in (FIVE if login else FIVE[:1]) if key not in entries]:
        sentence = f"{place} lacks {' and '.join(missing)}; add it as in the example file."
        raise ConfigError(" ".join([sentence, *near[:1]]))
    config = ClientConfig((key, value) for key, (value, _) in entries.items())
    _check_accepted(config, entries, place)
    print("\n".join([f"Configuration from {place}.", *near]))
    if os.name == "posix" and file.exists() and file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        print(f"Others on this machine can read {file.name}; to keep it to yourself: chmod 600 {file.name}")
    return config


def _lines(path: Path) -> Iterator[tuple[str, str, str | None]]:
    """Of each line that isn't a comment: where it is, its key, and its value (None: it has no "=")."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"{path.name} is not a text file in UTF-8; save it as UTF-8, or copy it again.") from None
    except OSError as error:
        raise ConfigError(f"{path.name} can't be read ({error.strerror}); check that it is a file of yours.") from None
    for number, line in enumerate(map(str.strip, lines), start=1):
        if line and line[0] not in "#;!":
            key, equals, value = line.removeprefix("export ").partition("=")
            yield f"{path.name}, line {number}", key.strip(), value.strip() if equals else None


def _read_properties(path: Path) -> tuple[Entries, list[str]]:
    """The settings, and remarks on lines whose key is almost one of the five."""
    entries: Entries = ClientConfig()
    near: list[str] = []
    for where, key, value in _lines(path):
        if key.startswith("[") and value is None:
            if key != "[default]":
                break  # getting_started.ini has a [consumer] section for another program
            continue
        key = "sasl.mechanisms" if key == "sasl.mechanism" else key  # the client knows both
        if value is None or not key:
            raise ConfigError(f"{where} is not of the form key=value{_meant(key)}; correct or remove it.")
        if key in ANSWERED:
            raise ConfigError(f"{where}: {key} {ANSWERED[key]}.")
        if key.startswith(LEFT_OUT):
            continue
        _add(entries, key, value, where)
        if key not in ENV_KEYS.values() and (meant := _meant(key)):
            near.append(f"{where} has an unusual key{meant}.")
    if not entries:
        raise ConfigError(f"{path.name} holds no setting; copy it again from the console, or remove it.")
    return entries, near


def _read_env(path: Path) -> tuple[Entries, list[str]]:
    """The same from the course's form, and from the environment, which wins."""
    entries: Entries = ClientConfig()
    near: list[str] = []
    for where, key, value in _lines(path) if path.is_file() else ():  # a folder of that name is another program's
        word = key.partition(" ")[0]
        if key in ENV_KEYS and value is not None:
            _add(entries, ENV_KEYS[key], value, where)
        elif word in ENV_KEYS:
            raise ConfigError(f"{where} is not of the form KEY=value{_meant(word)}; correct or remove it.")
        elif meant := _meant(word):
            near.append(f"{where} is passed over{meant}.")
    for key, name in ENV_KEYS.items():
        if os.environ.get(key):
            entries[name] = (re.sub(r"""^(["'])(.*)\1$""", r"\2", os.environ[key].strip()), "the environment")
    return entries, near


def _add(entries: Entries, key: str, value: str, where: str) -> None:
    if key in entries:
        raise ConfigError(f"{where} gives a key again that {entries[key][1].split(', ')[-1]} has; keep one of them.")
    if quoted := QUOTED.fullmatch(value):
        value = quoted[2]
    elif comment := re.search(r"\s+[#;]", value):
        if key in ("sasl.username", "sasl.password"):
            raise ConfigError(
                f"{where}: is what begins with # or ; a comment? Put it on a line of its own, or the value in quotes."
            )
        value = value[: comment.start()]
    entries[key] = (value, where)


def _meant(key: str) -> str:
    """``" (did you mean sasl.username?)"`` where the key resembles one of the five; never the key itself."""
    close = difflib.get_close_matches(key, [*list(ENV_KEYS)[:5], *FIVE], n=1, cutoff=0.8)
    return f" (did you mean {close[0]}?)" if close else ""


def _fault(key: str, value: str) -> str | None:
    """What is wrong with a value by its looks."""
    if key in FIVE and not value:
        return "is missing; fill it in"
    if PLACEHOLDER.fullmatch(value):
        return "is still a placeholder; put your own in its place"
    strange = [each for each in value if not (each.isascii() or each.isalnum()) or not each.isprintable()]
    if key in FIVE and (strange or value[0] in "\"'" or value[-1] in "\"'"):
        return "has a quotation mark, or a character that can't be seen; type it again"
    form, words = FORMS.get(key, (".*", ""))
    return None if re.fullmatch(form, value, re.IGNORECASE | re.ASCII) else f"has to be {words}"


def _check_accepted(config: ClientConfig, entries: Entries, place: str) -> None:
    """Let the client itself judge the settings; without the address, which it would look up."""
    settings = {key: value for key, value in config.items() if key != "bootstrap.servers"}
    try:
        Producer(producer_settings(settings), logger=quiet_logger()).close()
    except Exception as error:  # the client raises exceptions of many kinds for settings it can't use
        refused = refused_settings(error, entries)
        where = " and ".join(entries[key][1] for key in refused) or place
        if "No such configuration property" in str(error):
            said = f"has a key that the client doesn't know{_meant(refused[0])}; correct or remove it"
        else:
            said = "is refused by the client; correct it (for Confluent Cloud copy the console's line), or remove it"
        raise ConfigError(f"{where} {said}.") from None


def _say_what_was_found(properties: Path, env: Path, passed_over: list[str], near: list[str]) -> None:
    print(f"No credentials: no {properties.name}, and no BOOTSTRAP_SERVERS in {env.name} or the environment.")
    if passed_over:
        print(f"Without it, {' and '.join(passed_over)} are passed over.")
    for each in near:
        print(each)
    names = [properties.name, env.name]
    for file in sorted(properties.absolute().parent.iterdir()):
        meant = difflib.get_close_matches(file.name.casefold().removesuffix(".txt"), names, n=1, cutoff=0.85)
        if meant and file.name not in names and file.is_file():
            print(f"{file.name} isn't read; if it is meant, rename it {meant[0]}.")
