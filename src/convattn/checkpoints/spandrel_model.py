"""Networks of other architectures (SwinIR, Real-ESRGAN, SPAN, …), loaded by spandrel."""

import math
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convattn.checkpoints.key_names import StateDict
from convattn.checkpoints.state_dict import unwrapped_candidates
from convattn.errors import InputError, unfit_torchvision
from convattn.models.memory import measure_bytes_per_pixel
from convattn.ops.exporting import is_exporting

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor, ModelDescriptor

__all__ = ["SpandrelModel", "spandrel_network"]

_LEAST_STEP = 32  # pixels


class SpandrelModel(nn.Module):
    """A network that spandrel built, called like one of ours.

    Args:
        descriptor: spandrel's description of the weights.

    Attributes:
        scale: Upscaling factor; 1 for networks that restore.
        dtypes: Precisions that it supports.
        window_size: Tiles whose origin is a multiple of it have the same windows as the whole image.
        memory_format: Of its weights; five-dimensional ones, which some architectures have, support no other.
        channels: Channels of its images.
        by_layers: None: it can only be called.
    """

    channels = 3
    memory_format = torch.contiguous_format
    by_layers = None

    def __init__(self, descriptor: "ImageModelDescriptor[nn.Module]") -> None:
        super().__init__()
        self.network = descriptor.model
        self.scale = descriptor.scale
        half, bfloat16 = descriptor.supports_half, descriptor.supports_bfloat16
        self.dtypes = [torch.float32] + half * [torch.float16] + bfloat16 * [torch.bfloat16]
        self.window_size = _step(descriptor)
        self._descriptor = descriptor

    @cached_property
    def bytes_per_pixel(self) -> float:
        """Memory that a forward pass takes for a pixel of its input, estimated."""
        device = next(self.parameters()).device
        return measure_bytes_per_pixel(
            self, torch.zeros(1, 3, self.window_size, self.window_size, device=device)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], any size from 1×1, to (N, 3, scale · H, scale · W), clamped."""
        channels = self._descriptor.input_channels  # where it is 1, each color is an image of its own
        # spandrel pads and crops. It takes one image at a time, and a copy, as some networks overwrite it.
        images = x.reshape(-1, channels, *x.shape[2:])
        singly = (images,) if is_exporting() else images.split(1)  # an export would keep their number
        upscaled = torch.cat([self._descriptor(image.clone()) for image in singly])
        return upscaled.reshape(x.shape[0], -1, *upscaled.shape[2:])


def spandrel_network(state_dict: StateDict, name: str) -> SpandrelModel:
    """Build the network that weights belong to with spandrel.

    Args:
        state_dict: Its tensors, with or without the prefixes that trainers add.
        name: What error messages call it.

    Raises:
        InputError: spandrel is not installed, does not know the architecture, or knows it for a task other
            than upscaling or restoring images.
    """
    descriptor = _describe(state_dict, name)
    if descriptor.purpose not in ("SR", "Restoration"):
        raise InputError(
            f"{name} is a network for {descriptor.purpose} ({descriptor.architecture.name}); use one that "
            "upscales or restores whole images."
        )
    if (descriptor.input_channels, descriptor.output_channels) not in ((1, 1), (3, 3)):
        raise InputError(
            f"{name} turns {descriptor.input_channels} channels into {descriptor.output_channels}; use a "
            "network for RGB or grayscale images."
        )
    return SpandrelModel(descriptor).eval()  # type: ignore[arg-type]


def _describe(state_dict: StateDict, name: str) -> "ModelDescriptor":
    try:
        from spandrel import MAIN_REGISTRY, UnsupportedModelError
    except ImportError as error:
        raise InputError(
            f"{name} holds no ESC network; to load networks of other architectures, run: "
            "pip install 'convattn[spandrel]'."
        ) from error
    except RuntimeError as error:
        raise unfit_torchvision("spandrel", error) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # architectures warn of their own code
            for candidate in unwrapped_candidates(state_dict):
                with suppress(UnsupportedModelError):
                    return MAIN_REGISTRY.load(candidate)
    except Exception as error:  # tensors of unexpected shapes can raise anything
        raise InputError(
            f"{name} looks like a network that spandrel knows, but its tensors do not fit; get a whole copy."
        ) from error
    raise InputError(
        f"{name} holds no network that convattn or spandrel knows; use weights of ESC or of an architecture "
        "that spandrel supports."
    )


def _step(descriptor: "ImageModelDescriptor[nn.Module]") -> int:
    """Return a multiple of the sizes that the network divides images into, at least its smallest image."""
    needs = descriptor.size_requirements
    step = math.lcm(needs.multiple_of, *_window_sizes(descriptor.model))
    return step * math.ceil(max(needs.minimum, _LEAST_STEP) / step)


def _window_sizes(network: nn.Module) -> Iterator[int]:
    for module in network.modules():
        size = getattr(module, "window_size", 1)
        yield from [size] if isinstance(size, int) else (int(side) for side in size)
