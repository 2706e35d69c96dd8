"""End a local Kafka when its owner has ended, in whatever way: python -P guard.py OWNER FOLDER [FILE]

A program of its own, which the owner starts, and ends when it has cleaned up itself. It says "ready".
"""

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

import psutil

CLIENT_FILE = "client.properties"
# In the command line of each process that has to end: a process number may have become a stranger's. To Java it says
# where to write.
MARK = "-Djava.io.tmpdir={}"


def clean_up(folder: Path, file: str) -> None:
    """End what was started for ``folder``, and remove it; also ``file``, while it is the same as the client's there."""
    for _attempt in range(100):
        found = False
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # it has just ended, or is somebody else's
                if MARK.format(folder) in process.cmdline():
                    found = True
                    process.kill()
        with contextlib.suppress(OSError):
            if (folder / CLIENT_FILE).read_bytes() == Path(file).read_bytes():
                os.unlink(file)
        shutil.rmtree(folder, ignore_errors=True)
        if not found and not folder.exists():
            break
        time.sleep(0.1)


if __name__ == "__main__":
    owner = int(sys.argv[1])
    print("ready", flush=True)
    while os.getppid() == owner and psutil.pid_exists(owner):  # the second for Windows
        time.sleep(0.5)
    clean_up(Path(sys.argv[2]), sys.argv[3])
