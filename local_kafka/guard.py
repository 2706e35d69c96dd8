"""End a local Kafka with its owner, however that ends: python -P guard.py FOLDER [FILE]

A program of its own, started by the owner. It says "ready", and waits for the owner's word or death.
"""

import contextlib
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import psutil

CLIENT_FILE = "client.properties"


def clean_up(folder: Path, file: str) -> None:
    """End what was started for ``folder``, and remove it; also ``file``, while it is the same as the client's there."""
    for _attempt in range(100):
        found = False
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # it has just ended, or is somebody else's
                # by its command line, not by its number: a stranger may have inherited that
                if f"-Djava.io.tmpdir={folder}" in process.cmdline():
                    found = True
                    process.kill()
        with contextlib.suppress(OSError):
            if (folder / CLIENT_FILE).read_bytes() == Path(file).read_bytes():
                os.unlink(file)
        shutil.rmtree(folder, ignore_errors=True)
        if not found and not folder.exists():
            break
        time.sleep(0.1)


def wait_for_owner() -> None:
    """Wait until the owner writes, closes its end of the pipe, or is gone while a child of it holds the pipe open."""
    owner = os.getppid()
    told = threading.Thread(target=os.read, args=(0, 1), daemon=True)
    told.start()
    print("ready", flush=True)
    while told.is_alive() and os.getppid() == owner:
        told.join(1)


if __name__ == "__main__":
    wait_for_owner()
    clean_up(Path(sys.argv[1]), sys.argv[2])
