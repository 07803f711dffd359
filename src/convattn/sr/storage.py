"""Numbers that are too many for memory, in temporary files."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convattn.errors import InputError

__all__ = ["FileArray", "Region", "check_disk", "temporary_folder"]

Region = tuple[slice, slice]
"""Rows and columns, each with a start and a stop."""


def temporary_folder() -> Path:
    """Where large temporary files go: $TMPDIR or, as /tmp often lies in memory, /var/tmp if there is one."""
    named = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    folder = Path(next(filter(None, named), "/var/tmp"))
    return folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())


def check_disk(size: int) -> None:
    """Raise an InputError where the disk has no room for so many bytes of temporary files."""
    folder = temporary_folder()
    free = shutil.disk_usage(folder).free
    if free < size:
        raise InputError(
            f"So large a picture needs {size / 1e9:.1f} GB of temporary files, and {folder} has "
            f"{free / 1e9:.1f} GB left; free some, or name another folder in the variable TMPDIR."
        )


class FileArray:
    """An array (H, W, C) in a temporary file, of which regions are read and written.

    Nothing of it stays in the memory of the process. The file has no name where the system allows that, and
    goes with the array, however the program ends.

    Args:
        shape: Rows, columns and channels.
        dtype: Of the numbers, which are zero at first.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: npt.DTypeLike) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._file = tempfile.TemporaryFile(dir=temporary_folder())  # noqa: SIM115
        self._file.truncate(int(np.prod(shape)) * self.dtype.itemsize)

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

    def _runs(self, region: Region, values: np.ndarray) -> Iterator[np.ndarray]:
        """Parts of the values that lie together in the file, which is put at the place of each."""
        rows, columns = region
        _, width, channels = self.shape
        whole_rows = columns.stop - columns.start == width
        for number, run in enumerate([values] if whole_rows else values):
            pixel = (rows.start + number) * width + columns.start
            self._file.seek(pixel * channels * self.dtype.itemsize)
            yield run

    def mapped(self) -> np.ndarray:
        """The whole array, mapped into memory as it is read; what is written to it is not kept."""
        self._file.flush()
        return np.memmap(self._file, self.dtype, "c", shape=self.shape)
