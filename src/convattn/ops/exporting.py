"""Whether the running call is being turned into a graph for another runtime."""

import torch

__all__ = ["is_exporting"]


def is_exporting() -> bool:
    """True inside ``torch.onnx.export``, ``torch.export`` and ``torch.jit.trace``."""
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # new in torch 2.7
    return bool(torch.jit.is_tracing() or torch.onnx.is_in_onnx_export() or exporting())
