"""When an operator computes with the weights of modules in place of calls to them.

The operators of :mod:`convattn.ops` fuse a convolution with the normalization before it and the addition
after it. They take tensors, so the modules that own these tensors are not called. Hooks, subclasses and
replaced modules must still have their effect: then the modules are called one by one.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_full_backward_hook,
    register_module_full_backward_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from convattn import ops
from convattn.ops.norm import Norm, normalize

__all__ = ["Conv2d", "LayerNorm2d", "Observable", "can_fuse", "convolve", "fusible", "norm_weights"]

ModuleType = TypeVar("ModuleType", bound=type[nn.Module])

_FUSIBLE: set[type[nn.Module]] = set()


def fusible(module_type: ModuleType) -> ModuleType:
    """Class decorator: let operators use the weights of modules of exactly this type."""
    _FUSIBLE.add(module_type)
    return module_type


class Observable(nn.Module):
    """A module that remembers whether a hook was ever registered on it."""

    is_hooked = False

    def register_forward_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        """As in :class:`torch.nn.Module`."""
        self.is_hooked = True
        return super().register_forward_hook(*args, **kwargs)

    def register_forward_pre_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        """As in :class:`torch.nn.Module`."""
        self.is_hooked = True
        return super().register_forward_pre_hook(*args, **kwargs)

    def register_full_backward_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        """As in :class:`torch.nn.Module`."""
        self.is_hooked = True
        return super().register_full_backward_hook(*args, **kwargs)

    def register_full_backward_pre_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        """As in :class:`torch.nn.Module`."""
        self.is_hooked = True
        return super().register_full_backward_pre_hook(*args, **kwargs)

    def register_backward_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        """As in :class:`torch.nn.Module`."""
        self.is_hooked = True
        return super().register_backward_hook(*args, **kwargs)


@fusible
class Conv2d(Observable, nn.Conv2d):
    """A convolution that may be fused."""

    @property
    def halo(self) -> int:
        """Pixels around a region on which the result depends."""
        return self.kernel_size[0] // 2


@fusible
class LayerNorm2d(Observable, nn.LayerNorm):
    """Normalization of every pixel over its channels, which may be fused.

    Args:
        dim: Channels.
        eps: Added to the variance.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape, in channels-last memory."""
        return normalize(x, self.weight, self.bias, self.eps)


def _hooks_of_all_modules(register: Callable[..., RemovableHandle]) -> Mapping[int, Any]:
    """The hooks that one of torch's functions registers for all modules, now and later."""
    handle = register(lambda *_: None)
    hooks = handle.hooks_dict_ref()
    handle.remove()
    return {} if hooks is None else hooks


_HOOKS = [
    _hooks_of_all_modules(register)
    for register in (
        register_module_forward_hook,
        register_module_forward_pre_hook,
        register_module_full_backward_hook,
        register_module_full_backward_pre_hook,
    )
]


def can_fuse(*modules: nn.Module | None) -> bool:
    """Return whether an operator may apply the weights of modules without calling them.

    It may not where one of them has a hook, was replaced or subclassed. None stands for no module.
    """
    return not any(_HOOKS) and all(module is None or _is_as_defined(module) for module in modules)


def _is_as_defined(module: nn.Module) -> bool:
    return type(module) in _FUSIBLE and not module.is_hooked and "forward" not in vars(module)


def norm_weights(norm: nn.Module | None) -> Norm | None:
    """The weight, bias and epsilon of a normalization for which :func:`can_fuse` is true."""
    return (norm.weight, norm.bias, norm.eps) if isinstance(norm, LayerNorm2d) else None


def convolve(
    convolution: nn.Module,
    x: Tensor,
    other: Tensor | None = None,
    *,
    norm: nn.Module | None = None,
    residual: Tensor | None = None,
    memory: Tensor | None = None,
) -> Tensor:
    """Apply a 1×1 or 3×3 convolution: ``convolution([norm(x), other]) + residual``.

    Args:
        convolution: A convolution with a bias, or what replaced it.
        x: (N, C, H, W).
        other: A second feature map (N, C', H, W), whose channels follow those of ``x``.
        norm: Normalizes ``x`` first.
        residual: Added to the result.
        memory: A map that is not needed afterwards; see :func:`convattn.ops.convolution`.
    """
    if can_fuse(convolution, norm):
        weights: tuple[Any, ...] = (convolution.weight, convolution.bias)
        norm_given = norm_weights(norm)
        return ops.convolution(x, *weights, other=other, residual=residual, norm=norm_given, memory=memory)
    x = x if norm is None else norm(x)
    out = convolution(x if other is None else torch.cat((x, other), 1))
    return out if residual is None else residual + out
