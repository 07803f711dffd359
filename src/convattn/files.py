"""Writing files so that nothing is ever half-written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convattn.errors import InputError

__all__ = ["replacing"]


@contextmanager
def replacing(path: str | os.PathLike[str], *, parents: bool = False) -> Iterator[Path]:
    """Give a temporary file to write, which takes the place of ``path`` once it is whole.

    Args:
        path: The file to write; whatever it was stays untouched if the writing fails.
        parents: Whether to make the folders above it that do not exist.

    Raises:
        InputError: The folder does not exist or cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} cannot be written: it is a folder; give the name of a file.")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        if temporary.exists():
            temporary.unlink()
