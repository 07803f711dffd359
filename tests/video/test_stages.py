"""Stages that run in threads of their own, and batches."""

import itertools
import threading
import time
from collections.abc import Generator, Iterator

import pytest

from convattn.video.stages import batches, prefetch


def test_stages_work_at_the_same_time() -> None:
    def slowly(items: Iterator[int]) -> Generator[int, None, None]:
        for item in items:
            time.sleep(0.05)
            yield item

    start = time.monotonic()
    assert list(prefetch(slowly(prefetch(slowly(iter(range(10))))))) == list(range(10))
    assert time.monotonic() - start < 0.9


def test_an_error_of_a_stage_arrives_and_its_source_is_closed() -> None:
    closed = []

    def source() -> Generator[int, None, None]:
        try:
            yield from range(3)
            raise ValueError("three")
        finally:
            closed.append(True)

    stage = prefetch(source())
    assert [next(stage) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(stage)
    assert closed == [True]


def test_a_stage_that_is_given_up_ends_its_thread() -> None:
    closed = threading.Event()

    def source() -> Generator[int, None, None]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    stage = prefetch(source())
    assert next(stage) == 0
    stage.close()
    assert closed.is_set()


def test_batches() -> None:
    assert list(batches(iter(range(5)), 2)) == [[0, 1], [2, 3], [4]]
