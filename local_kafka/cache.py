"""The user's cache folder: what was fetched once is kept there."""

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

UNFINISHED = "unfinished-"
OLD_S = 3600  # no download takes so long
WRITABLE_BY_OTHERS = 0o022


def cache_folder() -> Path:
    """The cache folder, made where it is missing; nobody else can write to it.

    Raises:
        OSError: it can't be made, or it isn't this user's alone.
        RuntimeError: the system knows no home of this user.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "local-kafka").absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name == "posix":
        _close_to_others(folder)
    for left_over in folder.glob(UNFINISHED + "*"):
        with contextlib.suppress(FileNotFoundError):  # another process has just ended its own
            if time.time() - left_over.stat().st_mtime > OLD_S:
                shutil.rmtree(left_over, ignore_errors=True)
    return folder


def work_folder(folder: Path) -> tempfile.TemporaryDirectory:
    """A folder in the cache for what isn't whole yet. If it is left there, a later start removes it."""
    return tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder, ignore_cleanup_errors=True)


def _close_to_others(folder: Path) -> None:
    state = folder.stat()
    if state.st_uid not in (0, os.getuid()):
        raise PermissionError(f"{folder} belongs to another user")
    if state.st_mode & WRITABLE_BY_OTHERS:
        folder.chmod(0o700)
        for archive in folder.glob("*.jsa"):  # unlike jars they aren't checked at each start
            archive.unlink()
