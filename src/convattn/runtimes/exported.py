"""Networks that another runtime computes: files for onnxruntime, OpenVINO, TensorRT, torch.export.

They are called like networks of torch. A file that convattn made says what it holds; of any other the scale
is found by upscaling a small image.

An exported network is closed: tiles cannot share the averages that dynamic kernels are made of (see
:mod:`convattn.inference.tiles`), so that cutting an image changes the result a little.
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from xml.etree import ElementTree
from zipfile import BadZipFile

import torch
from torch import Tensor, nn

from convattn.errors import InputError
from convattn.images.tiling import cut
from convattn.ops import reflect_pad

__all__ = ["METADATA", "SUFFIXES", "ExportedNetwork", "load_exported", "openvino_core", "require"]

METADATA = "convattn"
"""The section of a file, where its format has sections, that says what the network is."""

_PROVIDERS = {"cuda": ["TensorrtExecutionProvider", "CUDAExecutionProvider"]}
_SECONDS, _SECONDS_PER_PIXEL = 30, 0.01  # after which an ONNX file with an endless loop is stopped
_PROBE = 64  # pixels a side of the image by which the scale of an unknown network is found

Size = tuple[int, int]


class Runtime(Protocol):
    """A file opened by the program that computes it.

    Attributes:
        shape: Of the input, (N, 3, H, W); None where it is free.
        dtype: Of the input.
        metadata: What the file says of its network.
    """

    shape: Sequence[int | None]
    dtype: torch.dtype
    metadata: Mapping[str, str]

    def __call__(self, x: Tensor) -> Tensor:
        """Compute, on the device of the input where the runtime can."""
        ...


class ExportedNetwork(nn.Module):
    """A network read from a file, (N, 3, H, W) in [0, 1] to (N, 3, scale · H, scale · W).

    It takes images of any size: where the file allows none but one size, smaller images are continued by
    reflection and larger ones computed in overlapping tiles.

    Args:
        runtime: Computes it.
        name: What errors call it.

    Attributes:
        scale: How many times larger the result is.
        window_size: Of its attention in pixels, or a usual one.
        bytes_per_pixel: Of memory while it computes, estimated.

    Raises:
        InputError: It does not take images, or does not upscale them by a whole number.
    """

    channels = 3
    by_layers = None
    memory_format = torch.contiguous_format
    dtypes = (torch.float32,)  # autocast does not reach it; its precision was settled when it was exported

    def __init__(self, runtime: Runtime, name: str) -> None:
        super().__init__()
        self._runtime = runtime
        self._name = name
        batch, channels, height, width = runtime.shape if len(runtime.shape) == 4 else (None,) * 4
        if channels != 3 or batch not in (None, 1) or (height is None) != (width is None):
            raise InputError(
                f"{name} takes {_written(runtime.shape)}; give a network for (N, 3, height, width), "
                "with both sides free or both fixed."
            )
        self._one_by_one = batch == 1
        self._size = (height, width) if height and width else None
        about = runtime.metadata
        self.scale = int(about["scale"]) if "scale" in about else self._measure_scale()
        if self.scale < 1:
            raise InputError(f"{name} says that its scale is {self.scale}; export it again.")
        self.window_size = int(about.get("window", 32))
        self.bytes_per_pixel = int(about.get("bytes_per_pixel", 2**14))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 3, scale · H, scale · W)."""
        if self._one_by_one and len(x) > 1:
            return torch.cat([self(image) for image in x.split(1)])
        return self._in_size(x, self._size) if self._size else self._compute(x)

    def _in_size(self, x: Tensor, size: Size) -> Tensor:
        height, width = x.shape[2:]
        upscaled = x.new_empty(*x.shape[:2], height * self.scale, width * self.scale)
        for tile in cut(height, width, side=min(size), context=min(size) // 8):
            seen = x[:, :, tile.seen[0], tile.seen[1]]
            missing = [whole - part for whole, part in zip(size, seen.shape[2:], strict=True)]
            padded = reflect_pad(seen, bottom=missing[0], right=missing[1])
            tile.put(self._compute(padded), upscaled, self.scale)
        return upscaled

    def _compute(self, x: Tensor) -> Tensor:
        try:
            return self._runtime(x.to(self._runtime.dtype)).to(x)
        except Exception as error:  # each runtime has errors of its own
            if "alloc" in str(error).lower():
                raise MemoryError from error
            raise InputError(
                f"{self._name} cannot upscale {_written(x.shape)}, perhaps another size: {_reason(error)}."
            ) from error

    def _measure_scale(self) -> int:
        height, width = self._size or (_PROBE, _PROBE)
        shape = self._compute(torch.zeros(1, 3, height, width)).shape
        scale = shape[-1] // width
        if shape != (1, 3, scale * height, scale * width):
            raise InputError(
                f"{self._name} makes {_written(shape)} of {_written((1, 3, height, width))}; give a network "
                "that upscales images by a whole number."
            )
        return scale


def load_exported(path: str | os.PathLike[str]) -> ExportedNetwork:
    """Load a network from a file that was made for another runtime.

    Args:
        path: An .onnx, .xml (with its .bin beside it), .engine or .pt2 file, of convattn or another program.
            Give .pt2 files only of people you trust: torch may run code that is hidden in one.

    Raises:
        InputError: The file is damaged, its runtime is not installed, or it does not upscale images.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    if path.suffix == ".xml" and not path.with_suffix(".bin").is_file():
        raise InputError(f"The weights of {path} are missing; put {path.with_suffix('.bin').name} beside it.")
    try:
        return ExportedNetwork(_RUNTIMES[path.suffix](path), path.name).eval()
    except InputError:
        raise
    except Exception as error:  # damaged bytes make a reader raise anything
        raise InputError(
            f"{path} cannot be read as a network with one input and one output; export it again: "
            f"{_reason(error)}."
        ) from error


def require(name: str, remedy: str = 'run: pip install "convattn[export]"') -> ModuleType:
    """Import a package that not everybody needs.

    Raises:
        InputError: It is not installed; says the remedy.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"This needs {name}, which is not installed; {remedy}.") from error


