"""Execute the cells of a notebook in a kernel of this Python, and show in the terminal how it goes."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert.filters import strip_ansi
from nbformat import NotebookNode

REPLY_WITHIN_S = 1.0  # after the kernel's last word on a cell: an interrupt at that instant swallows the reply
INTERRUPT_AGAIN_S = 2.5  # an interrupt that falls into a destructor is lost, one in the kernel's own code can block it
SHUTDOWN_WAIT_S = 3.0  # after an interrupt; for the first half of it the kernel may end by itself
ONE_PRESS_S = 0.5  # signals this close are one: `make` hands a SIGTERM on, a closing terminal sends SIGHUP twice
SIGN_OF_LIFE_S = 10.0  # a cell that says nothing for so long is said to be still at work
LONGEST_SOCKET_FOLDER = 80  # a socket's path can have some 100 characters
CLEAR_LINE = "\r\x1b[K"


class RunEnded(Exception):
    """A run ended before its last cell was done; the text says why, and ``status`` is the exit status."""

    def __init__(self, reason: str, status: int = 1):
        super().__init__(reason)
        self.status = status


class Terminal:
    """Standard output, with a line of progress that is drawn again where it is a terminal."""

    def __init__(self) -> None:
        self.last_shown = time.monotonic()
        self._redraws = sys.stdout is not None and sys.stdout.isatty()
        self._on_progress_line = False
        self._at_line_start = True
        if sys.stdout is not None:
            sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a letter the terminal can't show

    def write(self, text: str) -> None:
        """Show text as it comes; it takes the place of a line of progress."""
        if self._on_progress_line:
            text = CLEAR_LINE + text
        self._show(text)
        self._on_progress_line = False

    def write_line(self, line: str) -> None:
        """Show a line of its own, below what there is."""
        self.end_line()
        self._show(line + "\n")

    def draw_progress(self, line: str) -> None:
        """Show a line of progress in the place of the one before."""
        if not self._redraws:
            self.write_line(line)
            return
        if not self._on_progress_line:
            self.end_line()
        self._show(CLEAR_LINE + line[: shutil.get_terminal_size().columns - 1])
        self._on_progress_line = True

    def end_line(self) -> None:
        """Let what comes begin on a new line."""
        if not self._at_line_start:
            self._show("\n")
        self._on_progress_line = False

    def _show(self, text: str) -> None:
        self.last_shown = time.monotonic()
        self._at_line_start = text.endswith("\n")
        try:
            print(text, end="", flush=True)
        except OSError:  # nobody reads on: the run goes on, and what it says goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class OwnKernel(AsyncKernelManager):
    """Starts a kernel of this Python, whatever kernels are installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """What is started, and by what; the rest of the class asks for it."""
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, metadata={"kernel_provisioner": {"provisioner_name": "local-provisioner"}})


