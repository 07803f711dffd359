"""Server-sent events: the progress of jobs."""

import time
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse

from convattn.serve.job_queue import JobQueue
from convattn.serve.jobs import Job

__all__ = ["EventStream", "follow", "follow_group"]

_SECONDS = 1.0  # between updates of the time that is left


class EventStream(StreamingResponse):
    """A stream of events, as browsers' EventSource reads it."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], status_code: int = 200) -> None:
        super().__init__(events, status_code, headers={"X-Accel-Buffering": "no"})


async def follow(queue: JobQueue, job: Job) -> AsyncIterator[str]:
    """Give the status of a job whenever it changes, until it is finished."""
    with job.watched():
        while not job.is_finished:
            version = job.version
            yield _event(queue, job)
            if job.version == version:  # it may change while the event is sent
                await job.changed.wait(_SECONDS)
        yield _event(queue, job)


async def follow_group(queue: JobQueue, name: str) -> AsyncIterator[str]:
    """Give the status of a group's jobs whenever one changes, until the server stops.

    A client that listens keeps the jobs of the group from being cancelled, and their results from expiring.
    """
    yield "retry: 1000\n\n"
    sent: dict[str, int] = {}  # the version of each job
    all_sent = 0.0  # when
    while True:
        jobs = queue.group(name)
        for job in jobs:
            is_old = time.monotonic() - all_sent > _SECONDS and not job.is_finished
            if is_old or sent.get(job.id) != job.version:
                sent[job.id] = job.version
                yield _event(queue, job)
        if queue.is_draining and all(job.is_finished for job in jobs):
            return
        if time.monotonic() - all_sent > _SECONDS:
            all_sent = time.monotonic()
            yield ": listening\n\n"
        if all(sent.get(job.id) == job.version for job in queue.group(name)):  # they may change meanwhile
            await queue.changed.wait(_SECONDS)


def _event(queue: JobQueue, job: Job) -> str:
    return f"event: status\ndata: {queue.status(job).model_dump_json()}\n\n"
