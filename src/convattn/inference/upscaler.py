"""Image in, upscaled image out: color, transparency, depth, tiles, devices."""

import itertools
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import torch
from torch import Tensor, nn

from convattn.checkpoints.catalog import default_model
from convattn.checkpoints.loading import from_pretrained
from convattn.checkpoints.spandrel_model import SpandrelModel
from convattn.errors import InputError
from convattn.images.alpha import fill_transparent, limit_to_neighbors
from convattn.images.io import Image, read_image
from convattn.images.pixel_range import DEPTHS, from_unit, to_unit
from convattn.images.sizes import ScaleRequest, settled
from convattn.images.tiling import cut
from convattn.inference import streaming
from convattn.inference.devices import (
    choose_device,
    choose_precision,
    empty_cache,
    free_memory,
    is_out_of_memory,
)
from convattn.inference.tiles import shared_averages, with_averages
from convattn.models.features import SuperResolutionNetwork
from convattn.runtimes.exported import ExportedNetwork

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["Upscaler"]

AnyImage = TypeVar("AnyImage", Image, np.ndarray, Tensor, "PILImage")
Apply = Callable[[Tensor], Tensor]
Progress = Callable[[float], None]

_MOST_AVERAGED = 16  # tiles that the averages behind the dynamic kernels are taken over
_MAPS_ALIVE = 8  # peak memory of a network, in feature maps as large as its largest; 4 to 9 were measured
_SHARE_OF_MEMORY = 0.5
_MOST_MEMORY = 2**32  # bytes on a CPU, of which two thirds stay unused: strips are as quick and take less
_ALWAYS_WHOLE = 256  # pixels a side; for smaller images nobody needs to ask how much memory there is


