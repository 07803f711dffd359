"""How many frames or pages an image file holds."""

import os
from pathlib import Path

import PIL.Image
import pyvips

from convattn.images.io.formats import sniff
from convattn.images.io.png_chunks import is_animated as is_animated_png

__all__ = ["is_animated"]


def is_animated(path: str | os.PathLike[str]) -> bool:
    """Return whether a GIF, WebP, PNG or AVIF file holds several frames; False if it cannot be read."""
    path = Path(path)
    format = sniff(path)
    if format == "PNG":
        return is_animated_png(path)
    if format == "AVIF":
        try:
            with PIL.Image.open(path, formats=["AVIF"]) as image:
                return getattr(image, "n_frames", 1) > 1
        except Exception:  # whoever reads it as an image says what is wrong
            return False
    try:
        source = pyvips.Source.new_from_file(str(path))
        return format in ("GIF", "WebP") and pyvips.Image.new_from_source(source, "").get_n_pages() > 1
    except pyvips.Error:
        return False
