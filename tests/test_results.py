"""Saved results: what was saved is what is loaded, whole or not at all, and the statistics are right."""

import contextlib
import json
import math
import random
import shutil

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kafka_helpers as kh


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
@pytest.mark.parametrize("damage", ["remove", "cut", "edit", "empty"])
def test_a_missing_cut_or_edited_file_is_named(saved, name, damage):
    file = saved.folder / name
    text = file.read_text()
    if damage == "remove":
        file.unlink()
    else:
        file.write_text({"cut": text[: len(text) // 2], "edit": text.replace("1", "2", 1), "empty": ""}[damage])
    with pytest.raises(kh.ResultsError, match="results.json" if name == "results.json" else f"saved/{name}"):
        kh.load_results(saved.folder)


def test_no_folder(tmp_path):
    with pytest.raises(kh.ResultsError, match=r"No saved run in nothing: .*check the name"):
        kh.load_results(tmp_path / "nothing")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_edit_goes_unnoticed(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("edited") / "saved"
    results = kh.Results(folder, {"cluster": "none"}, [a_run()])
    results.save()
    name = data.draw(st.sampled_from(["results.json", "batches.csv"]))
    content = (folder / name).read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(32, 126))
    (folder / name).write_bytes(content[:at] + bytes([byte]) + content[at + 1 :])
    with contextlib.suppress(kh.ResultsError):  # white space in the JSON carries no meaning
        assert kh.load_results(folder).runs == results.runs
    shutil.rmtree(folder)


def test_windows_line_ends_are_no_edit(saved):
    for file in saved.folder.iterdir():
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert kh.load_results(saved.folder).runs == saved.runs


def test_a_crash_between_two_files_leaves_what_was_saved_before(saved, monkeypatch):
    before = kh.load_results(saved.folder)
    real = kh._replace

    def crash_at_the_manifest(path, data):
        if path.name == "results.json":
            raise OSError("power cut")
        real(path, data)

    monkeypatch.setattr(kh, "_replace", crash_at_the_manifest)
    with pytest.raises(OSError, match="power cut"):
        saved.add_run(a_run("async"))
    assert kh.load_results(saved.folder).runs == before.runs


def test_an_interrupted_run_is_saved_and_says_where(saved):
    with pytest.raises(kh.RunInterrupted, match=r"Interrupted after 1,500 messages of run 3\. .*set saved_run"):
        saved.add_run(a_run("sync", stopped=kh.INTERRUPTED))
    loaded = kh.load_results(saved.folder)
    assert loaded.runs[2].stopped == "interrupted"
    assert any("Run 3 (sync) is incomplete" in sentence for sentence in kh.incomplete(loaded.runs))


def test_folders_are_never_shared(tmp_path):
    folders = {kh.new_folder("local Apache Kafka", tmp_path) for _ in range(5)}
    assert len(folders) == 5 and all(folder.name.split("_")[2].startswith("local") for folder in folders)


@pytest.mark.parametrize(
    ("n", "k", "coverage"), [(40, 14, 0.962), (6, 1, 0.969), (5, 1, 0.938), (3, 1, 0.75), (1, 1, 0)]
)
def test_interval_of_the_median(n, k, coverage):
    values = [float(i) for i in range(1, n + 1)]
    random.Random(1).shuffle(values)
    middle, low, high, covered = kh.median_interval(values)
    assert (middle, low, high) == ((n + 1) / 2, k, n + 1 - k)
    assert covered == pytest.approx(coverage, abs=0.0005)


def test_interval_covers_as_often_as_it_says():
    rng = random.Random(5)
    intervals = [kh.median_interval(rng.lognormvariate(0, 1) for _ in range(6)) for _ in range(4000)]
    assert sum(low <= 1 <= high for _, low, high, _ in intervals) / 4000 == pytest.approx(0.969, abs=0.012)


def test_comparison_is_made_from_totals_of_complete_runs():
    fast, slow, broken = a_run(), a_run("sync"), a_run("sync", stopped="interrupted")
    slow.elapsed_s, broken.elapsed_s = 1.0, 1e-9
    other = a_run()
    other.elapsed_s = 1.5
    compared = kh.compare([fast, slow, broken, other])
    assert compared["async"]["rate"] == pytest.approx(3000 / (1 / 7 + 1.5))
    assert compared["sync"]["rate"] == 1500
    assert compared["ratio"]["median"] == pytest.approx(7) and compared["ratio"]["coverage"] == 0
    assert kh.compare([fast, broken]) is None


@given(st.floats(1e-6, 1e9))
def test_approx_keeps_three_digits(value):
    assert float(kh.approx(value).replace(",", "")) == pytest.approx(value, rel=0.00501)


@pytest.mark.parametrize(
    ("value", "shown"), [(0.012345, "0.0123"), (4.564, "4.56"), (78.96, "79.0"), (45_678, "45,700"), (0, "0")]
)
def test_approx(value, shown):
    assert kh.approx(value) == shown and not math.isnan(value)
