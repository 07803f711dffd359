"""Memory of large maps: used again, never while somebody looks at it, and given back but for a reserve."""

import gc
import mmap
import os
import signal
import threading
import time
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convattn.ops import pixel_shuffle
from convattn.ops.cpu import allocator
from convattn.ops.cpu.allocator import Pool

MEGABYTES = 2**20 // 4  # floats


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", [3, 700])
def test_a_map_like_torchs(side: int, dtype: torch.dtype) -> None:
    x = allocator.empty((2, 8, side, side), dtype)
    expected = torch.empty((2, 8, side, side), dtype=dtype, memory_format=torch.channels_last)
    assert (x.shape, x.stride(), x.dtype) == (expected.shape, expected.stride(), dtype)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert x.data_ptr() % 64 == 0
    assert not x._is_view()
    x.fill_(3)
    assert (x * 2 == 6).all()


def test_freed_memory_is_used_again_and_given_back_at_the_end() -> None:
    pool = Pool(reserve=0)
    kept, first = pool.empty(3 * MEGABYTES, torch.float32), pool.empty(3 * MEGABYTES, torch.float32)
    place = first.data_ptr()
    del first
    second = pool.empty(3 * MEGABYTES, torch.float32)
    assert second.data_ptr() == place
    del second
    assert pool.free
    del kept
    assert not pool.free
    assert pool.used == 0


def test_a_reserve_waits_for_the_next_call() -> None:
    pool = Pool(reserve=7 * 2**20)
    maps = [pool.empty(3 * MEGABYTES, torch.float32) for _ in range(4)]
    waiting = []
    while maps:
        del maps[-1]
        waiting.append(sum(map(len, pool.free)) / len(pool.free[0]))
    assert waiting == [1, 2, 1, 1]  # as many as are in use, and in the end what fits the reserve
    place = (x := pool.empty(3 * MEGABYTES, torch.float32)).data_ptr()
    del x
    assert pool.empty(3 * MEGABYTES, torch.float32).data_ptr() == place


def test_a_map_made_without_gradients_takes_part_in_them() -> None:
    with torch.no_grad():
        x = allocator.empty((1, 8, 700, 700), torch.float32).fill_(1)
    factor = torch.ones((), requires_grad=True)
    x.mul_(factor).mean().backward()
    assert factor.grad == pytest.approx(1, rel=1e-4)


def test_an_empty_map() -> None:
    assert allocator.empty((0, 8, 700, 700), torch.float32).shape == (0, 8, 700, 700)


def test_too_little_memory_is_said_as_such() -> None:
    with pytest.raises(MemoryError):
        Pool(reserve=0).empty(2**60, torch.float32)


def test_a_view_keeps_the_memory() -> None:
    pool = Pool(reserve=0)
    x = pool.empty(MEGABYTES, torch.float32)
    view = x.fill_(1)[5:7]
    del x
    other = pool.empty(MEGABYTES, torch.float32).fill_(2)
    assert view.tolist() == [1, 1]
    del other, view
    assert pool.used == 0


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 9 * MEGABYTES)), max_size=30),
    st.sampled_from([0, 2**23, 2**27]),
)
def test_nothing_that_lives_is_overwritten(steps: list[tuple[bool, int]], reserve: int) -> None:
    """Tensors come and go in any order; each keeps its numbers, and what waits stays in bounds."""
    pool = Pool(reserve)
    alive: dict[Any, Any] = {}
    for number, (free, count) in enumerate(steps):
        if free and alive:
            del alive[sorted(alive)[count % len(alive)]]
        else:
            alive[number] = pool.empty(count, torch.float32).fill_(number)
        assert all((x == value).all() for value, x in alive.items())
        assert pool.used >= sum(x.nbytes for x in alive.values())
        assert sum(map(len, pool.free)) <= max(pool.used, reserve)
    alive.clear()
    gc.collect()
    assert pool.used == 0
    assert sum(map(len, pool.free)) <= reserve


def test_threads_get_memory_of_their_own() -> None:
    pool, errors = Pool(reserve=0), []

    def work(value: int) -> None:
        for _ in range(200):
            x = pool.empty(MEGABYTES // 2, torch.float32).fill_(value)
            if not (x == value).all():
                errors.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert (pool.used, pool.free) == (0, [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_forked_while_another_thread_asks_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asking, allocate = threading.Event(), allocator._allocate

    def slowly(size: int) -> mmap.mmap:
        asking.set()
        time.sleep(0.2)
        return allocate(size)

    monkeypatch.setattr(allocator, "_allocate", slowly)
    shape = (1, 8, 6000, 6000)  # larger than what may wait
    thread = threading.Thread(target=allocator.empty, args=(shape, torch.float32))
    thread.start()
    asking.wait()
    if not (child := os.fork()):
        signal.alarm(10)  # ends a child that waits for a lock
        allocator.empty(shape, torch.float32)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("scale", "size"), [(1, (5, 7)), (2, (1, 9)), (3, (40, 61))])
def test_pixels_are_shuffled_as_torch_does(scale: int, size: tuple[int, int], dtype: torch.dtype) -> None:
    x, skip = torch.randn(2, 3 * scale**2, *size, dtype=dtype), torch.randn(2, 3, *size, dtype=dtype)
    expected = torch.nn.functional.pixel_shuffle(x, scale)
    upscaled = skip.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    for given_map in (x, x.to(memory_format=torch.channels_last), x.mT.contiguous().mT):
        assert torch.equal(pixel_shuffle(given_map, scale), expected)
        assert torch.equal(pixel_shuffle(given_map, scale, skip), expected + upscaled)
