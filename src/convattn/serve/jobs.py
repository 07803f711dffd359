"""A job: one file that a client wants upscaled."""

import asyncio
import shutil
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, Field

from convattn.serve.kinds import MEDIA_TYPES, OTHER, Kind
from convattn.serve.messages import Task
from convattn.serve.options import Options, clean_name
from convattn.serve.problems import Problem

__all__ = ["Job", "JobStatus", "Signal", "State"]


class State(str, Enum):
    """Where a job is."""

    waiting = "waiting"
    running = "running"
    done = "done"
    failed = "failed"
    cancelled = "cancelled"


class JobStatus(BaseModel):
    """The status of a job, as clients receive it."""

    id: str
    state: State
    name: str = Field(description="Of the result.")
    progress: float = Field(ge=0, le=1)
    seconds_left: float | None = Field(None, description="By the speed of earlier jobs; null while unknown.")
    ahead: int = Field(0, description="Jobs that start before this one.")
    width: int | None = None
    height: int | None = None
    result_width: int | None = None
    result_height: int | None = None
    frames: int | None = None
    media_type: str | None = Field(None, description="Of the result, once it is there.")
    bytes: int | None = Field(None, description="Of the result, once it is there.")
    seconds: float | None = Field(None, description="What the computation took.")
    error: str | None = Field(None, description="Why there is no result, and what to do about it.")
    error_code: str | None = Field(None, description="The same as a code, as in a refusal.")
    error_values: dict[str, str | int | float] = Field({}, description="What the error mentions.")


class Signal:
    """Wakes all who wait for a change."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake them."""
        self._event.set()
        self._event = asyncio.Event()

    def wait(self, seconds: float | None = None) -> Coroutine[Any, Any, None]:
        """Wait for the next change after this call, even if it is awaited later; at most some seconds."""
        return _wait(self._event, seconds)


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


@dataclass(eq=False)
class Job:
    """One file to upscale.

    Attributes:
        id: Random; whoever knows it may see the job.
        client: The address that it came from.
        kind: Of the uploaded file.
        options: How to upscale it.
        folder: Of its files, and of no other's.
        is_alone: Whether it must not share a batch, because one that it was in crashed.
        part: What is done, 0 to 1.
        size: (width, height) of the input, once it is known.
        result_size: (width, height) of the result, once it is known.
        seconds: What the computation took.
        problem: What went wrong.
        version: Grows with each change.
    """

    id: str
    client: str
    kind: Kind
    options: Options
    folder: Path
    state: State = State.waiting
    is_alone: bool = False
    part: float = 0
    size: tuple[int, int] | None = None
    result_size: tuple[int, int] | None = None
    frames: int = 1
    result: Path | None = None
    bytes: int = 0
    seconds: float | None = None
    started: float | None = None
    problem: Problem | None = None
    version: int = 0
    watchers: int = 0
    created: float = field(default_factory=time.monotonic)
    last_seen: float = field(default_factory=time.monotonic)
    changed: Signal = field(default_factory=Signal)

    @property
    def source(self) -> Path:
        """The uploaded file."""
        return self.folder / f"source{self.kind.suffix}"

    @property
    def task(self) -> Task:
        """What a worker needs to know."""
        return Task(self.id, self.source, self.options)

    @property
    def is_finished(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in (State.done, State.failed, State.cancelled)

    @property
    def name(self) -> str:
        """The name of the result: that of the input, with its scale and its own suffix."""
        name = PurePosixPath(clean_name(self.options.name))
        suffix = self.result.suffix if self.result else name.suffix
        times = f"_x{self.result_size[0] / self.size[0]:.3g}" if self.size and self.result_size else ""
        stem = name.stem if self.kind == OTHER or Kind.is_suffix(name.suffix) else name.name
        return str(name.with_name(f"{stem}{times}{suffix}"))

    @property
    def media_type(self) -> str | None:
        """Of the result, once it is there."""
        return MEDIA_TYPES[self.result.suffix] if self.result else None

    def preview(self, side: str) -> Path | None:
        """Return what browsers can show of the input ("before") or of the result ("after")."""
        preview = self.folder / f"{side}.png"
        return preview if preview.is_file() else self.source if side == "before" else self.result

    def change(self, state: State | None = None) -> None:
        """Enter another state, and wake those who watch."""
        if state:
            self.state = state
        self.version += 1
        if self.is_finished:
            self.touch()  # what is kept for some time is kept from now on
        self.changed.notify()

    def touch(self) -> None:
        """Somebody asks about this job."""
        self.last_seen = time.monotonic()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Somebody waits for this job meanwhile."""
        self.watchers += 1
        try:
            yield
        finally:
            self.watchers -= 1
            self.touch()

    def remove_files(self) -> None:
        """Remove the input, the result and previews."""
        shutil.rmtree(self.folder, ignore_errors=True)
