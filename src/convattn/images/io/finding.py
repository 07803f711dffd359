"""Image files in folders."""

import os
import warnings
from pathlib import Path

from convattn.errors import InputError
from convattn.files import find_files
from convattn.images.io.formats import READABLE, UNREADABLE

__all__ = ["find_images"]

_LISTED = 5  # files that a warning names


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the image files in a folder and its subfolders in natural order, without hidden ones.

    Images in formats that cannot be read are reported by a warning.

    Raises:
        InputError: The folder is missing or holds no image.
    """
    files = find_files(folder)
    found = [path for path in files if path.suffix.lower() in READABLE]
    passed_over = [path for path in files if path.suffix.lower() in UNREADABLE]
    if passed_over:
        names = ", ".join(path.name for path in passed_over[:_LISTED])
        more = f" and {len(passed_over) - _LISTED} more" if len(passed_over) > _LISTED else ""
        warnings.warn(f"{folder}: passed over {names}{more}; this format cannot be read.", stacklevel=2)
    if not found:
        raise InputError(f"The folder {folder} holds no images ({', '.join(READABLE[:10])}, …).")
    return found
