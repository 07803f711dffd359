"""Print warnings for the user of the command line."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["shown_warnings"]


@contextmanager
def shown_warnings(console: "Console") -> Iterator[None]:
    """Print each warning as one line while the context is open."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: console.print(f"Warning: {message}", soft_wrap=True)
        yield
