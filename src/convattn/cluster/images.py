"""A pool of workers over a Ray cluster, each with an upscaler of its own."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ray

from convattn.cluster.jobs import RemoteJob, find_jobs
from convattn.cluster.settings import Settings
from convattn.cluster.storage import exists, local_copy, replacing_anywhere
from convattn.errors import InputError
from convattn.images.io import read_image, write_image

__all__ = ["Failure", "Summary", "upscale_on_cluster"]

_TRIES = 3
"""How often an image is tried whose worker dies."""


_DIED = object()
"""How an image ends whose worker dies."""


class _Attempt(NamedTuple):
    """An image, and how often it was tried, this time included."""

    job: RemoteJob
    number: int


class Failure(NamedTuple):
    """An image that could not be upscaled, and why."""

    source: str
    reason: str


@dataclass
class Summary:
    """How far a job is.

    Attributes:
        found: Images found so far.
        done: Images upscaled, or skipped because their results exist.
        failures: Images that failed.
    """

    found: int = 0
    done: int = 0
    failures: list[Failure] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Images found and not finished."""
        return self.found - self.done - len(self.failures)


def upscale_on_cluster(
    inputs: Sequence[str],
    output: str,
    settings: Settings,
    *,
    address: str = "auto",
    format: str | None = None,
    progress: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Upscale images with all machines of a Ray cluster.

    Every GPU gets a worker; without GPUs, every core does. An image whose worker dies, by a crash or with its
    machine, is tried again elsewhere, twice; then it counts as failed. Results are those of one machine.

    Args:
        inputs: Images and folders: paths that all machines share, or addresses that fsspec knows (``s3://…``).
        output: The output folder, the same kind of path or address.
        settings: How to upscale.
        address: Address of the cluster; "auto" finds the one of this machine, or starts one on this machine.
        format: As :func:`convattn.cluster.jobs.find_jobs` takes it.
        progress: Called with the summary after each image.

    Returns:
        What was done and what failed.

    Raises:
        InputError: The settings are wrong, there is no cluster at the address, or no image was found.
    """
    settings.upscaler()  # a wrong setting fails here, not a thousand times
    jobs = find_jobs(inputs, output, format)
    first = next(jobs, None)
    if not first:
        raise InputError(f"There is no image in {', '.join(inputs)}.")
    connect(address)
    pool, summary = _Pool(settings), Summary()
    try:
        for job, reason in pool.run(_counted(itertools.chain([first], jobs), summary)):
            if reason is None:
                summary.done += 1
            else:
                summary.failures.append(Failure(job.source, reason))
            progress(summary)
    finally:
        pool.close()
    return summary


def connect(address: str) -> None:
    """Connect to a Ray cluster, unless this process is connected already.

    Raises:
        InputError: There is no cluster at the address.
    """
    if ray.is_initialized():
        return
    options: dict[str, Any] = dict(log_to_driver=False, logging_level="ERROR")
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address != "auto":
            raise InputError(
                f"There is no Ray cluster at {address}; start one with `ray start --head`."
            ) from error
        ray.init(address="local", include_dashboard=False, **options)


def _counted(jobs: Iterator[RemoteJob], summary: Summary) -> Iterator[RemoteJob]:
    for job in jobs:
        summary.found += 1
        yield job


class _Worker:
    """Upscales images in a process of its own."""

    def __init__(self, settings: Settings, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._settings = settings
        self._upscaler = settings.upscaler()

    def ready(self) -> None:
        """Return once the worker has started."""

    def upscale(self, job: RemoteJob) -> str | None:
        """Upscale an image; return what went wrong, or None."""
        try:
            if self._is_wanted(job.target):
                with local_copy(job.source) as source, replacing_anywhere(job.target) as target:
                    write_image(self._upscaler(read_image(source)), target, quality=self._settings.quality)
        except InputError as error:
            return str(error)
        return None

    def _is_wanted(self, target: str) -> bool:
        if self._settings.existing == "overwrite" or not exists(target):
            return True
        if self._settings.existing == "refuse":
            raise InputError(f"{target} exists already; skip or overwrite what exists.")
        return False


class _Pool:
    """As many workers as the cluster has GPUs, or else cores."""

    def __init__(self, settings: Settings) -> None:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if settings.device != "cpu" else 0
        share = dict(num_gpus=1) if gpus else dict(num_cpus=1)
        self._settings = settings
        self._actor = ray.remote(**share)(_Worker)  # type: ignore[call-overload]
        self._workers: list[Any] = []
        self._running: dict[Any, tuple[_Attempt | None, Any]] = {}
        self._failed_starts = 0
        for _ in range(gpus or max(1, int(resources.get("CPU", 1)))):
            self._start_worker()

    def _start_worker(self) -> None:
        """Start a worker, which takes images once it is ready; it may have to wait for a machine."""
        worker = self._actor.remote(self._settings, threads=1)
        self._workers.append(worker)
        self._running[worker.ready.remote()] = None, worker

    def _replace(self, worker: Any, *, started: bool) -> None:
        """Start another worker in place of one that died."""
        self._workers.remove(worker)
        self._failed_starts += not started
        if self._failed_starts == _TRIES:
            raise InputError(
                "No worker starts; every machine needs convattn, and the model at the same path."
            )
        self._start_worker()

    def run(self, jobs: Iterator[RemoteJob]) -> Iterator[tuple[RemoteJob, str | None]]:
        """Yield each job, as it ends, with what went wrong or None."""
        again: deque[_Attempt] = deque()
        upcoming = (_Attempt(job, 1) for job in jobs)
        free: deque[Any] = deque()
        while True:
            while free and (attempt := again.popleft() if again else next(upcoming, None)):
                worker = free.popleft()
                self._running[worker.upscale.remote(attempt.job)] = attempt, worker
            if free and not any(attempt for attempt, _ in self._running.values()):
                return
            attempt, worker, ended = self._wait()
            if ended is _DIED:
                self._replace(worker, started=attempt is not None)
            else:
                self._failed_starts = 0
                free.append(worker)
            if attempt and ended is _DIED and attempt.number < _TRIES:
                again.append(_Attempt(attempt.job, attempt.number + 1))
            elif attempt:
                died = f"{attempt.job.source} ended its worker {_TRIES} times."
                yield attempt.job, died if ended is _DIED else ended

    def _wait(self) -> tuple[_Attempt | None, Any, Any]:
        """The next image that ended, or None for a worker that is ready; its worker; and how it ended."""
        (ready, *_), _ = ray.wait(list(self._running))
        attempt, worker = self._running.pop(ready)
        try:
            return attempt, worker, ray.get(ready)
        except ray.exceptions.RayActorError:
            return attempt, worker, _DIED
        except ray.exceptions.RayTaskError as error:
            return attempt, worker, str(error.cause)

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            ray.kill(worker)
