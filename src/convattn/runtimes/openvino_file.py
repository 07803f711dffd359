"""OpenVINO files."""

from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from torch import Tensor

from convattn.runtimes.runtime import METADATA, Runtime, require

__all__ = ["OpenVINOFile", "openvino_core"]


@cache
def openvino_core() -> Any:
    """Return the object through which OpenVINO reads and compiles networks.

    There is one for the whole process. Each core installs a stack for signal handlers and restores the one
    before when it is freed. Of two cores freed in the order of their creation, the second restores the freed
    stack of the first, and the next signal, such as Ctrl-C, crashes the process.

    Raises:
        InputError: OpenVINO is not installed.
    """
    return require("openvino").Core()


class OpenVINOFile(Runtime):
    """OpenVINO on the CPU, in float32 even where its default is bfloat16."""

    def __init__(self, path: Path) -> None:
        _require_openvino_ir(path)
        self._model = openvino_core().read_model(path)
        (source,), (_,) = self._model.inputs, self._model.outputs
        self.shape = [side.get_length() if side.is_static else None for side in source.partial_shape]
        self.dtype = {"f32": torch.float32, "f16": torch.float16}[source.element_type.to_string()]
        about = [METADATA]
        self.metadata = self._model.get_rt_info(about).value if self._model.has_rt_info(about) else {}
        self._compiled = cache(self._compile)

    def _compile(self) -> Any:
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        return openvino_core().compile_model(self._model, "CPU", settings)

    def __call__(self, x: Tensor) -> Tensor:
        """As :class:`~convattn.runtimes.runtime.Runtime`: (N, 3, H, W) to (N, 3, scale · H, scale · W)."""
        (y,) = self._compiled()(x.cpu().contiguous().numpy()).values()
        return torch.from_numpy(y)


def _require_openvino_ir(path: Path) -> None:
    """Check the root element; OpenVINO passes other files to TensorFlow's reader, which prints errors."""
    with path.open("rb") as file:
        _, root = next(ElementTree.iterparse(file, events=["start"]))
    if root.tag != "net" or not root.get("version", "").isdecimal():
        raise ValueError("it is no OpenVINO model")
