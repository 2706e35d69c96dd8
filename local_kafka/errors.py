"""The errors of the local Kafka, and what its processes say when they end, in a sentence."""

import shutil
from pathlib import Path

PORT_TAKEN = "address already in use"
# What is said by the system or by a process, and what helps.
REMEDIES = {
    "no space left on device": "make room, or set TMPDIR to a folder with more of it",
    "too many open files": "allow this program more of them, for instance with ulimit -n 1024",
    PORT_TAKEN: "other programs take the ports from 20,000 to 32,767; end one of them",
    "insufficient memory": "end other programs, since each broker needs some 600 MB",
}
LITTLE_SPACE = 2**20  # bytes; with less a broker can't even say that it has none


class LocalKafkaError(RuntimeError):
    """Kafka could not be started here, or has ended; the message says why and what to do."""

    def _render_traceback_(self) -> list[str]:  # so that a notebook shows the sentence alone
        return [f"{type(self).__name__}: {self}"]


class PortTakenError(LocalKafkaError):
    """Another program has taken a port since it was found free."""


def described(error: OSError) -> str:
    """The system's own words, the file if it is about one, and what helps."""
    words = error.strerror or str(error)
    about = f" ({error.filename})" if error.filename else ""
    return f"{words}{about}; {_remedy(words) or 'set TMPDIR to another folder'}"


def last_words(log: Path, *, secret: str) -> str:
    """What a process wrote into its log before its end, in a line: what has a remedy, or its first error, or all."""
    if shutil.disk_usage(log.parent).free < LITTLE_SPACE:
        return f"No space left on device ({log.parent}); {REMEDIES['no space left on device']}"
    text = log.read_text(encoding="utf-8", errors="replace").replace(secret, "***")
    for line in text.splitlines():
        if remedy := _remedy(line):
            return f"{line.strip(' .')}; {remedy}"
    first_error = max(text.find(" ERROR "), 0)
    lines = [line for line in text[first_error:].splitlines() if line[:1].strip() and " WARN " not in line]
    return " | ".join(lines[:3]).strip(" .") or "nothing"


def _remedy(words: str) -> str | None:
    for said, remedy in REMEDIES.items():
        if said in words.lower():
            return remedy
    return None
