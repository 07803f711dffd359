"""Animated GIF, WebP and PNG: small videos with transparency that are read and written as a whole."""

import itertools
import os
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyvips
import torch
from torch import Tensor

from convattn.errors import InputError
from convattn.files import replacing
from convattn.images.alpha import fill_transparent, limit_to_neighbors
from convattn.images.pixel_range import from_unit
from convattn.video.read import Frame, Images, identity_of

__all__ = [
    "ANIMATIONS",
    "Animation",
    "AnimationFile",
    "read_animation",
    "upscale_animation",
    "write_animation",
]

ANIMATIONS = (".gif", ".webp", ".png", ".apng")
"""The suffixes of files that can hold an animation, in lower case."""

_GIF_TRAILER = b";"
_MILLISECOND = Fraction(1, 1000)


@dataclass(frozen=True)
class Animation:
    """Frames and when they change.

    Attributes:
        frames: (T, H, W, 4) in uint8, RGB and straight alpha.
        delays: How long each frame is shown, in milliseconds.
        loop: How often all is shown; 0 for ever.
    """

    frames: np.ndarray
    delays: list[int]
    loop: int = 0


def read_animation(path: str | os.PathLike[str]) -> Animation:
    """Read all frames of a GIF, WebP or PNG file.

    Raises:
        InputError: The file is missing, damaged, or of another kind.
    """
    path = Path(path)
    if path.suffix.lower() not in ANIMATIONS:
        raise InputError(f"{path} is no animation; those end in {', '.join(ANIMATIONS)}.")
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    try:
        return _read_png(path) if path.suffix.lower() in (".png", ".apng") else _read_vips(path)
    except (pyvips.Error, av.FFmpegError, OSError) as error:
        raise InputError(
            f"{path} is damaged or no animation that can be read; get a whole copy of it."
        ) from error


def _read_vips(path: Path) -> Animation:
    if path.suffix.lower() == ".gif" and not path.read_bytes().rstrip(b"\0").endswith(_GIF_TRAILER):
        raise InputError(
            f"{path} is cut off; get a whole copy of it."
        )  # libvips gives the frames that are left
    source = pyvips.Source.new_from_file(str(path))  # a name would be searched for options
    vips_image = pyvips.Image.new_from_source(source, "", n=-1, fail_on="error").colourspace("srgb")
    pixels = (vips_image if vips_image.hasalpha() else vips_image.addalpha()).cast("uchar").numpy()
    frames = pixels.reshape(vips_image.get_n_pages(), -1, vips_image.width, 4)
    fields = vips_image.get_fields()
    delays = vips_image.get("delay") if "delay" in fields else [100] * len(frames)
    return Animation(frames, list(delays), vips_image.get("loop") if "loop" in fields else 0)


def _read_png(path: Path) -> Animation:
    head = path.read_bytes()[: 2**16]
    control = head.partition(b"IDAT")[0].partition(b"acTL")[2]
    declared, loop = (int.from_bytes(control[start : start + 4], "big") for start in (0, 4))
    with av.open(str(path), format="apng") as video:
        decoded = list(video.decode(video=0))
    if not decoded or len(decoded) < declared:
        raise InputError(f"{path} is cut off: {len(decoded)} of {declared} frames can be read.")
    delays = [round((frame.duration or 0) * (frame.time_base or 0) / _MILLISECOND) for frame in decoded]
    return Animation(np.stack([frame.to_ndarray(format="rgba") for frame in decoded]), delays, loop)


