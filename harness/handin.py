"""Put what is handed in into a folder, and into a zip: ``python -m harness.handin "Jane Doe"``."""

import re
import shutil
import sys
from pathlib import Path

import nbformat

NEEDED = ["assignment1.ipynb", "assignment1.html", "going_further.ipynb", "README.md", "kafka_helpers.py", "harness"]
NEEDED += ["local_kafka", "requirements.txt", "constraints.txt", "client.properties.example", ".env.example"]
ANSWERS = "answers/assignment1_answers.md"


def main(name: str) -> None:
    folder = Path("assignment1_" + re.sub(r"\W+", "_", name.strip()).lower())
    if folder.name == "assignment1_":
        sys.exit('Say whose it is: make handin NAME="Jane Doe"')
    text = str([cell for cell in nbformat.read("assignment1.ipynb", 4).cells if cell.cell_type == "code"])
    shown = sorted({place for place in re.findall(r"results/[\w-]+", text) if Path(place).is_dir()})
    if not shown:
        sys.exit("assignment1.ipynb shows no saved measurement: make run, then again.")
    shutil.rmtree(folder, ignore_errors=True)
    for place in NEEDED + shown:
        copy = shutil.copytree if Path(place).is_dir() else shutil.copy2
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        copy(place, folder / place)
    for left_out in folder.rglob("__pycache__"):
        shutil.rmtree(left_out)
    shutil.copy2(ANSWERS, folder / f"{folder.name}.md")
    for page in folder.glob("assignment1.*"):  # under their new name, which is what it links to, then
        page.write_text(page.read_text(encoding="utf-8").replace(ANSWERS, f"{folder.name}.md"), encoding="utf-8")
    print(f"To hand in: {folder}, or the same as one file: {shutil.make_archive(folder.name, 'zip', '.', folder.name)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
