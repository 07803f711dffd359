"""Networks of other architectures (SwinIR, Real-ESRGAN, SPAN, …), which spandrel knows."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convattn.checkpoints.key_names import StateDict
from convattn.errors import InputError
from convattn_yolo.startup import install

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor, ModelDescriptor

__all__ = ["SpandrelModel", "foreign_network"]

_LEAST_STEP = 32  # pixels


class SpandrelModel(nn.Module):
    """A network that spandrel built, called like one of ours.

    Args:
        descriptor: What spandrel made of the weights.

    Attributes:
        scale: How many times larger the result is; 1 for networks that restore.
        dtypes: What it computes well in.
        window_size: Tiles that start at multiples of it are divided as the whole image is.
        memory_format: Of its weights; some architectures have five-dimensional ones, which know no other.
    """

    memory_format = torch.contiguous_format

    def __init__(self, descriptor: "ImageModelDescriptor[nn.Module]") -> None:
        super().__init__()
        self.network = descriptor.model
        self.scale = descriptor.scale
        half, bfloat16 = descriptor.supports_half, descriptor.supports_bfloat16
        self.dtypes = [torch.float32] + half * [torch.float16] + bfloat16 * [torch.bfloat16]
        self.window_size = _step(descriptor)
        self._descriptor = descriptor

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], any size from 1×1, to (N, 3, scale · H, scale · W), clamped."""
        channels = self._descriptor.input_channels  # where it is 1, each color is an image of its own
        # spandrel pads and crops. It takes one image at a time, and a copy, as some networks overwrite it.
        images = x.unflatten(1, (-1, channels)).flatten(0, 1).split(1)
        upscaled = torch.cat([self._descriptor(image.clone()) for image in images])
        return upscaled.unflatten(0, (len(x), -1)).flatten(1, 2)


def foreign_network(state_dict: StateDict, name: str) -> SpandrelModel:
    """Build the network that weights belong to, whatever its architecture.

    Args:
        state_dict: Its tensors.
        name: What errors call it.

    Raises:
        InputError: spandrel is missing, does not know the architecture, or knows it for something else than
            upscaling or restoring images.
    """
    descriptor = _described(state_dict, name)
    if descriptor.purpose not in ("SR", "Restoration"):
        raise InputError(
            f"{name} is a network for {descriptor.purpose} ({descriptor.architecture.name}); give one that "
            "upscales or restores whole images."
        )
    if (descriptor.input_channels, descriptor.output_channels) not in ((1, 1), (3, 3)):
        raise InputError(
            f"{name} turns {descriptor.input_channels} channels into {descriptor.output_channels}; give a "
            "network for RGB or grayscale images."
        )
    return SpandrelModel(descriptor).eval()  # type: ignore[arg-type]


def _described(state_dict: StateDict, name: str) -> "ModelDescriptor":
    install()
    try:
        from spandrel import MAIN_REGISTRY, UnsupportedModelError
    except ImportError as error:
        raise InputError(
            f"{name} holds no ESC network; to load those of other architectures, run: "
            "pip install 'convattn[spandrel]'."
        ) from error
    try:
        return MAIN_REGISTRY.load(state_dict)
    except UnsupportedModelError as error:
        raise InputError(
            f"{name} holds no network that convattn or spandrel knows; give weights of ESC, or of an "
            "architecture that spandrel supports."
        ) from error
    except Exception as error:  # whatever tensors of unexpected shapes lead to
        raise InputError(
            f"{name} looks like a network that spandrel knows, but its tensors do not fit; get a whole copy."
        ) from error


def _step(descriptor: "ImageModelDescriptor[nn.Module]") -> int:
    """A multiple of all that the architecture divides images into, and at least its smallest image."""
    needs = descriptor.size_requirements
    step = math.lcm(needs.multiple_of, *_window_sizes(descriptor.model))
    return step * math.ceil(max(needs.minimum, _LEAST_STEP) / step)


def _window_sizes(network: nn.Module) -> Iterator[int]:
    for module in network.modules():
        size = getattr(module, "window_size", 1)
        yield from [size] if isinstance(size, int) else (int(side) for side in size)
