"""Window attention by Triton kernels, for CUDA devices."""

import os
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

__all__ = ["window_attention_or"]

_INSTALLED = find_spec("triton") is not None


def window_attention_or(
    fallback: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Window attention by the kernels where they apply, else by something else.

    They apply on a CUDA device, and elsewhere in Triton's interpreter (``TRITON_INTERPRET=1``); in float16,
    bfloat16 and float32; for heads of up to 64 channels; where Triton is installed.
    """

    def window_attention(q: Tensor, k: Tensor, v: Tensor, relative_position_bias: Tensor) -> Tensor:
        if not _is_supported(q, k, v, relative_position_bias):
            return fallback(q, k, v, relative_position_bias)
        from convattn.ops.triton import operators  # imports Triton

        return operators.window_attention(q, k, v, relative_position_bias)

    return window_attention


def _is_supported(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> bool:
    runs = q.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"
    known = q.dtype in (torch.float16, torch.bfloat16, torch.float32) and q.dtype == k.dtype == v.dtype
    fits = q.shape[1] <= 64 * len(table) and q.numel() > 0 and table.is_floating_point()
    return runs and known and fits and _INSTALLED
