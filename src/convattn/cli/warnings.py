"""How warnings reach whoever sits before the command line."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["notes"]


@contextmanager
def notes(console: "Console") -> Iterator[None]:
    """Meanwhile, print each warning as one line."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: console.print(f"Note: {message}", soft_wrap=True)
        yield
