"""README, answers and Makefile agree with each other and with the repository."""

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

from harness import report
from harness.results import newest

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
    """In words such as "about 40 times as fast": first of the newest local measurement, then of the rehearsal."""
    stated = [float(number.replace(",", "")) for number in re.findall(r"about ([\d.,]+) times as fast", README)]
    times = [report.summarize(newest([kind], parent=ROOT / "results").runs) for kind in ("local", "distant")]
    measured = [each["sync"]["time_s"] / each["async"]["time_s"] for each in times]
    assert stated == pytest.approx(measured, rel=0.1)
    assert stated == [report.rounded(number) for number in stated], "rounded to two digits"


def lines_of(*patterns: str) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for each in patterns for path in ROOT.glob(each))


def test_the_product_stays_small():
    """Besides the tests, the tests, and in the cells of going_further.ipynb."""
    product = lines_of("*.py", "harness/*.py", "local_kafka/*.py", "benchmarks/*.py")
    cells = json.loads((ROOT / "going_further.ipynb").read_text(encoding="utf-8"))["cells"]
    further = sum(len(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    tests = lines_of("tests/*.py")
    assert product <= 3_000 and tests <= 3_500 and further <= 300, (product, tests, further)


def imported(path: Path) -> set[str]:
    """The names of our own modules that a file imports."""
    ours = {file.stem for file in [*ROOT.glob("*.py"), *ROOT.glob("harness/*.py")]} | {"harness", "local_kafka"}
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {part for alias in node.names for part in alias.name.split(".")[:2]}
        elif isinstance(node, ast.ImportFrom):
            names |= set((node.module or "").split(".")[:2]) | {alias.name for alias in node.names}
    return names & ours


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


def test_requirements_are_pinned_with_a_reason():
    for file in (ROOT / "requirements.txt", *ROOT.glob("*/requirements.txt")):
        for line in file.read_text().splitlines():
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


def test_ci_runs_the_tests_and_checks_what_is_published():
    for file in (".ci/run", ".github/workflows/tests.yml"):
        assert {"make test", "make check-published"} <= set(re.findall(r"make [a-z-]+", (ROOT / file).read_text()))
