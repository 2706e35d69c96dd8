"""Saved results: what was saved is what is loaded, whole or not at all, and never lost."""

import json
import math
import shutil

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ResultsError, RunInterrupted
from harness.results import Results, check_folder, environment, load_results, new_folder, newest, overview
from harness.runs import INTERRUPTED, BatchTiming, ProducerRun, batches_frame, outcome

resource = pytest.importorskip("resource")  # Windows has none


def a_run(mode="async", batches=3, **more):
    timings = [BatchTiming(500, 0.001 * (i + 1) / 3, 0.01 / 3, 500, 0) for i in range(batches)]
    return ProducerRun(mode, f"{mode}-1", timings, elapsed_s=1 / 7, wait_quantiles_s=[0.1] * 201, **more)


LAW = pd.DataFrame({"x": [1, 2], "y": [0.1, 1 / 3], "name": ["a", ""], "holds": [True, False]})


@pytest.fixture
def saved(tmp_path):
    about = {"kind": "local", "cluster": "none", "num_messages": 1500, "planned runs": 2}
    results = Results(tmp_path / "saved", environment(**about))
    results.add_run(a_run("async", network={"rtt_ms": 0.5}))
    results.add_run(a_run("sync", errors={"_MSG_TIMED_OUT": 2}))
    results.add_table("law", LAW)
    return results


def test_saved_and_loaded_is_the_same(saved):
    loaded = load_results(saved.folder)
    assert loaded.runs == saved.runs
    assert loaded.environment == saved.environment
    pd.testing.assert_frame_equal(loaded.tables["law"], LAW, check_exact=True)
    for name, table in (("law", LAW.replace("", None)), ("batches", batches_frame(saved.runs))):
        exported = pd.read_csv(saved.folder / f"{name}.csv")
        pd.testing.assert_frame_equal(exported, table, check_exact=True, check_dtype=name != "law")


def test_files_are_for_others_to_read(saved):
    first = json.loads((saved.folder / "results.json").read_text())["runs"][0]
    assert sum(batch["acknowledged"] for batch in first["batches"]) == 1500 and "undelivered" not in first
    frame = pd.read_csv(saved.folder / "batches.csv")
    assert frame["run"].tolist() == [1] * 3 + [2] * 3 and frame["batch"].tolist() == [1, 2, 3] * 2
    assert {"mode", "messages", "elapsed_s", "delivered_s", "acknowledged", "failed"} <= set(frame)
    about = load_results(saved.folder).environment
    assert about["spin ms before"] > 0 and about["spin ms after"] > 0 and about["load average"] >= 0


ODD = [None, "many", "", -1, 0, True, [], {}, "../../x", 10**400, 2.5, math.nan, math.inf]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_was_changed_is_told_in_a_sentence(tmp_path_factory, data):
    """A value that is odd, missing or under another name, wherever it is in the file; a byte; an end cut off."""
    results = Results(tmp_path_factory.mktemp("odd"), {"date": "2026-11-01"}, [a_run()], tables={"law": LAW})
    results.save()
    file = results.folder / "results.json"
    content = file.read_bytes()
    damage = data.draw(st.sampled_from(["value", "missing", "name", "byte", "cut"]))
    if damage in ("byte", "cut"):
        at = data.draw(st.integers(0, len(content) - 2))
        changed = content[:at] + (bytes([content[at] ^ 1]) + content[at + 1 :] if damage == "byte" else b"")
    else:
        whole = node = json.loads(content)
        while isinstance(node, dict | list) and node and (node is whole or data.draw(st.integers(0, 3))):
            parent = node
            key = data.draw(st.sampled_from(range(len(node)) if isinstance(node, list) else sorted(node)))
            node = parent[key]
        before, odd = parent.pop(key), data.draw(st.sampled_from(ODD))
        if damage != "missing" and isinstance(parent, dict):
            parent[key if damage == "value" else "../../x"] = before if damage == "name" else odd
        elif damage == "value":
            parent.insert(key, odd)
        changed = json.dumps(whole).encode()
    file.write_bytes(changed)
    try:
        assert load_results(results.folder).runs == results.runs, "the same, differently written"
    except ResultsError as error:
        assert str(error).endswith("/results.json is not as it was saved; restore it, or measure again.")
    shutil.rmtree(results.folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 200_000])
def test_another_file_of_that_name_is_refused(saved, content):
    (saved.folder / "results.json").write_text(content)
    with pytest.raises(ResultsError, match=r"saved/results\.json is not as it was saved"):
        load_results(saved.folder)


def test_no_saved_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("nothing", ".", ""):
        with pytest.raises(ResultsError, match=r"No saved run in .*check the name"):
            load_results(name)


