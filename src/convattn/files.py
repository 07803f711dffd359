"""Writing files atomically, removing what dead processes left, and listing folders in natural order."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import IO

import psutil

from convattn.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["find_files", "natural_key", "remove_litter", "replacing", "short_name"]

_LONGEST_NAME = 255  # bytes, on nearly every file system
_TEMPORARY = re.compile(r"\..*\.(\d+)(\.[^.]*)?")


@contextmanager
def replacing(path: str | os.PathLike[str], *, parents: bool = False) -> Iterator[Path]:
    """Yield a temporary file beside ``path`` that replaces it at the end, if nothing is raised.

    Args:
        path: The file to write; an older one stays untouched if the writing fails.
        parents: Whether to make missing folders above it.

    Raises:
        InputError: The folder does not exist or cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} cannot be written: it is a folder; give the name of a file.")
    temporary = path.with_name(short_name(f".{path.stem}", f".{os.getpid()}{path.suffix}"))
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(temporary):
            yield temporary
            os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            os.truncate(temporary, 0)  # frees the disk even if the failed writer still has the file open
            temporary.unlink()


def short_name(start: str, end: str) -> str:
    """Return ``start + end``, with the start cut where the name is longer than file systems allow."""
    room = _LONGEST_NAME - len(os.fsencode(end))
    return os.fsencode(start)[:room].decode(errors="ignore") + end


def remove_litter(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files of :func:`replacing` whose process is gone.

    The name tells the process. A lock tells the same where the process runs in another container.
    """
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = _TEMPORARY.fullmatch(entry.name)
            if match and entry.is_file(follow_symlinks=False) and not psutil.pid_exists(int(match[1])):
                with suppress(OSError), open(entry.path, "rb") as file:
                    _lock(file)
                    os.unlink(entry.path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Make a file and hold a lock on it, where the system has locks."""
    path.touch()
    if fcntl is None:
        yield
        return
    with path.open("rb") as file:
        _lock(file)
        yield


def _lock(file: IO[bytes]) -> None:
    """Lock a file for this process; raise a BlockingIOError if another one has it."""
    if fcntl:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            return


def find_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the files in a folder and its subfolders in natural order, without hidden files and folders.

    Raises:
        InputError: There is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder.")
    files = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted((path for path in files if path.is_file()), key=natural_key)


def natural_key(path: PurePath) -> list[list[tuple[int, int, str]]]:
    """Return a sort key by which frame2 comes before frame10."""
    return [[_piece(piece) for piece in re.split(r"(\d+)", part) if piece] for part in path.parts]


def _piece(piece: str) -> tuple[int, int, str]:
    return (0, int(piece), piece) if piece.isdecimal() else (1, 0, piece)
