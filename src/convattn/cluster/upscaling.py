"""Images and videos upscaled by a pool of workers."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from convattn.cluster.finding import find_jobs, is_video
from convattn.cluster.pool import Outcome, Pool, Task, connect
from convattn.cluster.settings import Settings
from convattn.cluster.storage import Address
from convattn.cluster.worker import Worker
from convattn.errors import InputError
from convattn.inference.results import Job, check_existing
from convattn.progress import Progress, ignore

__all__ = ["ClusterJob", "Failure", "Summary", "upscale_on_cluster"]


class Failure(NamedTuple):
    """A file that could not be upscaled, and why."""

    source: str
    reason: str


@dataclass
class Summary:
    """How far a job is.

    Attributes:
        found: Files found so far.
        done: Files upscaled, or skipped because their results exist.
        segments: Segments of videos that were upscaled.
        failures: Files that failed.
    """

    found: int = 0
    done: int = 0
    segments: int = 0
    failures: list[Failure] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Files found and not finished."""
        return self.found - self.done - len(self.failures)


def upscale_on_cluster(
    inputs: Sequence[str],
    output: str,
    settings: Settings,
    *,
    address: str = "auto",
    format: str | None = None,
    progress: Progress = ignore,
) -> Summary:
    """Upscale images and videos with all machines of a Ray cluster.

    Every GPU gets a worker; without GPUs, every core does. An image, or a segment of a video, whose worker
    dies, by a crash or with its machine, is tried again elsewhere, twice; then it counts as failed. Results
    are those of one machine.

    Args:
        inputs: Files and folders: paths that all machines share, or addresses that fsspec knows (``s3://…``).
        output: The output folder, or the result of a single file; the same kind of path or address.
        settings: How to upscale.
        address: As :func:`convattn.cluster.pool.connect` takes it.
        format: As :func:`convattn.cluster.finding.find_jobs` takes it.
        progress: Called after each image and each segment with the fraction of the files found so far.

    Returns:
        What was done and what failed.

    Raises:
        InputError: The settings are wrong, there is no cluster at the address, or nothing was found.
    """
    return ClusterJob(inputs, output, settings, address=address, format=format).run(progress)


class ClusterJob:
    """What :func:`upscale_on_cluster` does, which takes the same arguments.

    Attributes:
        summary: How far the job is.

    Raises:
        InputError: As there.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        output: str,
        settings: Settings,
        *,
        address: str = "auto",
        format: str | None = None,
    ) -> None:
        check_existing(settings.existing)
        settings.upscaler()  # a wrong setting fails here, not a thousand times
        jobs = find_jobs(inputs, output, format)
        first = next(jobs, None)
        if not first:
            raise InputError(f"There is no image or video in {', '.join(inputs)}.")
        connect(address)
        self.summary = Summary()
        self._jobs = itertools.chain([first], jobs)
        self._pool = Pool(Worker, settings, device=settings.device)
        self._segments_left: dict[Job[Address], int] = {}

    def run(self, progress: Progress = ignore) -> Summary:
        """Upscale everything.

        Args:
            progress: Called after each image and each segment with the fraction of the files found so far.
        """
        try:
            for task, outcome in self._pool.run(self._first_tasks()):
                self._follow(task, outcome)
                progress(1 - self.summary.left / self.summary.found)
        finally:
            self._pool.close()
        return self.summary

    def _first_tasks(self) -> Iterator[Task]:
        for job in self._jobs:
            self.summary.found += 1
            yield Task("plan_video" if is_video(job.source.place) else "upscale_image", (job,))

    def _follow(self, task: Task, outcome: Outcome) -> None:
        """Queue what comes next: after the plan of a video its segments, after the last segment its end."""
        job = task.arguments[0]
        if outcome.error is not None and task.method != "upscale_segment":
            self._fail(job, outcome.error)
        elif task.method == "plan_video" and outcome.value is not None:
            self._segments_left[job] = len(outcome.value)
            self._pool.urgent.extend(Task("upscale_segment", (job, number)) for number in outcome.value)
            self._finish_if_complete(job)
        elif task.method == "upscale_segment":
            self._count_segment(job, outcome)
        else:
            self.summary.done += 1

    def _count_segment(self, job: Job[Address], outcome: Outcome) -> None:
        if job not in self._segments_left:  # another segment failed
            return
        if outcome.error is not None:
            del self._segments_left[job]
            self._drop_segments(job)
            self._fail(job, outcome.error)
            return
        self.summary.segments += outcome.value
        self._segments_left[job] -= 1
        if not outcome.value:  # the video cannot be cut, and is upscaled from its start to its end
            self._segments_left[job] -= self._drop_segments(job)
        self._finish_if_complete(job)

    def _finish_if_complete(self, job: Job[Address]) -> None:
        if not self._segments_left[job]:
            del self._segments_left[job]
            self._pool.urgent.append(Task("finish_video", (job,)))

    def _drop_segments(self, job: Job[Address]) -> int:
        """Forget the segments of a video that are not begun; return how many."""
        mine = [task for task in self._pool.urgent if task.arguments[0] == job]
        for task in mine:
            self._pool.urgent.remove(task)
        return len(mine)

    def _fail(self, job: Job[Address], reason: str) -> None:
        source = str(job.source)
        self.summary.failures.append(Failure(source, reason if source in reason else f"{source}: {reason}"))
