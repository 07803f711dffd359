"""Progress bars on a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text

from convattn.progress import Progress, Steps

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(console: Console, title: str, unit: str, total: int | None = None) -> Iterator[Progress]:
    """Show what is done, how fast, and the remaining time, if the console is a terminal.

    Args:
        console: Where to show it.
        title: Stands before the bar.
        unit: What is counted, in the plural; "bytes" are shown in MB.
        total: How many there are; None if the work itself says so by :class:`~convattn.progress.Steps`.

    Yields:
        What advances the bar.
    """
    counted = (
        (DownloadColumn(), TransferSpeedColumn())
        if unit == "bytes"
        else (MofNCompleteColumn(), _RateColumn(unit))
    )
    columns = TextColumn("{task.description}"), BarColumn(), *counted, TimeRemainingColumn()
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)

        def advance(fraction: float) -> None:
            if isinstance(fraction, Steps):
                bar.update(task, completed=fraction.done, total=fraction.total)
            else:
                bar.update(task, completed=fraction * (total or 1), total=total or 1)

        yield advance


class _RateColumn(ProgressColumn):
    """How many are done per second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:,.1f} {self._unit}/s" if speed >= 1 else f"{speed:.2g} {self._unit}/s")
