"""What the upscaler needs to know of a network, whoever made it."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from convattn.errors import InputError
from convattn.models.features import SuperResolutionNetwork
from convattn.models.memory import measure_bytes_per_pixel

__all__ = ["Model", "as_model"]

_USUAL_WINDOW = 32  # pixels


class Model(Protocol):
    """A network that upscales RGB images, as networks of convattn, of spandrel and exported ones are.

    Attributes:
        scale: How many times larger the result is; None where the network takes the size of the result.
        channels: Channels of its images.
        window_size: Tiles that start at multiples of it, in pixels, are divided as the whole image is.
        dtypes: Precisions that it computes well in.
        memory_format: Memory layout of its input.
        bytes_per_pixel: Memory that it takes for a pixel of its input, estimated.
        by_layers: The network whose layers can be applied one by one, strip by strip; None where it can only
            be called.
    """

    scale: int | None
    channels: int
    window_size: int
    dtypes: Sequence[torch.dtype]
    memory_format: torch.memory_format
    bytes_per_pixel: float
    by_layers: SuperResolutionNetwork | None

    def __call__(self, x: Tensor, *size: tuple[int, int]) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 3, scale · H, scale · W), or to (N, 3, *size)."""
        ...


def as_model(network: nn.Module, device: torch.device) -> Model:
    """Prepare a network for inference: in evaluation mode, in float32, on a device, with what it needs.

    Args:
        network: A :class:`Model`, or any other network, (N, 3, H, W) to (N, 3, s · H, s · W) in [0, 1].
            Wrappers of training (DataParallel, DistributedDataParallel, AveragedModel) are left out.
        device: Where it shall compute; the network itself is moved.

    Raises:
        InputError: Its weights are not finite, or it does not upscale images.
    """
    if isinstance(network, (nn.DataParallel, DistributedDataParallel, AveragedModel)):
        network = network.module
    _check_weights(network)
    network = network.eval().float().to(device)
    model: Any = network if hasattr(network, "by_layers") else _AdaptedNetwork(network)
    return model.to(memory_format=model.memory_format)


def _check_weights(network: nn.Module) -> None:
    for name, parameter in network.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise InputError(
                f"The weights of this model are not finite in {name}; use a whole, trained copy."
            )


class _AdaptedNetwork(nn.Module):
    """A network that does not describe itself: what is missing is measured on a small image."""

    channels = 3
    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    memory_format = torch.channels_last
    by_layers = None

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        sizes = (getattr(module, "window_size", 0) for module in network.modules())
        windows = [size for size in sizes if isinstance(size, int) and size > 0]
        self.window_size = max(windows, default=_USUAL_WINDOW)
        own: Any = network
        self.scale: int | None = (
            own.scale if hasattr(network, "scale") else _measure_scale(network, self._small_image)
        )

    @property
    def _small_image(self) -> Tensor:
        weight = next(self.network.parameters(), torch.empty(0))
        return torch.zeros(1, 3, self.window_size, self.window_size, device=weight.device)

    @cached_property
    def bytes_per_pixel(self) -> float:
        """See :class:`Model`."""
        size = () if self.scale else ((self.window_size, self.window_size),)
        return measure_bytes_per_pixel(self.network, self._small_image, *size)

    def forward(self, x: Tensor, *size: tuple[int, int]) -> Tensor:
        """See :class:`Model`."""
        return self.network(x, *size)


def _measure_scale(network: nn.Module, image: Tensor) -> int:
    with torch.inference_mode():
        try:
            shape = tuple(network(image).shape)
        except Exception as error:  # a stranger's code raises anything
            raise InputError(
                f"The network cannot upscale a tensor {tuple(image.shape)}: {error}. It must take RGB images "
                "(N, 3, H, W) in [0, 1]."
            ) from error
    side = image.shape[-1]
    scale = shape[-1] // side if shape else 0
    if scale < 1 or shape != (1, 3, scale * side, scale * side):
        raise InputError(
            f"The network makes {shape} of {tuple(image.shape)}; it must upscale RGB images (N, 3, H, W) "
            "by a whole number."
        )
    return scale
