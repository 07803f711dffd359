"""Stages that run in threads of their own, and batches."""

import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from convattn.video.source import Frame
from convattn.video.stages import batches, prefetch, upscale_frames


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


def test_the_network_has_a_thread_of_its_own() -> None:
    threads: dict[str, set[int]] = {"decode": set(), "upscale": set(), "encode": set()}

    def observed(name: str) -> Callable[[Tensor], Tensor]:
        def function(x: Tensor) -> Tensor:
            assert torch.is_inference_mode_enabled()
            threads[name].add(threading.get_ident())
            return x

        return function

    def frames() -> Generator[Frame, None, None]:
        for number in range(5):
            yield Frame(np.full((3, 4, 4), number, np.uint8), number, 1, number)

    stages = [observed(name) for name in threads]
    for number, frame in enumerate(upscale_frames(frames(), *stages, batch_size=2, device="cpu")):
        assert not torch.is_inference_mode_enabled()
        assert (frame.samples == number).all()
    assert number == 4
    assert len(set.union(*threads.values())) == 3
    assert threads["encode"] == {threading.get_ident()}
