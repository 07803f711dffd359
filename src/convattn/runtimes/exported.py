"""Networks in files for other runtimes: ONNX Runtime, OpenVINO, TensorRT and torch.export.

They are called like networks of torch. A file that convattn wrote describes its network; for any other the
scale is found by upscaling a small image.

An exported network is closed: its tiles cannot share the averages that dynamic kernels are predicted from
(see :mod:`convattn.inference.tiles`), so an image in tiles differs a little from the whole.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from convattn.errors import InputError
from convattn.images.tiling import cut
from convattn.ops import reflect_pad
from convattn.runtimes.onnx_file import OnnxFile
from convattn.runtimes.openvino_file import OpenVINOFile
from convattn.runtimes.runtime import Runtime
from convattn.runtimes.tensorrt_file import TensorRTFile
from convattn.runtimes.torch_export_file import TorchExportFile

__all__ = ["SUFFIXES", "ExportedNetwork", "load_exported"]

_PROBE = 64  # side in pixels of the image that the scale of an unknown network is measured with

Size = tuple[int, int]


class ExportedNetwork(nn.Module):
    """A network read from a file, (N, 3, H, W) in [0, 1] to (N, 3, scale · H, scale · W).

    It takes images of any size: where the file allows only one size, smaller images are padded by reflection
    and larger ones computed in overlapping tiles.

    Args:
        runtime: Computes it.
        path: The file, from which a pickled network is loaded again.

    Attributes:
        scale: How many times larger the result is.
        channels: Channels of its images.
        window_size: Side of its attention windows in pixels, or a usual one.
        bytes_per_pixel: Memory that it takes for a pixel of its input, estimated.
        by_layers: None: it can only be called.

    Raises:
        InputError: It does not take images, or does not upscale them by a whole number.
    """

    channels = 3
    by_layers = None
    memory_format = torch.contiguous_format
    dtypes = (torch.float32,)  # autocast has no effect on it; its precision was chosen at export

    def __init__(self, runtime: Runtime, path: Path) -> None:
        super().__init__()
        self._runtime = runtime
        self._path = path
        batch, channels, height, width = runtime.shape if len(runtime.shape) == 4 else (None,) * 4
        if channels != 3 or batch not in (None, 1) or (height is None) != (width is None):
            raise InputError(
                f"{path.name} takes {_written(runtime.shape)}; use a network for (N, 3, height, width), "
                "with both sides free or both fixed."
            )
        self._one_by_one = batch == 1
        self._size = (height, width) if height and width else None
        about = runtime.metadata
        self.scale = int(about["scale"]) if "scale" in about else self._measure_scale()
        if self.scale < 1:
            raise InputError(f"{path.name} says that its scale is {self.scale}; export it again.")
        self.window_size = int(about.get("window", 32))
        self.bytes_per_pixel = int(about.get("bytes_per_pixel", 2**14))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 3, scale · H, scale · W)."""
        if self._one_by_one and len(x) > 1:
            return torch.cat([self(image) for image in x.split(1)])
        return self._in_size(x, self._size) if self._size else self._compute(x)

    def __reduce__(self) -> tuple[Callable[..., nn.Module], tuple[Path]]:
        """Pickle the path of the file: a session of another library cannot be pickled."""
        return load_exported, (self._path,)

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
                f"{self._path.name} cannot upscale {_written(x.shape)}; another size may work: "
                f"{_reason(error)}."
            ) from error

    def _measure_scale(self) -> int:
        height, width = self._size or (_PROBE, _PROBE)
        shape = self._compute(torch.zeros(1, 3, height, width)).shape
        scale = shape[-1] // width
        if scale < 1 or shape != (1, 3, scale * height, scale * width):
            raise InputError(
                f"{self._path.name} makes {_written(shape)} of {_written((1, 3, height, width))}; use a "
                "network that upscales images by a whole number."
            )
        return scale


def load_exported(path: str | os.PathLike[str]) -> ExportedNetwork:
    """Load a network from a file for another runtime.

    Args:
        path: An .onnx, .xml (with its .bin beside it), .engine or .pt2 file, from convattn or another
            program. Trust a .pt2 file as you would a program: torch may run code that it contains.

    Raises:
        InputError: The file is damaged, its runtime is not installed, or it does not upscale images.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    if path.suffix == ".xml" and not path.with_suffix(".bin").is_file():
        raise InputError(f"The weights of {path} are missing; put {path.with_suffix('.bin').name} beside it.")
    try:
        return ExportedNetwork(_RUNTIMES[path.suffix](path), path).eval()
    except InputError:
        raise
    except Exception as error:  # damaged bytes make a reader raise anything
        raise InputError(
            f"{path} cannot be read as a network with one input and one output; export it again: "
            f"{_reason(error)}."
        ) from error


_RUNTIMES: dict[str, Callable[[Path], Runtime]] = {
    ".onnx": OnnxFile,
    ".xml": OpenVINOFile,
    ".engine": TensorRTFile,
    ".pt2": TorchExportFile,
}

SUFFIXES = tuple(_RUNTIMES)
"""Suffixes of the files that can be loaded."""


def _written(shape: Sequence[int | None]) -> str:
    """For example, 1×3×64×any."""
    return "×".join("any" if side is None else str(side) for side in shape)


def _reason(error: Exception) -> str:
    """The first line of a runtime's message, without those where OpenVINO names places in its source."""
    lines = [line for line in str(error).splitlines() if not line.startswith(("Exception from", "Check '"))]
    return "\n".join(lines).strip().partition("\n")[0].rstrip(".!")
