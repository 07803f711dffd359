"""A video upscaled into a folder of numbered images."""

import os
import warnings
from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from convattn.errors import InputError
from convattn.images.io import Image, format_of, write_image
from convattn.video.read import VideoFile
from convattn.video.upscale import Progress, Upscale, upscaled, watched
from convattn.video.yuv import Encoding

__all__ = ["upscale_to_frames"]

_PQ, _HLG = 16, 18  # transfer characteristics of HDR in ITU-T H.273


def upscale_to_frames(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    upscale: Upscale,
    *,
    format: str = "png",
    quality: int = 95,
    existing: str = "refuse",
    batch: int = 4,
    device: torch.device | str = "cpu",
    label: str = "",
    progress: Callable[[Progress], None] | None = None,
) -> Fraction:
    """Upscale a video into images 000001.png, 000002.png and so on.

    They are upright, and have 8 bits a channel or, where the video has more than that, 16. A run that was
    interrupted leaves a hidden file in the folder; the same call goes on with it.

    Args:
        source: A video.
        folder: Where the images go.
        upscale: What upscales the frames.
        format: Of the images: png, jpg, webp, tif or avif.
        quality: 1 to 100, as in :func:`~convattn.images.io.write_image`.
        existing: Where the folder holds something already: "refuse", "skip" the frames that are there, or
            "overwrite" them.
        batch: Frames that are upscaled at once.
        device: Where ``upscale`` wants its frames.
        label: Names what upscales; only a run by the same label is gone on with.
        progress: Called after each frame.

    Returns:
        Frames a second, on average, which the images themselves do not tell.

    Raises:
        InputError: The source is no video, damaged or cut off, or the images cannot be written.
    """
    video, folder, suffix = VideoFile(Path(source)), Path(folder), "." + format.lower().removeprefix(".")
    format_of("frame" + suffix)
    _warn_of_losses(video)
    job = folder / ".unfinished"
    goes_on = _begin(job, repr((video.identity, suffix, quality, label)), existing)
    kept = set(folder.glob("*" + suffix)) if goes_on or existing == "skip" else set()

    def path_of(number: int) -> Path:
        return folder / f"{number + 1:06}{suffix}"

    encoding = Encoding(None, full=True, depth=8 if video.encoding.depth == 8 else 16)
    new = upscaled(
        (frame for frame in video.frames() if path_of(frame.number) not in kept),
        video.encoding.decode,
        upscale,
        lambda rgb: encoding.encode(_upright(rgb, video.rotation)),
        batch=batch,
        device=device,
    )
    done = sum(path_of(number) in kept for number in range(video.count))
    with closing(watched(new, done, video.count, progress)) as frames:
        for frame in frames:
            pixels = frame.codes.transpose(1, 2, 0).astype(np.uint8 if encoding.depth == 8 else np.uint16)
            write_image(Image(pixels), path_of(frame.number), quality=quality)
    job.unlink()
    return video.rate


def _begin(job: Path, name: str, existing: str) -> bool:
    """Say in the folder what goes on there; gives whether an earlier run had said the same."""
    folder = job.parent
    try:
        if job.is_file() and job.read_text() == name:
            return True
        if existing == "refuse" and folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty; say whether to skip or overwrite what exists there.")
        folder.mkdir(parents=True, exist_ok=True)
        job.write_text(name)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}.") from error
    return False


def _warn_of_losses(video: VideoFile) -> None:
    """What an image file does not tell."""
    if video.transfer in (_PQ, _HLG):
        warnings.warn(f"{video.path} is HDR, which the images hold without saying so.", stacklevel=3)
    if video.aspect not in (None, 0, 1):
        warnings.warn(
            f"{video.path} has pixels that are not square, which the images do not tell.",
            stacklevel=3,
        )


def _upright(rgb: Tensor, matrix: list[int] | None) -> Tensor:
    """Turn and mirror images (N, 3, H, W) as a display matrix says, by whole quarters of a turn."""
    if matrix is None:
        return rgb
    xx, xy, _, yx, yy = matrix[:5]  # where the axes x and y of the image point to
    if abs(xx) < abs(xy):
        rgb, xx, yy = rgb.transpose(2, 3), yx, xy
    return rgb.flip([axis for axis, direction in ((3, xx), (2, yy)) if direction < 0])
