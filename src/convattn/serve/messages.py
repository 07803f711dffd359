"""What the server and its worker processes say to each other; light, for both import it."""

from pathlib import Path
from typing import Any, NamedTuple

from convattn.serve.options import Options
from convattn.serve.problems import Problem
from convattn.serve.settings import Limits

__all__ = ["Failed", "Finished", "Measured", "Message", "ModelInfo", "Progressed", "Ready", "Setup", "Task"]


class Setup(NamedTuple):
    """What a worker process is started with.

    Attributes:
        device: As in :class:`~convattn.inference.upscaler.Upscaler`.
        precision: As in :class:`~convattn.inference.upscaler.Upscaler`.
        folder: The server's files, which are removed should the server be killed.
        limits: What jobs may ask for.
    """

    device: str
    precision: str
    folder: Path
    limits: Limits


class Task(NamedTuple):
    """One file to upscale.

    Attributes:
        id: Of the job.
        source: The file, named by its kind.
        options: How.
    """

    id: str
    source: Path
    options: Options


class ModelInfo(NamedTuple):
    """A model that clients may choose.

    Attributes:
        name: What ``model`` takes.
        scales: Empty for arbitrary scale.
        task: "classic", "real-world" or "arbitrary scale".
        good_for: In a few words.
        fidelity: Whether it has sharp and faithful weights, between which ``fidelity`` chooses.
    """

    name: str
    scales: list[int]
    task: str
    good_for: str
    fidelity: bool


class Ready(NamedTuple):
    """A worker waits for work."""

    models: list[ModelInfo]
    device: str


class Measured(NamedTuple):
    """The header of a file is read; sizes are (width, height)."""

    id: str
    size: tuple[int, int]
    result_size: tuple[int, int]
    frames: int


class Progressed(NamedTuple):
    """A part of a task is done, 0 to 1."""

    id: str
    part: float


class Finished(NamedTuple):
    """The result is written."""

    id: str
    result: Path
    seconds: float


class Failed(NamedTuple):
    """There will be no result."""

    id: str
    problem: Problem


Message = Any
"""One of the tuples above, or None when all tasks that were sent are dealt with."""
