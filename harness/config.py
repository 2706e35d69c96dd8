"""Credentials, settings and parameters: from wherever the user has put them, judged before anything is sent.

What is wrong is said without repeating what a file holds, since a slip can put the secret anywhere.
"""

import difflib
import logging
import os
import re
import tomllib
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


# What begins like this is left out: what a producer refuses or warns of in the console's file, and settings with which
# successes would not be reported, or what the client logs would not be heard.
LEFT_OUT = ("schema.registry.", "basic.auth.", "session.timeout.ms", "delivery.report.only.error", "log_level")
# A consumer that joins no group (the client wants a name all the same), commits nothing, jumps over nothing, and isn't
# held up by another program's open transaction.
READER_SETTINGS = {
    "group.id": "read-back",
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_uncommitted",
}
# The same for both producers, whatever a configuration file says: otherwise they could not be compared.
MEASURED_SETTINGS = {"acks": "all", "enable.idempotence": "true"}
# What a file may set, but the measurement sets itself, or knows by another name.
SET_BY_THE_RUN = ("request.required.acks", "message.timeout.ms", "statistics.interval.ms")
# Settings whose values may be shown and saved. By name, not by value: a secret may look like a number or a word.
SHOWN = (*MEASURED_SETTINGS, "batch.size", "compression.type", "linger.ms", "sasl.mechanisms", "security.protocol")


def producer_settings(config: Mapping[str, Any]) -> ClientConfig:
    """The settings of both producers: the user's, but for what has to be the same in every measurement."""
    kept = {key: value for key, value in config.items() if key not in SET_BY_THE_RUN}
    return ClientConfig(kept | MEASURED_SETTINGS)


def shown_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Of a configuration, what may be shown and saved: never a secret, a name or a path."""
    return {key: str(config[key]) for key in SHOWN if key in config}


def refused_settings(error: Exception, settings: Iterable[str]) -> list[str]:
    """Which of the settings the client's refusal names; the refusal isn't shown, since it may repeat their values."""
    said = str(error).replace("queue.buffering.max.ms", "linger.ms").replace("compression.codec", "compression.type")
    return [key for key in settings if re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", said)]


def check_whole(name: str, value: object) -> None:
    """Raise ConfigError, with the parameter's name, unless it is a whole number of 1 or more."""
    if type(value) is not int or value < 1:
        raise ConfigError(f"{name} has to be a whole number, 1 or more.")


def check_parameters(num_messages: int, batch_size: int, blocks: int | None = None) -> None:
    """Judge the notebook's parameters before anything is sent; ConfigError names the one that can't be used."""
    check_whole("num_messages", num_messages)
    check_whole("batch_size", batch_size)
    check_whole("blocks (unless it is None)", 1 if blocks is None else blocks)
    if batch_size > num_messages:
        raise ConfigError("batch_size can't be larger than num_messages; make it smaller.")


LOGIN = ("bootstrap.servers", "security.protocol", "sasl.mechanisms", "sasl.username", "sasl.password")
# The course's keys for .env and the environment (SASL_USERNAME ...) -> the client's own names for the same settings.
ENV_KEYS = {name.upper().replace(".", "_"): name for name in (*LOGIN, "ssl.ca.location")}
RULES = tomllib.loads(Path(__file__).with_name("rules.toml").read_text(encoding="utf-8"))
Entries = dict[str, tuple[str, str]]  # the client's key -> (value, "file, line N")


def load_config(properties: str | Path = "client.properties", env: str | Path = ".env") -> dict[str, str] | None:
    """Read the client's configuration from wherever the user has put it, and say in a line which place that was.

    ``properties`` is the console's file (``key=value`` lines, also as ``getting_started.ini``), and wins where it
    exists; ``env`` has ``KEY=value`` lines as in the course, and the environment wins over it. Gives the configuration
    for a confluent-kafka client, or None where there are no credentials.

    Raises:
        ConfigError: a place was found, but what stands there can't be used.
    """
    if (file := Path(properties)).exists():
        key_of = {name: name for name in ENV_KEYS.values()}  # what the user calls a setting
        entries = _read(file, key_of | {"sasl.mechanism": "sasl.mechanisms"}, shared=False)
    else:
        file, key_of = Path(env), {name: key for key, name in ENV_KEYS.items()}
        # a folder of that name is another program's
        entries = _read(file, ENV_KEYS, shared=True) if file.is_file() else ClientConfig()
        for key in filter(os.environ.get, ENV_KEYS):
            value = re.sub(r"""^(["'])(.*)\1$""", r"\2", os.environ[key].strip())
            entries[ENV_KEYS[key]] = (value, f"the environment, {key}")
        # without an address, what the environment holds is another program's, and so is a file without a secret
        ours = "sasl.password" in entries and any(where.startswith(file.name) for _, where in entries.values())
        if "bootstrap.servers" not in entries and not ours:
            _say_what_was_found(Path(properties), file, [key_of[name] for name in entries])
            return None
    place = " and ".join(sorted({where.split(", ")[0] for _, where in entries.values()})) or file.name
    _judge(entries, key_of, place)
    print(f"Configuration from {place}.")
    return ClientConfig((key, value) for key, (value, _) in entries.items())


