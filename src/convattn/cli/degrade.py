"""The command ``convattn degrade``."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["degrade"]


def degrade(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="High-quality images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Output folder.")],
    count: Annotated[int, typer.Option(min=1, help="Examples per image.")] = 8,
    seed: Annotated[int, typer.Option(help="The same seed gives the same examples.")] = 0,
    scale: Annotated[int, typer.Option(min=1, max=8, help="Downscaling factor.")] = 4,
    size: Annotated[int, typer.Option(min=32, help="Side of the center crop in pixels.")] = 384,
) -> None:
    """Preview the degradation of real-world training: a sheet per image, the target first."""
    import torch

    from convattn.errors import InputError
    from convattn.images.io import Image, read_rgb, write_image
    from convattn.images.pixel_range import from_unit
    from convattn.training.degradation import Degradation, contact_sheet

    if len({path.stem for path in images}) < len(images):
        raise InputError("Two images have the same name, so their sheets would collide; rename one of them.")
    for path in images:
        image = read_rgb(path) / 255
        if min(image.shape[1:]) < scale:
            raise InputError(f"{path} is too small to be downscaled by {scale}; use a larger image.")
        generator = torch.Generator().manual_seed(seed)
        sheet = contact_sheet(image, count, Degradation(scale=scale), generator=generator, side=size)
        pixels = from_unit(sheet, torch.uint8).permute(1, 2, 0)
        sheet_path = output / f"{path.stem}.png"
        write_image(Image(pixels.contiguous().numpy()), sheet_path)
        typer.echo(sheet_path)