class Execution(NotebookClient):
    """One run of a notebook.

    ``section`` is the heading of what is under way, ``saved_in`` the folder in which the notebook says that it saves.
    """

    km: Any
    kc: Any

    def __init__(self, notebook: NotebookNode, folder: Path):
        super().__init__(notebook, record_timing=False, shutdown_kernel="immediate")  # until a cell has run
        self.folder = folder
        self.terminal = Terminal()
        self.section = "the first cell"
        self.saved_in = ""
        self._signal: int | None = None  # the first that was received
        self._signal_time = 0.0
        self._main: asyncio.Task | None = None
        self._progress = ""  # the latest line of progress of the cell that runs
        self._listening = False  # whether the kernel runs a cell, so that an interrupt reaches it

    async def run(self, signals: list[signal.Signals]) -> None:
        """Execute all cells; whatever ends it, the kernel has ended then, and nothing of it is left.

        From then on ``signals`` are held back, so that the result can be saved. Raises RunEnded.
        """
        self._main = asyncio.current_task()
        with contextlib.suppress(NotImplementedError):  # on Windows
            for each in signals:
                asyncio.get_running_loop().add_signal_handler(each, self._press, each)
        try:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
                try:
                    await self._start(scratch)
                    # Both ends being connected, nobody needs the folder any more; so a run that is killed leaves none.
                    shutil.rmtree(scratch, ignore_errors=True)
                    await self._execute_cells()
                finally:
                    await self._end_kernel()
        except asyncio.CancelledError:
            raise self._interrupted() from None
        except OSError as error:
            raise RunEnded(f"In {self.section}: {error}.") from None
        finally:
            if hasattr(signal, "pthread_sigmask"):
                signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    async def _start(self, scratch: str) -> None:
        # What is set for other programs stays out: other packages, start-up files, settings.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment["IPYTHONDIR"] = f"{scratch}/ipython"
        # ipc has no port that another program could take
        in_files = sys.platform != "win32" and len(scratch) <= LONGEST_SOCKET_FOLDER
        self.km = OwnKernel(connection_file=f"{scratch}/kernel.json", transport="ipc" if in_files else "tcp")
        with tempfile.TemporaryFile() as words:
            try:
                folder = str(self.folder)
                await self.async_start_new_kernel(cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=words)
                await self.async_start_new_kernel_client()
            except RuntimeError as error:
                words.seek(0)
                last = words.read().decode(errors="replace").strip().splitlines()[-1:]
                raise RunEnded(f"The kernel did not start: {last[0] if last else error}") from None
        self.nb.metadata["language_info"] = (await self.kc.kernel_info(reply=True))["content"]["language_info"]
        self.shutdown_kernel = "graceful"
        self._main = None

    async def _end_kernel(self) -> None:
        if self.km and self.km.has_kernel:
            if self._signal is not None:
                self.km.shutdown_wait_time = SHUTDOWN_WAIT_S
            await self._async_cleanup_kernel()

    async def _execute_cells(self) -> None:
        life = asyncio.create_task(self._show_life())
        for index, cell in enumerate(self.nb.cells):
            if cell.cell_type == "markdown" and cell.source.startswith("## "):
                self.section = cell.source.splitlines()[0].lstrip("# ")
                self.terminal.write_line(f"\n{self.section}")
            try:
                await self.async_execute_cell(cell, index, execution_count=self.code_cells_executed + 1)
            except (CellExecutionError, DeadKernelError) as error:
                raise self._ended_by(error, cell) from None
            finally:
                self._listening = False
                self._progress = ""
            if self._signal is not None:
                raise self._interrupted()
        life.cancel()

    async def _show_life(self) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            if now - self.terminal.last_shown >= SIGN_OF_LIFE_S:
                work = self._progress or f"In {self.section}: still at work"
                self.terminal.draw_progress(f"{work} ({now - began:.0f} s after the start)")

    def process_message(self, msg: dict, cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        """Note and show what the kernel says while it runs a cell."""
        kind = msg["msg_type"]
        content = msg["content"]
        if kind == "execute_input":
            self._listening = True
            if self._signal is not None:  # it came before the kernel could be interrupted
                self._interrupt()
        elif kind == "status" and content["execution_state"] == "idle" and self.task_poll_for_reply:
            # kept, since a task that nobody holds may be collected
            self._waiting = asyncio.create_task(self._stop_waiting(self.task_poll_for_reply))
        self._show(kind, content)
        return super().process_message(msg, cell, cell_index)

    async def _stop_waiting(self, reply: asyncio.Future) -> None:
        """After the kernel's last word on a cell: don't wait for a reply that an interrupt has swallowed."""
        while not reply.done():
            await asyncio.sleep(REPLY_WITHIN_S)
            if self._signal is not None:
                reply.cancel()

    def _show(self, kind: str, content: dict) -> None:
        line = content.get("data", {}).get("text/plain", "")
        if kind == "stream":
            self.terminal.write(content["text"])
        elif "saved_in" in content.get("metadata", {}):
            self.saved_in = content["metadata"]["saved_in"]
            self.terminal.write_line(line)
        elif kind == "update_display_data" and list(content["data"]) == ["text/plain"]:
            self._progress = "" if line.startswith("Ended") else line
            self.terminal.draw_progress(line)

    def _press(self, number: int) -> None:
        """The first signal interrupts the cell or the start of the kernel, a second one kills the kernel."""
        if self._signal is None:
            self._signal = number
            self._signal_time = time.monotonic()
            if self._main:
                self._main.cancel()
            else:
                self._interrupt()
        elif time.monotonic() - self._signal_time > ONE_PRESS_S and self.km and self.km.has_kernel:
            self.km.provisioner.process.kill()

    def _interrupt(self) -> None:
        """Interrupt the cell that runs, until it has ended."""
        if self._listening and self.km and self.km.has_kernel:
            self.km.provisioner.process.send_signal(signal.SIGINT)
            asyncio.get_running_loop().call_later(INTERRUPT_AGAIN_S, self._interrupt)

    def _interrupted(self) -> RunEnded:
        return RunEnded(f"In {self.section}: interrupted.", 128 + (self._signal or signal.SIGINT))

    def _ended_by(self, error: CellExecutionError | DeadKernelError, cell: NotebookNode) -> RunEnded:
        if self._signal is not None or getattr(error, "ename", "") == "KeyboardInterrupt":
            return self._interrupted()
        if isinstance(error, CellExecutionError):
            failure = [output for output in cell.outputs if output.output_type == "error"]
            lines = failure[-1].traceback if failure else [f"{error.ename}: {error.evalue}"]
            return RunEnded(f"In {self.section}:\n" + strip_ansi("\n".join(lines)))
        status = self.km.provisioner.process.poll()
        if status == -signal.SIGKILL:
            return RunEnded(f"In {self.section}: the kernel was killed, as happens when memory is short.")
        return RunEnded(f"In {self.section}: the kernel has ended by itself (exit status {status}).")
