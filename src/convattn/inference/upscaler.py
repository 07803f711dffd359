"""Image in, upscaled image out."""

import os
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import torch
from torch import Tensor, nn

from convattn.checkpoints import catalog
from convattn.errors import InputError
from convattn.images.io import Image
from convattn.images.pixel_range import from_unit, to_unit
from convattn.images.resize import resize_bicubic
from convattn.images.sizes import ScaleRequest, resolve
from convattn.inference import streaming
from convattn.inference.devices import choose_device, choose_precision, empty_cache, is_out_of_memory
from convattn.inference.image_kinds import unpack
from convattn.inference.interpolation import interpolate
from convattn.inference.memory_budget import MemoryBudget
from convattn.inference.model import as_model
from convattn.inference.self_ensemble import upscale_symmetrically
from convattn.inference.tiles import TiledModel
from convattn.progress import Progress, ignore, share
from convattn.runtimes.pretrained import from_pretrained

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["FAITHFUL", "Upscaler"]

AnyImage = TypeVar("AnyImage", Image, np.ndarray, Tensor, "PILImage")
Size = tuple[int, int]

_SMALLEST_BUDGET = 64  # times less memory than usual
FAITHFUL = "-mse"
"""Ends the name of the weights that were trained without an adversarial loss."""


class Upscaler:
    """Upscales images with a super-resolution network.

    Color or grayscale, transparency, and 8 or 16 bits are preserved. An image that does not fit into memory
    is computed in strips, which gives the same result (see :mod:`convattn.inference.strips`), or in tiles by
    networks other than those of this package. An upscaler may be used by several threads, and pickled.

    Example:
        >>> upscale = Upscaler(scale=2)
        >>> upscale(np.zeros((30, 20, 3), np.uint8)).shape
        (60, 40, 3)
        >>> upscale = Upscaler(size=(None, 50))
        >>> upscale(np.zeros((30, 20, 3), np.uint8)).shape
        (75, 50, 3)

    Args:
        model: A name, file or Hub id, see :func:`convattn.runtimes.pretrained.from_pretrained`. Or a network,
            (N, 3, H, W) in [0, 1] to (N, 3, s·H, s·W), which is moved to the device and set to evaluation. By
            default esc-nano at its scales and esc-nano-lte for all others.
        scale: How many times larger images become, 1 to 30, or a pair (vertical, horizontal). By default the
            scale of the model, or 2 where it has several. A model of a larger scale is used and its result
            resized.
        size: In place of a scale, (height, width) that results fit into; one of them may be None.
        exact: Whether results have exactly this size, stretched to it.
        device: "auto" or a device of torch.
        precision: "fp32", "bf16", "fp16", or "auto", which is fp16 on CUDA and fp32 elsewhere. Where half
            precision overflows, the result is computed in fp32.
        tile: Side in pixels of the tiles that the network receives, of which the outermost 32 or more are
            context. Quick, but not exactly the result of the whole image: see
            :mod:`convattn.inference.tiles`. Networks of arbitrary scale do not use tiles.
        self_ensemble: Whether to average over the eight flips and rotations: a little better, 8 times slower.
        fidelity: 0 (sharpest) to 1 (most faithful), for a named model that has weights of both kinds.

    Raises:
        InputError: There is no such model, device or precision, or the model cannot upscale by that scale.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module | None = None,
        scale: float | str | tuple[float, float] | None = None,
        *,
        size: tuple[int | None, int | None] | None = None,
        exact: bool = False,
        device: str = "auto",
        precision: str = "auto",
        tile: int | None = None,
        self_ensemble: bool = False,
        fidelity: float | None = None,
    ) -> None:
        if tile is not None and tile < 1:
            raise InputError(f"The side of a tile is at least one pixel, not {tile}.")
        self.tile = tile
        self.self_ensemble = self_ensemble
        self.device = choose_device(device)
        self.dtype = choose_precision(precision, self.device)
        request = ScaleRequest.parse(scale, size, exact)
        self.network = as_model(_load(model, request, fidelity), self.device)
        self.scale = self.network.scale
        self.request = resolve(self.scale, request, resizes=True)
        if self.dtype not in self.network.dtypes:
            if precision != "auto":
                warnings.warn(f"This model cannot compute in {precision}; fp32 is used.", stacklevel=2)
            self.dtype = torch.float32

    @overload
    def __call__(self, image: str | os.PathLike[str], *, progress: Progress = ignore) -> Image: ...

    @overload
    def __call__(self, image: AnyImage, *, progress: Progress = ignore) -> AnyImage: ...

    @overload
    def __call__(self, image: Sequence[Any], *, progress: Progress = ignore) -> list[Any]: ...

    def __call__(self, image: Any, *, progress: Progress = ignore) -> Any:
        """Upscale an image.

        Args:
            image: One of these, or a list of them; channels are grayscale, grayscale and alpha, RGB, or RGB
                and alpha, and pixel values are uint8, uint16, or floating-point in [0, 1]:

                - a path, which is read
                - an :class:`~convattn.images.io.Image`
                - a PIL image
                - an array (H, W) or (H, W, channels)
                - a tensor (channels, H, W) or (N, channels, H, W) on any device

            progress: Called now and then with the fraction that is done, up to 1.

        Returns:
            The same kind of image with the same dtype; an :class:`~convattn.images.io.Image` for a path, and
            a list for a list.

        Raises:
            InputError: The image is none of these, or memory or disk do not suffice.
        """
        if isinstance(image, (list, tuple)):
            return [self(one, progress=share(progress, i, len(image))) for i, one in enumerate(image)]
        pixels, pack = unpack(image)
        return pack(self._upscale(pixels, progress))

    def size_of(self, height: int, width: int) -> Size:
        """Return height and width of the result for an image of some height and width.

        Raises:
            InputError: The model cannot upscale such an image to the requested size.
        """
        size = self.request.of(height, width)
        if self.scale and (size[0] > height * self.scale or size[1] > width * self.scale):
            raise InputError(
                f"This model upscales by {self.scale} and cannot make {size[1]}x{size[0]} pixels of "
                f"{width}x{height}; use a model of arbitrary scale, such as esc-nano-lte."
            )
        return size

    def _upscale(self, image: Tensor, progress: Progress) -> Tensor:
        """Upscale (N, channels, H, W), and resize the result where the model has a larger scale."""
        height, width = image.shape[2:]
        size = self.size_of(height, width)
        native = (height * self.scale, width * self.scale) if self.scale else size
        if self.self_ensemble:
            upscaled = upscale_symmetrically(self._compute, image, native, progress)
        else:
            upscaled = self._compute(image, native, progress)
        return upscaled if size == native else _resize(upscaled, size)

    def _compute(self, image: Tensor, size: Size, progress: Progress) -> Tensor:
        """Upscale to the size that the model makes: at once if memory suffices, else in strips or tiles."""
        if self.network.by_layers is None or (self.tile and self.scale):
            return self._in_tiles(image, size, progress)
        if self._largest_side(image, size) >= max(image.shape[2:]):
            try:
                return self._tiled.upscale(image, size, max(image.shape[2:]), progress)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            empty_cache(self.device)
        count = len(image)
        return torch.stack(
            [self._in_strips(one, size, share(progress, i, count)) for i, one in enumerate(image)]
        )

    @property
    def _tiled(self) -> TiledModel:
        return TiledModel(self.network, self.device, self.dtype)

    def _largest_side(self, image: Tensor, size: Size) -> int:
        return MemoryBudget(self.device).largest_side(image, size, self.network)

    def _in_strips(self, image: Tensor, size: Size, progress: Progress) -> Tensor:
        """Upscale (channels, H, W), with less and less memory until it suffices."""
        budget, precision = MemoryBudget(self.device), self.dtype
        network = self.network.by_layers
        assert network is not None
        while budget.divisor <= _SMALLEST_BUDGET:
            try:
                return streaming.upscale(
                    network, image, size, budget=budget, precision=precision, progress=progress
                )
            except OverflowError:
                precision = torch.float32
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                budget = budget.smaller()
            empty_cache(self.device)
        raise InputError(
            f"The memory of {self.device} does not suffice even for small parts of the image; "
            "free some, or use a smaller model or another device."
        )

    def _in_tiles(self, image: Tensor, size: Size, progress: Progress) -> Tensor:
        """Upscale in tiles as large as memory should allow and, where it does not, in smaller ones."""
        side = min(self.tile or self._largest_side(image, size), max(image.shape[2:]))
        smallest = self._tiled.smallest_side
        while True:
            try:
                return self._tiled.upscale(image, size, side, progress)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            if side <= smallest or self.scale is None:
                raise InputError(
                    f"The memory of {self.device} does not suffice, not even in tiles of {smallest} pixels; "
                    "free some, or use a smaller model or another device."
                )
            side = max(side // 2, smallest)
            empty_cache(self.device)


def _load(
    model: str | os.PathLike[str] | nn.Module | None, request: ScaleRequest | None, fidelity: float | None
) -> nn.Module:
    """The network that is meant, at the scale that a request needs."""
    if isinstance(model, nn.Module):
        if fidelity is not None:
            raise InputError("Fidelity chooses between the weights of a named model, not of a network.")
        return model
    name = os.fspath(catalog.default_model(request) if model is None else model)
    load = partial(from_pretrained, scale=_scale_to_load(name, request))
    if fidelity is None:
        return load(name)
    if catalog.find(name + FAITHFUL) is None:
        raise InputError(
            f"{name} has no weights for fidelity; the models with both kinds are {_both_kinds()}."
        )
    return interpolate(load(name), load(name + FAITHFUL), fidelity)


def _both_kinds() -> str:
    names = catalog.models()
    return ", ".join(name for name in names if name + FAITHFUL in names) or "none"


def _scale_to_load(name: str, request: ScaleRequest | None) -> int | None:
    """Of the scales of a model, the smallest that suffices, or the largest; 2 where none is requested."""
    scales = sorted(catalog.scales(name))
    if not scales:
        return None if request is None or Path(name).expanduser().is_file() else request.whole_scale
    if request is None:
        return 2 if 2 in scales else scales[0]
    factor = max(request.scale) if request.scale else float("inf")
    return next((scale for scale in scales if scale >= factor), scales[-1])


def _resize(image: Tensor, size: Size) -> Tensor:
    """Bicubic and antialiased, rounded once."""
    return from_unit(resize_bicubic(to_unit(image), size=size), image.dtype)
