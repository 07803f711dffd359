"""How the layers of a network are applied: to a whole image, to tiles of it, or strip by strip.

A network states once which layer follows which. It applies every layer through an :class:`Execution`, which
by default calls the layer on the whole feature map. Other executions read feature
maps region by region (:mod:`convattn.inference.strips`) or share global averages among tiles
(:mod:`convattn.inference.tiles`).

What a layer needs of the surroundings of a region is stated by the layer itself:

- ``halo``: how many pixels around a region its result depends on.
- ``window_size``, where present: the layer divides the image into windows of this side in pixels.
- ``halo_of(*inputs)``, in place of ``halo``: the halo where it depends on the values in the region.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["WHOLE_IMAGE", "Execution", "Points", "WholeImage", "pixel_centers", "with_halo"]

Function = TypeVar("Function", bound=Callable[..., Any])


class Points(NamedTuple):
    """Where the pixels of an upscaled image lie in the image it is made from.

    Attributes:
        rows: Vertical positions of the pixel centers, (h,), in pixels of the image: its first pixel spans 0
            to 1.
        columns: Horizontal positions, (w,).
        cell: Height and width of an output pixel in pixels of the image, (1, 2).
    """

    rows: Tensor
    columns: Tensor
    cell: Tensor

    @classmethod
    def of(cls, source: tuple[int, int], size: tuple[int, int], device: torch.device) -> "Points":
        """All pixels of an upscaled image of height and width ``size``."""
        rows, columns = (pixel_centers(*sides, device) for sides in zip(source, size, strict=True))
        cell = torch.tensor([[pixels / output for pixels, output in zip(source, size, strict=True)]])
        return cls(rows, columns, cell.to(device))

    def within(self, source: tuple[slice, slice], target: tuple[slice, slice]) -> "Points":
        """The pixels in a region ``target`` of the upscaled image, relative to a region of the source."""
        (top, left), (rows, columns) = source, target
        return Points(self.rows[rows] - top.start, self.columns[columns] - left.start, self.cell)


class Execution(Protocol):
    """Applies the layers of a network. Feature maps are tensors or what stands for them.

    Attributes:
        overwrites: Whether a layer may overwrite a feature map that no other layer reads.
    """

    overwrites: bool

    def __call__(self, layer: Callable[..., Tensor], *inputs: Any, **options: Any) -> Any:
        """Apply a layer to feature maps; arguments that are no feature maps are passed as they are."""
        ...

    def enter(self, part: nn.Module, *inputs: Any) -> Any:
        """Evaluate a part of the network that applies layers itself."""
        ...

    def store(self, x: Any) -> Any:
        """Return a feature map that is read more than once."""
        ...

    def average(self, x: Any) -> Tensor | None:
        """Return the average of a feature map over the image, (N, C, 1, 1); None leaves it to the layer."""
        ...

    def sample(self, layer: Callable[..., Tensor], *inputs: Any, size: tuple[int, int]) -> Any:
        """Apply a layer that takes :class:`Points` as its last argument, for a result of some size."""
        ...


class WholeImage:
    """Calls every layer on whole feature maps (N, C, H, W)."""

    overwrites = True

    def __call__(self, layer: Callable[..., Tensor], *inputs: Any, **options: Any) -> Tensor:
        """Return what the layer makes of feature maps (N, C, H, W)."""
        return layer(*inputs, **options)

    def enter(self, part: nn.Module, *inputs: Any) -> Tensor:
        """Return what the part makes of feature maps (N, C, H, W)."""
        return part(*inputs)

    def store(self, x: Tensor) -> Tensor:
        """Return the feature map (N, C, H, W) itself."""
        return x

    def average(self, x: Tensor) -> Tensor | None:
        """None: the operator averages the feature map (N, C, H, W) that it is given."""
        return None

    def sample(self, layer: Callable[..., Tensor], *inputs: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the layer's result (N, 3, *size) at all pixels, given feature maps (N, C, H, W)."""
        _, _, height, width = inputs[0].shape
        return layer(*inputs, Points.of((height, width), size, inputs[0].device))


WHOLE_IMAGE = WholeImage()
"""The execution of a network that is simply called."""


def with_halo(halo: int) -> Callable[[Function], Function]:
    """State the halo of a function or method that is applied as a layer.

    Args:
        halo: Pixels around a region on which the result depends.
    """

    def state(function: Function) -> Function:
        function.halo = halo  # type: ignore[attr-defined]
        return function

    return state


def pixel_centers(source: int, output: int, device: torch.device | str = "cpu") -> Tensor:
    """Return where the pixel centers of an upscaled image lie in its source, along one side.

    Args:
        source: Pixels of the source image along this side.
        output: Pixels of the upscaled image.
        device: Device of the result.

    Returns:
        (output,) in pixels of the source, float64 where the device has it.
    """
    centers = (torch.arange(output, dtype=torch.float64) + 0.5) * (source / output)
    return centers.to(device, torch.float32 if torch.device(device).type == "mps" else torch.float64)
