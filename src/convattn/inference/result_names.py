"""Names of results where the user gives none: beside the inputs."""

import glob
from collections.abc import Sequence
from pathlib import Path

from convattn.errors import InputError
from convattn.files import short_name
from convattn.images.io import WRITABLE
from convattn.images.sizes import ScaleRequest
from convattn.inference.animations import ANIMATIONS
from convattn.inference.video_jobs import CONTAINERS, VIDEOS

__all__ = ["beside"]


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
        return path.with_name(short_name(path.name, label))
    suffix = f".{format.lower().removeprefix('.')}" if format else _own_suffix(path)
    return path.with_name(short_name(path.stem, label + suffix))


def _own_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in VIDEOS and suffix not in CONTAINERS:
        return ".mkv"
    return path.suffix if suffix in (*WRITABLE, *CONTAINERS, *ANIMATIONS) else ".png"
