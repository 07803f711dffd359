"""Forms that the same layers can be computed in."""

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
from convattn.runtimes.exported import openvino_core

__all__ = ["FORMS", "OURS", "Form"]


@dataclass(frozen=True)
class Form:
    """How layers are computed; the weights and the results are the same.

    Attributes:
        backend: Of the operators that have one of this name; the others choose for themselves.
        kernels: Whether the compiled CPU kernels may be used.
        compiled: Whether torch compiles the whole module.
        dtype: Of products, whatever the setting says.
        openvino: The precision in which OpenVINO computes it, if it does.
    """

    backend: str | None = None
    kernels: bool = True
    compiled: bool = False
    dtype: torch.dtype | None = None
    openvino: str | None = None

    @property
    def compiles(self) -> bool:
        """Whether torch's compiler is at work."""
        return self.compiled or self.backend == "flex"

    def is_available(self, device: str) -> bool:
        """Whether there is such a form on a device."""
        if self.openvino:
            return device == "cpu" and find_spec("openvino") is not None
        if self.backend == "cpu":
            return device == "cpu" and cpu.is_available()
        return self.backend != "triton" or (device.startswith("cuda") and "triton" in WINDOW_ATTENTION)

    def apply(self, module: nn.Module) -> None:
        """Bring a module into this form."""
        for layer in module.modules():
            if isinstance(layer, (ConvAttention, WindowAttention)):
                known = CONV_ATTENTION if isinstance(layer, ConvAttention) else WINDOW_ATTENTION
                layer.backend = self.backend if self.backend in known else None
        if self.compiled:
            module.compile(dynamic=False)

    def runner(self, module: nn.Module, x: Tensor) -> Callable[[], object]:
        """What calls a module in this form, on as many threads as torch takes."""
        if not self.openvino:
            return lambda: module(x)
        import openvino

        options = dict(INFERENCE_NUM_THREADS=torch.get_num_threads(), INFERENCE_PRECISION_HINT=self.openvino)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing, which fixes the size: it stays the same here
            converted = openvino.convert_model(module, example_input=x)
        model, array = openvino_core().compile_model(converted, "CPU", options), x.numpy()
        return lambda: model(array)

    def active(self) -> AbstractContextManager[None]:
        """What modules in this form are called in."""
        return nullcontext() if self.kernels else cpu.disabled()


OURS = Form()

FORMS = {
    "naive": Form("reference", kernels=False),
    "sdpa": Form("sdpa", kernels=False),
    "flex": Form("flex", kernels=False),
    "compile": Form(kernels=False, compiled=True),
    "cpu": Form("cpu"),
    "triton": Form("triton"),
    "bf16": Form(dtype=torch.bfloat16),
    "openvino": Form(kernels=False, openvino="f32"),
    "openvino-bf16": Form(kernels=False, openvino="bf16"),
}
"""Forms by name: torch's own operations, with attention by its definition, fused, or as compiled flex
attention (the default of the reference code); all of them compiled; the kernels of this package; and other
precisions and runtimes beside those."""
