"""The client's settings and the notebook's parameters: what is added, left out, shown, refused."""

import logging
import re
from collections.abc import Mapping
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
        """A copy that hides its values, too."""
        return ClientConfig(self)


# Prefixes of settings that no client is given: what a producer refuses or warns of in the console's file, and settings
# with which successes would not be reported, or what the client logs would not be heard.
IGNORED_PREFIXES = ("schema.registry.", "basic.auth.", "session.timeout.ms", "delivery.report.only.error", "log_level")
# A consumer that joins no group (the client wants a name all the same), commits nothing, jumps over nothing, isn't held
# up by another program's open transaction, and waits for nothing more where there are messages.
READER_SETTINGS = {
    "group.id": "read-back",
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_uncommitted",
    "fetch.min.bytes": 1,
    "fetch.wait.max.ms": 500,
    "fetch.queue.backoff.ms": 100,
    "queued.max.messages.kbytes": 65_536,
}
# The same for both producers, whatever a configuration file says: otherwise they could not be compared.
MEASURED_SETTINGS = {"acks": "all", "enable.idempotence": "true"}
# What a file may set, but the measurement sets itself, or knows by another name; and the client's id, since statistics
# with an odd one can end Python.
SET_BY_THE_RUN = ("request.required.acks", "message.timeout.ms", "statistics.interval.ms", "client.id")
# Settings whose values may be shown and saved. By name, not by value: a secret may look like a number or a word.
SHOWN = (*MEASURED_SETTINGS, "batch.size", "batch.num.messages", "linger.ms", "queue.buffering.max.ms")
SHOWN += ("compression.type", "compression.codec", "sasl.mechanisms", "security.protocol")
# How the client calls some settings in a refusal that concerns another one, too.
CLIENT_WORDS = {"message.timeout.ms": "delivery.timeout.ms", "SASL mechanism": "sasl.mechanisms"}


def producer_settings(config: Mapping[str, Any]) -> ClientConfig:
    """The settings of both producers: the user's, but for what has to be the same in every measurement."""
    kept = {key: value for key, value in config.items() if key not in SET_BY_THE_RUN}
    return ClientConfig(kept | MEASURED_SETTINGS)


def shown_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Of a configuration, what may be shown and saved: never a secret, a name or a path."""
    return {key: str(config[key]) for key in SHOWN if key in config}


def refusal_of(settings: Mapping[str, Any]) -> Exception | None:
    """What the client raises for settings that it can't use, of many kinds; it isn't given the address to look up."""
    given = {name: value for name, value in settings.items() if name != "bootstrap.servers"}
    try:
        Producer(given, logger=logging.Logger("kafka.client", logging.CRITICAL + 1)).close()
    except Exception as error:
        return error
    return None


def refused_settings(refusal: Exception, settings: Mapping[str, Any]) -> list[str]:
    """Which of the settings the client means by its refusal; that isn't shown, since it may repeat their values."""
    text = str(refusal)
    for word, name in CLIENT_WORDS.items():
        text = text.replace(word, name)
    theirs = [name for name, value in settings.items() if MEASURED_SETTINGS.get(name) != value]
    named = [name for name in theirs if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", text)]
    # Where none is named, it is the one without which the others are accepted.
    return named or [name for name in theirs if not refusal_of({k: v for k, v in settings.items() if k != name})]


def check_whole(name: str, value: object) -> None:
    """Raise ConfigError, with the parameter's name, unless it is a whole number of 1 or more."""
    if type(value) is not int or value < 1:
        raise ConfigError(f"{name} has to be a whole number, 1 or more.")


def check_text(name: str, value: object) -> None:
    """Raise ConfigError, with the parameter's name, unless it is a text that isn't empty."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name} has to be a text in quotation marks.")


def check_parameters(num_messages: int, batch_size: int, blocks: int | None = None, topic: str = "any") -> None:
    """Judge the notebook's parameters before anything is sent; ConfigError names the one that can't be used."""
    check_text("topic", topic)
    check_whole("num_messages", num_messages)
    check_whole("batch_size", batch_size)
    if blocks is not None:
        check_whole("blocks (unless it is None)", blocks)
    if batch_size > num_messages:
        raise ConfigError("batch_size can't be larger than num_messages; make it smaller.")
