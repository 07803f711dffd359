"""How fast the models of the catalog are on this machine, measured once and remembered in the cache."""

import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from convattn.checkpoints.catalog import Availability, Model
from convattn.checkpoints.hub import cache_dir
from convattn.checkpoints.loading import load_network
from convattn.files import replacing

__all__ = ["known_speed", "measure_speed"]

_WIDTH, _HEIGHT = 1280, 720  # of the result, in pixels
_ROUNDS = 3


def known_speed(model: Model, scale: int | None) -> float | None:
    """Return the milliseconds that were measured for a model, or None."""
    return _read().get(_key(model, scale))


def measure_speed(
    model: Model, device: str = "auto", *, download: bool = False
) -> Iterator[tuple[int | None, float]]:
    """Measure a model at each of its scales, remember the times, and yield them.

    Args:
        model: What to measure; models of arbitrary scale are measured at 2.
        device: "auto" or a device of torch.
        download: Whether to download weights; otherwise those that are not here are left out.

    Yields:
        The scale, and the median of three runs in milliseconds for a result of 1280×720 pixels.
    """
    for scale, weights in model.weights.items():
        if download or weights.availability is not Availability.download:
            milliseconds = _measure(model.file(scale, check=load_network), scale, device)
            _write(_read() | {_key(model, scale): milliseconds})
            yield scale, milliseconds


def _measure(file: Path, scale: int | None, device: str) -> float:
    from convattn.inference.upscaler import Upscaler

    factor = scale or 2
    upscaler = Upscaler(file, factor, device=device)
    image = torch.randint(0, 256, (3, _HEIGHT // factor, _WIDTH // factor), dtype=torch.uint8)
    seconds = []
    for _ in range(_ROUNDS + 1):
        start = time.perf_counter()
        upscaler(image)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[1:])


def _key(model: Model, scale: int | None) -> str:
    return f"{model.name}-x{scale}" if scale else model.name


def _file() -> Path:
    return cache_dir() / "speed.json"


def _read() -> dict[str, float]:
    try:
        return {
            str(key): float(value) for key, value in json.loads(_file().read_text(encoding="utf-8")).items()
        }
    except (OSError, ValueError, AttributeError, TypeError):  # none was measured, or the file is damaged
        return {}


def _write(speeds: dict[str, float]) -> None:
    with replacing(_file(), parents=True) as temporary:
        temporary.write_text(json.dumps(speeds, indent=2) + "\n", encoding="utf-8")
