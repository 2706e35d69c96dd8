"""The client library's words, as one plain clause with the remedy."""

import re
from collections.abc import Iterable, Mapping

from confluent_kafka import KafkaError, KafkaException

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
    (
        "Connection refused",
        "nothing listens there; check host and port in bootstrap.servers, and that the cluster is running",
    ),
    (
        "Failed to resolve",
        "the host name in bootstrap.servers is unknown; check it for typing errors, and that the cluster exists",
    ),
]


def explain(error: object, heard: Iterable[str] = ()) -> str:
    """The client library's error, and what it had said before, as one plain clause with the remedy."""
    error = error.args[0] if isinstance(error, KafkaException) else error
    if meaning := known([str(error), *heard]):
        return meaning
    if is_answer(error):
        return f"the cluster answered: {error.str().rstrip('.')}"
    return "no answer came in time; check the network, bootstrap.servers and security.protocol"


def known(said: Iterable[str]) -> str | None:
    """What the client's words mean, where that is known."""
    said = " | ".join(said)
    return next((meaning for pattern, meaning in EXPLANATIONS if re.search(pattern, said, re.IGNORECASE)), None)


def is_answer(error: object) -> bool:
    """Whether that is the cluster's own answer: the codes of the client itself are below 0."""
    return isinstance(error, KafkaError) and error.code() > 0


def explain_refusal(error: Exception, settings: Mapping[str, object]) -> str:
    """Why the client refuses these settings when it is made: by name, since its own words may repeat a value."""
    if meaning := known([str(error)]):
        return meaning
    named = [key for key in settings if re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", str(error))]
    # The client may have another name for it: queue.buffering.max.ms for linger.ms.
    named = named or re.findall(r'property "([\w.]+)"', str(error))
    if not named:
        return "its settings don't fit each other; compare with the example file"
    return f"it refuses the setting {' with '.join(named)}; correct or remove it"


def in_words(error_name: str) -> str:
    """The client's name for an error, such as _MSG_TIMED_OUT, in words; another name stays as it is."""
    code = getattr(KafkaError, error_name, None)
    return KafkaError(code).str().partition(": ")[2].lower() if isinstance(code, int) else error_name
