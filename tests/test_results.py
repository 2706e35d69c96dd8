"""Saved results: what was saved is what is loaded, whole or not at all, and never lost."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ClusterError, ResultsError, RunInterrupted
from harness.results import (
    ASSIGNMENT_KINDS,
    FURTHER_KINDS,
    Record,
    Results,
    check_folder,
    load_measurements,
    load_results,
    new_folder,
    newest,
    overview,
)
from harness.runs import INTERRUPTED, BatchTiming, ProducerRun, batches_frame, outcome

resource = pytest.importorskip("resource")  # Windows has none


def a_run(mode="async", batches=3, **more):
    timings = [BatchTiming(500, 0.001 * (i + 1) / 3, 0.01 / 3, 500, 0) for i in range(batches)]
    return ProducerRun(mode, f"{mode}-1", timings, elapsed_s=1 / 7, wait_quantiles_s=[0.1] * 201, **more)


LAW = pd.DataFrame({"x": [1, 2], "y": [0.1, 1 / 3], "name": ["a", ""], "holds": [True, False]})


@pytest.fixture
def saved(tmp_path):
    results = Results(tmp_path / "saved", Record("local", "none", num_messages=1500, planned_runs=2))
    results.add_run(a_run("async", network={"rtt_ms": 0.5}))
    results.add_run(a_run("sync", errors={"_MSG_TIMED_OUT": 2}))
    results.add_table("law", LAW)
    return results


def write(folder, content):
    """What another program that knows the form would save."""
    body = json.dumps(content)[1:].encode()
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_bytes(b'{"sha256": "%s",\n' % hashlib.sha256(body).hexdigest().encode() + body)


def content_of(folder):
    content = json.loads((folder / "results.json").read_text())
    del content["sha256"]
    return content


def test_saved_and_loaded_is_the_same(saved):
    loaded = load_results(saved.folder)
    assert loaded.runs == saved.runs
    assert loaded.record == saved.record
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
    digest, _, rest = (saved.folder / "results.json").read_bytes().partition(b"\n")
    assert json.loads(digest.decode().rstrip(",") + "}") == {"sha256": hashlib.sha256(rest).hexdigest()}


@settings(max_examples=100)
@given(data=st.data())
def test_whatever_was_changed_is_told_in_a_sentence(tmp_path_factory, data):
    """A byte, the end cut off, or the same content written in another way: the digest is that of the bytes."""
    results = Results(tmp_path_factory.mktemp("odd"), Record(load_average=1.0), [a_run()], tables={"law": LAW})
    results.save()
    file = results.folder / "results.json"
    content = file.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    file.write_bytes(data.draw(st.sampled_from([flipped, content[:at], json.dumps(json.loads(content)).encode()])))
    with pytest.raises(
        ResultsError, match=r"/results\.json is not as it was saved, or by .*; restore it, or measure again"
    ):
        load_results(results.folder)
    shutil.rmtree(results.folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 200_000])
def test_another_file_of_that_name_is_refused(saved, content):
    (saved.folder / "results.json").write_text(content)
    with pytest.raises(ResultsError, match=r"saved/results\.json is not as it was saved"):
        load_results(saved.folder)


ELSEWHERE = {
    "a table outside": lambda content: content["tables"].update({"../../x": {}}),
    "a table that ends in a line end": lambda content: content["tables"].update({"law\n": {}}),
    "columns of unequal length": lambda content: content["tables"].update(law={"x": [1], "y": []}),
    "a column that is none": lambda content: content["tables"].update(law={"x": [{"y": 1}]}),
    "accounts of another kind": lambda content: content["tables"].update(accounts={"run": [1]}),
    "an unknown kind": lambda content: content["record"].update(kind="mine"),
    "markup as the date": lambda content: content["record"].update(date="2026-11-01<b>x"),
    "a record without the processor": lambda content: content["record"].pop("cpu"),
    "a record of another version": lambda content: content["record"].update(spin_ms=2.0),
    "another producer": lambda content: content["runs"][0].update(mode="both"),
    "a negative time": lambda content: content["runs"][0].update(elapsed_s=-1.0),
    "text as a number": lambda content: content["runs"][0]["batches"][0].update(messages="500"),
    "no runs": lambda content: content.pop("runs"),
}


@pytest.mark.parametrize("change", ELSEWHERE.values(), ids=ELSEWHERE)
def test_odd_content_with_the_right_digest_is_refused(saved, change):
    content = content_of(saved.folder)
    write(saved.folder, content)
    assert load_results(saved.folder).runs == saved.runs
    change(content)
    write(saved.folder, content)
    with pytest.raises(ResultsError, match=r"results\.json is not as it was saved, or by another version"):
        load_results(saved.folder)


def test_no_saved_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "results.json")  # whoever opens it waits for a writer
    for name in ("nothing", ".", "", "a\0b", "x" * 5000, "results.json"):
        with pytest.raises(ResultsError, match=r"No saved run in .*check the name"):
            load_results(name)
    for value in (5, None, ["results"], b"results"):
        with pytest.raises(ResultsError, match="named by its folder in quotes"):
            load_results(value)


def test_a_kind_says_which_notebook_draws_it(saved, tmp_path):
    further = Results(tmp_path / "further", Record("further"), tables={"law": LAW})
    further.save()
    assert load_results(saved.folder, ASSIGNMENT_KINDS).runs and load_results(further.folder, FURTHER_KINDS).tables
    with pytest.raises(
        ResultsError, match=r"further is drawn by going_further\.ipynb, where saved_further names it; name"
    ):
        load_results(further.folder, ASSIGNMENT_KINDS)
    with pytest.raises(ResultsError, match=r"saved is drawn by assignment1\.ipynb, where saved_run names it; name"):
        load_results(saved.folder, FURTHER_KINDS)


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
    with pytest.raises(ClusterError, match=r"^No answer\. What was measured is in .*/saved;"), saved.measuring():
        raise ClusterError("No answer.")
    assert load_results(saved.folder).runs[2].stopped == "interrupted"
    assert outcome(saved.runs[2]) == "1,500 messages acknowledged, 0 failed; stopped: interrupted"


class Pressing(pd.DataFrame):
    """A table while which is written the stop button is pressed, twice."""

    def to_dict(self, *arguments, **options):
        signal.raise_signal(signal.SIGINT)
        return super().to_dict(*arguments, **options)

    def to_csv(self, *arguments, **options):
        signal.raise_signal(signal.SIGINT)
        return super().to_csv(*arguments, **options)


def test_presses_while_results_are_saved_count_once_all_is_written(saved):
    saved.tables["law"] = Pressing({"x": [3]})
    with pytest.raises(KeyboardInterrupt):
        saved.add_table("ways", LAW)
    assert load_results(saved.folder).tables["law"]["x"].tolist() == [3]
    assert (saved.folder / "law.csv").read_text() == "x\n3\n" and (saved.folder / "ways.csv").exists()
    assert not list(saved.folder.glob(".*"))


SAVE_FOR_EVER = """
import sys
from pathlib import Path
from harness.results import Record, Results
from harness.runs import BatchTiming, ProducerRun
run = ProducerRun("async", batches=[BatchTiming(500, 0.001, 0.002, 500)] * 500, wait_quantiles_s=[0.1] * 201)
results = Results(Path(sys.argv[1]), Record(), [run])
while True:
    results.save()
    print("saved", flush=True)
