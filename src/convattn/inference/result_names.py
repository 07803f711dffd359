"""Names of results where the user gives none: beside the inputs."""

import glob
import mimetypes
from collections.abc import Sequence
from pathlib import Path

from convattn.errors import InputError
from convattn.images.io import WRITABLE
from convattn.images.sizes import ScaleRequest

__all__ = ["beside"]

_LONGEST_NAME = 255  # bytes, on every common file system


def beside(inputs: Sequence[str], request: ScaleRequest, format: str | None = None) -> list[tuple[str, str]]:
    """Name a result beside each input: ``photo.jpg`` becomes ``photo_x2.jpg``, folder ``a`` becomes ``a_x2``.

    Args:
        inputs: Files, folders and glob patterns.
        request: The scale or size, which becomes part of the names.
        format: Suffix of the results, with or without the dot; by default that of each input, or png where
            that format cannot be written.

    Returns:
        Each input and the name of its result.

    Raises:
        InputError: No file matches a pattern.
    """
    label = f"_x{request}" if request.scale else f"_{request}".replace(" exactly", "")
    return [(str(path), str(_renamed(path, label, format))) for given in inputs for path in _expanded(given)]


def _expanded(given: str) -> list[Path]:
    if Path(given).exists() or not glob.has_magic(given):
        return [Path(given)]
    if matches := sorted(glob.glob(given, recursive=True)):
        return [Path(match) for match in matches if Path(match).is_file()]
    raise InputError(f"No file matches {given}.")


def _renamed(path: Path, label: str, format: str | None) -> Path:
    if path.is_dir():
        path = path.resolve() if not path.name else path  # "." has no name
        return path.with_name(_shortened(path.name, label))
    suffix = f".{format.lower().removeprefix('.')}" if format else _own_suffix(path)
    return path.with_name(_shortened(path.stem, label + suffix))


def _own_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    is_moving = suffix in (".gif", ".apng") or (mimetypes.guess_type(path)[0] or "").startswith("video/")
    return path.suffix if suffix in WRITABLE or is_moving else ".png"


def _shortened(stem: str, ending: str) -> str:
    """The stem and the ending, in as many bytes as a name may have."""
    room = _LONGEST_NAME - len(ending.encode())
    return stem.encode()[:room].decode(errors="ignore") + ending
