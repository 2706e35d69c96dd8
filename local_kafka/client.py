"""What a client of the local Kafka needs: its configuration, and a logger that keeps still."""

import logging
from collections.abc import Mapping


class ClientConfig(dict[str, str]):
    """A client configuration that can be shown, joined and copied without giving the secret away."""

    def __repr__(self) -> str:
        return f"<client configuration: {', '.join(self)}; values hidden>"

    def __or__(self, other: Mapping[str, str]) -> "ClientConfig":  # type: ignore[override]
        return ClientConfig({**self, **other})

    def __ror__(self, other: Mapping[str, str]) -> "ClientConfig":  # type: ignore[override]
        return ClientConfig({**other, **self})

    def copy(self) -> "ClientConfig":
        """Return a copy that hides its values, too."""
        return ClientConfig(self)


def quiet_logger() -> logging.Logger:
    """A logger that keeps the client library's log lines off the screen; errors are reported where they are met."""
    logger = logging.getLogger("kafka.client")
    logger.disabled = True
    return logger
