"""Convolutions as tensors, where a module is nothing more than its weights."""

import torch
from torch import Tensor, nn

from convattn import ops

__all__ = ["is_plain", "pointwise"]


def is_plain(module: nn.Module) -> bool:
    """Whether a module is a convolution and nothing more: not wrapped, replaced or watched by a hook."""
    return type(module) is nn.Conv2d and not module._forward_hooks and not module._forward_pre_hooks


def pointwise(convolution: nn.Conv2d, *maps: Tensor) -> Tensor:
    """Apply a 1×1 convolution to the joined channels of one or two maps."""
    if is_plain(convolution) and convolution.bias is not None:
        x, *others = maps
        return ops.pointwise(x, convolution.weight, convolution.bias, other=others[0] if others else None)
    return convolution(torch.cat(maps, 1))
