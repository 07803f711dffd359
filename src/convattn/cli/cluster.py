"""``convattn upscale --cluster``."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import typer

from convattn.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from convattn.cluster import Summary

__all__ = ["upscale_on_cluster"]


def upscale_on_cluster(
    inputs: list[str],
    output: str | None,
    address: str,
    output_format: str | None,
    console: "Console",
    settings: dict[str, Any],
) -> None:
    """Upscale images with a Ray cluster, show the progress, and list what failed.

    Raises:
        InputError: Ray is missing, there is no output folder, or the cluster cannot do the job.
    """
    if not find_spec("ray"):
        raise InputError('A cluster needs Ray: pip install "convattn[ray]".')
    if not output:
        raise InputError("Give the output folder of a cluster with -o; all machines must reach it.")
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from convattn.cluster import Settings
    from convattn.cluster import upscale_on_cluster as run

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("Starting workers")

        def show(summary: "Summary") -> None:
            speed = summary.done / max(bar.tasks[0].elapsed or 0, 1e-9)
            failed = f", {len(summary.failures)} failed" if summary.failures else ""
            bar.update(task, description=f"{summary.done} done, {speed:.1f} images/s{failed}")

        options = dict(address=address, format=output_format, progress=show)
        summary = run(inputs, output, Settings(**settings), **options)  # type: ignore[arg-type]
    for failure in summary.failures:
        typer.echo(f"convattn: {failure.reason}", err=True)
    if summary.failures:
        typer.echo(f"convattn: {len(summary.failures)} of {summary.found} images failed.", err=True)
        raise typer.Exit(1)
