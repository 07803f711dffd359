"""Timing several functions in turns."""

import time
from collections.abc import Callable, Mapping

import numpy as np

from convattn.progress import Progress, ignore

__all__ = ["ratio", "time_in_turns"]


def time_in_turns(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    progress: Progress = ignore,
) -> dict[str, np.ndarray]:
    """Time each function once a round, so that other load on the machine affects all alike.

    Args:
        runs: Name to the function, which returns once its work is done.
        rounds: How often each is timed.
        warm_up: Rounds before these that are not counted.
        clock: Returns seconds.
        progress: Called after each round with the fraction that is done.

    Returns:
        Name to the seconds of each round.
    """
    seconds = {name: np.empty(warm_up + rounds) for name in runs}
    for round_ in range(warm_up + rounds):
        for name, run in runs.items():
            start = clock()
            run()
            seconds[name][round_] = clock() - start
        progress((round_ + 1) / (warm_up + rounds))
    return {name: values[warm_up:] for name, values in seconds.items()}


def ratio(first: np.ndarray, other: np.ndarray) -> float:
    """Return the median of ``first / other``, (rounds,) each; in each round both met the same load."""
    return float(np.median(first / other))
