"""The stages of video upscaling, which run in parallel: decoding, the network, encoding."""

import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any, TypeVar

import torch
from torch import Tensor

from convattn.progress import Progress, Steps
from convattn.video.source import Frame

__all__ = ["Upscale", "batches", "prefetch", "upscale_frames", "with_progress"]

T = TypeVar("T")

Upscale = Callable[[Tensor], Tensor]
"""(N, 3, H, W) in [0, 1] to (N, 3, s·H, s·W)."""


def upscale_frames(
    frames: Generator[Frame, None, None],
    decode: Callable[[Tensor], Tensor],
    upscale: Upscale,
    encode: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    device: torch.device | str,
    segment: int | None = None,
) -> Generator[Frame, None, None]:
    """Yield upscaled frames, while the network upscales the next ones and a further thread decodes.

    The caller's thread converts the results, so that the network does not wait for it.

    Args:
        frames: Of the original.
        decode: From their samples to RGB in [0, 1].
        upscale: Upscales RGB.
        encode: From RGB to the samples of the result.
        batch_size: Frames that are upscaled at once.
        device: Where they are upscaled.
        segment: Length of segments; a batch holds frames of one only, so that the result does not depend on
            where an earlier run stopped.
    """

    def originals() -> Generator[tuple[list[Frame], Tensor], None, None]:
        with closing(batches(frames, batch_size, segment)) as groups, torch.inference_mode():
            for group in groups:
                samples = torch.stack([torch.from_numpy(frame.samples) for frame in group])
                yield group, decode(samples.to(device))

    def results() -> Generator[tuple[list[Frame], Tensor], None, None]:
        with closing(prefetch(originals())) as decoded, torch.inference_mode():
            for group, small in decoded:
                yield group, upscale(small)

    with closing(prefetch(results(), depth=1)) as upscaled:
        for group, large in upscaled:
            with torch.inference_mode():
                samples = encode(large).cpu().numpy()
            for frame, new in zip(group, samples, strict=True):
                yield frame._replace(samples=new)


def with_progress(
    frames: Generator[Frame, None, None], done: int, total: int, progress: Progress
) -> Generator[Frame, None, None]:
    """Yield frames, of which so many are done already, and report the progress after each."""
    with closing(frames):
        for number, frame in enumerate(frames, done + 1):
            yield frame
            progress(Steps(number, total))


def prefetch(items: Generator[T, None, None], depth: int = 2) -> Generator[T, None, None]:
    """Yield items while a thread computes the next ones.

    An error is raised in place of the item. The thread ends with the generator.

    Args:
        items: Runs in the thread from start to end, and is closed there.
        depth: How many items may wait.
    """
    waiting: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(kind: str, value: Any = None) -> None:
        while not stopped.is_set():
            try:
                return waiting.put((kind, value), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put("item", item)
                if stopped.is_set():
                    return
            put("end")
        except BaseException as error:  # raised by the thread that waits
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
        stopped.set()
        worker.join()


def batches(items: Iterator[T], size: int, segment: int | None = None) -> Generator[list[T], None, None]:
    """Yield the items in lists of ``size``; the last, and the last of each segment, may be shorter."""
    left = segment or size
    while group := list(itertools.islice(items, min(size, left))):
        yield group
        left = (left - len(group)) or segment or size
