"""The command ``convattn compare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import rich.table

    from convattn_yolo.comparison import Table

__all__ = ["compare"]


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            help="YAML names or weights files, the baseline first; NAME@416 sets an image size of 416."
        ),
    ],
    data: Annotated[str, typer.Option(help="The data.yaml of a detection dataset.")],
    out: Annotated[Path, typer.Option(help="Folder of the comparison; an existing one is resumed.")],
    weights: Annotated[str | None, typer.Option(help="Start weights for models built from a YAML.")] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Training runs of each model, paired by their seeds.")
    ] = 5,
    epochs: Annotated[int, typer.Option(min=1)] = 100,
    imgsz: Annotated[int, typer.Option(min=32, help="Image size in pixels.")] = 640,
    batch: Annotated[int, typer.Option(min=1, help="Batch size.")] = 16,
    optimizer: Annotated[
        str, typer.Option(help="An Ultralytics optimizer; auto is the same for every model.")
    ] = "auto",
    lr0: Annotated[
        float, typer.Option(help="Initial learning rate; the optimizer auto chooses its own.")
    ] = 0.01,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load images; always 0 on a CPU.")] = 0,
    bf16: Annotated[bool, typer.Option(help="Train in bfloat16: faster on a CPU that has it.")] = False,
    device: Annotated[str | None, typer.Option(help="An Ultralytics device: cpu, 0, mps.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for training.")] = None,
    stop_early: Annotated[
        bool, typer.Option(help="Skip further seeds of a model once its AP small is decided.")
    ] = False,
    margin: Annotated[
        float, typer.Option(min=0, help="With --stop-early: AP differences up to this are negligible.")
    ] = 0.005,
) -> None:
    """Compare models on your data: paired seeds, equal budgets, confidence intervals.

    Can be interrupted at any time: the same command resumes.
    """
    import torch
    from rich.console import Console

    from convattn_yolo.comparison import (
        Budget,
        Comparison,
        SequentialTest,
        notes,
        summarize,
        tables,
        write_report,
    )

    if threads:
        torch.set_num_threads(threads)
    console = Console(soft_wrap=True, width=max(Console().width, 200))  # room for the tables
    budget = Budget(data, weights, epochs, imgsz, batch, optimizer, lr0, workers, bf16)
    comparison = Comparison(models, budget, seeds, out)
    test = SequentialTest(seeds, margin=margin) if stop_early else None
    for progress in comparison.train_missing(device, test):
        console.print(str(progress), highlight=False)
    summaries = summarize(comparison.runs(), comparison.measure_costs(device), test)
    page = write_report(comparison, summaries, test)
    for table in tables(summaries):
        console.print(_rich(table))
    for note in notes(comparison, summaries, test):
        console.print(f"• {note}", highlight=False)
    console.print(f"Report: {page}", highlight=False)


def _rich(table: "Table") -> "rich.table.Table":
    from rich.table import Table as RichTable

    drawn = RichTable(title=table.title, title_justify="left")
    for index, heading in enumerate(table.header):
        drawn.add_column(heading, justify="right" if index else "left")
    for row in table.rows:
        drawn.add_row(*row)
    return drawn
