"""A folder of images as the frames of a video."""

import os
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path

import numpy as np

from convattn.errors import InputError
from convattn.images.io import find_images, read_image
from convattn.images.io.metadata import CICP
from convattn.video.source import Frame, ImageSource, warn_of_transparency
from convattn.video.timestamps import read_timestamps

__all__ = ["FrameFolder"]

_DEFAULT_FPS = 25
_MICROSECOND = Fraction(1, 10**6)


class FrameFolder(ImageSource):
    """Images in the natural order of their names; see :class:`Source`.

    Args:
        folder: Where they are.
        fps: Frames per second; by default the times of the folder's timestamps.txt, or 25.

    Raises:
        InputError: There are no images, or the rate is not positive.
    """

    def __init__(self, folder: Path, fps: float | None = None) -> None:
        if fps is not None and not 0 < fps < float("inf"):
            raise InputError(f"A video cannot have {fps} frames per second; choose a rate such as 25.")
        self.path = folder
        self._transparent = False
        self._images = find_images(folder)
        self._first = self._read(self._images[0])
        self._describe(self._first)
        if self._cicp:
            self.primaries, self.transfer = self._cicp[:2]
        self.count = len(self._images)
        times = read_timestamps(folder, self.count) if fps is None else None
        self.rate = Fraction(fps or _DEFAULT_FPS).limit_denominator(1001)
        self.time_base = 1 / self.rate
        self._pts = list(range(self.count + 1))
        if times:
            self.rate = (self.count / (times[-1] - times[0])).limit_denominator(1001)
            self.time_base = _MICROSECOND
            self._pts = [round(time / _MICROSECOND) for time in times]
        files = [f"{path.resolve()} {os.stat(path).st_mtime_ns}" for path in self._images]
        self.identity = [str((self.rate, self._pts if times else ())), *files]

    def _read(self, path: Path) -> np.ndarray:
        image = read_image(path)
        pixels = image.pixels
        _, self._cicp = image.metadata.get(CICP, (0, b""))
        opacity = pixels[..., 3:] if pixels.shape[2] > 2 else pixels[..., 1:]
        if not self._transparent and (opacity < np.iinfo(pixels.dtype).max).any():
            self._transparent = True
            warn_of_transparency(path)
        rgb = pixels[..., [0, 1, 2] if pixels.shape[2] > 2 else [0, 0, 0]].transpose(2, 0, 1)
        return np.ascontiguousarray(rgb, dtype=np.uint8 if rgb.dtype == np.uint8 else np.int32)

    def frames(self, skip: int = 0) -> Generator[Frame, None, None]:
        """Read all images but the first ``skip``."""
        for number in range(skip, self.count):
            samples = self._read(self._images[number])
            if (samples.shape, samples.dtype) != (self._first.shape, self._first.dtype):
                raise InputError(
                    f"{self._images[number]} differs from {self._images[0]} in its size or depth; all "
                    "frames of a video must be alike."
                )
            start, end = self._pts[number : number + 2]
            yield Frame(samples, start, end - start, number)
