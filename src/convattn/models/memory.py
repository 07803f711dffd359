"""How much memory a network takes while it computes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["bytes_per_pixel", "measure_bytes_per_pixel"]

_MAPS_ALIVE = 8  # peak memory of a network, in feature maps as large as its largest; 4 to 9 were measured


def bytes_per_pixel(numbers: float) -> float:
    """Return the memory that a network takes per input pixel, from the numbers in its largest feature map."""
    return _MAPS_ALIVE * 4 * numbers


def measure_bytes_per_pixel(network: nn.Module, x: Tensor, *size: tuple[int, int]) -> float:
    """Estimate the memory that a network takes for a pixel of its input from its largest feature map.

    Args:
        network: The network.
        x: A small image (1, 3, H, W).
        *size: Height and width of the result, where the network takes them.
    """
    numbers: list[int] = [0]

    def look(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            numbers.append(output.numel())

    with torch.inference_mode(), _hooked(network, look):
        network(x, *size)
    return bytes_per_pixel(max(numbers) / x[0, 0].numel())


@contextmanager
def _hooked(network: nn.Module, hook: Callable[..., None]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in network.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
