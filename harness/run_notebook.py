"""Execute a notebook from top to bottom, and show in the terminal what its cells print and how far they are.

Without parameters it is replaced if every cell succeeds. With parameters (-p num_messages=40000), which are set after
the cell tagged ``parameters`` as papermill does it, it stays as it is; the executed copy is saved beside its results.
"""

import argparse
import ast
import asyncio
import contextlib
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until cells run, Ctrl-C just ends the program

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError


class Client(NotebookClient):
    progress, shown_at = "", 0.0  # the line that is redrawn, and when it was last left as it stands

    def process_message(self, msg: dict, cell: nbformat.NotebookNode, cell_index: int):
        kind, content = msg["msg_type"], msg["content"]
        if kind == "stream":
            if self.progress:
                self.draw("")  # the text takes its place
            print(content["text"], end="", flush=True)
        elif kind == "update_display_data" and list(content["data"]) == ["text/plain"]:
            self.draw(content["data"]["text/plain"])
        return super().process_message(msg, cell, cell_index)

    def draw(self, progress: str) -> None:
        """Redraw the line of progress; where the output is no terminal, print one each 10 s."""
        self.progress = progress
        if sys.stdout.isatty():
            width = shutil.get_terminal_size().columns - 1
            print("\r" + progress[:width].ljust(width), end="\r", flush=True)
        elif progress and time.monotonic() - self.shown_at >= 10:
            self.end_progress()

    def end_progress(self) -> None:
        if self.progress:
            print(self.progress, flush=True)
        self.progress, self.shown_at = "", time.monotonic()

    def output(self, outs: list, msg: dict, display_id: str | None, cell_index: int):
        out = super().output(outs, msg, display_id, cell_index)
        before = outs[-2] if len(outs) > 1 else {}
        if out and out.output_type == "stream" and out.name == before.get("name"):
            before.text += outs.pop().text  # text that follows text is one output, as in JupyterLab
        return out


async def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Execute each cell, in a kernel that works in ``folder``. A RuntimeError says what went wrong."""
    presses, loop = [], asyncio.get_running_loop()

    def press(*_) -> None:
        """Ctrl-C: interrupt the kernel, which has a session of its own; the second time, end it."""
        if len(presses) < 2 and (presses or client.code_cells_executed):
            # not shutdown_kernel(), which can't stand being called while it is under way
            end = kernel.provisioner.kill() if presses else kernel.interrupt_kernel()
            asyncio.run_coroutine_threadsafe(end, loop)
        presses.append(True)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as runtime:  # no connection file stays
        transport = "tcp" if sys.platform == "win32" else "ipc"  # ipc: no port that another program could take
        kernel = AsyncKernelManager(connection_file=f"{runtime}/kernel.json", transport=transport)
        client = Client(notebook, km=kernel, record_timing=False)
        signal.signal(signal.SIGINT, press)
        await client.async_start_new_kernel(cwd=str(folder))
        await client.async_start_new_kernel_client()
        try:
            metadata, spec = notebook.metadata, kernel.kernel_spec
            metadata.kernelspec = {"name": "python3", "language": spec.language, "display_name": spec.display_name}
            metadata.language_info = (await client.kc.kernel_info(reply=True))["content"]["language_info"]
            heading = "the first cell"
            for index, cell in enumerate(notebook.cells):
                if cell.cell_type == "markdown":
                    heading = [heading, *re.findall(r"^#+ +(.+)", cell.source, re.MULTILINE)][-1]
                try:
                    await client.async_execute_cell(cell, index)
                except CellExecutionError as error:
                    if error.ename != "KeyboardInterrupt":
                        said = "\n".join(cell.outputs[-1].get("traceback", [error.evalue]))
                        raise RuntimeError(f"In {heading}:\n" + re.sub(r"\x1b\[[0-9;]*m", "", said)) from None
                finally:
                    client.end_progress()
                if presses:
                    raise RuntimeError("Interrupted.")
        finally:
            await kernel.shutdown_kernel(now=not await kernel.is_alive())
            client.kc.stop_channels()


def parameterize(notebook: nbformat.NotebookNode, given: list[str]) -> None:
    """Add a cell that sets what is ``given`` as name=value: a Python literal, else text."""
    tagged = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    defaults = ast.walk(ast.parse("\n".join(notebook.cells[i].source for i in tagged)))
    known = [each.id for each in defaults if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]
    source = []
    for each in given:
        name, equals, value = each.partition("=")
        if name not in known or not equals:
            names = ", ".join(known) or "none"
            raise ValueError(f"{each} sets no parameter: write name=value, without blanks; the names are: {names}.")
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
        source.append(f"{name} = {value!r}")
    cell = nbformat.v4.new_code_cell("\n".join(source), metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(tagged[0] + 1, cell)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("-p", metavar="NAME=VALUE", action="append", default=[], help="a parameter; can be repeated")
    options = parser.parse_args()
    path = options.notebook.resolve()
    given = list({each.partition("=")[0]: each for each in options.p}.values())  # the last one of a name counts
    sys.stdout.reconfigure(errors="replace")  # where a progress bar's blocks can't be shown
    try:
        notebook = nbformat.read(path, 4)
        if given:
            parameterize(notebook, given)
        print("Executing", f"a copy of {path.name} with {', '.join(given)}" if given else path.name, flush=True)
        asyncio.run(execute(notebook, path.parent))
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(str(error))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    folder = re.search(r"Saved in (results/[\w/-]+)", "".join(output.get("text", "") for output in outputs))
    copy = f"{folder[1]}/{path.name}" if folder else time.strftime(f"results/%Y-%m-%d_%H-%M-%S_{path.name}")
    saved = path.parent / copy if given else path
    saved.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, saved.with_suffix(".part"))
    saved.with_suffix(".part").replace(saved)
    answer = re.sub(r"[*`]", "", outputs[0].get("data", {}).get("text/markdown", "") if outputs else "").strip()
    print(f"\n{answer}\n\nResults: {folder[1] if folder else 'none saved'}")
    print("Executed notebook:", saved.relative_to(path.parent).as_posix())


if __name__ == "__main__":
    main()
