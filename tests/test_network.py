"""The client's statistics: what is taken from a text."""

import json

import pytest
from confluent_kafka import Producer

from harness.client import connect
from harness.measurement import await_statistics
from harness.network import Network
from kafka_helpers import make_messages, produce_async


def text(step, brokers=2):
    """What the client says the ``step``-th time: counters grow, windows are since the text before."""
    window = {"min": 1, "max": 9, "avg": 5, "sum": 500, "stddev": 1, "p50": 5, "p99": 9, "cnt": 10}
    each = {"state": "UP", "rx": 3 * step, "req": {"Produce": 2 * step, "Metadata": 7}, "toppars": {}}
    each |= {"rtt": window, "throttle": window | {"max": 100 * step if step < 5 else 0}}
    known = {f"127.0.0.1:{number}/{number}": each | {"nodeid": number} for number in range(brokers)}
    bootstrap = {"127.0.0.1:9/bootstrap": each | {"nodeid": -1, "rx": 1000}}
    return json.dumps({"ts": 1, "txmsgs": 100 * step, "brokers": known | bootstrap, "topics": {}})


def test_counts_are_those_since_the_beginning_and_times_are_means():
    network = Network()
    network.take(text(1))
    network.begin()
    for step in range(2, 7):
        network.take(text(step))
    assert network.sent == 600
    assert network.summary() == {"produce_requests": 2 * 2 * 5, "rtt_ms": pytest.approx(0.050), "throttle_ms": 400}


def test_a_broker_that_comes_back_counts_from_0_again():
    network = Network()
    network.take(text(10))
    network.begin()
    network.take(text(12, brokers=2))  # 4 requests of each
    network.take(text(13, brokers=1))  # 2 of the one that stays
    network.take(text(14, brokers=2))  # 2, and 28 of the one that is back
    network.take(text(1, brokers=2))  # both are back from an absence between two texts: 2 of each
    assert network.summary()["produce_requests"] == 2 * 4 + 2 + 2 + 28 + 2 * 2


SPOILT = [
    "",
    "{",
    text(2)[:-1],
    text(2)[:70],
    "null",
    "[]",
    "{}",
    '{"txmsgs": "x", "brokers": {}}',
    text(2).replace("rtt", "r"),
]


def test_a_text_that_cannot_be_read_is_passed_over_and_counted():
    network = Network()
    network.take("before the run")
    network.take(text(1))
    network.begin()
    for spoilt in SPOILT:
        network.take(spoilt)
        network.take(text(3))
    assert network.sent == 300
    found = {"produce_requests": 2 * 4, "rtt_ms": pytest.approx(0.050), "throttle_ms": 300}
    assert network.summary() == found | {"unread": len(SPOILT)}


@pytest.mark.parametrize("name", ["x" * 3_000, "\xe9" * 300])
def test_a_long_client_id_is_kept_out_of_the_statistics(kafka, topic, name):
    """The client cuts it there, perhaps within a letter, and Python then ends."""
    run = produce_async(kafka.config | {"client.id": name}, topic, make_messages("r", 100))
    assert run.complete and "unread" not in run.network


def test_what_is_awaited_is_a_text_that_comes_then(kafka):
    """One that came before may know of a message, and not yet of the request that it went out with."""
    network = Network()
    with connect(Producer, {**kafka.config, "statistics.interval.ms": "50"}, stats_cb=network.take) as connection:
        network.take(text(1))
        await_statistics(connection, network, 0)
        assert network.sent == 0
