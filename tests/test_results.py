"""Saved results: what was saved is what is loaded, whole or not at all, and the statistics are right."""

import contextlib
import json
import math
import os
import random
import shutil

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kafka_helpers as kh
from harness.errors import ResultsError, RunInterrupted
from harness.report import approx, drift, median_interval, pair_ratios, summarize
from harness.runs import INTERRUPTED, outcome


def a_run(mode="async", batches=3, **more):
    timings = [kh.BatchTiming(500, 0.001 * (i + 1) / 3, 0.01 / 3, 500, 0) for i in range(batches)]
    return kh.ProducerRun(mode, f"{mode}-1", timings, elapsed_s=1 / 7, wait_quantiles_s=[0.1] * 201, **more)


@pytest.fixture
def saved(tmp_path):
    results = kh.Results(tmp_path / "saved", {"date": "2026-01-01T00:00:00+00:00", "cluster": "none"})
    results.add_run(a_run("async", network={"rtt_ms": 0.5}))
    results.add_run(a_run("sync", errors={"_MSG_TIMED_OUT": 2}, stopped="no acknowledgement within 5 s"))
    results.add_table("law", pd.DataFrame({"x": [1, 2], "y": [0.1, 1 / 3]}))
    return results


def test_saved_and_loaded_is_the_same(saved):
    loaded = kh.load_results(saved.folder)
    assert loaded.runs == saved.runs
    assert loaded.environment == saved.environment
    pd.testing.assert_frame_equal(loaded.tables["law"], saved.tables["law"], check_exact=True)
    pd.testing.assert_frame_equal(kh.batches_frame(loaded.runs), kh.batches_frame(saved.runs), check_exact=True)


def test_columns_of_the_batches():
    frame = kh.batches_frame([a_run("async"), a_run("sync", 2)])
    assert list(frame) == ["run", "mode", "batch", "messages", "elapsed_s", "delivered_s", "acknowledged", "failed"]
    assert frame["run"].tolist() == [1, 1, 1, 2, 2]
    assert frame["batch"].tolist() == [1, 2, 3, 1, 2]
    assert kh.batches_frame([]).empty


def test_totals_are_in_the_file_for_those_who_read_it(saved):
    first = json.loads((saved.folder / "results.json").read_text())["runs"][0]
    assert first["acknowledged"] == 1500
    assert first["response_rate"] == pytest.approx(1500 * 7)
    assert "undelivered" not in first


@pytest.mark.parametrize("name", ["results.json", "batches.csv", "law.csv"])
@pytest.mark.parametrize("damage", ["remove", "cut", "empty"])
def test_a_missing_or_cut_file_is_named(saved, name, damage):
    file = saved.folder / name
    content = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.raises(ResultsError, match="results.json" if name == "results.json" else f"saved/{name}"):
        kh.load_results(saved.folder)


@pytest.mark.parametrize("content", ["[]", "{}", "null", "5", '"text"', "[1, 2]", '{"environment": {}, "rows": []}'])
def test_another_file_of_that_name_is_refused(saved, content):
    (saved.folder / "results.json").write_text(content)
    with pytest.raises(ResultsError, match=r"saved/results\.json or batches\.csv is not as it was saved"):
        kh.load_results(saved.folder)