"""


def test_crash_while_saving_leaves_no_half_file(tmp_path, request):
    """Whenever the program is halted, what is on the disk is whole."""
    command = [sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(request.config.rootpath)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as saving:
        saving.stdout.readline()
        for attempt in range(20):
            time.sleep(0.01 + 0.0037 * attempt)
            saving.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, saving.pid, os.WSTOPPED)
            assert len(load_results(tmp_path).runs) == 1
            saving.send_signal(signal.SIGCONT)
        saving.kill()


# --- Places ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def disk_of(size):
    """A limit of this process's files, instead of a disk of its own."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("kind", ["dangling link", "file", "in a file", "full"])
def test_a_place_where_results_cannot_be_saved_is_told_before_anything_is_measured(tmp_path, kind):
    place = tmp_path / "results"
    if kind == "dangling link":
        place.symlink_to(tmp_path / "gone")
    elif kind != "full":
        place.write_text("")
    if kind == "in a file":
        place = place / "results"
    with disk_of(1_000_000) if kind == "full" else contextlib.nullcontext():
        for look in (check_folder, lambda parent: new_folder("local", parent)):
            with pytest.raises(ResultsError, match=r"^Results can't be saved in .*results \(.*\); it has to be a"):
                look(place)


def test_what_was_measured_is_not_lost_where_it_cannot_be_saved(saved, tmp_path, monkeypatch, capsys):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    shutil.rmtree(saved.folder)
    saved.folder.write_text("a file in its place")
    saved.add_run(a_run("async"))
    assert f"can't be written (File exists); the results are in {elsewhere}/saved_" in capsys.readouterr().out
    assert saved.folder.parent == elsewhere and len(load_results(saved.folder).runs) == 3
    shutil.rmtree(elsewhere)
    elsewhere.write_text("a file there, too")
    with pytest.raises(ResultsError, match=r"elsewhere; what was measured since the last save is lost\. Make room"):
        saved.add_run(a_run("sync"))
    elsewhere.unlink()
    saved.save()
    assert len(load_results(saved.folder).runs) == 4


