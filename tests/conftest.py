"""What the tests share: a real Kafka broker for each process that needs one, and a fresh topic for each test."""

import contextlib
import fcntl
import signal
import uuid
from collections.abc import Iterator

import hypothesis
import psutil
import pytest

from harness.topics import ensure_topic
from local_kafka import LocalKafka, prepare
from local_kafka.cache import cache_folder
from local_kafka.java import KAFKA_ARCHIVE


def pytest_configure() -> None:
    # A shell that runs the tests in the background has them ignore interrupts; some of them are about interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    hypothesis.settings.register_profile("any machine", deadline=None)  # a busy one is slow
    hypothesis.settings.load_profile("any machine")


def needs_kafka(item: pytest.Item) -> bool:
    return "kafka" in getattr(item, "fixturenames", ()) or hasattr(getattr(item, "module", None), "LocalKafka")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs no Kafka comes first. A test that asks for ``committed`` judges a notebook as it is here."""
    items.sort(key=needs_kafka)
    for item in items:
        if "committed" in getattr(item, "fixturenames", ()):
            item.add_marker("published")  # a user's own run replaces it
        if needs_kafka(item):
            item.fixturenames.insert(0, "prepared")


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Whatever was tested, in the end no Kafka of this process runs on."""
    yield
    left = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it is just ending
            left += [child.cmdline()] if child.name() == "java" and child.status() != psutil.STATUS_ZOMBIE else []
    assert left == []


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What Kafka's first start downloads and makes is there, and only one of several processes has fetched it."""
    shared = tmp_path_factory.getbasetemp().parent
    with open(shared / "kafka.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        prepare()
        if not (cache_folder() / KAFKA_ARCHIVE).exists():
            with LocalKafka():
                pass  # its end leaves an archive of classes, with which all others start in half the time


@pytest.fixture(scope="session")
def kafka(prepared: None) -> Iterator[LocalKafka]:
    """One broker for the whole run. Who freezes it lets it go on; who kills one starts one of their own."""
    with LocalKafka() as started:
        yield started


@pytest.fixture
def topic(kafka: LocalKafka) -> str:
    """A fresh topic on ``kafka``."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    ensure_topic(kafka.config, name)
    return name
