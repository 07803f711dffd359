"""``convattn degrade``."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["degrade"]


def degrade(
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE...", help="Good pictures.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")],
    count: Annotated[int, typer.Option(min=1, help="Examples of each picture.")] = 8,
    seed: Annotated[int, typer.Option(help="The same seed gives the same examples.")] = 0,
    scale: Annotated[int, typer.Option(min=1, max=8, help="How many times smaller they become.")] = 4,
    size: Annotated[
        int, typer.Option(min=32, help="Side of the middle part that is shown, in pixels.")
    ] = 384,
) -> None:
    """See what training on real-world pictures makes of yours: a sheet for each, the target first."""
    import torch

    from convattn.errors import InputError
    from convattn.sr.data import read_rgb
    from convattn.sr.degradation import Degradation, contact_sheet
    from convattn.sr.depth import from_unit
    from convattn.sr.pictures import Picture, write_picture

    if len({path.stem for path in pictures}) < len(pictures):
        raise InputError("Two pictures have the same name, and so would their sheets; rename one of them.")
    for path in pictures:
        picture = read_rgb(path) / 255
        if min(picture.shape[1:]) < scale:
            raise InputError(f"{path} is too small to become {scale} times smaller; give a larger picture.")
        generator = torch.Generator().manual_seed(seed)
        sheet = contact_sheet(picture, count, Degradation(scale=scale), generator=generator, side=size)
        pixels = from_unit(sheet, torch.uint8).permute(1, 2, 0)
        sheet_path = output / f"{path.stem}.png"
        write_picture(Picture(pixels.contiguous().numpy()), sheet_path)
        typer.echo(sheet_path)