def test_a_full_disk_leaves_what_was_saved_before_and_no_draft(saved, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with disk_of(2_000), pytest.raises(ResultsError, match=r"saved can't be written \(File too large\), nor can"):
        saved.add_run(a_run("sync", batches=40))
    assert len(load_results(saved.folder).runs) == 2
    assert not list(saved.folder.glob(".*")) and not list((tmp_path / "tmp").rglob("*"))


def test_a_table_that_cannot_be_written_is_said_once_and_moves_nothing(saved, capsys):
    """As where it is open in a spreadsheet, which locks it on Windows."""
    file = saved.folder / "batches.csv"
    file.unlink()
    file.mkdir()
    for number in (3, 4):
        saved.add_run(a_run("sync"))
        assert len(load_results(saved.folder).runs) == number
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "batches.csv can't be written (Is a directory); results.json beside it has" in said


# --- Which one ------------------------------------------------------------------------------------------------------


def measurement(parent, date, kind="local", num_messages=1500, modes=("async", "sync"), **more):
    record = Record(kind, num_messages=num_messages, planned_runs=2, date=f"{date}T12:00:00+00:00")
    results = Results(parent / f"{date}_{kind}_{len(list(parent.iterdir()))}", record)
    results.runs = [a_run(mode, num_messages // 500, **more) for mode in modes]
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
    quick = measurement(tmp_path, "2026-11-09", num_messages=500)
    Results(tmp_path / "2026-11-10_further", Record(), tables={"law": LAW}).save()
    os.mkfifo(tmp_path / "2026-11-06_local" / "results.json")
    (tmp_path / "odd\nname").mkdir()
    (tmp_path / "odd\nname" / "results.json").symlink_to("/dev/zero")
    changed = content_of(cloud)
    changed["record"]["date"] = {"year": 2027}
    write(tmp_path / "2026-11-11_local", changed)
    assert newest(["local"], parent=tmp_path, num_messages=1500).folder == serves
    assert newest(["local"], parent=tmp_path).folder == quick
    assert newest(["distant", "cloud"], parent=tmp_path).folder == cloud
    assert newest(["distant"], parent=tmp_path) is None
    assert len(list(overview(tmp_path))) == 12 and all(map(str.isprintable, overview(tmp_path)))


def test_overview_says_what_each_is(tmp_path):
    measurement(tmp_path, "2026-11-01", num_messages=20_000)
    measurement(tmp_path, "2026-11-02", modes=["async"])
    of_another_size = load_results(measurement(tmp_path, "2026-11-03"))
    of_another_size.record.num_messages = 2_000
    of_another_size.save()
    failed = load_results(measurement(tmp_path, "2026-11-04"))
    failed.runs[0].batches[0].acknowledged = 499
    failed.save()
    Results(tmp_path / "2026-11-05_further", Record("further"), tables={"law": LAW, "ways": LAW}).save()
    (measurement(tmp_path, "2026-11-06") / "results.json").write_text("{}")
    *runs, further, changed = overview(tmp_path)
    assert [line.partition("; ")[2] for line in runs] == [
        "2 of 2 runs of 20,000 messages, complete",
        "1 of 2 runs of 1,500 messages, interrupted",
        "2 of 2 runs of 2,000 messages, its runs have other numbers of messages",
        "2 of 2 runs of 1,500 messages, messages failed",
    ]
    assert further.endswith("; tables: law, ways") and "is not as it was saved" in changed


def test_known_measurements(tmp_path):
    assert set(load_measurements()["mode"]) == {"async", "sync"}
    assert load_measurements(tmp_path / "none.csv").empty
    for content in (b"", b"a,b\n1,2\n", b"\xff\xfe", b"messages,elapsed_s\nmany,1\n"):
        (tmp_path / "odd.csv").write_bytes(content)
        with pytest.raises(ResultsError, match=r"odd\.csv is not the table of known measurements; restore it"):
            load_measurements(tmp_path / "odd.csv")