def test_no_folder(tmp_path):
    with pytest.raises(ResultsError, match=r"No saved run in nothing: .*check the name"):
        kh.load_results(tmp_path / "nothing")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_file_that_was_cut_anywhere_is_never_taken_for_a_whole_one(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cut") / "saved"
    results = kh.Results(folder, {"cluster": "none"}, [a_run(), a_run("sync")])
    results.add_table("law", pd.DataFrame({"x": [1, 2], "y": [0.1, 1 / 3]}))
    name = data.draw(st.sampled_from(["results.json", "batches.csv", "law.csv"]))
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    try:
        loaded = kh.load_results(folder)
    except ResultsError as error:
        assert name in str(error)
    else:  # only the end of the last line is missing
        assert name == "results.json" and loaded.runs == results.runs
    shutil.rmtree(folder)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_byte_that_was_changed_is_loaded_or_told_in_a_sentence(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("edited") / "saved"
    kh.Results(folder, {"cluster": "none"}, [a_run()]).save()
    name = data.draw(st.sampled_from(["results.json", "batches.csv"]))
    content = (folder / name).read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(32, 126))
    (folder / name).write_bytes(content[:at] + bytes([byte]) + content[at + 1 :])
    with contextlib.suppress(ResultsError):
        kh.load_results(folder)
    shutil.rmtree(folder)


def test_windows_line_ends_are_no_edit(saved):
    for file in saved.folder.iterdir():
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert kh.load_results(saved.folder).runs == saved.runs


def test_a_crash_between_two_files_leaves_what_was_saved_before(saved):
    """Tables are written first; a folder in the place of the last file's draft stops it there."""
    before = kh.load_results(saved.folder)
    draft = saved.folder / f".results.json.{os.getpid()}"
    draft.mkdir()
    with pytest.raises(OSError):
        saved.add_run(a_run("async"))
    draft.rmdir()
    assert len(pd.read_csv(saved.folder / "batches.csv")) == 9  # the new run's are there already
    assert kh.load_results(saved.folder).runs == before.runs


def test_an_interrupted_run_is_saved_and_says_where(saved):
    with pytest.raises(RunInterrupted, match=r"Interrupted after 1,500 messages of run 3\. .*set saved_run"):
        saved.add_run(a_run("sync", stopped=INTERRUPTED))
    loaded = kh.load_results(saved.folder)
    assert loaded.runs[2].stopped == "interrupted"
    assert outcome(loaded.runs[2]) == "1,500 messages acknowledged, 0 failed; stopped: interrupted"


def test_folders_are_never_shared(tmp_path):
    folders = {kh.new_folder("local Apache Kafka", tmp_path) for _ in range(5)}
    assert len(folders) == 5 and all(folder.name.split("_")[2].startswith("local") for folder in folders)


@pytest.mark.parametrize(
    ("n", "k", "coverage"), [(40, 14, 0.962), (6, 1, 0.969), (5, 1, 0.938), (3, 1, 0.75), (1, 1, 0)]
)
def test_interval_of_the_median(n, k, coverage):
    values = [float(i) for i in range(1, n + 1)]
    random.Random(1).shuffle(values)
    middle, low, high, covered = median_interval(values)
    assert (middle, low, high) == ((n + 1) / 2, k, n + 1 - k)
    assert covered == pytest.approx(coverage, abs=0.0005)


def test_interval_covers_as_often_as_it_says():
    rng = random.Random(5)
    intervals = [median_interval(rng.lognormvariate(0, 1) for _ in range(6)) for _ in range(4000)]
    assert sum(low <= 1 <= high for _, low, high, _ in intervals) / 4000 == pytest.approx(0.969, abs=0.012)


def timed(mode, elapsed_s, **more):
    run = a_run(mode, **more)
    run.elapsed_s = elapsed_s
    return run


def test_comparison_is_made_from_totals_of_complete_runs():
    fast, slow, broken = timed("async", 1 / 7), timed("sync", 1.0), timed("sync", 1e-9, stopped="interrupted")
    other = timed("async", 1.5)
    compared = summarize([fast, slow, broken, other])
    assert compared["async"]["response_rate"] == pytest.approx(3000 / (1 / 7 + 1.5))
    assert compared["sync"]["response_rate"] == 1500
    assert (compared["async"]["runs"], compared["sync"]["runs"]) == (2, 1)
    assert pair_ratios([fast, slow, broken, other]) == [pytest.approx(7)]
    assert list(summarize([fast, broken])) == ["async"] and pair_ratios([fast, broken]) == []


def test_what_is_printed_of_a_mode_fits_together():
    """Every average is a total through a count, so a reader who divides two of them gets the third."""
    network = {"produce_requests": 50, "rtt_ms": 1.0, "queue_ms": 0.1, "outbuf_ms": 0.1}
    one = summarize([timed("sync", 1.0, network=network), timed("sync", 3.0, batches=5, network=network)])["sync"]
    assert one["messages"] / one["time_s"] == pytest.approx(one["response_rate"])
    assert one["requests_rate"] * one["messages_per_request"] == pytest.approx(one["response_rate"])
    assert one["requests_rate"] == pytest.approx(100 / 4)


def test_only_neighbours_are_paired():
    """Each with the run beside it, as they were measured; a pair that lacks one is left out, the next one counts."""
    seconds = iter([1.0, 4.0, 3.0, 1.0, 1.0, 2.0, 5.0, 1.0])
    modes = kh.alternating("async", "sync", 4)
    runs = [timed(mode, next(seconds)) for mode in modes]
    assert modes == ["async", "sync", "sync", "async", "async", "sync", "sync", "async"]
    assert pair_ratios(runs) == pytest.approx([4, 3, 2, 5])
    runs[1].stopped = "interrupted"
    assert pair_ratios(runs) == pytest.approx([3, 2, 5])
    assert pair_ratios(runs[:7]) == pytest.approx([3, 2])


def test_a_drift_and_a_run_that_stands_out_are_said():
    assert drift([timed("async", s) for s in (4, 3, 2, 1)]) == [
        "The later async runs were all faster than the earlier ones."
    ]
    assert drift([timed("sync", s) for s in (1, 2, 3, 4)]) == [
        "The later sync runs were all slower than the earlier ones."
    ]
    said = drift([timed("sync", s) for s in (1, 1, 3, 1)])
    assert said == ["Run 3 (sync) stands out: it took 3.00 times its mode's median."]
    assert drift([timed("sync", s) for s in (1, 2, 1, 2)]) == []


def test_runs_can_come_from_an_iterator():
    runs = [timed("async", 1.0), timed("sync", 2.0)]
    assert summarize(iter(runs)) == summarize(runs) and len(summarize(iter(runs))) == 2
    pd.testing.assert_frame_equal(kh.batches_frame(iter(runs)), kh.batches_frame(runs))


@given(st.floats(1e-6, 1e9))
def test_approx_keeps_three_digits(value):
    assert float(approx(value).replace(",", "")) == pytest.approx(value, rel=0.00501)


@pytest.mark.parametrize(
    ("value", "shown"), [(0.012345, "0.0123"), (4.564, "4.56"), (78.96, "79.0"), (45_678, "45,700"), (0, "0")]
)
def test_approx(value, shown):
    assert approx(value) == shown and not math.isnan(value)
