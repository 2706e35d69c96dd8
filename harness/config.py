"""Credentials, settings and parameters: from wherever the user has put them, judged before anything is sent.

What is wrong is said without repeating what a file holds, since a slip can put the secret anywhere.
"""

import difflib
import logging
import math
import os
import re
from collections.abc import Iterable, Mapping
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
    logger.disabled = True
    return logger


# What begins like this is left out: settings in the console's file that a producer refuses or warns of; and that with
# which reports of successes would not come, so that no message could be accounted for.
LEFT_OUT = ("schema.registry.", "basic.auth.", "session.timeout.ms", "delivery.report.only.error")
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
    *MEASURED_SETTINGS,
    "batch.size",
    "compression.type",
    "linger.ms",
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
    if not isinstance(saved_run, str) or (saved_run and not Path(saved_run).is_dir()):
        raise ConfigError('saved_run has to name a folder, such as "results/2026-11-22_..."; "" is to measure.')


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
    if (file := Path(properties)).exists():
        names = {name: name for name in ENV_KEYS.values()}
        entries, near = _read(file, names | {"sasl.mechanism": "sasl.mechanisms"}, shared=False)
    else:
        file, names = Path(env), ENV_KEYS
        # a folder of that name is another program's
        entries, near = _read(file, names, shared=True) if file.is_file() else (ClientConfig(), [])
        for key, name in names.items():
            if os.environ.get(key):
                entries[name] = (re.sub(r"""^(["'])(.*)\1$""", r"\2", os.environ[key].strip()), "the environment")
        stray = "sasl.password" not in entries or all(where == "the environment" for _, where in entries.values())
        if stray and "bootstrap.servers" not in entries:
            _say_what_was_found(Path(properties), file, [key for key in names if names[key] in entries], near)
            return None
    place = " and ".join(sorted({where.split(", ")[0] for _, where in entries.values()})) or file.name
    _judge(entries, {name: key for key, name in names.items()}, near, place)
    print("\n".join([f"Configuration from {place}.", *near]))
    return ClientConfig((key, value) for key, (value, _) in entries.items())


def _read(path: Path, names: Mapping[str, str], *, shared: bool) -> tuple[Entries, list[str]]:
    """The settings in a file, and remarks on lines whose key is almost one of ``names``.

    A ``shared`` file may hold what other programs read; in another, each line has to be a setting.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"{path.name} is not a text file in UTF-8; save it as UTF-8, or copy it again.") from None
    except OSError as error:
        raise ConfigError(f"{path.name} can't be read ({error.strerror}); check that it is a file of yours.") from None
    entries: Entries = ClientConfig()
    near: list[str] = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        where = f"{path.name}, line {number}"
        if not line or line[0] in "#;!" or line == "[default]":
            continue
        if line[0] == "[" and not shared:
            break  # getting_started.ini has a [consumer] section for another program
        key, equals, value = (each.strip() for each in line.removeprefix("export ").partition("="))
        meant = _meant(key.partition(" ")[0])
        if not (key and equals) and (meant or not shared):
            raise ConfigError(f"{where} is not of the form key=value{meant}; correct or remove it.")
        if key in ANSWERED and not shared:
            raise ConfigError(f"{where}: {key} {ANSWERED[key]}.")
        if key in names or not (shared or key.startswith(LEFT_OUT)):
            _add(entries, names.get(key, key), value, where)
        if key not in names and meant:
            near.append(f"{where} has an unusual key{meant}.")
    return entries, near


def _add(entries: Entries, key: str, value: str, where: str) -> None:
    if key in entries:
        raise ConfigError(f"{where} gives a key again that {entries[key][1].split(', ')[-1]} has; keep one of them.")
    if quoted := QUOTED.fullmatch(value):
        value = quoted[2]
    elif key not in ("sasl.username", "sasl.password"):  # in these it could be meant, so it is judged
        value = re.split(r"\s+[#;]", value, maxsplit=1)[0]
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
    readable = all(each.isprintable() and (each.isascii() or each.isalnum()) for each in value)
    if key in FIVE and (not readable or re.search(r"""^["']|["']$|\s[#;]""", value)):
        return "has a comment, a quotation mark or a character that can't be seen in it; type it again"
    form, words = FORMS.get(key, (".*", ""))
    return None if re.fullmatch(form, value, re.IGNORECASE | re.ASCII) else f"has to be {words}"


def _judge(entries: Entries, named: Mapping[str, str], near: list[str], place: str) -> None:
    """Raise ConfigError unless the settings can be right; ``named``: what their user calls them."""
    for key, (value, where) in entries.items():
        if fault := _fault(key, value):
            raise ConfigError(f"{where}: the value{f' of {named[key]}' if key in named else ''} {fault}.")
    login = "sasl.password" in entries or entries.get("security.protocol", ("", ""))[0].upper().startswith("SASL_")
    if missing := [named[key] for key in (FIVE if login else FIVE[:1]) if key not in entries]:
        hint = f" {near[0]}" if near else ""
        raise ConfigError(f"{place} lacks {' and '.join(missing)}; add it as in the example file.{hint}")
    # The rest is the client's to judge; without the address, which it would look up.
    settings = ClientConfig((key, value) for key, (value, _) in entries.items() if key != "bootstrap.servers")
    try:
        Producer(producer_settings(settings), logger=quiet_logger()).close()
    except Exception as error:  # the client raises exceptions of many kinds for settings it can't use
        refused = refused_settings(error, entries)
        where = " and ".join(entries[key][1] for key in refused) or place
        if "No such configuration property" in str(error):
            said = f"the client doesn't know this key{_meant(''.join(refused[:1]))}; correct or remove it"
        else:
            said = f"the client refuses {' with '.join(refused) or 'the settings'}; correct or remove it"
        raise ConfigError(f"{where}: {said}.") from None


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