@cache
def openvino_core() -> Any:
    """The one through which OpenVINO reads and compiles networks.

    There is one a process, and it stays. Each brings a stack on which signals are handled, and takes it away
    with itself; of two that go in the order they came, the second puts back the stack of the first, which is
    gone, and the next signal, such as Ctrl-C, crashes the process.

    Raises:
        InputError: OpenVINO is not installed.
    """
    return require("openvino").Core()


class _Onnx(Runtime):
    """onnxruntime, with as many threads as torch has."""

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
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # errors are raised, too
        available = runtime.get_available_providers()
        providers = [name for name in _PROVIDERS.get(device, []) if name in available]
        return runtime.InferenceSession(self._path, options, providers=[*providers, "CPUExecutionProvider"])

    def __call__(self, x: Tensor) -> Tensor:
        limit = _SECONDS + _SECONDS_PER_PIXEL * x[:, 0].numel()
        options, feed = require("onnxruntime").RunOptions(), {self._input: x.cpu().contiguous().numpy()}
        options.log_severity_level = 4
        timer = threading.Timer(limit, setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            (y,) = self._session(x.device.type).run(None, feed, options)
        except Exception as error:
            if not timer.is_alive():
                raise TimeoutError(f"it computes for more than {limit:.0f} seconds") from error
            raise
        finally:
            timer.cancel()
        return torch.from_numpy(y)


class _OpenVINO(Runtime):
    """OpenVINO on the processor, in float32 even where it would rather have bfloat16."""

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
        (y,) = self._compiled()(x.cpu().contiguous().numpy()).values()
        return torch.from_numpy(y)


def _require_openvino_ir(path: Path) -> None:
    """Check the root element; OpenVINO gives other files to TensorFlow's reader, which prints errors."""
    with path.open("rb") as file:
        _, root = next(ElementTree.iterparse(file, events=["start"]))
    if root.tag != "net" or not root.get("version", "").isdecimal():
        raise ValueError("it is no OpenVINO model")


class _TensorRT(Runtime):
    """TensorRT, always on the GPU."""

    def __init__(self, path: Path) -> None:
        tensorrt = require("tensorrt", "install it, or take the .onnx that the engine was made of")
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        self._context = engine.create_execution_context()
        self._input, self._output = (engine.get_tensor_name(index) for index in range(2))
        self.metadata = {}  # an engine has no place for them
        self.shape = [None if side < 0 else side for side in engine.get_tensor_shape(self._input)]
        self.dtype = {"FLOAT": torch.float32, "HALF": torch.float16}[
            engine.get_tensor_dtype(self._input).name
        ]

    def __call__(self, x: Tensor) -> Tensor:
        source = x.cuda().contiguous()
        if not self._context.set_input_shape(self._input, tuple(x.shape)):
            raise ValueError("the engine was built for smaller images")
        result = source.new_empty(tuple(self._context.get_tensor_shape(self._output)))
        self._context.set_tensor_address(self._input, source.data_ptr())
        self._context.set_tensor_address(self._output, result.data_ptr())
        self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        return result


class _TorchExport(Runtime):
    """torch itself, with a graph of torch.export."""

    def __init__(self, path: Path) -> None:
        about = {METADATA: ""}
        log = logging.getLogger("torch.export")
        log.disabled = True  # of a damaged file it shows a traceback
        try:
            self._program = torch.export.load(path, extra_files=about)
        except (RuntimeError, BadZipFile) as error:
            raise ValueError("it is no whole archive of torch.export") from error
        finally:
            log.disabled = False
        (name,) = self._program.graph_signature.user_inputs
        (source,) = (node for node in self._program.graph.nodes if node.name == name)
        sides = source.meta["val"].shape
        self.shape = [side if isinstance(side, int) else None for side in sides]
        self.dtype = source.meta["val"].dtype
        self.metadata = dict(line.split("=", 1) for line in about[METADATA].splitlines())
        self._module = cache(self._on)

    def _on(self, device: torch.device) -> nn.Module:
        from torch.export.passes import move_to_device_pass

        program = self._program if device.type == "cpu" else move_to_device_pass(self._program, device)
        # Its guards would refuse images of one window's width or height, which it computes well.
        settings = {"check_guards": False} if "check_guards" in signature(program.module).parameters else {}
        return program.module(**settings)

    def __call__(self, x: Tensor) -> Tensor:
        return self._module(x.device)(x)


_RUNTIMES: dict[str, Callable[[Path], Runtime]] = {
    ".onnx": _Onnx,
    ".xml": _OpenVINO,
    ".engine": _TensorRT,
    ".pt2": _TorchExport,
}

SUFFIXES = tuple(_RUNTIMES)
"""Of the files that can be loaded."""


def _written(shape: Sequence[int | None]) -> str:
    """For example 1×3×64×any."""
    return "×".join("any" if side is None else str(side) for side in shape)


def _reason(error: Exception) -> str:
    """The first line of what a runtime says, past those where OpenVINO names places in its source."""
    lines = [line for line in str(error).splitlines() if not line.startswith(("Exception from", "Check '"))]
    return "\n".join(lines).strip().partition("\n")[0].rstrip(".!")