def _read(path: Path, names: Mapping[str, str], *, shared: bool) -> Entries:
    """The settings in a file; a ``shared`` one also holds what other programs read, which is passed over."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{path.name} can't be read; it has to be a text file of yours, in UTF-8.") from None
    entries: Entries = ClientConfig()
    for number, line in enumerate(map(str.strip, lines), start=1):
        where = f"{path.name}, line {number}"
        if not line or line[0] in "#;!" or line == "[default]":
            continue
        if line[0] == "[" and not shared:
            break  # getting_started.ini has a [consumer] section for another program
        key, equals, value = (part.strip() for part in line.removeprefix("export ").partition("="))
        if key not in names and (shared or key.startswith(LEFT_OUT)):
            continue
        if not (key and equals):
            raise ConfigError(f"{where} is not of the form key=value; correct or remove it.")
        name = names.get(key, key)
        if name in entries:
            raise ConfigError(f"{where}: this key stands in {entries[name][1]}, too; keep one of them.")
        if quoted := re.fullmatch(r"""(["'])(.*?)\1\s*([#;].*)?""", value):
            value = quoted[2]
        elif name not in ("sasl.username", "sasl.password"):  # in these it could be meant, so it is judged
            value = re.split(r"\s+[#;]", value, maxsplit=1)[0]
        entries[name] = (value, where)
    return entries


def _judge(entries: Entries, key_of: Mapping[str, str], place: str) -> None:
    """Raise ConfigError unless the settings can be right."""
    for name, (value, where) in entries.items():
        rules = (RULES["login"] if name in LOGIN else {}) | RULES["every"] | RULES.get(name, {})
        for form, fault in rules.items():
            if not re.fullmatch(form, value, re.IGNORECASE):
                known = key_of.get(name) or (name if name in RULES else "the value")  # a key could hold the secret
                raise ConfigError(f"{where}: {known} {fault}.")
    login = "sasl.password" in entries or entries.get("security.protocol", ("", ""))[0].upper().startswith("SASL_")
    if missing := [key_of[name] for name in (LOGIN if login else LOGIN[:1]) if name not in entries]:
        raise ConfigError(f"{place} lacks {' and '.join(missing)}; add it as in the example file.")
    # The rest is the client's to judge; without the address, which it would look up.
    settings = ClientConfig((name, value) for name, (value, _) in entries.items() if name != "bootstrap.servers")
    quiet = logging.getLogger("kafka.client")
    quiet.disabled = True
    try:
        Producer(producer_settings(settings), logger=quiet).close()
    except Exception as error:  # the client raises exceptions of many kinds for settings it can't use
        where = " and ".join(entries[name][1] for name in refused_settings(error, entries)) or place
        raise ConfigError(f"{where}: the client refuses this setting; correct or remove it.") from None


def _say_what_was_found(properties: Path, env: Path, passed_over: list[str]) -> None:
    without = f"; without it, {' and '.join(passed_over)} are passed over" if passed_over else ""
    nowhere = f"no {properties.name}, and no BOOTSTRAP_SERVERS in {env.name} or the environment"
    print(f"No credentials: {nowhere}{without}.")
    names = [properties.name, env.name]
    for file in sorted(filter(Path.is_file, properties.absolute().parent.iterdir())):  # .venv is a folder
        meant = difflib.get_close_matches(file.name.lower().removesuffix(".txt"), names, cutoff=0.85)
        if meant and file.name not in names:
            print(f"{file.name} isn't read; if it is meant, rename it {meant[0]}.")
