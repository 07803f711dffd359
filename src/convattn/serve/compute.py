"""What a worker process does with the files that it receives."""

import logging
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyvips
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from convattn.checkpoints import catalog
from convattn.checkpoints.catalog import Availability
from convattn.errors import InputError
from convattn.images.io import Image, check_size, read_image, write_image
from convattn.inference.devices import empty_cache, is_out_of_memory
from convattn.inference.upscaler import FAITHFUL, Upscaler
from convattn.progress import Progress
from convattn.serve.kinds import OTHER, Kind
from convattn.serve.measure import Measure, check, measure
from convattn.serve.messages import (
    Failed,
    Finished,
    Measured,
    Message,
    ModelInfo,
    Progressed,
    Ready,
    Setup,
    Task,
)
from convattn.serve.options import Options
from convattn.serve.problems import Problem, RejectedError

__all__ = ["Computer", "models"]

_MODELS_IN_MEMORY = 4
_SECONDS_BETWEEN_REPORTS = 0.1
_VIDEO_BATCH = 4

log = logging.getLogger(__name__)


class CancelledError(Exception):
    """Nobody waits for the result any more."""


def models() -> list[ModelInfo]:
    """Return the models that clients may choose: those whose weights are on this machine."""
    known = catalog.models()
    return [
        ModelInfo(name, model.scales, model.card.task.value, model.card.good_for, name + FAITHFUL in known)
        for name, model in known.items()
        if all(weights.availability is not Availability.download for weights in model.weights.values())
    ]


class Computer:
    """Upscales files.

    Args:
        connection: To the server.
        setup: How to compute.
    """

    def __init__(self, connection: Connection, setup: Setup) -> None:
        self._connection = connection
        self._setup = setup
        self._models = {model.name: model for model in models()}
        self._make_upscaler = lru_cache(_MODELS_IN_MEMORY)(Upscaler)
        self._current: list[str] = []
        self._last_report = 0.0
        warnings.simplefilter("ignore")
        pyvips.block_untrusted_set(True)
        pyvips.cache_set_max(0)

    def run(self) -> None:
        """Say what there is, then compute until the server says None."""
        upscaler = self._upscaler(Options())
        upscaler(np.zeros((64, 64, 3), np.uint8))  # the first image takes longer than the others
        self._send(Ready(list(self._models.values()), str(upscaler.device)))
        while (message := self._connection.recv()) is not None:
            if isinstance(message, tuple):  # anything else cancels what is finished already
                tasks, threads = message
                torch.set_num_threads(threads)
                self._current = [task.id for task in tasks]
                with register_module_forward_pre_hook(self._check_cancelled):  # between a network's layers
                    self._compute(tasks)
                self._send(None)

    def _send(self, message: Message) -> None:
        self._connection.send(message)

    def _compute(self, tasks: list[Task]) -> None:
        """Compute tasks that have the same options; still images of equal shape share a batch."""
        start = time.monotonic()
        upscaler: Upscaler | None = None
        shapes: dict[tuple[object, ...], list[tuple[Task, Image]]] = defaultdict(list)
        for task in tasks:
            with self._failing(task):
                upscaler = upscaler or self._upscaler(task.options)
                header = self._measure(task, upscaler)
                if _becomes_moving(task, header):
                    self._upscale_moving(task, upscaler, start)
                else:
                    image = read_image(task.source)
                    has_alpha = image.pixels.shape[2] in (2, 4)
                    key = task.id if has_alpha else None, image.pixels.shape, image.pixels.dtype
                    shapes[key].append((task, image))
        for same in shapes.values():
            assert upscaler
            with self._failing(*(task for task, _ in same)):
                self._upscale_images(same, upscaler, start)

    @contextmanager
    def _failing(self, *tasks: Task) -> Iterator[None]:
        """Tell the server what went wrong, and go on."""
        try:
            yield
        except CancelledError:
            return
        except Exception as error:  # whatever it is, the next job must not notice
            problem = _explain(error)
            empty_cache(torch.device(self._setup.device if self._setup.device != "auto" else "cpu"))
            for task in tasks:
                self._send(Failed(task.id, _named(problem, task)))

    def _measure(self, task: Task, upscaler: Upscaler) -> Measure:
        header = measure(task.source)
        height, width = upscaler.size_of(header.height, header.width)
        check(header, (width, height), self._setup.limits)
        self._send(Measured(task.id, (header.width, header.height), (width, height), header.frames))
        return header

    def _upscale_images(self, same: list[tuple[Task, Image]], upscaler: Upscaler, start: float) -> None:
        for task, image in same:
            check_size(_target(task), *upscaler.size_of(*image.pixels.shape[:2]))
        report = self._reporter([task for task, _ in same])
        for (task, image), result in zip(
            same, _upscaled([i for _, i in same], upscaler, report), strict=True
        ):
            write_image(result, _target(task), quality=task.options.quality)
            _write_previews(task, image, result)
            self._send(Finished(task.id, _target(task), time.monotonic() - start))

    def _upscale_moving(self, task: Task, upscaler: Upscaler, start: float) -> None:
        report, target = self._reporter([task]), _target(task, is_moving=True)
        if Kind(task.source.suffix).is_video:
            from convattn.video import upscale_video

            upscale_video(
                task.source,
                target,
                upscaler,
                batch_size=_VIDEO_BATCH,
                device=upscaler.device,
                progress=report,
            )
        else:
            from convattn.video.animation import upscale_animation

            upscale_animation(
                task.source,
                target,
                upscaler,
                quality=task.options.quality,
                batch_size=_VIDEO_BATCH,
                device=upscaler.device,
                progress=report,
            )
        self._send(Finished(task.id, target, time.monotonic() - start))

    def _check_cancelled(self, *_: object) -> None:
        """Give up the computation if nobody waits for it any more; a batch is finished in any case."""
        while self._connection.poll():
            if [self._connection.recv()] == self._current:
                raise CancelledError

    def _reporter(self, tasks: list[Task]) -> Progress:
        """What reports progress now and then."""

        def report(part: float) -> None:
            self._check_cancelled()
            if time.monotonic() - self._last_report >= _SECONDS_BETWEEN_REPORTS:
                self._last_report = time.monotonic()
                for task in tasks:
                    self._send(Progressed(task.id, part))

        return report

    def _upscaler(self, options: Options) -> Upscaler:
        if options.model and options.model not in self._models:
            raise RejectedError("no-model", model=options.model, models=", ".join(self._models))
        size = None if (options.height, options.width) == (None, None) else (options.height, options.width)
        return self._make_upscaler(
            options.model,
            options.scale,
            size=size,
            exact=options.exact,
            device=self._setup.device,
            precision=self._setup.precision,
            self_ensemble=options.self_ensemble,
            fidelity=options.fidelity,
        )


