"""Stages of work that run side by side."""

import itertools
import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

__all__ = ["ahead", "batches"]

T = TypeVar("T")


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
