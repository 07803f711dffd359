"""The one folder that a server writes to, which is gone when the server is."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["temporary_folder"]

_PREFIX = "convattn-serve-"
_SECONDS_TO_LOCK = 60


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder that only this user can read, and remove it in the end.

    Should the server be killed, its workers remove it; should they be killed as well, the next server does,
    for nobody holds its lock any more.
    """
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with (folder / "lock").open("w") as lock:
            _lock(lock)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Remove the folders of servers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*") if fcntl else ():
        with suppress(OSError), (folder / "lock").open("r+") as lock:
            if time.time() - folder.stat().st_mtime > _SECONDS_TO_LOCK and _lock(lock):
                shutil.rmtree(folder, ignore_errors=True)


def _lock(file: IO[str]) -> bool:
    if fcntl:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True
