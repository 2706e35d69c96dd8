"""What the tests share: real Kafka brokers, started once for the whole run, and a fresh topic for each test."""

import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the notebook's modules


from harness.topics import ensure_topic
from local_kafka import LocalKafka


def pytest_configure() -> None:
    # A shell that runs the tests in the background has them ignore interrupts; some of them are about interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for ``committed`` judges a notebook as it is here, which a user's own run replaces."""
    for item in items:
        if "committed" in getattr(item, "fixturenames", ()):
            item.add_marker("published")


def pytest_sessionstart(session: pytest.Session) -> None:
    # What the first start of Kafka downloads and prepares has to be there before several processes start it at once.
    if session.config.getoption("numprocesses", None) and not hasattr(session.config, "workerinput"):
        with LocalKafka():
            pass


@pytest.fixture(scope="session")
def kafka() -> Iterator[LocalKafka]:
    """One broker for the whole run. Who freezes it lets it go on; who kills one starts one of their own."""
    with LocalKafka() as started:
        yield started


@pytest.fixture
def topic(kafka: LocalKafka) -> str:
    """A fresh topic on ``kafka``."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    ensure_topic(kafka.config, name)
    return name
