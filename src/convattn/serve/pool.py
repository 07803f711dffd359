"""Worker processes: each computes one batch at a time, and is replaced when it crashes."""

import asyncio
import logging
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil

from convattn.errors import InputError
from convattn.serve.job_queue import JobQueue
from convattn.serve.jobs import Job, State
from convattn.serve.messages import Message, Ready, Setup, Task
from convattn.serve.problems import Problem
from convattn.serve.process import main

__all__ = ["Pool", "Worker", "WorkerDiedError"]

_CANCEL_SECONDS = 1.0  # a computation that does not notice within this time is ended with its worker
_MOST_FAILED_STARTS = 3  # in a row, before the server gives up at its own start
_MOST_WORKERS = 4  # by default
_BYTES_A_WORKER = 2 * 2**30
_GPU_BATCH = 8
_LONGEST_PAUSE = 30.0  # seconds between attempts to start a worker

log = logging.getLogger("uvicorn.error")


class WorkerDiedError(Exception):
    """A worker process ended by itself: it crashed, ran out of memory, or was killed."""


class Worker:
    """A worker process, and the pipe to it.

    Args:
        setup: What it is started with.
    """

    def __init__(self, setup: Setup) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=main, args=(theirs, setup), name="convattn-worker")
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return self._process.pid

    def wait_until_ready(self) -> Ready:
        """Wait until the process has loaded its first network."""
        return self._receive()

    def compute(self, tasks: list[Task], threads: int, report: Callable[[Message], None]) -> None:
        """Compute tasks and report what the process says of them.

        Args:
            tasks: With the same options.
            threads: How many cores to use.
            report: Called for each message.

        Raises:
            WorkerDiedError: The process is gone.
        """
        self._send((tasks, threads))
        while (message := self._receive()) is not None:
            report(message)

    def cancel(self, id: str) -> None:
        """Ask to give up a task."""
        with suppress(WorkerDiedError):
            self._send(id)

    def kill(self) -> None:
        """End the process at once; what waits for it receives a WorkerDiedError."""
        self._process.kill()

    def join(self) -> None:
        """Wait until the process that was killed is gone."""
        self._process.join()
        self._connection.close()

    def _send(self, message: Message) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise WorkerDiedError from error

    def _receive(self) -> Message:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerDiedError from error


def _default_workers() -> int:
    """One a core, at most four, as memory allows."""
    memory = psutil.virtual_memory().available // _BYTES_A_WORKER
    return max(1, min(os.cpu_count() or 1, _MOST_WORKERS, memory))


class Pool:
    """Keeps a number of workers alive and gives them jobs.

    Args:
        queue: Where jobs come from.
        setup: What workers are started with.
        workers: How many; None for what suits the device, as the first worker finds it.
        batch: Most jobs that a worker computes at once; None likewise.
    """

    def __init__(self, queue: JobQueue, setup: Setup, workers: int | None, batch: int | None) -> None:
        self.ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self.alive: set[Worker] = set()
        self._queue = queue
        self._setup = setup
        self._count = workers
        self._batch = batch
        self._batches: dict[Worker, list[Job]] = {}
        self._failed_starts = 0
        self._threads = ThreadPoolExecutor(workers or _MOST_WORKERS, "convattn-pool")
        self._slots = [asyncio.create_task(self._keep_alive())]
        queue.on_cancel = self._cancel

    async def stop(self) -> None:
        """End all workers."""
        for slot in self._slots:
            slot.cancel()
        for worker in self._workers:
            worker.kill()
        await asyncio.gather(*self._slots, return_exceptions=True)
        self._threads.shutdown()

    @property
    def _workers(self) -> set[Worker]:
        return self.alive | set(self._batches)

    async def _keep_alive(self) -> None:
        while True:
            try:
                await self._run_worker()
            except WorkerDiedError:
                self._queue.metrics.crashes.inc()
                if self._failed_starts >= _MOST_FAILED_STARTS and not self.ready.done():
                    self.ready.set_exception(
                        InputError("The worker processes do not start; the log above says why.")
                    )
                log.warning("A worker process ended; a new one starts.")
                await asyncio.sleep(min(2**self._failed_starts - 1, _LONGEST_PAUSE))

    async def _run_worker(self) -> None:
        worker = Worker(self._setup)
        self._batches[worker] = []
        try:
            self._failed_starts += 1
            ready = await self._in_thread(worker.wait_until_ready)
            self._failed_starts = 0
            self.alive.add(worker)
            if not self.ready.done():
                self._start_others(ready)
            while True:
                await self._compute(worker, await self._queue.take(self._batch or 1))
        finally:
            self.alive.discard(worker)
            del self._batches[worker]
            worker.kill()
            worker.join()

    def _start_others(self, ready: Ready) -> None:
        """The first worker knows the device: a GPU is given batches, a processor one worker a core."""
        is_cpu = ready.device == "cpu"
        self._batch = self._batch or (1 if is_cpu else _GPU_BATCH)
        self._queue.workers = self._count or (_default_workers() if is_cpu else 1)
        self._slots += [asyncio.create_task(self._keep_alive()) for _ in range(1, self._queue.workers)]
        self.ready.set_result(ready)

    async def _compute(self, worker: Worker, jobs: list[Job]) -> None:
        loop = asyncio.get_running_loop()
        self._batches[worker] = jobs
        limit = self._queue.limits.job_seconds
        deadline = loop.call_later(limit, worker.kill)
        tasks = [job.task for job in jobs]

        def report(message: Message) -> None:
            loop.call_soon_threadsafe(self._queue.handle, message)

        try:
            await self._in_thread(worker.compute, tasks, self._threads_each(), report)
        except WorkerDiedError:
            if loop.time() >= deadline.when():
                self._queue.lose(jobs, Problem("job-too-long", {"seconds": limit}))
            else:
                self._queue.lose(jobs, Problem("crashed", {}))
            raise
        finally:
            deadline.cancel()
            self._batches[worker] = []
            self._queue.release(job for job in jobs if job.state is not State.waiting)

    def _threads_each(self) -> int:
        """How many cores a job gets: all where it is alone, one where there are as many jobs as cores."""
        active = sum(self._queue.counts.values())
        return max(1, (os.cpu_count() or 1) // max(1, min(active, self._queue.workers)))

    def _cancel(self, job: Job) -> None:
        """End the computation of a job that nobody waits for; if need be, with its worker."""
        worker = next((worker for worker, jobs in self._batches.items() if jobs == [job]), None)
        if worker:
            worker.cancel(job.id)
            asyncio.get_running_loop().call_later(_CANCEL_SECONDS, self._kill_if_busy, worker, job)

    def _kill_if_busy(self, worker: Worker, job: Job) -> None:
        if self._batches.get(worker) == [job]:
            worker.kill()

    async def _in_thread(self, function: Callable[..., Message], *args: object) -> Message:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)
