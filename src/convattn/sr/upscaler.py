"""Picture in, enlarged picture out: colour, transparency, depth, tiles, devices."""

import itertools
import math
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import torch
from torch import Tensor, nn

from convattn.errors import InputError

from . import streaming, strips
from .alpha import fill_transparent, limit_to_neighbours
from .depth import DEPTHS, from_unit, to_unit
from .devices import choose_device, choose_precision, empty_cache, free_memory, is_out_of_memory
from .exported import ExportedNetwork
from .foreign import ForeignNetwork
from .pictures import Picture, read_picture
from .sizes import Enlargement, settled
from .tiles import SharedAverages, cut
from .weights import default_model, from_pretrained

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Upscaler"]

AnyPicture = TypeVar("AnyPicture", Picture, np.ndarray, Tensor, "Image")
Apply = Callable[[Tensor], Tensor]
Progress = Callable[[float], None]

_MOST_AVERAGED = 16  # tiles that the averages behind the dynamic kernels are taken over
_MAPS_ALIVE = 8  # peak memory of a network, in feature maps as large as its largest; 4 to 9 were measured
_SHARE_OF_MEMORY = 0.5
_MOST_MEMORY = 2**32  # bytes on a CPU, of which two thirds stay unused: strips are as quick and take less
_ALWAYS_WHOLE = 256  # pixels a side; for smaller pictures nobody needs to ask how much memory there is