def _becomes_moving(task: Task, header: Measure) -> bool:
    """Whether all frames are upscaled; of an animation in a chosen format only the first is."""
    return header.is_video or (header.frames > 1 and task.options.format is None)


def _target(task: Task, is_moving: bool = False) -> Path:
    suffix = task.source.suffix
    if Kind(suffix).is_video:
        suffix = ".mp4"
    elif task.options.format:
        suffix = f".{task.options.format}"
    elif suffix == OTHER.suffix or (suffix == ".gif" and not is_moving):
        suffix = ".png"
    return task.source.with_name(f"result{suffix}")


def _upscaled(images: list[Image], upscaler: Upscaler, report: Progress) -> list[Image]:
    """Upscale images of equal shape, several of them as one batch."""
    if len(images) == 1:
        return [upscaler(images[0], progress=report)]
    stack = torch.from_numpy(np.stack([image.pixels for image in images])).movedim(-1, 1)
    upscaled = upscaler(stack, progress=report).movedim(1, -1).contiguous().numpy()
    return [replace(image, pixels=pixels) for image, pixels in zip(images, upscaled, strict=True)]


def _write_previews(task: Task, image: Image, result: Image) -> None:
    """Write as PNG what browsers do not show, for the comparison on the page."""
    for name, path, content in (("before", task.source, image), ("after", _target(task), result)):
        if not Kind(path.suffix).is_shown_by_browsers:
            write_image(content, task.source.with_name(f"{name}.png"))


def _explain(error: Exception) -> Problem:
    """What to tell the client."""
    if isinstance(error, RejectedError):
        return error.problem
    if is_out_of_memory(error.__cause__ or error):
        return Problem("out-of-memory", {})
    if isinstance(error, InputError):
        return Problem("invalid", {"reason": str(error)})
    log.exception("unexpected error")
    return Problem("failed", {})


def _named(problem: Problem, task: Task) -> Problem:
    """The same with the name that the client knows in place of the path."""
    name = task.options.name or "The file"
    said = {
        k: v.replace(str(task.source), name) if isinstance(v, str) else v for k, v in problem.values.items()
    }
    return problem._replace(values=said)
