"""The error of the local Kafka."""


class LocalKafkaError(RuntimeError):
    """Kafka could not be started here; the message says why and what to do."""

    def _render_traceback_(self) -> list[str]:  # so that a notebook shows the sentence alone
        return [f"{type(self).__name__}: {self}"]
