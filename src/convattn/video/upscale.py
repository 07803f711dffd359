"""Stages of work that run side by side."""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from convattn.video.read import Frame

__all__ = ["Progress", "Upscale", "ahead", "batches", "upscaled", "watched"]

T = TypeVar("T")

Upscale = Callable[[Tensor], Tensor]
"""(N, 3, H, W) in [0, 1] to (N, 3, s·H, s·W)."""


class Progress(NamedTuple):
    """How far a video is.

    Attributes:
        done: Frames that are finished, also by earlier runs.
        total: Frames of the video.
        per_second: Frames that this run finishes in a second.
        seconds_left: By that.
    """

    done: int
    total: int
    per_second: float
    seconds_left: float


def upscaled(
    frames: Generator[Frame, None, None],
    decode: Callable[[Tensor], Tensor],
    upscale: Upscale,
    encode: Callable[[Tensor], Tensor],
    *,
    batch: int,
    device: torch.device | str,
) -> Generator[Frame, None, None]:
    """Give upscaled frames, while those to come are upscaled and decoded.

    Args:
        frames: Of the original.
        decode: From their codes to RGB in [0, 1].
        upscale: What upscales that.
        encode: From RGB to the codes of the result.
        batch: Frames that are upscaled at once.
        device: Where.
    """

    def groups() -> Generator[list[Frame], None, None]:
        with closing(ahead(batches(frames, batch))) as decoded, torch.inference_mode():
            for group in decoded:
                codes = torch.stack([torch.from_numpy(frame.codes) for frame in group]).to(device)
                large = encode(upscale(decode(codes))).cpu().numpy()
                yield [frame._replace(codes=new) for frame, new in zip(group, large, strict=True)]

    with closing(ahead(groups())) as ready:
        for group in ready:
            yield from group


def watched(
    frames: Generator[Frame, None, None], done: int, total: int, progress: Callable[[Progress], None] | None
) -> Generator[Frame, None, None]:
    """Say how far it is whenever a frame has been taken."""
    start = time.monotonic()
    with closing(frames):
        for number, frame in enumerate(frames, 1):
            yield frame
            if progress:
                rate = number / max(time.monotonic() - start, 1e-9)
                left = max(total - done - number, 0)
                progress(Progress(done + number, done + number + left, rate, left / rate))


def ahead(items: Generator[T, None, None], depth: int = 2) -> Generator[T, None, None]:
    """Give items while a thread already makes the next ones.

    Errors come out where the item would have come. The thread ends with the generator.

    Args:
        items: Run in the thread from start to end, and closed there.
        depth: How many items may wait to be taken.
    """
    waiting: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
    given_up = threading.Event()

    def put(kind: str, value: Any = None) -> None:
        while not given_up.is_set():
            try:
                return waiting.put((kind, value), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put("item", item)
                if given_up.is_set():
                    return
            put("end")
        except BaseException as error:  # for the thread that waits
            put("error", error)
        finally:
            items.close()

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        given_up.set()
        worker.join()


def batches(items: Iterator[T], size: int) -> Generator[list[T], None, None]:
    """Give the items in lists of ``size``; the last may be shorter."""
    while group := list(itertools.islice(items, size)):
        yield group
