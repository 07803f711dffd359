"""What this machine offers convattn, for bug reports and for users who wonder why something is slow."""

import platform
import warnings
from collections.abc import Iterator
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import NamedTuple

__all__ = ["Finding", "diagnose"]

_EXTRAS: dict[str, tuple[str, ...]] = {
    "video": ("av",),
    "train": ("lightning", "tensorboard"),
    "export": ("onnx", "onnxruntime", "openvino", "nncf"),
    "spandrel": ("spandrel",),
    "serve": ("fastapi", "uvicorn"),
    "ray": ("ray", "fsspec"),
    "yolo": ("convattn_yolo", "ultralytics"),
}
"""The modules that each extra brings."""

_VERSIONS = ("torch", "numpy", "pyvips", "lightning", "ultralytics", "onnxruntime", "openvino", "av")


class Finding(NamedTuple):
    """One line of the diagnosis."""

    name: str
    value: str


def diagnose() -> Iterator[Finding]:
    """Yield what convattn finds here: versions, device, kernels, memory, and the extras that are missing."""
    from convattn import __version__
    from convattn.inference.devices import choose_device, free_memory

    device = choose_device()
    yield Finding("convattn", __version__)
    yield Finding("Python", f"{platform.python_version()} on {platform.platform(terse=True)}")
    yield Finding("device", _device_name(device.type))
    yield Finding("CPU kernels", _kernels())
    yield Finding("free memory", f"{free_memory(device) / 2**30:.1f} GiB")
    yield Finding(
        "versions", ", ".join(f"{name} {metadata.version(name)}" for name in _VERSIONS if _has(name))
    )
    if _has("torchvision") and not _imports("torchvision"):
        yield Finding("torchvision", "does not belong to this torch; reinstall both, as pytorch.org shows")
    for extra, modules in _EXTRAS.items():
        missing = [name for name in modules if not find_spec(name)]
        advice = f'missing: {", ".join(missing)}; pip install "convattn[{extra}]"'
        yield Finding(extra, advice if missing else "available")


def _device_name(kind: str) -> str:
    import torch

    if kind == "cuda":
        return f"cuda ({torch.cuda.get_device_name()})"
    threads = torch.get_num_threads()
    return f"{kind}, {threads} thread{'s' if threads > 1 else ''}"


def _kernels() -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the library warns where there are none
        from convattn.ops.cpu.library import library
    if library is None:
        return "missing; reinstall convattn where there is a C++ compiler (GCC or Clang)"
    return f"compiled, using {library.convattn_instruction_set().decode()}"


def _imports(module: str) -> bool:
    try:
        import_module(module)
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def _has(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
