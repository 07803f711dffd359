"""Animated GIF, WebP, PNG and AVIF: small videos with transparency, read and written as a whole."""

import itertools
import os
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyvips
import torch
from torch import Tensor

from convattn.errors import InputError
from convattn.files import remove_litter, replacing
from convattn.images.alpha import fill_transparent, limit_to_neighbors
from convattn.images.pixel_range import from_unit
from convattn.inference.animations import ANIMATIONS
from convattn.progress import Progress, Steps, ignore
from convattn.video.source import Frame, ImageSource, identity_of

__all__ = ["Animation", "AnimationFile", "read_animation", "upscale_animation", "write_animation"]

_GIF_TRAILER = b";"
_MILLISECOND = Fraction(1, 1000)
_DEFAULT_DELAY = 100  # milliseconds, where a file says nothing
_LOSSLESS = 100
_WEBP_FLAGS, _WEBP_ALPHA = 20, 0x10  # where the VP8X chunk has its flags


@dataclass(frozen=True)
class Animation:
    """Frames and their delays.

    Attributes:
        frames: (T, H, W, 4) in uint8, RGB and straight alpha.
        delays: How long each frame is shown, in milliseconds.
        loop: How often all frames are shown; 0 for ever, as AVIF always has it.
        profile: ICC profile of the colors; None for sRGB.
    """

    frames: np.ndarray
    delays: list[int]
    loop: int = 0
    profile: bytes | None = None


def read_animation(path: str | os.PathLike[str]) -> Animation:
    """Read all frames of a GIF, WebP, PNG or AVIF file.

    Raises:
        InputError: The file is missing, damaged, or of another kind.
    """
    path = Path(path)
    if path.suffix.lower() not in ANIMATIONS:
        raise InputError(f"{path} is no animation; those end in {', '.join(ANIMATIONS)}.")
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    try:
        return _read_gif(path) if path.suffix.lower() == ".gif" else _read_with_pillow(path)
    except InputError:
        raise
    except Exception as error:  # decoders raise whatever the parsing of a damaged file leads to
        raise InputError(
            f"{path} is damaged or no animation that can be read; get a complete copy of it."
        ) from error


def _read_gif(path: Path) -> Animation:
    if not path.read_bytes().rstrip(b"\0").endswith(_GIF_TRAILER):  # libvips gives the frames that are left
        raise InputError(f"{path} is cut off; get a complete copy of it.")
    source = pyvips.Source.new_from_file(str(path))  # libvips would take brackets in a name for options
    vips_image = pyvips.Image.new_from_source(source, "", n=-1, fail_on="error").colourspace("srgb")
    pixels = (vips_image if vips_image.hasalpha() else vips_image.addalpha()).cast("uchar").numpy()
    frames = pixels.reshape(vips_image.get_n_pages(), -1, vips_image.width, 4)
    fields = vips_image.get_fields()
    delays = vips_image.get("delay") if "delay" in fields else [_DEFAULT_DELAY] * len(frames)
    return Animation(frames, list(delays), vips_image.get("loop") if "loop" in fields else 0)


def _read_with_pillow(path: Path) -> Animation:
    with PIL.Image.open(path, formats=["PNG", "WEBP", "AVIF"]) as image:
        count = getattr(image, "n_frames", 1)
        frames, delays = [], []
        for number in range(count):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGBA")))
            delays.append(round(image.info.get("duration", _DEFAULT_DELAY)))
        return Animation(np.stack(frames), delays, image.info.get("loop", 0), image.info.get("icc_profile"))


