"""Memory of large maps, used again.

A C library gives a large block back to the system as soon as it is freed, and the system clears each page of
the next: at 1024×1024 pixels this took half the time of a network. Blocks of about a megabyte it keeps, but
cut into pieces that the next do not fit, which cost ESC 4 MB at 128×128 pixels. Here freed blocks wait for
the next map, as many bytes as are in use, and a reserve for the next call or the next training step.
"""

import math
import mmap
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

__all__ = ["Pool", "empty"]

_SMALLEST = 2**18  # bytes; the C library keeps smaller blocks itself
_RESERVE = 2**27  # bytes that may wait while none is in use
_PAGE = 2**21  # bytes; large blocks are rounded up to huge pages, so that maps of about one size fit them


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """As ``torch.empty`` of a map (N, C, H, W) in channels-last memory; large ones cannot be resized."""
    if math.prod(shape) * dtype.itemsize < _SMALLEST:
        return torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)
    _, channels, height, width = shape
    strides = (channels * height * width, 1, channels * width, channels)
    # Not a view of the numbers: a view made without gradients cannot be changed in place with them.
    storage = _pool.empty(math.prod(shape), dtype).untyped_storage()
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape, strides)


class Pool:
    """Blocks of memory that tensors borrow for as long as they live. All methods are thread-safe.

    Args:
        reserve: Bytes that may always wait for the next tensor; more may where more are in use.

    Attributes:
        used: Bytes lent to tensors.
        free: Blocks that wait for the next tensor, the one that has waited longest first.
    """

    def __init__(self, reserve: int) -> None:
        self.reserve = reserve
        self.used = 0
        self.free: list[mmap.mmap] = []
        self._returned: deque[mmap.mmap] = deque()
        self._lock = threading.Lock()

    def empty(self, count: int, dtype: torch.dtype) -> Tensor:
        """Return a tensor of some uninitialised numbers, (count,)."""
        size = count * dtype.itemsize
        step = _PAGE if size >= _PAGE else _SMALLEST
        size = -(-size // step) * step
        with self._lock:
            fitting = [block for block in self.free if size <= len(block) <= 2 * size]
            block = min(fitting, key=len) if fitting else _allocate(size)
            if fitting:
                self.free = [other for other in self.free if other is not block]
            self.used += len(block)
        # The tensor keeps this view of the block alive, and nothing else does.
        view = memoryview(block)
        weakref.finalize(view, self._give_back, block).atexit = False
        self._settle()
        return torch.frombuffer(view, dtype=dtype, count=count)

    def pause(self) -> None:
        """Hold the lock, so that nothing changes until :meth:`resume`."""
        self._lock.acquire()

    def resume(self) -> None:
        """Let go of the lock."""
        self._lock.release()
        self._settle()

    def _give_back(self, block: mmap.mmap) -> None:
        self._returned.append(block)
        self._settle()

    def _settle(self) -> None:
        """Take blocks back. It never waits: garbage may be collected while this thread holds the lock."""
        while self._returned and self._lock.acquire(blocking=False):
            try:
                while self._returned:
                    block = self._returned.popleft()
                    self.used -= len(block)
                    self.free.append(block)
                while sum(map(len, self.free)) > max(self.used, self.reserve):
                    del self.free[0]
            finally:
                self._lock.release()


def _allocate(size: int) -> mmap.mmap:
    try:
        if sys.platform == "win32":
            return mmap.mmap(-1, size)
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"too little memory for {size} bytes") from error
    if hasattr(mmap, "MADV_HUGEPAGE") and size >= _PAGE:
        with suppress(OSError):  # a system may be built without huge pages
            block.madvise(mmap.MADV_HUGEPAGE)
    return block


_pool = Pool(_RESERVE)
if hasattr(os, "register_at_fork"):
    # A child forked while another thread held the lock would wait for it for ever.
    os.register_at_fork(before=_pool.pause, after_in_parent=_pool.resume, after_in_child=_pool.resume)
