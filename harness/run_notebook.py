"""Execute a notebook in a terminal: ``python -m harness.run_notebook assignment1.ipynb [num_messages=40000 ...]``.

It is replaced if every cell succeeds. With parameters, which are set in the cell tagged ``parameters``, it stays as it
is, and the executed copy is saved beside its results.
"""

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
from typing import Any

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until cells run, Ctrl-C just ends the program

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError


class Client(NotebookClient):
    progress = False  # whether the terminal's line is one that text replaces

    def process_message(self, msg: dict, cell: Any, cell_index: int) -> Any:
        text, data = msg["content"].get("text"), msg["content"].get("data", {})
        redrawn, terminal = msg["msg_type"] == "update_display_data", sys.stdout.isatty()
        if redrawn and list(data) == ["text/plain"]:
            line = data["text/plain"]
            text = line[: shutil.get_terminal_size().columns - 1] if terminal else f"{line}\n"
        if text:
            print("\r\x1b[K" * self.progress + text, end="", flush=True)
            self.progress = redrawn and terminal
        return super().process_message(msg, cell, cell_index)


async def execute(notebook: Any, folder: Path) -> str:
    """Execute all cells in a kernel that works in ``folder``; returns where its ``results`` are saved, or "".

    Raises RuntimeError, which says what went wrong, and in which section.
    """
    loop, presses, section = asyncio.get_running_loop(), list[bool](), "the first cell"

    def press(*_: object) -> None:
        """Ctrl-C: interrupt the kernel, which has a session of its own; the second time, end it."""
        if len(presses) < 2 and (presses or client.code_cells_executed):
            # not shutdown_kernel(), which can't stand being called while it is under way
            end = kernel.provisioner.kill() if presses else kernel.interrupt_kernel()
            asyncio.run_coroutine_threadsafe(end, loop)
        presses.append(True)

    async def results() -> str:
        wanted = {"folder": "results.folder.as_posix()"}
        reply = await client.kc.execute_interactive("", silent=True, user_expressions=wanted, timeout=10)
        found = reply["content"]["user_expressions"]["folder"]
        return ast.literal_eval(found["data"]["text/plain"]) if "data" in found else ""

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as runtime:  # no connection file stays
        # ipc has no port that another program could take, but a socket's path can't be long
        transport = "tcp" if sys.platform == "win32" or len(runtime) > 80 else "ipc"
        kernel: Any = AsyncKernelManager(connection_file=f"{runtime}/kernel.json", transport=transport)
        client: Any = Client(notebook, km=kernel, record_timing=False, coalesce_streams=True)
        signal.signal(signal.SIGINT, press)
        await client.async_start_new_kernel(cwd=str(folder))
        await client.async_start_new_kernel_client()
        try:
            info = await client.kc.kernel_info(reply=True)
            notebook.metadata.language_info = info["content"]["language_info"]
            titles = [cell.source for cell in notebook.cells if re.match("## ", cell.source)]
            for index, cell in enumerate(notebook.cells):
                if cell.source in titles:
                    section = cell.source.splitlines()[0].lstrip("# ")
                    print(f"\nSection {titles.index(cell.source) + 1} of {len(titles)}: {section}", flush=True)
                try:
                    await client.async_execute_cell(cell, index)
                except CellExecutionError as error:
                    if error.ename != "KeyboardInterrupt":
                        said = "\n".join(cell.outputs[-1].get("traceback", [error.evalue]))
                        raise RuntimeError(f"In {section}:\n" + re.sub(r"\x1b\[[0-9;]*m", "", said)) from None
                if presses:
                    said = f"In {section}: interrupted"
                    if saved := await results():
                        parameter = re.findall(r"\bsaved_\w+", parameters(notebook).source)[-1]
                        said += f'; what was measured is in {saved}. To go on, add P="{parameter}={saved}"'
                    raise RuntimeError(f"{said}.")
            return await results()
        finally:
            await kernel.shutdown_kernel(now=not await kernel.is_alive())
            client.kc.stop_channels()


def parameters(notebook: Any) -> Any:
    """The cell tagged ``parameters``."""
    return next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))


def set_parameter(cell: Any, setting: str) -> None:
    """Set what is given as name=value: a Python literal, else text."""
    name, _, value = setting.partition("=")
    with contextlib.suppress(ValueError, SyntaxError):
        value = ast.literal_eval(value)
    names = re.findall(r"(?m)^(\w+) =", cell.source)
    if name not in names or "=" not in setting:
        known = ", ".join(names)
        raise ValueError(f"{setting} sets no parameter: write name=value, without blanks; the names are: {known}.")
    cell.source = re.sub(rf"(?m)^{name} =.*", lambda _: f"{name} = {value!r}", cell.source)


def main(file: str, *given: str) -> None:
    path = Path(file).resolve()
    try:
        notebook = nbformat.read(path, 4)
        for setting in given:
            set_parameter(parameters(notebook), setting)
        print("Executing", f"a copy of {path.name} with {', '.join(given)}" if given else path.name, flush=True)
        results = asyncio.run(execute(notebook, path.parent))
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(str(error))
    saved = path.parent / (results or time.strftime("results/%Y-%m-%d_%H-%M-%S")) / path.name if given else path
    saved.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, saved.with_suffix(".part"))
    saved.with_suffix(".part").replace(saved)
    for output in [output for cell in notebook.cells if cell.id == "answer" for output in cell.outputs]:
        print(re.sub(r"[*`]", "", output.get("data", {}).get("text/markdown", "")))
    print(f"\nResults: {results or 'none saved'}\nExecuted notebook: {saved.relative_to(path.parent)}")


if __name__ == "__main__":
    main(*sys.argv[1:]) if sys.argv[1:] else sys.exit(__doc__)
