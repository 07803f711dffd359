"""Print warnings for the user of the command line."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["shown_warnings"]


@contextmanager
def shown_warnings(console: "Console | None" = None) -> Iterator[None]:
    """Print each warning as one line while the context is open.

    Args:
        console: Where a progress bar may be running; by default lines go to standard error.
    """
    say: Any = partial(console.print, soft_wrap=True) if console else partial(typer.echo, err=True)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: say(f"Warning: {message}")
        yield
