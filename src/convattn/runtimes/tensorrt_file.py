"""TensorRT engines."""

from pathlib import Path

import torch
from torch import Tensor

from convattn.runtimes.runtime import Runtime, require

__all__ = ["TensorRTFile"]


class TensorRTFile(Runtime):
    """TensorRT, always on the GPU."""

    def __init__(self, path: Path) -> None:
        tensorrt = require("tensorrt", "install it, or use the .onnx that the engine was built from")
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        self._context = engine.create_execution_context()
        self._input, self._output = (engine.get_tensor_name(index) for index in range(2))
        self.metadata = {}  # an engine cannot hold any
        self.shape = [None if side < 0 else side for side in engine.get_tensor_shape(self._input)]
        self.dtype = {"FLOAT": torch.float32, "HALF": torch.float16}[
            engine.get_tensor_dtype(self._input).name
        ]

    def __call__(self, x: Tensor) -> Tensor:
        """As :class:`~convattn.runtimes.runtime.Runtime`: (N, 3, H, W) to (N, 3, scale · H, scale · W)."""
        source = x.cuda().contiguous()
        if not self._context.set_input_shape(self._input, tuple(x.shape)):
            raise ValueError("the engine was built for smaller images")
        result = source.new_empty(tuple(self._context.get_tensor_shape(self._output)))
        self._context.set_tensor_address(self._input, source.data_ptr())
        self._context.set_tensor_address(self._output, result.data_ptr())
        self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        return result