class Upscaler:
    """Upscales images with a super-resolution network.

    Color or grayscale, transparency, and 8 or 16 bits stay what they are. An image that does not fit into
    memory
    goes through the network in strips, which changes nothing (see :mod:`convattn.inference.strips`), and
    through other networks than those of this package in tiles.

    Example:
        >>> upscale = Upscaler(scale=2)
        >>> upscale(np.zeros((30, 20, 3), np.uint8)).shape
        (60, 40, 3)
        >>> upscale = Upscaler(size=(None, 50))
        >>> upscale(np.zeros((30, 20, 3), np.uint8)).shape
        (75, 50, 3)

    Args:
        model: What :func:`convattn.checkpoints.loading.from_pretrained` takes: the name of bundled weights,
            a file or
            a Hub id. Or a network, (N, 3, H, W) in [0, 1] to (N, 3, s·H, s·W), which is moved to the device.
            By default esc-nano at its scales and esc-nano-lte for all others.
        scale: How many times larger images become, 1 to 30; or (height, width) of which each has its own.
            May be left out where the model settles it.
        size: In place of a scale, (height, width) that results keep within, one of which may be None.
        exact: Whether results have that very size, stretched to it.
        device: "auto" or a device of torch.
        precision: "fp32", "bf16", "fp16", or "auto", which is fp16 on CUDA and fp32 elsewhere. Where half
            precision overflows, the result is computed again in fp32.
        tile: Side in pixels of the squares that the network is shown, of which the outermost 32 or more serve
            as context. Quick, but not quite what the whole image would give: see
            :mod:`convattn.inference.tiles`. Networks of any scale are never shown tiles.

    Raises:
        InputError: There is no such model, device or precision, or the model cannot upscale by that scale.
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
        wish = ScaleRequest.wished(scale, size, exact)
        whole_scale = wish.whole_scale if wish else None
        model = default_model(wish) if model is None else model
        network = model if isinstance(model, nn.Module) else from_pretrained(model, whole_scale)
        self.scale: int | None = getattr(network, "scale", whole_scale)
        self.request = settled(self.scale, wish)
        if self.dtype not in getattr(network, "dtypes", [self.dtype]):
            if precision != "auto":
                warnings.warn(f"This model cannot compute in {precision}; fp32 is taken.", stacklevel=2)
            self.dtype = torch.float32
        self._memory_format = getattr(network, "memory_format", torch.channels_last)
        self.network = network.eval().to(self.device).to(memory_format=self._memory_format)  # type: ignore[call-overload]

    @overload
    def __call__(self, image: str | os.PathLike[str], *, progress: Progress | None = None) -> Image: ...

    @overload
    def __call__(self, image: AnyImage, *, progress: Progress | None = None) -> AnyImage: ...

    def __call__(self, image: Any, *, progress: Progress | None = None) -> Any:
        """Upscale an image.

        Args:
            image: One of these; channels are grayscale, grayscale and alpha, RGB, or RGB and alpha, and
                numbers are uint8, uint16, or floating-point in [0, 1]:

                - a path, which is read
                - a :class:`~convattn.images.io.Image`
                - a PIL image
                - an array (H, W) or (H, W, channels)
                - a tensor (channels, H, W) or (N, channels, H, W) on any device

            progress: Called now and then with the part that is done, up to 1.

        Returns:
            The same kind of image with the same kind of numbers; for a path, a Image.

        Raises:
            InputError: The image is none of these, or memory or disk do not suffice.
        """
        progress = progress or (lambda part: None)
        if isinstance(image, (str, os.PathLike)):
            image = read_image(image)
        if isinstance(image, Image):
            return replace(image, pixels=self._array(image.pixels, progress))
        if isinstance(image, Tensor):
            return self._tensor(image, progress)
        if isinstance(image, np.ndarray):
            return self._array(image, progress)
        if "PIL.Image" in sys.modules and isinstance(image, sys.modules["PIL.Image"].Image):
            return self._pil_image(image, progress)
        kind = type(image).__name__
        raise InputError(f"An image is a path, a PIL image, a NumPy array or a torch tensor, not {kind}.")

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of what an image of some height and width becomes.

        Raises:
            InputError: The model cannot make that of such an image.
        """
        size = self.request.of(height, width)
        if self.scale and size != (height * self.scale, width * self.scale):
            raise InputError(
                f"This model upscales by {self.scale} only and cannot make {size[1]}x{size[0]} pixels of "
                f"{width}x{height}; take one of any scale, such as esc-nano-lte."
            )
        return size

    def _pil_image(self, pil_image: "PILImage", progress: Progress) -> "PILImage":
        from PIL.Image import fromarray

        upscaled = fromarray(self._array(_pixels_of(pil_image), progress))
        untrue = {"transparency", "icc_profile"} if pil_image.mode in ("CMYK", "LAB") else {"transparency"}
        upscaled.info = {key: value for key, value in pil_image.info.items() if key not in untrue}
        return upscaled

    def _array(self, array: np.ndarray, progress: Progress) -> np.ndarray:
        if array.ndim == 2:
            return self._array(array[..., None], progress)[..., 0]
        if array.ndim != 3:
            raise InputError(f"The array of an image is (H, W) or (H, W, channels), not {array.shape}.")
        tensor = torch.from_numpy(np.require(array, requirements=["C", "W"])).movedim(-1, 0)
        return self._tensor(tensor, progress).movedim(0, -1).contiguous().numpy()

    def _tensor(self, tensor: Tensor, progress: Progress) -> Tensor:
        if tensor.ndim == 3:
            return self._tensor(tensor[None], progress)[0]
        if tensor.ndim != 4 or not 1 <= tensor.shape[1] <= 4 or 0 in tensor.shape:
            shape = tuple(tensor.shape)
            raise InputError(
                f"Images have 1 to 4 channels and at least one pixel; (N, channels, H, W) is {shape}."
            )
        if tensor.dtype not in DEPTHS and not tensor.is_floating_point():
            raise InputError(f"Pixels are uint8, uint16 or floating-point in [0, 1], not {tensor.dtype}.")
        return self._upscale(tensor.detach(), progress)

    def _upscale(self, image: Tensor, progress: Progress) -> Tensor:
        """Upscale (N, channels, H, W): whole if memory allows it, else in strips or in tiles."""
        if not self._can_strip:
            return self._upscale_channels(image, progress)
        if self._fits(image):
            try:
                return self._upscale_channels(image, progress)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            empty_cache(self.device)
        total = len(image)
        upscaled = [
            self._upscale_in_strips(one, lambda part: progress((number + part) / total))  # noqa: B023
            for number, one in enumerate(image)
        ]
        return torch.stack(upscaled) if total > 1 else upscaled[0][None]

    @property
    def _can_strip(self) -> bool:
        return isinstance(self.network, SuperResolutionNetwork) and (self.tile is None or self.scale is None)

    def _upscale_in_strips(self, image: Tensor, progress: Progress) -> Tensor:
        """Upscale (channels, H, W), with less and less memory until it suffices."""
        size = self.size_of(*image.shape[1:])
        precision = self.dtype
        for memory_divisor in (1, 4, 16, 64):
            try:
                return streaming.upscale(
                    self.network,
                    image,
                    size,
                    device=self.device,
                    precision=precision,
                    memory_divisor=memory_divisor,
                    progress=progress,
                )
            except OverflowError:
                precision = torch.float32
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            empty_cache(self.device)
        raise InputError(
            f"The memory of {self.device} does not suffice even for small parts of the image; "
            "free some, or take a smaller model or another device."
        )

    def _upscale_channels(self, image: Tensor, progress: Progress) -> Tensor:
        """The color, and apart from it alpha where it varies."""
        if image.shape[1] in (1, 3):
            return self._run(self._apply, image, progress)
        color, alpha = image[:, :-1], image[:, -1:]
        if bool((alpha == alpha[:, :, :1, :1]).all()):
            upscaled = self._run(self._apply, color, progress)
            return torch.cat((upscaled, alpha[:, :, :1, :1].expand(-1, -1, *upscaled.shape[2:])), 1)
        color = from_unit(fill_transparent(to_unit(color), to_unit(alpha)), color.dtype)
        upscaled = self._run(self._apply, color, lambda part: progress(part / 2))
        opacity = self._run(self._apply_to_alpha, alpha, lambda part: progress((1 + part) / 2))
        return torch.cat((upscaled, opacity), 1)

    def _run(self, apply: Apply, image: Tensor, progress: Progress) -> Tensor:
        """In tiles as large as memory should allow and, where it does not, in smaller and smaller ones."""
        if self.scale is None:
            return self._run_whole(apply, image, progress)
        side = min(self.tile or self._affordable_side(image), max(image.shape[2:]))
        smallest = self._step + 2 * self._context
        while True:
            try:
                return self._run_in_tiles(apply, image, side, self.scale, progress)
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

    def _run_whole(self, apply: Apply, image: Tensor, progress: Progress) -> Tensor:
        with torch.inference_mode():
            upscaled = from_unit(apply(to_unit(image, self.device)), image.dtype).to(image.device)
        progress(1)
        return upscaled

    def _run_in_tiles(self, apply: Apply, image: Tensor, side: int, scale: int, progress: Progress) -> Tensor:
        height, width = image.shape[2:]
        tiles = cut(height, width, side=side, context=self._context, step=self._step)
        shares = len(tiles) > 1 and isinstance(self.network, SuperResolutionNetwork)
        averaged = tiles[:: math.ceil(len(tiles) / _MOST_AVERAGED)] if shares else []
        parts = (done / (len(averaged) + len(tiles)) for done in itertools.count(1))
        upscaled = image.new_empty(*image.shape[:2], height * scale, width * scale)

        def rgb_parts() -> Iterator[Tensor]:
            for tile in averaged:
                rows, columns = tile.core
                yield self._rgb(to_unit(image[:, :, rows, columns], self.device))
                progress(next(parts))

        with torch.inference_mode():
            self._averages = shared_averages(self.network, rgb_parts()) if shares else None
            for tile in tiles:
                rows, columns = tile.seen
                unit = apply(to_unit(image[:, :, rows, columns], self.device))
                tile.put(from_unit(unit, image.dtype), upscaled, scale)
                progress(next(parts))
            self._averages = None
        return upscaled

    _averages: list[Tensor] | None = None

    def _rgb(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1).contiguous(memory_format=self._memory_format)

    def _apply(self, x: Tensor) -> Tensor:
        """Upscale (N, 1 or 3, h, w) in [0, 1]; grayscale as three equal channels, which are averaged."""
        rgb = self._rgb(x)
        half = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype, enabled=half):
            upscaled = self._forward(rgb)
        if half and not bool(upscaled.isfinite().all()):
            upscaled = self._forward(rgb)
        return upscaled.float().mean(1, keepdim=True) if x.shape[1] == 1 else upscaled.float()

    def _apply_to_alpha(self, alpha: Tensor) -> Tensor:
        return limit_to_neighbors(self._apply(alpha), alpha)

    def _forward(self, x: Tensor) -> Tensor:
        if self._averages:
            return with_averages(self.network, x, self._averages)
        return self.network(x) if self.scale else self.network(x, self.size_of(*x.shape[2:]))

    def _fits(self, image: Tensor) -> bool:
        return self._affordable_side(image) >= max(image.shape[2:])

    def _affordable_side(self, image: Tensor) -> int:
        height, width = image.shape[2:]
        if max(height, width) <= _ALWAYS_WHOLE:
            return _ALWAYS_WHOLE
        memory = free_memory(self.device) * _SHARE_OF_MEMORY
        if self._can_strip and self.device.type == "cpu":
            memory = min(memory, _MOST_MEMORY)
        result = 2 * 4 * 3 * math.prod(self.size_of(height, width)) / (height * width)
        pixels = int(memory / len(image) / (self._bytes_a_pixel + result))
        return max(height, width) if height * width <= pixels else math.isqrt(pixels)

    @cached_property
    def _bytes_a_pixel(self) -> float:
        """Estimated from the network's largest feature map, which an image of one window shows."""
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
        if isinstance(self.network, SpandrelModel):
            return self.network.window_size
        return max((m.window_size for m in self.network.modules() if hasattr(m, "window_size")), default=32)

    @property
    def _context(self) -> int:
        """At least two windows and 32 pixels."""
        return self._step * max(2, math.ceil(32 / self._step))


def _pixels_of(pil_image: "PILImage") -> np.ndarray:
    """The pixels of a PIL image as grayscale or RGB, with alpha where it has transparency of any kind."""
    if pil_image.mode.startswith("I;16"):
        return np.asarray(pil_image).astype(np.uint16)
    if pil_image.mode in ("I", "F"):
        raise InputError(
            f"PIL images of mode {pil_image.mode} have no known range; convert it to an array in [0, 1]."
        )
    color = "L" if pil_image.mode in ("1", "L", "LA", "La") else "RGB"
    return np.asarray(pil_image.convert(color + "A" * pil_image.has_transparency_data))
