"""Credentials, settings and parameters: from wherever the user has put them, judged before anything is sent.

What is wrong is said without repeating what a file holds.
"""

import difflib
import io
import logging
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

import dotenv.parser
from confluent_kafka import Producer

from harness.errors import ConfigError


class ClientConfig(dict):
    """A client configuration that a notebook can show without giving the secret away."""

    def __repr__(self) -> str:
        return f"<client configuration: {', '.join(self)}; values hidden>"


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
# A consumer that joins no group, commits nothing, and never jumps over what is there, nor waits for the end of another
# program's transaction. The client wants a group's name.
READER_SETTINGS = {
    "isolation.level": "read_uncommitted",
    "group.id": "read-back",
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "earliest",
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
    "delivery.timeout.ms",
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


def producer_settings(config: Mapping[str, str]) -> dict[str, str]:
    """The settings of both producers: the user's, but for what has to be the same in every measurement."""
    return {key: value for key, value in config.items() if key not in SET_BY_THE_RUN} | MEASURED_SETTINGS


def shown_settings(config: Mapping[str, str]) -> dict[str, str]:
    """Of a configuration, what may be shown and saved: never a secret, a name or a path."""
    return {key: str(config[key]) for key in SHOWN_SETTINGS if key in config}


CLUSTER_CHOICES = ("auto", "cloud", "local", "distant", "simulated")
LONGEST_TIMEOUT_S = 2_147_483  # the client takes milliseconds in 32 bits


def check_whole(name: str, value: object) -> None:
    """Make sure that a parameter is a whole number of 1 or more.

    Raises:
        ConfigError: with the parameter's name.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} has to be a whole number, 1 or more.")


def check_seconds(name: str, value: object) -> None:
    """Make sure that a parameter is a time in seconds that the client can be given; 0 would mean "for ever" to it.

    Raises:
        ConfigError: with the parameter's name.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not 0.001 <= value <= LONGEST_TIMEOUT_S:
        raise ConfigError(f"{name} has to be a number of seconds, from 0.001 to {LONGEST_TIMEOUT_S:,}.")


def check_choice(choice: object) -> None:
    """Make sure that a cluster of that name can be opened.

    Raises:
        ConfigError: with the names there are.
    """
    if choice not in CLUSTER_CHOICES:
        raise ConfigError(f"cluster_choice has to be one of {', '.join(CLUSTER_CHOICES)}.")


def check_parameters(
    num_messages: int,
    batch_size: int,
    *,
    runs_each: int | None = None,
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
    if runs_each is not None:
        check_whole("runs_each (unless it is None)", runs_each)
    check_choice(cluster_choice)
    if not isinstance(saved_run, str):
        raise ConfigError('saved_run has to be a folder\'s name in quotes, or "" to measure.')
    if saved_run and not Path(saved_run).is_dir():
        beside = Path("results") / saved_run
        hint = f'write "{beside.as_posix()}"' if beside.is_dir() else 'it has to be like "results/2026-11-22_..."'
        raise ConfigError(f"saved_run names no folder; {hint}.")


# The course's keys for .env and the environment, and the client's own names for the same five settings.
ENV_KEYS = {
    "BOOTSTRAP_SERVERS": "bootstrap.servers",
    "SECURITY_PROTOCOL": "security.protocol",
    "SASL_MECHANISMS": "sasl.mechanisms",
    "SASL_USERNAME": "sasl.username",
    "SASL_PASSWORD": "sasl.password",
}
PLACEHOLDER = re.compile(r"<.*>|\{\{.*\}\}|\.\.\.|x{4,}.*|pkc-x{3,}.*|your?[-_ ].*", re.IGNORECASE)
# What stands in these three is shown, so a line that was joined to another, with the secret, must not pass for a value.
FORMS = {
    "bootstrap.servers": r"(\w+://)?([\w.-]+|\[[\da-f:.]+\])(:\d{1,5})?",
    "security.protocol": r"(SASL_)?(PLAINTEXT|SSL)",
    "sasl.mechanisms": r"PLAIN|SCRAM-SHA-(256|512)|OAUTHBEARER|GSSAPI",
}


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
        if "\0" in value:
            raise ConfigError(f"{where}: a NUL character is in the value; type the line again.")
        if PLACEHOLDER.fullmatch(value):
            raise ConfigError(
                f"{where}: the example's placeholder still stands there; put your own value in its place."
            )
    for key, form in FORMS.items():
        value, where = entries.get(key, ("", ""))
        if not all(re.fullmatch(form, each.strip(), re.IGNORECASE) for each in value.split(",") if each.strip()):
            raise ConfigError(f"{where}: {NOT_ACCEPTED.format(named[key])}")
    _check_complete(entries, named, place)
    _check_accepted(entries, named, place)
    config = ClientConfig((key, value) for key, (value, _) in entries.items())
    print(f"Configuration from {place}.")
    if os.name == "posix" and file.exists() and file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        print(f"Others on this machine can read {file.name}; to keep it to yourself: chmod 600 {file.name}")
    return config


NOT_ACCEPTED = (
    "the client doesn't accept this value for {}; for Confluent Cloud copy the line from the console, for other "
    "settings see librdkafka's CONFIGURATION.md."
)
Entries = dict[str, tuple[str, str]]  # the client's key -> (value, "file, line N")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path.name} is not a text file in UTF-8; save it as UTF-8, or copy it again.") from None
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
        if key.startswith(LEFT_OUT):
            continue
        _add(entries, key, _bare(value), where)
    if not entries:
        raise ConfigError(f"{path.name} holds no setting; copy it again from the console, or remove it.")
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
            raise ConfigError(f"{where}: {NOT_ACCEPTED.format(named.get(key, key))}")
    raise ConfigError(f"{place}: these settings don't fit each other; compare with the example file.")


def _refusal(config: dict[str, str]) -> str | None:
    # Without the address, which it takes as it is: it would look that up, and connect.
    config = {key: value for key, value in config.items() if key != "bootstrap.servers"}
    try:
        Producer(producer_settings(config), logger=quiet_logger()).close()
    except Exception as error:  # the client raises exceptions of many kinds for settings it can't use
        return str(error)
    return None