def write_animation(animation: Animation, path: str | os.PathLike[str], *, quality: int = 95) -> None:
    """Write an animation in the format of the path's suffix; the file appears whole or not at all.

    GIF has 256 colors a frame, pixels that are clear or not, and delays in steps of 10 ms. WebP joins
    neighboring frames that are equal, and their delays.

    Args:
        animation: What to write.
        path: The file; one that exists is replaced.
        quality: Of WebP, 1 to 100; 100 is lossless.

    Raises:
        InputError: The suffix is none of :data:`ANIMATIONS`, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in ANIMATIONS:
        raise InputError(f"{path} cannot be written: animations end in {', '.join(ANIMATIONS)}.")
    try:
        with replacing(path, parents=True) as temporary:
            if path.suffix.lower() in (".png", ".apng"):
                _write_png(animation, temporary)
            elif path.suffix.lower() == ".gif":
                _as_vips(animation).gifsave(str(temporary), keep_duplicate_frames=True)
            else:
                _as_vips(animation).webpsave(str(temporary), Q=quality, lossless=quality == 100)
    except (pyvips.Error, av.FFmpegError, OSError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{path} cannot be written: {reason}.") from error


def _as_vips(animation: Animation) -> pyvips.Image:
    """All frames below each other, as libvips has it."""
    count, height, width, channels = animation.frames.shape
    pixels = animation.frames.reshape(count * height, width, channels)
    vips_image = pyvips.Image.new_from_array(pixels, interpretation="srgb").copy()
    vips_image.set_type(pyvips.GValue.gint_type, "page-height", height)
    vips_image.set_type(pyvips.GValue.array_int_type, "delay", animation.delays)
    vips_image.set_type(pyvips.GValue.gint_type, "loop", animation.loop)
    return vips_image


def _write_png(animation: Animation, path: Path) -> None:
    options = {"plays": str(animation.loop), "final_delay": f"{animation.delays[-1]}/1000"}
    with av.open(str(path), "w", format="apng", container_options=options) as video:
        stream = video.add_stream("apng", rate=25)
        stream.height, stream.width = animation.frames.shape[1:3]
        stream.pix_fmt = "rgba"
        stream.codec_context.time_base = _MILLISECOND
        moment = 0
        for pixels, delay in zip(animation.frames, animation.delays, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, "rgba")
            frame.pts, frame.time_base = moment, _MILLISECOND
            video.mux(stream.encode(frame))
            moment += delay
        video.mux(stream.encode(None))


def upscale_animation(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    upscale: Callable[[Tensor], Tensor],
    *,
    quality: int = 95,
    batch: int = 4,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Upscale an animation with its transparency, delays and loops.

    Args:
        source: A GIF, WebP or PNG file.
        target: The file to write, of any of these kinds.
        upscale: (N, 3, H, W) in [0, 1] to (N, 3, s·H, s·W).
        quality: Of WebP.
        batch: Frames that are upscaled at once.
        device: Where ``upscale`` wants its frames.
        progress: Called with how many frames are done, and of how many.

    Raises:
        InputError: The source cannot be read or the target cannot be written.
    """
    if Path(target).suffix.lower() not in ANIMATIONS:
        raise InputError(f"{target} cannot be written: animations end in {', '.join(ANIMATIONS)}.")
    animation = read_animation(source)
    large = []
    with torch.inference_mode():
        for first in range(0, len(animation.frames), batch):
            frames = torch.from_numpy(animation.frames[first : first + batch]).to(device)
            rgba = _upscale_rgba(frames.permute(0, 3, 1, 2) / 255, upscale)
            large.append(from_unit(rgba, torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
            if progress:
                progress(min(first + batch, len(animation.frames)), len(animation.frames))
    write_animation(replace(animation, frames=np.concatenate(large)), target, quality=quality)


def _upscale_rgba(rgba: Tensor, upscale: Callable[[Tensor], Tensor]) -> Tensor:
    """Upscale color (N, 4, H, W), and alpha as a grayscale image where there is any transparency."""
    color, alpha = rgba[:, :3], rgba[:, 3:]
    rgb = upscale(fill_transparent(color, alpha))
    if bool((alpha == 1).all()):
        return torch.cat((rgb, torch.ones_like(rgb[:, :1])), 1)
    opacity = upscale(alpha.expand(-1, 3, -1, -1)).mean(1, keepdim=True)
    return torch.cat((rgb, limit_to_neighbors(opacity, alpha)), 1)


class AnimationFile(Images):
    """The frames of an animation as those of a video, once and on white; see :class:`Source`.

    Raises:
        InputError: The file is missing, damaged, or no animation.
    """

    time_base = _MILLISECOND

    def __init__(self, path: Path) -> None:
        animation = read_animation(path)
        pixels, alpha = animation.frames[..., :3], animation.frames[..., 3:]
        if (alpha < 255).any():
            warnings.warn(f"{path} is partly transparent; the video shows it on white.", stacklevel=3)
            pixels = (255 - (255 - pixels) * (alpha / np.float32(255))).round().astype(np.uint8)
        self.path, self.identity = path, identity_of(path)
        self._frames = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        self._take_after(self._frames[0])
        self._times = [0, *itertools.accumulate(max(delay, 1) for delay in animation.delays)]
        self.count = len(self._frames)
        self.rate = Fraction(1000 * self.count, self._times[-1])

    def frames(self, skip: int = 0) -> Generator[Frame, None, None]:
        """Give all frames but the first ones."""
        for number in range(skip, self.count):
            start, end = self._times[number : number + 2]
            yield Frame(self._frames[number], start, end - start, number)
