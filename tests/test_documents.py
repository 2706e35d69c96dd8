"""README, answers and Makefile agree with each other and with the repository."""

import re
import subprocess
from pathlib import Path

import kafka_helpers as kh
from harness import readme

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
    for name in re.findall(r"(?m)^\| `([^`]+)`", README):
        assert (ROOT / name).exists(), name


def test_readme_has_the_numbers_of_the_saved_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    folders = (re.search(rf"results/[\w-]+_{kind}", README)[0] for kind in ("local", "distant"))
    assert readme.filled(README, readme.parts(*map(kh.load_results, folders))) == README


def test_small_modules_stay_small():
    lines = {path: len(path.read_text().splitlines()) for path in ROOT.glob("harness/*.py")}
    assert {path.name: number for path, number in lines.items() if number > 200} == {}
    assert len((ROOT / "kafka_helpers.py").read_text().splitlines()) <= 300


def imported(path: Path) -> set[str]:
    """The names of our own modules that a file imports."""
    ours = {each.stem for each in [*ROOT.glob("*.py"), *ROOT.glob("harness/*.py")]}
    found = re.findall(r"(?m)^ *(?:from|import) (?:harness\.)?(\w+)", path.read_text())
    listed = re.findall(r"(?m)^from harness import (.+)$", path.read_text())
    return (set(found) | set(", ".join(listed).split(", "))) & ours


def test_imports_run_one_way():
    """As the list in harness/__init__.py says: each file builds only on those above it."""
    order = re.findall(r"(?m)^(\w+) {2,}", (ROOT / "harness" / "__init__.py").read_text())
    assert sorted(order) == sorted(each.stem for each in ROOT.glob("harness/*.py") if each.stem != "__init__")
    for place, name in enumerate(order):
        assert imported(ROOT / "harness" / f"{name}.py") <= {*order[:place], "local_kafka"}, name
    for path in ROOT.glob("local_kafka/*.py"):
        assert imported(path) == set(), path


def test_requirements_are_pinned_with_a_reason():
    for file in (ROOT / "requirements.txt", *ROOT.glob("*/requirements.txt")):
        for line in file.read_text().splitlines():
            assert re.fullmatch(r"#.*|-r \S+|[\w-]+==[\w.]+ +# .+", line), line


def test_no_credentials_in_git():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert tracked and not [f for f in tracked if re.search(r"(^|/)\.env$|\.(properties|ini|pem|p12|jks|key)$", f)]
    for name in (".env", "client.properties", "copy.properties", "key.pem", "getting_started.ini"):
        assert subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT).returncode == 0, name


def test_ci_runs_the_tests():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
