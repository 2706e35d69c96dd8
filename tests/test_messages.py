"""The schema: what is sent can be decoded to the same event, and nothing else can."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kafka_helpers as kh
from harness.runs import order_of_runs, rounds

events = st.builds(
    kh.RideEvent,
    run_id=st.text(),
    sequence=st.integers(0, 2**53),
    event_time=st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)),
    bike_id=st.text(),
    kind=st.sampled_from(["unlocked", "locked"]),
    station=st.text(),
    latitude=st.floats(-90, 90),
    longitude=st.floats(-180, 180),
    battery=st.integers(0, 100),
)


@settings(deadline=None)
@given(events)
def test_json_and_back(event):
    assert kh.decode(kh.encode(event)) == event


@pytest.mark.parametrize(
    ("field", "value"),
    [("sequence", "0"), ("kind", "stolen"), ("battery", 101), ("event_time", "soon"), ("latitude", None)],
)
def test_a_wrong_type_is_refused_and_named(field, value):
    content = json.loads(kh.encode(next(kh.make_events("r", 1)))) | {field: value}
    with pytest.raises(msgspec.ValidationError, match=field):
        kh.decode(json.dumps(content).encode())


def test_runs_get_the_same_events_but_for_the_run_id():
    first, second = (list(kh.make_events(run, 500)) for run in ("aaaaaa-01", "aaaaaa-02"))
    assert [replace(event, run_id="") for event in first] == [replace(event, run_id="") for event in second]
    assert [e.sequence for e in first] == list(range(500))


def test_size_is_that_of_a_usual_event():
    sizes = [len(value) for _, value in kh.make_messages("aaaaaa-01", 2_000)]
    assert min(sizes) >= 150 and max(sizes) <= 250


def test_rounds_alternate():
    assert [name for _, name in rounds(3, "ab")] == ["a", "b", "b", "a", "a", "b"]


def test_blocks_have_more_of_the_short_runs():
    assert order_of_runs(1) == ["async", "sync"]
    order = order_of_runs(6)
    assert (order.count("async"), order.count("sync")) == (24, 6) and order == order[::-1]
