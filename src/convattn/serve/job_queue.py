"""Which jobs there are, which comes next, and which requests are too many."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from convattn.serve.jobs import Job, JobStatus, Signal, State
from convattn.serve.kinds import Kind
from convattn.serve.messages import Failed, Finished, Measured, Message, Progressed
from convattn.serve.metrics import Metrics
from convattn.serve.options import Options
from convattn.serve.problems import Problem, RejectedError
from convattn.serve.settings import Limits

__all__ = ["JobQueue"]

_NEWEST_SPEED = 0.3  # weight of the last job in the average speed
_SECONDS_A_JOB = 2.0  # assumed until the first is done


class JobQueue:
    """All jobs of a server.

    Attributes:
        workers: How many jobs are computed at once.
        changed: Wakes whoever waits for a change of any job.
        is_draining: Whether no jobs are taken any more.
        on_cancel: Called with a job that is cancelled while it is computed.

    Args:
        folder: Where their files are.
        limits: What clients may ask for.
        metrics: Where it is counted what happens.
    """

    def __init__(self, folder: Path, limits: Limits, metrics: Metrics) -> None:
        self.limits = limits
        self.metrics = metrics
        self.changed = Signal()
        self.is_draining = False
        self.on_cancel: Callable[[Job], None] = lambda job: None
        self._folder = folder
        self.workers = 1
        self._jobs: dict[str, Job] = {}
        self._waiting: list[Job] = []
        self._running: set[Job] = set()
        self._arriving: Counter[str] = Counter()
        self._speeds: dict[str | None, float] = {}
        self._seconds_a_job = _SECONDS_A_JOB
        metrics.waiting.set_function(lambda: len(self._waiting))
        metrics.running.set_function(lambda: len(self._running))
        metrics.stored.set_function(lambda: self.stored_bytes)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all inputs and results."""
        return sum(job.bytes for job in self._jobs.values())

    @property
    def counts(self) -> dict[str, int]:
        """How many jobs wait, and how many are computed."""
        return {"waiting": len(self._waiting), "running": len(self._running)}

    @contextmanager
    def place(self, client: str) -> Iterator[Callable[[Kind, Options], Job]]:
        """Keep a place in the queue while a file arrives.

        Args:
            client: Who sends it.

        Returns:
            What makes a job of the kind of the file and of the options; the job waits once it is submitted.

        Raises:
            RejectedError: There is no place.
        """
        self._check_place(client)
        self._arriving[client] += 1
        job: Job | None = None

        def create(kind: Kind, options: Options) -> Job:
            nonlocal job
            id = secrets.token_urlsafe(16)
            job = Job(id, client, kind, options, self._folder / id)
            job.folder.mkdir()
            return job

        try:
            yield create
        finally:
            self._arriving[client] -= 1
            if job and job.id not in self._jobs:
                job.remove_files()

    def _check_place(self, client: str) -> None:
        self._check_draining()
        if len(self._waiting) + self._arriving.total() >= self.limits.waiting:
            raise RejectedError("queue-full", self._seconds_until_place())
        mine = sum(job.client == client for job in [*self._waiting, *self._running]) + self._arriving[client]
        if mine >= self.limits.jobs_per_client:
            raise RejectedError("too-many-jobs", self._seconds_until_place(), count=mine)
        if self.stored_bytes >= self.limits.stored_bytes:
            raise RejectedError("store-full", 30)

    def _check_draining(self) -> None:
        if self.is_draining:
            raise RejectedError("stopping", 10)

    def _seconds_until_place(self) -> int:
        return min(60, max(1, round(self._seconds_a_job / self.workers)))

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn.

        Raises:
            RejectedError: The server is shutting down.
        """
        self._check_draining()
        job.bytes = job.source.stat().st_size
        self.metrics.uploaded.inc(job.bytes)
        self._jobs[job.id] = job
        self._waiting.append(job)
        self._notify(job)

    def get(self, id: str) -> Job:
        """Return a job that somebody asks about.

        Raises:
            RejectedError: There is none of this id.
        """
        if id not in self._jobs:
            raise RejectedError("no-job")
        self._jobs[id].touch()
        return self._jobs[id]

    def group(self, name: str) -> list[Job]:
        """Return the jobs of a group that somebody asks about, in the order in which they came."""
        jobs = [job for job in self._jobs.values() if job.options.group == name]
        for job in jobs:
            job.touch()
        return jobs

    async def take(self, most: int) -> list[Job]:
        """Wait for the next job, and take others with the same options.

        The next is the first of the client that the fewest jobs are computed for.

        Args:
            most: How many jobs to take at most.
        """
        while not self._waiting:
            await self.changed.wait()
        busy = Counter(job.client for job in self._running)
        first = min(self._waiting, key=lambda job: busy[job.client])
        alike = [job for job in self._waiting if job is not first and _can_share_batch(job, first)]
        taken = [first, *alike[: most - 1]]
        for job in taken:
            self._waiting.remove(job)
            self._running.add(job)
            job.started = time.monotonic()
            self.metrics.wait.observe(job.started - job.created)
            self._notify(job, State.running)
        return taken

    def handle(self, message: Message) -> None:
        """Note what a worker says."""
        job = self._jobs.get(message.id)
        if job is None or job.state is not State.running:
            return
        if isinstance(message, Measured):
            job.size, job.result_size, job.frames = message.size, message.result_size, message.frames
            self._notify(job)
        elif isinstance(message, Progressed):
            job.part = message.part
            self._notify(job)
        elif isinstance(message, Finished):
            self._finish(job, message)
        elif isinstance(message, Failed):
            self._fail(job, message.problem)

    def _finish(self, job: Job, message: Finished) -> None:
        job.result, job.seconds, job.part = message.result, message.seconds, 1
        job.bytes += sum(file.stat().st_size for file in job.folder.iterdir() if file != job.source)
        self.metrics.compute.observe(message.seconds)
        self.metrics.pixels.inc(_pixels(job))
        speed = message.seconds / max(_pixels(job), 1)
        old = self._speeds.get(job.options.model, speed)
        self._speeds[job.options.model] = old + _NEWEST_SPEED * (speed - old)
        self._seconds_a_job += _NEWEST_SPEED * (message.seconds - self._seconds_a_job)
        self._end(job, State.done)

    def _fail(self, job: Job, problem: Problem) -> None:
        job.problem = problem
        self._end(job, State.failed)

    def _end(self, job: Job, state: State) -> None:
        self.metrics.jobs.labels(state.value).inc()
        self._notify(job, state)

    def lose(self, jobs: Iterable[Job], problem: Problem) -> None:
        """The worker of these jobs is gone: those that shared a batch are tried again, each alone."""
        unfinished = [job for job in jobs if job.state is State.running]
        for job in unfinished:
            if len(unfinished) == 1 or job.is_alone:
                self._fail(job, problem)
            else:
                job.is_alone = True
                self._running.discard(job)
                self._waiting.insert(0, job)
                self._notify(job, State.waiting)

    def release(self, jobs: Iterable[Job]) -> None:
        """No worker touches the files of these jobs any more."""
        for job in jobs:
            self._running.discard(job)
            if job.state is State.running:
                self._fail(job, Problem("failed", {}))
            if job.state in (State.failed, State.cancelled):
                job.remove_files()
                job.bytes = 0
            if job.id not in self._jobs:
                job.remove_files()
        self.changed.notify()

    def cancel(self, job: Job) -> None:
        """End a job that is not finished; nothing happens to one that is."""
        if job.is_finished:
            return
        is_waiting = job.state is State.waiting
        self._end(job, State.cancelled)
        if is_waiting:
            self._waiting.remove(job)
            self.release([job])
        else:
            self.on_cancel(job)

    def forget(self, job: Job) -> None:
        """Cancel a job and drop its result."""
        self.cancel(job)
        self._jobs.pop(job.id, None)
        if job not in self._running:
            job.remove_files()
        self.changed.notify()

    def drain(self) -> None:
        """Take no more jobs and cancel those that wait; those that run may finish."""
        self.is_draining = True
        for job in list(self._waiting):
            self.cancel(job)
        self.changed.notify()

    async def expire(self) -> None:
        """Drop old results and cancel what nobody asks about, for ever."""
        while True:
            now = time.monotonic()
            for job in list(self._jobs.values()):
                idle = 0 if job.watchers else now - job.last_seen
                if job.is_finished and idle > self.limits.keep_seconds:
                    self.forget(job)
                elif not job.is_finished and idle > self.limits.abandoned_seconds:
                    self.cancel(job)
            await asyncio.sleep(min(1, self.limits.keep_seconds / 4, self.limits.abandoned_seconds / 4))

    def status(self, job: Job) -> JobStatus:
        """Return the status of a job, as clients receive it."""
        size, result_size = job.size or (None, None), job.result_size or (None, None)
        ahead = self._waiting.index(job) if job.state is State.waiting else 0
        return JobStatus(
            id=job.id,
            state=job.state,
            name=job.name,
            progress=job.part,
            seconds_left=self._seconds_left(job, ahead),
            ahead=ahead,
            width=size[0],
            height=size[1],
            result_width=result_size[0],
            result_height=result_size[1],
            frames=job.frames if job.size else None,
            media_type=job.media_type,
            bytes=job.result.stat().st_size if job.result and job.result.is_file() else None,
            seconds=job.seconds,
            error=job.problem.detail if job.problem else None,
            error_code=job.problem.code if job.problem else None,
            error_values=job.problem.values if job.problem else {},
        )

    def _seconds_left(self, job: Job, ahead: int) -> float | None:
        if job.is_finished:
            return None
        if job.state is State.waiting:
            return round((1 + ahead / self.workers) * self._seconds_a_job, 1)
        taken = time.monotonic() - (job.started or 0)
        if job.part > 0.05:
            return round(taken * (1 - job.part) / job.part, 1)
        speed = self._speeds.get(job.options.model)
        return round(max(0, speed * _pixels(job) - taken), 1) if speed and job.size else None

    def _notify(self, job: Job, state: State | None = None) -> None:
        job.change(state)
        self.changed.notify()


def _pixels(job: Job) -> int:
    """Pixels of all frames of the result."""
    width, height = job.result_size or (0, 0)
    return width * height * job.frames


def _can_share_batch(job: Job, other: Job) -> bool:
    """Whether two jobs have the same options, apart from their names."""
    if job.is_alone or other.is_alone or job.kind.is_video or other.kind.is_video:
        return False
    ignored = {"name": "", "group": None}
    return job.options.model_copy(update=ignored) == other.options.model_copy(update=ignored)
