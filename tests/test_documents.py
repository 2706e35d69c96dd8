"""README, answers and Makefile agree with each other and with the repository."""

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kafka_helpers as kh
import local_kafka
from harness import report
from harness.results import load_measurements, newest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_answers_have_every_question_in_order():
    text = (ROOT / "answers" / "assignment1_answers.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^## (\d)\.", text) == ["1", "2", "3", "4", "5", "6"]
    parts = re.split(r"(?m)^## .*$", text)
    assert [part.count("?**") + part.count(".**") for part in parts[1:7]] == [3, 2, 3, 3, 2, 1]
    for answer in re.findall(r"(?m)^\*\*.*\*\*\n(.+)$", text):
        sentences = re.findall(r"[.!?](?=\s|$)", re.sub(r"\([^)]*\)|\"[^\"]*\"|`[^`]*`", "", answer))
        assert 1 <= len(sentences) <= 2, answer
    assert "seconds" in parts[5] and "6dc821c" in text


def test_readme_names_targets_and_files_that_exist():
    targets = set(re.findall(r"(?m)^([a-z-]+):", MAKEFILE))
    assert {"help", "run", "test", "lab"} <= targets
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets
    for path in re.findall(r"\]\((?!http|#)([^)]+)\)", README):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"(?m)^\| `([^`]+)`", README.split("## Files")[1]):
        assert (ROOT / name).exists(), name


@pytest.mark.published
def test_readme_says_what_was_measured():
    """Costs of a message and ratio of the newest local measurement, the rehearsal's ratio, the range of all known."""
    local, distant = (newest([kind], parent=ROOT / "results") for kind in ("local", "distant"))
    of_mode = report.summarize(local.runs)
    costs = re.search(r"costs the asynchronous producer (\S+) microseconds and the synchronous one (\S+):", README)
    assert list(costs.groups()) == [report.approx(of_mode[mode]["message_us"]) for mode in ("async", "sync")]
    ratios = []
    for results in (local, distant):
        summary = report.summarize(results.runs)
        ratios.append(report.approx(report.quotient(summary["sync"]["time_s"], summary["async"]["time_s"])))
    assert re.findall(r"about ([\d.,]+) times as fast", README) == ratios
    known = report.compare_measurements(load_measurements(ROOT / "results" / "measurements.csv"))["times as fast"]
    number, low, high = re.search(r"in (\d+) whole measurements .* from (\S+) to (\S+) \(", README).groups()
    assert (int(number), low, high) == (len(known), report.approx(known.min()), report.approx(known.max()))
    for results in (local, distant):
        assert results.folder.name in README


def imported(path: Path) -> set[str]:
    """Our own modules that a file imports; of the local Kafka's, the package."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "harness":
            modules |= {f"harness.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
    ours = {file.stem for file in ROOT.glob("*.py")} | {"harness", "local_kafka"}
    packages = {module for module in modules if module.split(".")[0] in ours}
    return {module.split(".")[1] if module.startswith("harness.") else module.split(".")[0] for module in packages}


def test_imports_run_one_way():
    """As the list in CONTRIBUTING.md says: each builds only on those above it, and local_kafka on none of ours."""
    house = (
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("In `harness`")[1].split("**One way through")[0]
    )
    order = re.findall(r"(?m)^\| `(\w+)`", house)
    assert sorted(order) == sorted(file.stem for file in ROOT.glob("harness/*.py") if file.stem != "__init__")
    for place, name in enumerate(order):
        allowed = {"harness", *order[:place]} | ({"local_kafka"} if name == "cluster" else set())
        assert imported(ROOT / "harness" / f"{name}.py") <= allowed, name
    assert "local_kafka" not in imported(ROOT / "kafka_helpers.py")
    for file in ROOT.glob("local_kafka/*.py"):
        assert imported(file) <= {"local_kafka"}, file


STAY = {
    kh.load_config: ["properties='client.properties'", "env='.env'"],
    kh.ensure_topic: ["config", "topic"],
    kh.produce_async: ["config", "topic", "messages", "*, batch_size=500"],
    kh.produce_sync: ["config", "topic", "messages", "*, batch_size=500"],
    kh.make_messages: ["run_id", "count"],
    kh.batches_frame: ["runs"],
    kh.read_back: ["config", "topic", "sent", "*, undelivered=None", "start=None"],
    local_kafka.LocalKafka: ["brokers=1", "*, distance_ms=0"],
}


@pytest.mark.parametrize("function", STAY, ids=lambda function: function.__name__)
def test_names_that_other_programs_call_stay_with_their_signatures(function):
    """More may be added behind, with defaults."""
    signature = inspect.signature(function)
    without_types = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    plain = str(signature.replace(parameters=without_types, return_annotation=inspect.Signature.empty))
    assert plain.startswith(f"({', '.join(STAY[function])}"), plain
    added = list(signature.parameters.values())[len(STAY[function]) :]
    assert all(each.default is not inspect.Parameter.empty for each in added), added


def test_the_students_module_offers_what_the_notebook_calls_and_the_names_that_stay():
    source = (ROOT / "assignment1.ipynb").read_text(encoding="utf-8")
    called = set(re.findall(r"\bkh\.(\w+)", source))
    stay = {function.__name__ for function in STAY if function is not local_kafka.LocalKafka}
    assert set(kh.__all__) == called | stay | {"BatchTiming", "ProducerRun"}


def test_requirements_are_pinned_with_a_reason():
    for file in (ROOT / "requirements.txt", *ROOT.glob("*/requirements.txt")):
        for line in file.read_text(encoding="utf-8").splitlines():
            assert re.fullmatch(r"#.*|-r \S+|[\w-]+==[\w.]+ +# .+", line), line


def repository_files() -> list[Path]:
    """What is committed or would be, and the pages made of it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git repository")
    files = {ROOT / name for name in listed.stdout.split("\0") if name} | set(ROOT.glob("*.html"))
    return sorted(file for file in files if file.is_file())


def holds_a_secret(file: Path) -> bool:
    """Whether there is one of the form that Confluent Cloud gives out: cflt and 60 characters more."""
    return bool(re.search(rb"cflt[A-Za-z0-9+/=]{60}", file.read_bytes()))


def test_no_credentials_in_git(tmp_path):
    files = repository_files()
    assert not [file for file in files if re.search(r"(^|/)\.env$|\.(properties|pem|p12|jks|key)$", file.as_posix())]
    assert [file for file in files if holds_a_secret(file)] == []
    planted = tmp_path / "page.html"
    planted.write_text("<pre>'sasl.password': 'cflt" + 15 * "aB+/" + "'</pre>")
    assert holds_a_secret(planted)
    for name in (".env", "client.properties", "copy.properties", "key.pem", "getting_started.ini"):
        assert subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT).returncode == 0, name


CHECK = """
def test_it(kafka, topic):
    kafka.distance_ms = 1
    kafka.processes[0].kill()
    kafka.start_broker(0)
    assert topic.startswith("test-")
"""


@pytest.mark.long
def test_the_fixtures_that_readme_gives_to_other_projects(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "conftest.py").write_text(example, encoding="utf-8")
    (tmp_path / "test_it.py").write_text(CHECK, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "1 passed" in done.stdout, done.stdout


def test_the_owners_packages_are_required():
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    for package in ("confluent-kafka", "matplotlib", "pandas", "jupyter", "python-dotenv"):
        assert re.search(rf"(?m)^{package}==", required), package
