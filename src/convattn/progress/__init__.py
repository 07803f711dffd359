"""How long-running work reports its progress."""

from collections.abc import Callable

__all__ = ["Progress", "Steps", "ignore", "share"]

Progress = Callable[[float], None]
"""Called now and then with the fraction that is done, up to 1; :class:`Steps` where steps can be counted."""


class Steps(float):
    """A fraction that knows how many steps, such as frames or bytes, are done.

    Args:
        done: How many are done.
        total: How many there are.
    """

    def __new__(cls, done: int, total: int) -> "Steps":
        self = super().__new__(cls, min(done / total, 1))
        self.done, self.total = done, total
        return self

    done: int
    total: int

    def __getnewargs__(self) -> tuple[int, int]:  # type: ignore[override]
        return self.done, self.total


def ignore(fraction: float) -> None:
    """Report nothing."""


def share(progress: Progress, index: int, count: int) -> Progress:
    """Return the progress of one of several equal parts.

    Args:
        progress: The progress of all parts.
        index: Number of the part, from 0.
        count: How many parts there are.
    """
    return lambda fraction: progress((index + fraction) / count)
