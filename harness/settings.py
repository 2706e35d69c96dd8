"""Which of the client's settings are the user's, which the measurement's own, and which may be shown."""

from collections.abc import Mapping

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
# A consumer that joins no group, commits nothing, and never jumps over what is there. The client wants a group's name.
READER_SETTINGS = {
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
