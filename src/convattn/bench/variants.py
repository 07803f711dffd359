"""Variants of the same computation: backends, precisions and runtimes."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from convattn.layers import ConvAttention, WindowAttention
from convattn.ops import cpu
from convattn.ops.conv_attention import BACKENDS as CONV_ATTENTION
from convattn.ops.window_attention import BACKENDS as WINDOW_ATTENTION
from convattn.runtimes.openvino_file import openvino_core

__all__ = ["DEFAULT", "VARIANTS", "Variant"]


@dataclass(frozen=True)
class Variant:
    """One way to compute a module; weights and results are the same in all.

    Attributes:
        backend: For the operators that have a backend of this name; the others choose automatically.
        kernels: Whether the compiled CPU kernels may be used.
        compiled: Whether torch compiles the whole module.
        dtype: Precision, instead of that of the setting.
        openvino: The precision of OpenVINO, if it computes the module.
    """

    backend: str | None = None
    kernels: bool = True
    compiled: bool = False
    dtype: torch.dtype | None = None
    openvino: str | None = None

    @property
    def compiles(self) -> bool:
        """Whether torch compiles something."""
        return self.compiled or self.backend == "flex"

    def is_available(self, device: str) -> bool:
        """Whether a device supports the variant."""
        if self.openvino:
            return device == "cpu" and find_spec("openvino") is not None
        if self.backend == "cpu":
            return device == "cpu" and cpu.is_available()
        return self.backend != "triton" or (device.startswith("cuda") and "triton" in WINDOW_ATTENTION)

    def apply(self, module: nn.Module) -> None:
        """Make a module compute in this way."""
        for layer in module.modules():
            if isinstance(layer, (ConvAttention, WindowAttention)):
                known = CONV_ATTENTION if isinstance(layer, ConvAttention) else WINDOW_ATTENTION
                layer.backend = self.backend if self.backend in known else None
        if self.compiled:
            module.compile(dynamic=False)

    def runner(self, module: nn.Module, x: Tensor) -> Callable[[], object]:
        """Return a function that runs a module on x (N, C, H, W) in this way, on torch's threads."""
        if not self.openvino:
            return lambda: module(x)
        import openvino

        options = dict(INFERENCE_NUM_THREADS=torch.get_num_threads(), INFERENCE_PRECISION_HINT=self.openvino)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing fixes the size, which does not change here
            converted = openvino.convert_model(module, example_input=x)
        model, array = openvino_core().compile_model(converted, "CPU", options), x.numpy()
        return lambda: model(array)

    def active(self) -> AbstractContextManager[None]:
        """Return the context in which modules run."""
        return nullcontext() if self.kernels else cpu.disabled()


DEFAULT = Variant()
"""What convattn chooses by itself."""

VARIANTS = {
    "naive": Variant("reference", kernels=False),
    "sdpa": Variant("sdpa", kernels=False),
    "flex": Variant("flex", kernels=False),
    "compile": Variant(kernels=False, compiled=True),
    "cpu": Variant("cpu"),
    "triton": Variant("triton"),
    "bf16": Variant(dtype=torch.bfloat16),
    "torch": Variant(kernels=False),
    "torch-bf16": Variant(kernels=False, dtype=torch.bfloat16),
    "openvino": Variant(kernels=False, openvino="f32"),
    "openvino-bf16": Variant(kernels=False, openvino="bf16"),
}
"""Variants by name: torch's operations with attention by its definition, fused, or as compiled flex attention
(the default of the reference code); the whole module compiled; the kernels of this package; torch's fastest
operations; other precisions and runtimes."""
