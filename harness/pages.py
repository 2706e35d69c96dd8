"""Notebooks as pages of HTML, each one file: ``python -m harness.pages assignment1.ipynb``.

nbconvert's classes make them, which, unlike its command, read no configuration of the user's.
"""

import re
import sys
from collections.abc import Container
from pathlib import Path
from urllib.parse import unquote

from nbconvert import HTMLExporter

from harness.errors import PlainError
from harness.execute import read_notebook

TEMPLATE = Path(__file__).with_name("page.html.j2")
LINK_TO_A_FILE = re.compile(r'<a href="([^":#]+)">(.*?)</a>')  # not to another site, and not within the page


def render(file: Path, linked: Container[str] = ()) -> str:
    """Give a notebook's page, figures included. Links to files are taken out, but for those to files in ``linked``."""
    print(f"Making the page of {file.name} ...", flush=True)
    exporter = HTMLExporter(template_name="classic", template_file=str(TEMPLATE), embed_images=True)
    notebook, _ = read_notebook(file)
    where = {"name": file.stem, "path": str(file.parent)}
    page, _ = exporter.from_notebook_node(notebook, {"metadata": where})
    return LINK_TO_A_FILE.sub(lambda link: link[0] if unquote(link[1]) in linked else link[2], page)


def main(*names: str) -> None:
    """Write the page of each notebook beside it."""
    for file in map(Path, names):
        try:
            page = render(file)
        except PlainError as error:
            sys.exit(str(error))
        target = file.with_suffix(".html")
        target.write_text(page, encoding="utf-8")
        print(f"Written: {target}")


if __name__ == "__main__":
    main(*sys.argv[1:])
