"""Upscale a video into a folder of numbered images."""

import os
import warnings
from collections.abc import Generator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyvips
import torch
from torch import Tensor

from convattn.errors import InputError
from convattn.files import remove_litter, replacing
from convattn.images.io import Image, format_of, write_image
from convattn.images.io.metadata import CICP
from convattn.progress import Progress, ignore
from convattn.video.hdr import HLG, PQ
from convattn.video.read import VideoFile
from convattn.video.source import Frame
from convattn.video.stages import Upscale, upscale_frames, with_progress
from convattn.video.timestamps import FILE_NAME, write_timestamps
from convattn.video.yuv import Encoding

__all__ = ["upscale_to_frames"]

_TOLERANCE = Fraction(2, 1000)  # seconds by which timestamps of a constant rate may be rounded


def upscale_to_frames(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    upscale: Upscale,
    *,
    format: str = "png",
    quality: int = 95,
    existing: str = "refuse",
    batch_size: int = 4,
    device: torch.device | str = "cpu",
    label: str = "",
    progress: Progress = ignore,
) -> Fraction:
    """Upscale a video into images 000001.png, 000002.png and so on.

    They are upright, and have 8 bits per channel or, where the video has more than that, 16. Where the frame
    rate varies, timestamps.txt says when each frame is shown, and :func:`~convattn.video.upscale_video` reads
    it. An interrupted run leaves a hidden file in the folder, from which the same call resumes.

    Args:
        source: A video.
        folder: Where the images are written.
        upscale: Upscales the frames.
        format: Of the images: png, jpg, webp, tif or avif.
        quality: 1 to 100, as in :func:`~convattn.images.io.write_image`.
        existing: Where the folder holds something already: "refuse", "skip" the frames that are there, or
            "overwrite" them.
        batch_size: Frames that are upscaled at once.
        device: Where ``upscale`` expects its frames.
        label: Names the model and its settings; only a run of the same label is resumed.
        progress: Called after each frame with the fraction that is done, up to 1.

    Returns:
        Frames per second, on average, which the images themselves do not say.

    Raises:
        InputError: The source is not a video, is damaged or cut off, or the images cannot be written.
    """
    video, folder, suffix = VideoFile(Path(source)), Path(folder), "." + format.lower().removeprefix(".")
    format_of("frame" + suffix)
    _warn_of_losses(video, suffix)
    job = folder / ".unfinished"
    resumes = _start(job, repr((video.identity, suffix, quality, label)), existing)
    frames = _Frames(video, folder, suffix, keep=resumes or existing == "skip")
    new = upscale_frames(
        frames.wanted(),
        video.encoding.decode,
        upscale,
        lambda rgb: frames.encoding.encode(_upright(rgb, video.rotation)),
        batch_size=batch_size,
        device=device,
    )
    with closing(with_progress(new, frames.done, video.count, progress)) as upscaled:
        for frame in upscaled:
            frames.write(frame, quality)
    _keep_times(folder, frames.times, video)
    job.unlink()
    return video.rate


class _Frames:
    """The frames of a video as numbered images in a folder.

    Attributes:
        encoding: Of the images' pixels.
        done: How many images are there already and are kept.
        times: Timestamp and duration of each frame that has been decoded.
    """

    def __init__(self, video: VideoFile, folder: Path, suffix: str, *, keep: bool) -> None:
        self._video, self._folder, self._suffix = video, folder, suffix
        self._metadata = _color_description(video, suffix)
        self._kept = set(folder.glob("*" + suffix)) if keep else set()
        self.encoding = Encoding(None, full=True, depth=8 if video.encoding.depth == 8 else 16)
        self.done = sum(self._path(number) in self._kept for number in range(video.count))
        self.times: list[tuple[int, int]] = []

    def _path(self, number: int) -> Path:
        return self._folder / f"{number + 1:06}{self._suffix}"

    def wanted(self) -> Generator[Frame, None, None]:
        """Yield the frames whose images are missing."""
        for frame in self._video.frames():
            self.times.append((frame.pts, frame.duration))
            if self._path(frame.number) not in self._kept:
                yield frame

    def write(self, frame: Frame, quality: int) -> None:
        """Write an upscaled frame."""
        dtype = np.uint8 if self.encoding.depth == 8 else np.uint16
        pixels = frame.samples.transpose(1, 2, 0).astype(dtype)
        write_image(Image(pixels, self._metadata), self._path(frame.number), quality=quality)


def _start(job: Path, name: str, existing: str) -> bool:
    """Record the job in its folder; return whether an earlier run had recorded the same."""
    folder = job.parent
    try:
        remove_litter(folder)
        if job.is_file() and job.read_text() == name:
            return True
        if existing == "refuse" and folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty; choose --existing skip or --existing overwrite.")
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(job) as temporary:
            temporary.write_text(name)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}.") from error
    return False


def _keep_times(folder: Path, times: list[tuple[int, int]], video: VideoFile) -> None:
    """Write the timestamps of frames whose rate varies; the first is shown at 0."""
    start = times[0][0]
    seconds = [(pts - start) * video.time_base for pts, _ in times]
    end = seconds[-1] + times[-1][1] * video.time_base
    if any(abs(time - number / video.rate) > _TOLERANCE for number, time in enumerate(seconds)):
        write_timestamps(folder, [*seconds, end])
    else:
        (folder / FILE_NAME).unlink(missing_ok=True)


def _color_description(video: VideoFile, suffix: str) -> dict[str, tuple[int, bytes]]:
    """Return the metadata by which PNG images hold the colors of HDR video."""
    if video.transfer not in (PQ, HLG) or suffix != ".png":
        return {}
    return {CICP: (pyvips.GValue.blob_type, bytes([video.primaries, video.transfer, 0, 1]))}


def _warn_of_losses(video: VideoFile, suffix: str) -> None:
    """Warn of what image files do not hold."""
    if video.transfer in (PQ, HLG) and suffix != ".png":
        warnings.warn(f"{video.path} is HDR, which only PNG images say of themselves.", stacklevel=3)
    if video.aspect not in (None, 0, 1):
        warnings.warn(
            f"{video.path} has pixels that are not square, which the images do not say.", stacklevel=3
        )


def _upright(rgb: Tensor, matrix: list[int] | None) -> Tensor:
    """Turn and mirror images (N, 3, H, W) by a display matrix, in steps of 90 degrees."""
    if matrix is None:
        return rgb
    xx, xy, _, yx, yy = matrix[:5]  # where the axes x and y of the image point to
    if abs(xx) < abs(xy):
        rgb, xx, yy = rgb.transpose(2, 3), yx, xy
    return rgb.flip([axis for axis, direction in ((3, xx), (2, yy)) if direction < 0])
