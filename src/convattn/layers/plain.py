"""Layers as tensors, where a module is nothing more than its weights."""

import torch
from torch import Tensor, nn

from convattn import ops
from convattn.layers.norm import LayerNorm2d
from convattn.ops.norm import Norm

__all__ = ["convolve", "is_plain", "is_watched", "norm_first"]


def is_plain(module: nn.Module) -> bool:
    """Whether a module is a layer and nothing more: not wrapped, replaced or watched by a hook."""
    return type(module) in (nn.Conv2d, LayerNorm2d) and not is_watched(module)


def is_watched(module: nn.Module) -> bool:
    """Whether a module has hooks."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def norm_first(norm: nn.Module | None, x: Tensor) -> tuple[Norm | None, Tensor]:
    """A normalization as tensors and the map it is still to be applied to, or none and the normalized map."""
    if isinstance(norm, LayerNorm2d) and is_plain(norm):
        return (norm.weight, norm.bias, norm.eps), x
    return None, x if norm is None else norm(x)


def convolve(
    convolution: nn.Conv2d,
    x: Tensor,
    other: Tensor | None = None,
    *,
    norm: nn.Module | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Apply a 1×1 or 3×3 convolution to a map, normalized first if wanted, or to two joined ones."""
    if is_plain(convolution) and convolution.bias is not None:
        given, x = norm_first(norm, x)
        weights = (convolution.weight, convolution.bias)
        return ops.convolution(x, *weights, other=other, residual=residual, norm=given)
    x = x if norm is None else norm(x)
    out = convolution(x if other is None else torch.cat((x, other), 1))
    return out if residual is None else residual + out
