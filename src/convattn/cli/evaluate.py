"""``convattn evaluate``."""

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from convattn.evaluation.protocol import Score

__all__ = ["evaluate"]


class Pipeline(str, Enum):
    """How low-resolution images are made."""

    double = "double"
    uint8 = "uint8"


class Format(str, Enum):
    """How results are written."""

    table = "table"
    csv = "csv"
    json = "json"


def evaluate(
    sources: Annotated[
        list[Path],
        typer.Argument(help="High-resolution images, folders of them, or sets with a folder HR."),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="Name or file of weights, or bicubic; by default esc-nano at scale 2, 3 or 4, and "
            "esc-nano-lte at any other."
        ),
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="1 to 30; may be left out where the weights have one.")
    ] = None,
    low: Annotated[
        Path | None, typer.Option(help="The low-resolution images, if they shall not be made.")
    ] = None,
    pipeline: Annotated[
        Pipeline, typer.Option(help="Make them in double precision, or of 8-bit images as MATLAB does.")
    ] = Pipeline.double,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    each: Annotated[bool, typer.Option("--each", help="Show every image, not the means only.")] = False,
    format: Annotated[Format, typer.Option(help="CSV and JSON are of every image.")] = Format.table,
) -> None:
    """Measure PSNR-Y and SSIM-Y by the published protocol."""
    from rich.console import Console
    from rich.progress import track

    from convattn.evaluation import protocol

    method, scale, model = protocol.choose_method(model, scale, device)
    title = f"{Path(model).name} x{scale:g}"
    pairs = (
        pair for source in sources for pair in protocol.pairs(source, scale, low=low, pipeline=pipeline.value)
    )
    measured = protocol.evaluate(method, pairs, scale)
    scores = list(track(measured, title, console=Console(stderr=True), transient=True))
    if format is Format.table:
        shown = scores if each else []
        Console().print(_table([*shown, *protocol.mean_scores(scores)], title))
    else:
        sys.stdout.write((protocol.as_csv if format is Format.csv else protocol.as_json)(scores))


def _table(scores: "list[Score]", title: str) -> "Table":
    from rich.table import Table

    table = Table("set", "image", title=title)
    table.add_column("PSNR-Y (dB)", justify="right")
    table.add_column("SSIM-Y", justify="right")
    for score in scores:
        table.add_row(score.set, score.image, f"{score.psnr:.2f}", f"{score.ssim:.4f}")
    return table
