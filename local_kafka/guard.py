"""End a local Kafka when its owner has ended, in whatever way: python -P guard.py OWNER FOLDER FILE"""

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

import psutil

# In the command line of each process that has to end, since the number of a process that has ended can be given to a
# stranger's. To Java it also says where to write.
MARK = "-Djava.io.tmpdir={}"


def clean_up(folder: Path, file: str) -> None:
    """End what was started for ``folder``, and remove it; also ``file``, while it is the same as the client's there.

    ``file`` may be empty: there is none.

    It tries for some ten seconds.
    """
    mark = MARK.format(folder)
    for _attempt in range(100):
        ours = [each for each in psutil.process_iter(["cmdline"]) if mark in (each.info["cmdline"] or ())]
        for process in ours:
            with contextlib.suppress(psutil.Error):  # it has just ended
                process.kill()
        with contextlib.suppress(OSError):
            if file and (folder / "client.properties").read_bytes() == Path(file).read_bytes():
                os.unlink(file)
        shutil.rmtree(folder, ignore_errors=True)
        if not ours and not folder.exists():
            break
        time.sleep(0.1)


if __name__ == "__main__":
    owner = int(sys.argv[1])
    while os.getppid() == owner and psutil.pid_exists(owner):  # the second for Windows
        time.sleep(0.5)
    clean_up(Path(sys.argv[2]), sys.argv[3])
