"""Arrays in temporary files, for images too large for memory."""

import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convattn.errors import InputError
from convattn.images.lazy_image import Region

__all__ = ["LARGE", "FileArray", "check_disk", "gather", "temporary_folder"]

LARGE = 2**28
"""Bytes from which on the pixels of an image are stored in a file."""


def temporary_folder() -> Path:
    """Return the folder of large temporary files: $TMPDIR, or /var/tmp, since /tmp often is memory."""
    folder = Path(os.environ.get("TMPDIR", "/var/tmp"))
    return folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())


def check_disk(size: int) -> None:
    """Raise an InputError if there is no room for temporary files of ``size`` bytes."""
    folder = temporary_folder()
    free = shutil.disk_usage(folder).free
    if free < size:
        raise InputError(
            f"An image of this size needs {size / 1e9:.1f} GB of temporary files, and {folder} has only "
            f"{free / 1e9:.1f} GB left; free some, or name another folder in the variable TMPDIR."
        )


def gather(
    shape: tuple[int, int, int], dtype: npt.DTypeLike, parts: Iterable[tuple[Region, np.ndarray]]
) -> np.ndarray:
    """Assemble an array (H, W, C) of its regions.

    Args:
        shape: Rows, columns and channels.
        dtype: Of the values.
        parts: Regions and their values (h, w, C), which together cover the array.

    Returns:
        The array; from :data:`LARGE` bytes on it is memory-mapped from a temporary file.
    """
    small = math.prod(shape) * np.dtype(dtype).itemsize < LARGE
    array = np.empty(shape, dtype) if small else FileArray(shape, dtype)
    for region, values in parts:
        array[region] = values
    return array if isinstance(array, np.ndarray) else array.mapped()


class FileArray:
    """An array (H, W, C) in a temporary file, read and written by regions.

    None of it stays in the memory of the process. Where the system allows it, the file has no name and is
    removed with the process, however that ends.

    Args:
        shape: Rows, columns and channels.
        dtype: Of the values, which are 0 at first.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: npt.DTypeLike) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._file = tempfile.TemporaryFile(dir=temporary_folder())  # noqa: SIM115
        self._file.truncate(math.prod(shape) * self.dtype.itemsize)

    def __getitem__(self, region: Region) -> np.ndarray:
        rows, columns = region
        values = np.empty((rows.stop - rows.start, columns.stop - columns.start, self.shape[2]), self.dtype)
        for run in self._runs(region, values):
            self._file.readinto(run.data)
        return values

    def __setitem__(self, region: Region, values: np.ndarray) -> None:
        try:
            for run in self._runs(region, np.ascontiguousarray(values, self.dtype)):
                self._file.write(run.data)
        except OSError as error:
            raise InputError(
                f"The temporary files in {temporary_folder()} cannot be written: {error.strerror}; "
                "free some space, or name another folder in the variable TMPDIR."
            ) from error

    def mapped(self) -> np.ndarray:
        """Return the whole array (H, W, C), memory-mapped; changes to it stay in memory."""
        self._file.flush()
        return np.memmap(self._file, self.dtype, "c", shape=self.shape)  # type: ignore[call-overload]

    def _runs(self, region: Region, values: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the values in runs that are contiguous in the file, and seek to the place of each."""
        rows, columns = region
        _, width, channels = self.shape
        whole_rows = columns.stop - columns.start == width
        for number, run in enumerate([values] if whole_rows else values):
            pixels = (rows.start + number) * width + columns.start
            self._file.seek(pixels * channels * self.dtype.itemsize)
            yield run
