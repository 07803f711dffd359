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
    """Upscale images and videos with a Ray cluster, show the progress, and list what failed.

    Raises:
        InputError: Ray is missing, there is no output folder, or the cluster cannot do the job.
    """
    if not find_spec("ray"):
        raise InputError('A cluster needs Ray: pip install "convattn[ray]".')
    if not output:
        raise InputError("Give the output folder of a cluster with -o; all machines must reach it.")
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from convattn.cluster import ClusterJob, Settings

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("Starting workers")

        try:
            job = ClusterJob(inputs, output, Settings(**settings), address=address, format=output_format)
            summary = job.run(
                lambda _: bar.update(task, description=_progress(job.summary, bar.tasks[0].elapsed or 0))
            )
        except KeyboardInterrupt:
            raise InputError(
                "Interrupted; what is finished is kept. The same command with --existing skip resumes."
            ) from None
    for failure in summary.failures:
        typer.echo(f"convattn: {failure.reason}", err=True)
    if summary.failures:
        typer.echo(f"convattn: {len(summary.failures)} of {summary.found} files failed.", err=True)
        raise typer.Exit(1)


def _progress(summary: "Summary", seconds: float) -> str:
    """What is done, how fast, what failed and what is left of the files found so far."""
    segments = f" and {summary.segments} segments of video" if summary.segments else ""
    speed = (summary.done + summary.segments) / max(seconds, 1e-9)
    return (
        f"{summary.done} done{segments}, {speed:.1f} a second, {len(summary.failures)} failed, "
        f"{summary.left} left of {summary.found} found"
    )