class Upscaler:
    """Enlarges pictures with a super-resolution network.

    Colour or grey, transparency, and 8 or 16 bits stay what they are. A picture that does not fit into memory
    goes through the network in strips, which changes nothing (see :mod:`convattn.sr.strips`), and through
    other networks than those of this package in tiles.

    Example:
        >>> upscale = Upscaler(scale=2)
        >>> upscale(np.zeros((30, 20, 3), np.uint8)).shape
        (60, 40, 3)
        >>> upscale = Upscaler(size=(None, 50))
        >>> upscale(np.zeros((30, 20, 3), np.uint8)).shape
        (75, 50, 3)

    Args:
        model: What :func:`convattn.sr.weights.from_pretrained` takes: the name of bundled weights, a file or
            a Hub id. Or a network, (N, 3, H, W) in [0, 1] to (N, 3, s·H, s·W), which is moved to the device.
            By default esc-nano at its scales and esc-nano-lte for all others.
        scale: How many times larger pictures become, 1 to 30; or (height, width) of which each has its own.
            May be left out where the model settles it.
        size: In place of a scale, (height, width) that results keep within, one of which may be None.
        exact: Whether results have that very size, stretched to it.
        device: "auto" or a device of torch.
        precision: "fp32", "bf16", "fp16", or "auto", which is fp16 on CUDA and fp32 elsewhere. Where half
            precision overflows, the result is computed again in fp32.
        tile: Side in pixels of the squares that the network is shown, of which the outermost 32 or more serve
            as context. Quick, but not quite what the whole picture would give: see :mod:`convattn.sr.tiles`.
            Networks of any scale are never shown tiles.

    Raises:
        InputError: There is no such model, device or precision, or the model cannot enlarge by that scale.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module | None = None,
        scale: float | tuple[float, float] | None = None,
        *,
        size: tuple[int | None, int | None] | None = None,
        exact: bool = False,
        device: str = "auto",
        precision: str = "auto",
        tile: int | None = None,
    ) -> None:
        if tile is not None and tile < 1:
            raise InputError(f"The side of a tile is at least one pixel, not {tile}.")
        self.tile = tile
        self.device = choose_device(device)
        self.dtype = choose_precision(precision, self.device)
        wish = Enlargement.wished(scale, size, exact)
        whole_scale = wish.whole_scale if wish else None
        model = default_model(wish) if model is None else model
        network = model if isinstance(model, nn.Module) else from_pretrained(model, whole_scale)
        self.scale: int | None = getattr(network, "scale", whole_scale)
        self.enlargement = settled(self.scale, wish)
        if self.dtype not in getattr(network, "dtypes", [self.dtype]):
            if precision != "auto":
                warnings.warn(f"This model cannot compute in {precision}; fp32 is taken.", stacklevel=2)
            self.dtype = torch.float32
        self._memory_format = getattr(network, "memory_format", torch.channels_last)
        self.network = network.eval().to(self.device).to(memory_format=self._memory_format)  # type: ignore[call-overload]

    @overload
    def __call__(self, picture: str | os.PathLike[str], *, progress: Progress | None = None) -> Picture: ...

    @overload
    def __call__(self, picture: AnyPicture, *, progress: Progress | None = None) -> AnyPicture: ...

    def __call__(self, picture: Any, *, progress: Progress | None = None) -> Any:
        """Enlarge a picture.

        Args:
            picture: One of these; bands are grey, grey and alpha, RGB, or RGB and alpha, and numbers are
                uint8, uint16, or floating-point in [0, 1]:

                - a path, which is read
                - a :class:`~convattn.sr.pictures.Picture`
                - a PIL image
                - an array (H, W) or (H, W, bands)
                - a tensor (bands, H, W) or (N, bands, H, W) on any device

            progress: Called now and then with the part that is done, up to 1.

        Returns:
            The same kind of picture with the same kind of numbers; for a path, a Picture.

        Raises:
            InputError: The picture is none of these, or memory or disk do not suffice.
        """
        progress = progress or (lambda part: None)
        if isinstance(picture, (str, os.PathLike)):
            picture = read_picture(picture)
        if isinstance(picture, Picture):
            return replace(picture, pixels=self._array(picture.pixels, progress))
        if isinstance(picture, Tensor):
            return self._tensor(picture, progress)
        if isinstance(picture, np.ndarray):
            return self._array(picture, progress)
        if "PIL.Image" in sys.modules and isinstance(picture, sys.modules["PIL.Image"].Image):
            return self._pil_image(picture, progress)
        kind = type(picture).__name__
        raise InputError(f"A picture is a path, a PIL image, a NumPy array or a torch tensor, not {kind}.")

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of what a picture of some height and width becomes.

        Raises:
            InputError: The model cannot make that of such a picture.
        """
        size = self.enlargement.of(height, width)
        if self.scale and size != (height * self.scale, width * self.scale):
            raise InputError(
                f"This model enlarges by {self.scale} only and cannot make {size[1]}x{size[0]} pixels of "
                f"{width}x{height}; take one of any scale, such as esc-nano-lte."
            )
        return size

    def _pil_image(self, image: "Image", progress: Progress) -> "Image":
        from PIL.Image import fromarray

        enlarged = fromarray(self._array(_pixels_of(image), progress))
        untrue = {"transparency", "icc_profile"} if image.mode in ("CMYK", "LAB") else {"transparency"}
        enlarged.info = {key: value for key, value in image.info.items() if key not in untrue}
        return enlarged

    def _array(self, array: np.ndarray, progress: Progress) -> np.ndarray:
        if array.ndim == 2:
            return self._array(array[..., None], progress)[..., 0]
        if array.ndim != 3:
            raise InputError(f"The array of a picture is (H, W) or (H, W, bands), not {array.shape}.")
        tensor = torch.from_numpy(np.require(array, requirements=["C", "W"])).movedim(-1, 0)
        return self._tensor(tensor, progress).movedim(0, -1).contiguous().numpy()

    def _tensor(self, tensor: Tensor, progress: Progress) -> Tensor:
        if tensor.ndim == 3:
            return self._tensor(tensor[None], progress)[0]
        if tensor.ndim != 4 or not 1 <= tensor.shape[1] <= 4 or 0 in tensor.shape:
            shape = tuple(tensor.shape)
            raise InputError(
                f"Pictures have 1 to 4 bands and at least one pixel; (N, bands, H, W) is {shape}."
            )
        if tensor.dtype not in DEPTHS and not tensor.is_floating_point():
            raise InputError(f"Pixels are uint8, uint16 or floating-point in [0, 1], not {tensor.dtype}.")
        return self._enlarge(tensor.detach(), progress)

    def _enlarge(self, picture: Tensor, progress: Progress) -> Tensor:
        """Enlarge (N, bands, H, W): whole if memory allows it, else in strips or, if it must be, in tiles."""
        if not self._can_strip:
            return self._enlarge_bands(picture, progress)
        if self._fits(picture):
            try:
                return self._enlarge_bands(picture, progress)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            empty_cache(self.device)
        total = len(picture)
        enlarged = [
            self._enlarge_in_strips(one, lambda part: progress((number + part) / total))  # noqa: B023
            for number, one in enumerate(picture)
        ]
        return torch.stack(enlarged) if total > 1 else enlarged[0][None]

    @property
    def _can_strip(self) -> bool:
        return strips.takes(self.network) and (self.tile is None or self.scale is None)

    def _enlarge_in_strips(self, picture: Tensor, progress: Progress) -> Tensor:
        """Enlarge (bands, H, W), with less and less memory until it suffices."""
        size = self.size_of(*picture.shape[1:])
        precision = self.dtype
        for thrift in (1, 4, 16, 64):
            try:
                return streaming.enlarge(
                    self.network,
                    picture,
                    size,
                    device=self.device,
                    precision=precision,
                    thrift=thrift,
                    progress=progress,
                )
            except OverflowError:
                precision = torch.float32
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            empty_cache(self.device)
        raise InputError(
            f"The memory of {self.device} does not suffice even for small parts of the picture; "
            "free some, or take a smaller model or another device."
        )

    def _enlarge_bands(self, picture: Tensor, progress: Progress) -> Tensor:
        """The colour, and apart from it alpha where it varies."""
        if picture.shape[1] in (1, 3):
            return self._run(self._apply, picture, progress)
        colour, alpha = picture[:, :-1], picture[:, -1:]
        if bool((alpha == alpha[:, :, :1, :1]).all()):
            enlarged = self._run(self._apply, colour, progress)
            return torch.cat((enlarged, alpha[:, :, :1, :1].expand(-1, -1, *enlarged.shape[2:])), 1)
        colour = from_unit(fill_transparent(to_unit(colour), to_unit(alpha)), colour.dtype)
        enlarged = self._run(self._apply, colour, lambda part: progress(part / 2))
        opacity = self._run(self._apply_to_alpha, alpha, lambda part: progress((1 + part) / 2))
        return torch.cat((enlarged, opacity), 1)

    def _run(self, apply: Apply, picture: Tensor, progress: Progress) -> Tensor:
        """In tiles as large as memory should allow and, where it does not, in smaller and smaller ones."""
        if self.scale is None:
            return self._run_whole(apply, picture, progress)
        side = min(self.tile or self._affordable_side(picture), max(picture.shape[2:]))
        smallest = self._step + 2 * self._context
        while True:
            try:
                return self._run_in_tiles(apply, picture, side, self.scale, progress)
            except (MemoryError, RuntimeError) as error:
                if self._can_strip or not is_out_of_memory(error):
                    raise
            if side <= smallest:
                raise InputError(
                    f"The memory of {self.device} does not suffice, not even in tiles of {smallest} pixels; "
                    "free some, or take a smaller model or another device."
                )
            side = max(side // 2, smallest)
            empty_cache(self.device)

    def _run_whole(self, apply: Apply, picture: Tensor, progress: Progress) -> Tensor:
        with torch.inference_mode():
            enlarged = from_unit(apply(to_unit(picture, self.device)), picture.dtype).to(picture.device)
        progress(1)
        return enlarged

    def _run_in_tiles(
        self, apply: Apply, picture: Tensor, side: int, scale: int, progress: Progress
    ) -> Tensor:
        height, width = picture.shape[2:]
        tiles = cut(height, width, side=side, context=self._context, step=self._step)
        averages = SharedAverages(self.network)
        averaged = tiles[:: math.ceil(len(tiles) / _MOST_AVERAGED)] if len(tiles) > 1 and averages else []
        parts = (done / (len(averaged) + len(tiles)) for done in itertools.count(1))
        enlarged = picture.new_empty(*picture.shape[:2], height * scale, width * scale)
        with torch.inference_mode(), averages.taken():
            for rows, columns in (tile.core for tile in averaged):
                apply(to_unit(picture[:, :, rows, columns], self.device))
                progress(next(parts))
        with torch.inference_mode(), averages.used():
            for tile in tiles:
                rows, columns = tile.seen
                unit = apply(to_unit(picture[:, :, rows, columns], self.device))
                tile.put(from_unit(unit, picture.dtype), enlarged, scale)
                progress(next(parts))
        return enlarged

    def _apply(self, x: Tensor) -> Tensor:
        """Enlarge (N, 1 or 3, h, w) in [0, 1]; grey is shown as three equal bands, which are averaged."""
        rgb = x.expand(-1, 3, -1, -1).contiguous(memory_format=self._memory_format)
        half = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype, enabled=half):
            enlarged = self._forward(rgb)
        if half and not bool(enlarged.isfinite().all()):
            enlarged = self._forward(rgb)
        return enlarged.float().mean(1, keepdim=True) if x.shape[1] == 1 else enlarged.float()

    def _apply_to_alpha(self, alpha: Tensor) -> Tensor:
        return limit_to_neighbours(self._apply(alpha), alpha)

    def _forward(self, x: Tensor) -> Tensor:
        return self.network(x) if self.scale else self.network(x, self.size_of(*x.shape[2:]))

    def _fits(self, picture: Tensor) -> bool:
        return self._affordable_side(picture) >= max(picture.shape[2:])

    def _affordable_side(self, picture: Tensor) -> int:
        height, width = picture.shape[2:]
        if max(height, width) <= _ALWAYS_WHOLE:
            return _ALWAYS_WHOLE
        memory = free_memory(self.device) * _SHARE_OF_MEMORY
        if self._can_strip and self.device.type == "cpu":
            memory = min(memory, _MOST_MEMORY)
        result = 2 * 4 * 3 * math.prod(self.size_of(height, width)) / (height * width)
        pixels = int(memory / len(picture) / (self._bytes_a_pixel + result))
        return max(height, width) if height * width <= pixels else math.isqrt(pixels)

    @cached_property
    def _bytes_a_pixel(self) -> float:
        """Estimated from the network's largest feature map, which a picture of one window shows."""
        if isinstance(self.network, ExportedNetwork):
            return self.network.bytes_a_pixel
        sizes: list[int] = []

        def look(module: nn.Module, args: object, output: object) -> None:
            if isinstance(output, Tensor):
                sizes.append(output.numel())

        handles = [module.register_forward_hook(look) for module in self.network.modules()]
        try:
            with torch.inference_mode():
                x = torch.zeros(1, 3, self._step, self._step, device=self.device)
                self.network(x) if self.scale else self.network(x, (self._step, self._step))
        finally:
            for handle in handles:
                handle.remove()
        return _MAPS_ALIVE * 4 * max(sizes) / self._step**2

    @cached_property
    def _step(self) -> int:
        """Tiles start at multiples of the attention window."""
        if isinstance(self.network, ForeignNetwork):
            return self.network.window_size
        return max((m.window_size for m in self.network.modules() if hasattr(m, "window_size")), default=32)

    @property
    def _context(self) -> int:
        """At least two windows and 32 pixels."""
        return self._step * max(2, math.ceil(32 / self._step))


def _pixels_of(image: "Image") -> np.ndarray:
    """The pixels of a PIL image as grey or RGB, with alpha where it has transparency of any kind."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        raise InputError(
            f"PIL images of mode {image.mode} have no known range; convert it to an array in [0, 1]."
        )
    colour = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    return np.asarray(image.convert(colour + "A" * image.has_transparency_data))