def write_animation(animation: Animation, path: str | os.PathLike[str], *, quality: int = 95) -> None:
    """Write an animation in the format of the path's suffix; the file appears whole or not at all.

    GIF has 256 colors per frame, pixels that are transparent or not, delays in steps of 10 ms, and sRGB
    colors. The others join neighboring frames that are equal, and their delays.

    Args:
        animation: What to write.
        path: The file; one that exists is replaced.
        quality: Of WebP and AVIF, 1 to 100; 100 is lossless in WebP.

    Raises:
        InputError: The suffix is none of :data:`ANIMATIONS`, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in ANIMATIONS:
        raise InputError(f"{path} cannot be written: animations end in {', '.join(ANIMATIONS)}.")
    try:
        with replacing(path, parents=True) as temporary:
            if path.suffix.lower() == ".gif":
                _as_vips(animation).gifsave(str(temporary), keep_duplicate_frames=True)
            else:
                _write_with_pillow(animation, temporary, path.suffix.lower(), quality)
    except (pyvips.Error, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{path} cannot be written: {reason}.") from error


def _as_vips(animation: Animation) -> pyvips.Image:
    """Return all frames in one column, as libvips has them, in sRGB."""
    count, height, width, channels = animation.frames.shape
    pixels = animation.frames.reshape(count * height, width, channels)
    vips_image = pyvips.Image.new_from_array(pixels, interpretation="srgb").copy()
    if animation.profile:
        vips_image.set_type(pyvips.GValue.blob_type, "icc-profile-data", animation.profile)
        vips_image = vips_image.icc_transform("srgb", embedded=True).copy()
    vips_image.set_type(pyvips.GValue.gint_type, "page-height", height)
    vips_image.set_type(pyvips.GValue.array_int_type, "delay", animation.delays)
    vips_image.set_type(pyvips.GValue.gint_type, "loop", animation.loop)
    return vips_image


def _write_with_pillow(animation: Animation, path: Path, suffix: str, quality: int) -> None:
    opaque = bool((animation.frames[..., 3] == 255).all())
    first, *others = (PIL.Image.fromarray(frame[..., : 3 if opaque else 4]) for frame in animation.frames)
    by_suffix: dict[str, dict[str, Any]] = {
        ".webp": {"quality": quality, "lossless": quality == _LOSSLESS, "exact": True},
        ".avif": {"quality": quality, "subsampling": "4:4:4" if quality == _LOSSLESS else "4:2:0"},
        ".avifs": {"quality": quality},
    }
    first.save(
        path,
        {".webp": "WEBP", ".avif": "AVIF", ".avifs": "AVIF"}.get(suffix, "PNG"),
        save_all=True,
        append_images=others,
        duration=animation.delays,
        loop=animation.loop,
        icc_profile=animation.profile or b"",
        **by_suffix.get(suffix, {"blend": 0}),
    )
    if suffix == ".webp" and not opaque and others:
        _mark_as_transparent(path)


def _mark_as_transparent(path: Path) -> None:
    """Set the alpha flag of an animated WebP, which lacks it if frames leave out transparent edges."""
    with path.open("r+b") as file:
        file.seek(_WEBP_FLAGS)
        flags = file.read(1)[0] | _WEBP_ALPHA
        file.seek(_WEBP_FLAGS)
        file.write(bytes([flags]))


def upscale_animation(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    upscale: Callable[[Tensor], Tensor],
    *,
    quality: int = 95,
    batch_size: int = 4,
    device: torch.device | str = "cpu",
    progress: Progress = ignore,
) -> None:
    """Upscale an animation with its transparency, delays, loops and color profile.

    Args:
        source: A GIF, WebP, PNG or AVIF file.
        target: The file to write, of any of these kinds.
        upscale: (N, 3, H, W) in [0, 1] to (N, 3, s·H, s·W).
        quality: Of WebP and AVIF.
        batch_size: Frames that are upscaled at once.
        device: Where ``upscale`` expects its frames.
        progress: Called now and then with the fraction that is done, up to 1.

    Raises:
        InputError: The source cannot be read or the target cannot be written.
    """
    if Path(target).suffix.lower() not in ANIMATIONS:
        raise InputError(f"{target} cannot be written: animations end in {', '.join(ANIMATIONS)}.")
    remove_litter(Path(target).parent)
    animation = read_animation(source)
    large = []
    with torch.inference_mode():
        for first in range(0, len(animation.frames), batch_size):
            frames = torch.from_numpy(animation.frames[first : first + batch_size]).to(device)
            rgba = _upscale_rgba(frames.permute(0, 3, 1, 2) / 255, upscale)
            large.append(from_unit(rgba, torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
            progress(Steps(first + len(frames), len(animation.frames)))
    write_animation(replace(animation, frames=np.concatenate(large)), target, quality=quality)


def _upscale_rgba(rgba: Tensor, upscale: Callable[[Tensor], Tensor]) -> Tensor:
    """Upscale color (N, 4, H, W), and alpha as a grayscale image where there is any transparency."""
    color, alpha = rgba[:, :3], rgba[:, 3:]
    rgb = upscale(fill_transparent(color, alpha))
    if bool((alpha == 1).all()):
        return torch.cat((rgb, torch.ones_like(rgb[:, :1])), 1)
    opacity = upscale(alpha.expand(-1, 3, -1, -1)).mean(1, keepdim=True)
    return torch.cat((rgb, limit_to_neighbors(opacity, alpha)), 1)


class AnimationFile(ImageSource):
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
        self._describe(self._frames[0])
        self._pts = [0, *itertools.accumulate(max(delay, 1) for delay in animation.delays)]
        self.count = len(self._frames)
        self.rate = Fraction(1000 * self.count, self._pts[-1])

    def frames(self, skip: int = 0) -> Generator[Frame, None, None]:
        """Yield all frames but the first ``skip``."""
        for number in range(skip, self.count):
            start, end = self._pts[number : number + 2]
            yield Frame(self._frames[number], start, end - start, number)
