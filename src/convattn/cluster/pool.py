"""A pool of workers over a Ray cluster: what a dying worker was doing is tried again elsewhere."""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import ray

from convattn.errors import InputError

__all__ = ["Outcome", "Pool", "Task", "connect"]

_TRIES = 3
"""How often a task is tried whose worker dies."""

_PATIENCE = 60
"""Seconds in which workers may finish after an interruption."""


class Task(NamedTuple):
    """A call of a method of a worker.

    Attributes:
        method: Its name.
        arguments: What it is given.
    """

    method: str
    arguments: tuple[Any, ...]


class Outcome(NamedTuple):
    """How a task ended.

    Attributes:
        value: What it returned.
        error: What went wrong, or None.
    """

    value: Any = None
    error: str | None = None


class _Attempt(NamedTuple):
    """A task, and how often it was tried, this time included."""

    task: Task
    number: int


_DIED = Outcome(error="died")
"""How a task ends whose worker dies."""


def connect(address: str) -> None:
    """Connect to a Ray cluster, unless this process is connected already.

    Args:
        address: Address of the cluster; "auto" finds the one of this machine, or starts one on this machine.

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


class Pool:
    """As many workers as the cluster has GPUs, or else cores.

    Args:
        worker: Class of the workers, with a method ``ready`` that returns once it has started.
        *arguments: What each is made of.
        device: "cpu" uses no GPU.

    Attributes:
        urgent: Tasks that go before all others; more may be added while :meth:`run` is iterated over.
    """

    def __init__(self, worker: type, *arguments: Any, device: str = "auto") -> None:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if device != "cpu" else 0
        share = dict(num_gpus=1) if gpus else dict(num_cpus=1)
        self.urgent: deque[Task] = deque()
        self._actor = ray.remote(**share)(worker)  # type: ignore[call-overload]
        self._arguments = arguments
        self._workers: list[Any] = []
        self._free: deque[Any] = deque()
        self._running: dict[Any, tuple[_Attempt | None, Any]] = {}
        self._failed_starts = 0
        for _ in range(gpus or max(1, int(resources.get("CPU", 1)))):
            self._start_worker()

    def _start_worker(self) -> None:
        """Start a worker, which takes tasks once it is ready; it may have to wait for a machine."""
        worker = self._actor.remote(*self._arguments)
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

    def run(self, tasks: Iterator[Task]) -> Iterator[tuple[Task, Outcome]]:
        """Yield each task as it ends, and how."""
        again: deque[_Attempt] = deque()
        free = self._free
        while True:
            while free and (attempt := again.popleft() if again else self._next(tasks)):
                worker = free.popleft()
                call = getattr(worker, attempt.task.method)
                self._running[call.remote(*attempt.task.arguments)] = attempt, worker
            if free and not any(attempt for attempt, _ in self._running.values()):
                return
            attempt, worker, outcome = self._wait()
            if outcome is _DIED:
                self._replace(worker, started=attempt is not None)
            else:
                self._failed_starts = 0
                free.append(worker)
            if attempt and outcome is _DIED and attempt.number < _TRIES:
                again.append(_Attempt(attempt.task, attempt.number + 1))
            elif attempt:
                died = Outcome(error=f"It ended its worker {_TRIES} times.")
                yield attempt.task, died if outcome is _DIED else outcome

    def _next(self, tasks: Iterator[Task]) -> _Attempt | None:
        task = self.urgent.popleft() if self.urgent else next(tasks, None)
        return _Attempt(task, 1) if task else None

    def _wait(self) -> tuple[_Attempt | None, Any, Outcome]:
        """The next task that ended, or None for a worker that is ready; its worker; and how it ended."""
        (ready, *_), _ = ray.wait(list(self._running))
        attempt, worker = self._running.pop(ready)
        try:
            return attempt, worker, Outcome(ray.get(ready))
        except ray.exceptions.RayActorError:
            return attempt, worker, _DIED
        except ray.exceptions.RayTaskError as error:
            return attempt, worker, Outcome(error=str(error.cause))

    def close(self) -> None:
        """End the workers, once they have finished what they are doing; a second Ctrl-C ends them at once."""
        busy = [call for call, (attempt, _) in self._running.items() if attempt]
        with suppress(KeyboardInterrupt):
            if busy:
                ray.wait(busy, num_returns=len(busy), timeout=_PATIENCE)
        for worker in self._workers:
            ray.kill(worker)