def test_a_second_notebook_on_the_same_folder_keeps_what_the_first_has_added(saved):
    first, second = load_results(saved.folder), load_results(saved.folder)
    first.add_table("ways", LAW)
    second.add_table("kills", LAW)
    assert set(load_results(saved.folder).tables) == {"law", "ways", "kills"}


def test_an_interrupt_is_answered_with_where_the_results_are(saved):
    where = r"Interrupted after 1,500 messages of run 2\. What was measured is in .*/saved;.*set saved_run"
    with pytest.raises(RunInterrupted, match=where), saved.measuring():
        raise KeyboardInterrupt
    with pytest.raises(RunInterrupted, match=r"of run 3\."), saved.measuring():
        saved.add_run(a_run("sync", stopped=INTERRUPTED))
    assert load_results(saved.folder).runs[2].stopped == "interrupted"
    assert outcome(saved.runs[2]) == "1,500 messages acknowledged, 0 failed; stopped: interrupted"


# --- Places ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dangling link", "file", "in a file", "full"])
def test_a_place_where_results_cannot_be_saved_is_told_before_anything_is_measured(tmp_path, kind):
    place = tmp_path / "results"
    if kind == "dangling link":
        place.symlink_to(tmp_path / "gone")
    elif kind != "full":
        place.write_text("")
    if kind == "in a file":
        place = place / "results"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if kind == "full":  # a limit of this process's files, instead of a disk of its own
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        for look in (check_folder, lambda parent: new_folder("local", parent)):
            with pytest.raises(ResultsError, match=r"^Results can't be saved in .*results \(.*\); it has to be a"):
                look(place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_was_measured_is_not_lost_where_it_cannot_be_saved(saved, tmp_path, monkeypatch, capsys):
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    shutil.rmtree(saved.folder)
    saved.folder.write_text("a file in its place")
    saved.add_run(a_run("async"))
    assert f"can't be written (File exists); the results are in {elsewhere}/saved instead." in capsys.readouterr().out
    assert saved.folder == elsewhere / "saved" and len(load_results(saved.folder).runs) == 3
    shutil.rmtree(elsewhere)
    elsewhere.write_text("a file there, too")
    with pytest.raises(ResultsError, match=r"nothing is lost yet: make room, and call results\.save"):
        saved.add_run(a_run("sync"))
    elsewhere.unlink()
    saved.save()
    assert len(load_results(saved.folder).runs) == 4


# --- Which one ------------------------------------------------------------------------------------------------------


def measurement(parent, date, kind="local", num_messages=1500, modes=("async", "sync"), **more):
    about = {"date": date, "kind": kind, "num_messages": num_messages, "planned runs": 2}
    results = Results(parent / f"{date}_{kind}_{len(list(parent.iterdir()))}", environment(**about))
    results.runs = [a_run(mode, **more) for mode in modes]
    results.save()
    return results.folder


def test_the_newest_that_serves(tmp_path):
    assert newest(["local"], parent=tmp_path) is None
    measurement(tmp_path, "2026-11-01")
    serves = measurement(tmp_path, "2026-11-02")
    measurement(tmp_path, "2026-11-03", modes=["async"])  # one run is missing
    measurement(tmp_path, "2026-11-04", modes=["async", "async"])  # a mode
    measurement(tmp_path, "2026-11-05", stopped=INTERRUPTED)
    (tmp_path / "2026-11-06_local").mkdir()
    (measurement(tmp_path, "2026-11-07") / "results.json").write_text("{}")
    cloud = measurement(tmp_path, "2026-11-08", "cloud")
    quick = measurement(tmp_path, "2026-11-09", num_messages=200)
    Results(tmp_path / "2026-11-10_further", environment(), tables={"law": LAW}).save()
    assert newest(["local"], parent=tmp_path, num_messages=1500).folder == serves
    assert newest(["local"], parent=tmp_path).folder == quick
    assert newest(["distant", "cloud"], parent=tmp_path).folder == cloud
    assert newest(["distant"], parent=tmp_path) is None


def test_overview(tmp_path):
    measurement(tmp_path, "2026-11-01", num_messages=20_000)
    measurement(tmp_path, "2026-11-02", modes=["async"])
    Results(tmp_path / "2026-11-03_further", environment(), tables={"law": LAW, "ways": LAW}).save()
    (measurement(tmp_path, "2026-11-04") / "results.json").write_text("{}")
    complete, interrupted, further, changed = overview(tmp_path)
    assert "2026-11-01_local_0: " in complete and complete.endswith("2 of 2 runs of 20,000 messages, complete")
    assert interrupted.endswith("1 of 2 runs of 1,500 messages, interrupted, or messages failed")
    assert further.endswith("; tables: law, ways") and "is not as it was saved" in changed
