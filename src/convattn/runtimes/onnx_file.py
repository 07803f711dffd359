"""ONNX files, computed by onnxruntime."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from convattn.runtimes.runtime import Runtime, require

__all__ = ["OnnxFile"]

_PROVIDERS = {"cuda": ["TensorrtExecutionProvider", "CUDAExecutionProvider"]}
_OF_THE_MEMORY = 0.8
_SECONDS, _SECONDS_PER_PIXEL = 60, 0.005  # far more than the largest network takes on one slow core


class OnnxFile(Runtime):
    """onnxruntime, with as many threads as torch uses."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._session = cache(self._open)
        session = self._session("cpu")
        (source,), (_,) = session.get_inputs(), session.get_outputs()
        self._input = source.name
        self.shape = [side if isinstance(side, int) else None for side in source.shape]
        self.dtype = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16}[source.type]
        self.metadata = session.get_modelmeta().custom_metadata_map

    def _open(self, device: str) -> Any:
        runtime = require("onnxruntime")
        _limit_memory(runtime)
        options = runtime.SessionOptions()
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # errors are raised as well
        available = runtime.get_available_providers()
        providers = [name for name in _PROVIDERS.get(device, []) if name in available]
        # Without the fallback, which prints its complaints before it tries the same again.
        return runtime.InferenceSession(
            self._path,
            options,
            providers=[*providers, "CPUExecutionProvider"],
            enable_fallback=bool(providers),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """As :class:`~convattn.runtimes.runtime.Runtime`: (N, 3, H, W) to (N, 3, scale · H, scale · W)."""
        seconds = _SECONDS + _SECONDS_PER_PIXEL * x[:, 0].numel()
        inputs = {self._input: x.cpu().contiguous().numpy()}
        options = require("onnxruntime").RunOptions()
        options.log_severity_level = 4  # errors are raised as well
        with _time_limit(options, seconds):
            (y,) = self._session(x.device.type).run(None, inputs, options)
        return torch.from_numpy(y)


@cache
def _limit_memory(runtime: Any) -> None:
    """Let a process's networks take at most the memory of the machine: a file may ask for any size."""
    place = runtime.OrtMemoryInfo(
        "Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT
    )
    limit = runtime.OrtArenaCfg({"max_mem": int(_OF_THE_MEMORY * psutil.virtual_memory().total)})
    runtime.create_and_register_allocator(place, limit)


@contextmanager
def _time_limit(options: Any, seconds: float) -> Iterator[None]:
    """Terminate the run with these options after some time: a file may contain an endless loop."""

    def terminate() -> None:
        options.terminate = True

    timer = threading.Timer(seconds, terminate)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if options.terminate:
            raise TimeoutError(f"it computes for more than {seconds:.0f} seconds") from error
        raise
    finally:
        timer.cancel()
