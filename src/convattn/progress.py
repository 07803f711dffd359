"""How long-running work reports its progress."""

from collections.abc import Callable

__all__ = ["Progress", "ignore", "share"]

Progress = Callable[[float], None]
"""Called now and then with the fraction that is done, up to 1."""


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
