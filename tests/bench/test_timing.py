import itertools

import numpy as np
import pytest

from convattn.bench.timing import ratio, time_in_turns


def test_sides_take_turns_and_warm_up_is_not_counted() -> None:
    calls: list[str] = []
    ticks = itertools.count()
    runs = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = time_in_turns(runs, 3, warm_up=1, clock=lambda: next(ticks))
    assert "".join(calls) == "abababab"
    assert {name: list(values) for name, values in seconds.items()} == {"a": [1, 1, 1], "b": [1, 1, 1]}


def test_times_go_to_the_side_that_took_them() -> None:
    now = 0.0

    def takes(duration: float) -> None:
        nonlocal now
        now += duration

    runs = {"slow": lambda: takes(3), "quick": lambda: takes(2)}
    seconds = time_in_turns(runs, 2, clock=lambda: now)
    assert list(seconds["slow"]) == [3, 3]
    assert ratio(seconds["slow"], seconds["quick"]) == 1.5


def test_ratio_is_that_of_the_rounds() -> None:
    # Both slow down together in the second round: each round says 2.
    assert ratio(np.array([2.0, 20.0]), np.array([1.0, 10.0])) == pytest.approx(2)
