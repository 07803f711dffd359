"""Detectors, the only part of the benchmarks that needs convattn-yolo."""

from importlib.util import find_spec
from typing import Any

from convattn.errors import InputError

__all__ = ["check_detectors", "load_detector"]


def check_detectors(width: int, height: int) -> None:
    """Raise an InputError if detectors cannot be measured on images of this size in pixels."""
    if not find_spec("ultralytics"):
        raise InputError('Detectors need Ultralytics, which is missing: pip install "convattn[yolo]".')
    if width % 32 or height % 32:
        raise InputError(f"A detector takes images whose sides are multiples of 32, not {width}x{height}.")


def load_detector(name: str) -> Any:
    """Return the network of an Ultralytics model: a YAML's name, with or without suffix, or a weights file.

    Raises:
        InputError: There is no such detector.
    """
    import convattn_yolo  # noqa: F401 - makes the names known
    from convattn_yolo.comparison.training import load_detector as load

    return load(name if "." in name else f"{name}.yaml").model
