"""The training runs of a comparison, spread over a Ray cluster."""

from collections.abc import Iterator

import torch

from convattn.cluster.pool import Pool, Task, connect
from convattn.errors import InputError
from convattn_yolo.comparison.statistics import SequentialTest
from convattn_yolo.comparison.study import Comparison, FinishedRun
from convattn_yolo.comparison.training import Candidate

__all__ = ["train_on_cluster"]


class Trainer:
    """Trains runs of a comparison in a process of its own."""

    def __init__(self, comparison: Comparison, device: str | None, threads: int) -> None:
        torch.set_num_threads(threads)
        self._comparison, self._device = comparison, device

    def ready(self) -> None:
        """Return once the worker has started."""

    def train(self, candidate: Candidate, seed: int) -> None:
        """Train a run, or resume it, and record its result."""
        self._comparison.train_run(candidate, seed, self._device)


def train_on_cluster(
    comparison: Comparison,
    address: str,
    *,
    device: str | None = None,
    test: SequentialTest | None = None,
    threads: int = 1,
) -> Iterator[FinishedRun]:
    """Train what is not finished yet, with a worker on each GPU or core of a Ray cluster.

    A run whose worker dies is resumed elsewhere from its last epoch, twice. The results are those of one
    machine that trains with as many threads.

    Args:
        comparison: The comparison, in a folder that all machines share.
        address: As :func:`convattn.cluster.pool.connect` takes it.
        device: As for :meth:`~convattn_yolo.comparison.Comparison.train_missing`.
        test: As there. All models of one seed are trained before the next seed is begun.
        threads: CPU threads of each worker.

    Yields:
        The progress after each run.

    Raises:
        InputError: There is no such cluster, or a run failed; the others are finished first.
    """
    connect(address)
    pool = Pool(Trainer, comparison, device, threads, device=device or "auto")
    try:
        while missing := comparison.missing(test):
            seeds = {seed for _, seed in missing} if test is None else {missing[0][1]}
            tasks = (Task("train", entry) for entry in missing if entry[1] in seeds)
            failures = []
            for task, outcome in pool.run(tasks):
                candidate, seed = task.arguments
                if outcome.error is None:
                    yield comparison.progress(candidate, seed, test)
                else:
                    failures.append(f"{candidate.name}, seed {seed}: {outcome.error}")
            if failures:
                raise InputError(f"{len(failures)} runs failed: {' '.join(failures)}")
    finally:
        pool.close()
