"""The errors a user meets; the message of each is a sentence that says what is wrong and what to do."""


class PlainError(RuntimeError):
    """An error whose message is a sentence for the user; a notebook shows that sentence alone."""

    def _render_traceback_(self) -> list[str]:  # IPython asks an exception for this
        return [f"{type(self).__name__}: {self}"]


class ConfigError(PlainError):
    """The configuration or a parameter can't be used; names file, line or key and the remedy, never a value."""


class ClusterError(PlainError):
    """The cluster can't be reached or refuses something; says what it was and what to do."""


class ResultsError(PlainError):
    """A saved run can't be used; names the file and the remedy."""


class RunInterrupted(PlainError):
    """The user stopped a measurement; says where the part that was measured is saved."""
