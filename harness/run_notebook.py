"""Execute a notebook in a terminal: ``python -m harness.run_notebook assignment1.ipynb [num_messages=40000 ...]``.

It is replaced if every cell succeeds. With parameters, which are set in the cell tagged ``parameters``, it stays as it
is, and the executed copy is saved beside its results.
"""

import ast
import asyncio
import atexit
import contextlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError


class Client(NotebookClient):
    """Shows what the cells print, in which section; Ctrl-C interrupts the kernel, a second one ends it."""

    km: Any
    kc: Any
    progress = pressed = False  # whether the terminal's line is one that text replaces; whether Ctrl-C was pressed
    section, results = "the first cell", ""  # where the results are saved

    def press(self) -> None:
        kernel = self.km.provisioner.process  # in a session of its own: the terminal's Ctrl-C does not reach it
        if self.pressed:
            kernel.kill()
        else:
            kernel.send_signal(signal.SIGINT)
        self.pressed = True

    async def async_execute_cell(self, cell: Any, cell_index: int, *arguments: Any, **options: Any) -> Any:
        with contextlib.suppress(NotImplementedError):  # on Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self.press)
        titles = [each.source for each in self.nb.cells if re.match("## ", each.source)]
        if cell.source in titles:
            self.section = cell.source.splitlines()[0].lstrip("# ")
            print(f"\nSection {titles.index(cell.source) + 1} of {len(titles)}: {self.section}", flush=True)
        try:
            await super().async_execute_cell(cell, cell_index, *arguments, **options)
        except CellExecutionError as error:
            if error.ename != "KeyboardInterrupt":
                said = "\n".join(cell.outputs[-1].get("traceback", [error.evalue]))
                raise RuntimeError(f"In {self.section}:\n" + re.sub(r"\x1b\[[0-9;]*m", "", said)) from None
        if self.pressed or cell_index == len(self.nb.cells) - 1:
            wanted = {"folder": "results.folder.as_posix()"}
            reply = await self.kc.execute_interactive("", silent=True, user_expressions=wanted, timeout=10)
            found = reply["content"]["user_expressions"]["folder"].get("data", {"text/plain": "''"})
            self.results = ast.literal_eval(found["text/plain"])
        if self.pressed:
            said = f"In {self.section}: interrupted"
            if self.results:
                parameter = re.findall(r"\bsaved_\w+", parameters(self.nb).source)[-1]
                said += f'; what was measured is in {self.results}. To go on, add P="{parameter}={self.results}"'
            raise RuntimeError(f"{said}.")
        return cell

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
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as runtime:  # no connection file stays
            # ipc has no port that another program could take, but a socket's path can't be long
            transport = "tcp" if sys.platform == "win32" or len(runtime) > 80 else "ipc"
            kernel = AsyncKernelManager(connection_file=f"{runtime}/kernel.json", transport=transport)
            client = Client(notebook, km=kernel, record_timing=False, coalesce_streams=True)
            try:
                # without the kernel's own log, where an interrupt can leave a traceback; what cells say comes otherwise
                client.execute(cwd=str(path.parent), cleanup_kc=True, stderr=subprocess.DEVNULL)
            finally:
                atexit.unregister(client._cleanup_kernel)  # it would fail where the kernel died while it started
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(str(error))
    folder = client.results or time.strftime("results/%Y-%m-%d_%H-%M-%S")
    saved = path.parent / folder / path.name if given else path
    saved.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, saved.with_suffix(".part"))
    saved.with_suffix(".part").replace(saved)
    for output in [output for cell in notebook.cells if cell.id == "answer" for output in cell.outputs]:
        print(re.sub(r"[*`]", "", output.get("data", {}).get("text/markdown", "")))
    print(f"\nResults: {client.results or 'none saved'}\nExecuted notebook: {saved.relative_to(path.parent)}")


if __name__ == "__main__":
    main(*sys.argv[1:]) if sys.argv[1:] else sys.exit(__doc__)
