"""Whether tensors are numbers in CPU memory and nothing more, so that code outside torch may read them."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

__all__ = ["are_plain", "is_forward_mode", "is_transformed"]


def are_plain(tensors: Iterable[Tensor]) -> bool:
    """Whether tensors are dense, on a CPU, and computed with as they are.

    That leaves out subclasses (FakeTensor among them), sparse and lazily negated tensors, forward-mode duals,
    and whatever runs inside functorch's transforms or a dispatch mode. While torch compiles, its own
    representation of a tensor counts as the tensor.
    """
    if torch.compiler.is_compiling():
        return all(_is_dense(x) for x in tensors)
    special = is_transformed() or torch._C._len_torch_dispatch_stack() > 0
    return not special and all(_is_dense(x) and not _is_lazy(x) for x in tensors)


def is_forward_mode() -> bool:
    """Whether tangents are computed along, as in ``torch.func.jvp``."""
    return forward_ad._current_level >= 0


def is_transformed() -> bool:
    """Whether the running code is in one of functorch's transforms, or in forward mode."""
    return is_forward_mode() or torch._C._functorch.peek_interpreter_stack() is not None


def _is_dense(x: Tensor) -> bool:
    return type(x) in (Tensor, nn.Parameter) and x.device.type == "cpu" and x.layout == torch.strided


def _is_lazy(x: Tensor) -> bool:
    return x.is_neg() or x._is_zerotensor()
