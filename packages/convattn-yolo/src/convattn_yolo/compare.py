"""The command ``convattn compare``."""

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convattn.cli.options import with_groups
from convattn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import rich.table

    from convattn_yolo.comparison import Budget, Comparison, FinishedRun, SequentialTest, Table

__all__ = ["compare"]


@dataclass(frozen=True)
class Training:
    """How each model is trained."""

    data: Annotated[str, typer.Option(help="The data.yaml of a detection dataset.")]
    weights: Annotated[str | None, typer.Option(help="Start weights for models built from a YAML.")] = None
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each training.")] = 100
    imgsz: Annotated[int, typer.Option(min=32, help="Image size in pixels.")] = 640
    batch: Annotated[int, typer.Option(min=1, help="Batch size.")] = 16
    optimizer: Annotated[
        str, typer.Option(help="An Ultralytics optimizer; auto is the same for every model.")
    ] = "auto"
    lr0: Annotated[float, typer.Option(help="Initial learning rate; the optimizer auto chooses its own.")] = (
        0.01
    )
    workers: Annotated[int, typer.Option(min=0, help="Processes that load images; always 0 on a CPU.")] = 0
    bf16: Annotated[bool, typer.Option(help="Train in bfloat16: faster on a CPU that has it.")] = False

    def budget(self) -> "Budget":
        """Return what every model gets."""
        from convattn_yolo.comparison import Budget

        return Budget(**asdict(self))


@dataclass(frozen=True)
class Stopping:
    """When enough seeds are trained."""

    seeds: Annotated[int, typer.Option(min=1, help="Number of trainings of each model, paired by seed.")] = 5
    stop_early: Annotated[
        bool, typer.Option(help="Skip further seeds of a model once its AP small is decided.")
    ] = False
    margin: Annotated[
        float, typer.Option(min=0, help="With --stop-early: AP differences up to this are negligible.")
    ] = 0.005

    def test(self) -> "SequentialTest | None":
        """Return the test that stops early, or None."""
        from convattn_yolo.comparison import SequentialTest

        return SequentialTest(self.seeds, margin=self.margin) if self.stop_early else None


@with_groups
def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            help="YAML names or weights files, the baseline first; NAME@416 sets an image size of 416."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Output folder; an existing comparison there is resumed.")],
    training: Training,
    stopping: Stopping,
    device: Annotated[str | None, typer.Option(help="An Ultralytics device: cpu, 0, mps.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for training.")] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="auto|ADDRESS", help="Train with a Ray cluster, all of whose machines reach --out."
        ),
    ] = None,
) -> None:
    """Compare models on your data: paired seeds, equal budgets, confidence intervals.

    Can be interrupted at any time: the same command resumes.
    """
    import torch
    from rich.console import Console

    from convattn_yolo.comparison import Comparison, notes, summarize, tables, write_report

    if threads:
        torch.set_num_threads(threads)
    console = Console(soft_wrap=True, width=max(Console().width, 200))  # room for the tables
    comparison = Comparison(models, training.budget(), stopping.seeds, out)
    test = stopping.test()
    for progress in _train(comparison, cluster, device, test, threads):
        console.print(str(progress), highlight=False)
    summaries = summarize(comparison.runs(), comparison.measure_costs(device), test)
    page = write_report(comparison, summaries, test)
    for table in tables(summaries):
        console.print(_rich(table))
    for note in notes(comparison, summaries, test):
        console.print(f"• {note}", highlight=False)
    console.print(f"Report: {page}", highlight=False)


def _train(
    comparison: "Comparison",
    cluster: str | None,
    device: str | None,
    test: "SequentialTest | None",
    threads: int | None,
) -> "Iterator[FinishedRun]":
    """Train what is missing, on this machine or with a cluster."""
    if cluster is None:
        return comparison.train_missing(device, test)
    if not find_spec("ray"):
        raise InputError('A cluster needs Ray: pip install "convattn[ray]".')
    from convattn_yolo.comparison.cluster import train_on_cluster

    return train_on_cluster(comparison, cluster, device=device, test=test, threads=threads or 1)


def _rich(table: "Table") -> "rich.table.Table":
    from rich.table import Table as RichTable

    drawn = RichTable(title=table.title, title_justify="left")
    for index, heading in enumerate(table.header):
        drawn.add_column(heading, justify="right" if index else "left")
    for row in table.rows:
        drawn.add_row(*row)
    return drawn
