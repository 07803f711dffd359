"""Whether the running call is being turned into a graph for another runtime."""

import sys

import torch

__all__ = ["is_exporting"]


def is_exporting() -> bool:
    """True inside ``torch.onnx.export``, ``torch.export`` and ``torch.jit.trace``."""
    if torch.compiler.is_compiling():
        exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # new in torch 2.7
        return bool(exporting())
    onnx = sys.modules.get("torch.onnx")  # whose import takes a tenth of the start
    return bool(torch.jit.is_tracing() or (onnx and onnx.is_in_onnx_export()))
