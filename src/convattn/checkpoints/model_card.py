"""Model cards: what a weights file says about itself, in the header of a .safetensors file."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path

from safetensors import safe_open

__all__ = ["ModelCard", "Task", "read_card", "read_parameters"]


class Task(str, Enum):
    """What a model is for."""

    classic = "classic"
    """Upscaling clean images, measured by PSNR."""

    real_world = "real-world"
    """Upscaling images with noise, blur and compression artifacts."""

    arbitrary_scale = "arbitrary scale"
    """Upscaling clean images by any factor."""


@dataclass(frozen=True)
class ModelCard:
    """What a user should know of a model before using it.

    Attributes:
        task: What it is for.
        good_for: The same in a few words for a table.
        license: SPDX identifier of the weights' license.
        data: What it was trained on.
        limits: What it does badly.
        repeat: The commands that train it.
        figures: Measured values by name, for example "Set5 PSNR-Y".
    """

    task: Task
    good_for: str
    license: str
    data: str = ""
    limits: str = ""
    repeat: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def psnr(self) -> float | None:
        """PSNR-Y on Set5 in dB."""
        return self.figures.get("Set5 PSNR-Y")

    def header(self) -> dict[str, str]:
        """Return the card as entries for the header of a .safetensors file, without empty ones."""
        entries = asdict(self) | {"task": self.task.value, "figures": json.dumps(dict(self.figures))}
        return {name: value for name, value in entries.items() if value not in ("", "{}")}

    @classmethod
    def from_header(cls, header: Mapping[str, str]) -> "ModelCard":
        """Read the entries that :meth:`header` wrote.

        Raises:
            KeyError: An entry without a default is missing.
            ValueError: The task or the figures cannot be read.
        """
        entries = {entry.name: header[entry.name] for entry in fields(cls) if entry.name in header}
        figures = json.loads(entries.pop("figures", "{}"))
        return cls(task=Task(entries.pop("task")), figures=figures, **entries)  # type: ignore[arg-type]


def read_card(path: Path) -> ModelCard | None:
    """Return the model card of a .safetensors file, or None if it has none."""
    with safe_open(path, "numpy") as file:
        header = file.metadata() or {}
    return ModelCard.from_header(header) if "task" in header else None


def read_parameters(path: Path) -> int:
    """Return the number of values in the tensors of a .safetensors file, from its header alone."""
    with safe_open(path, "numpy") as file:
        return sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
