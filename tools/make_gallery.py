"""Draw the images of README and of the gallery from the examples: bicubic interpolation beside the models.

python tools/make_gallery.py
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyvips
import torch
from numpy.typing import NDArray

from convattn import Upscaler
from convattn.images.io import read_image
from convattn.images.resize import resize_bicubic

ROOT = Path(__file__).parents[1]
EXAMPLES, STATIC = ROOT / "examples", ROOT / "docs" / "_static"
QUALITY = 90
CLEAN = {"images/kitten.png": 4, "images/circuits.webp": 4, "images/osprey.png": 2}  # file to scale
REAL = {
    "real/kitten-on-lawn.jpg": (5, 5),
    "real/budgie-branch.jpg": (30, 34),
    "real/colorful-wall.jpg": (20, 20),
    "real/roman-colosseum.jpg": (8, 10),
}
"""File to the top and left of the shown part, at ×4."""
SIDE = 90  # of the shown part of a real-world photo
README_PARTS = {"images/kitten.png": (20, 40), "images/circuits.webp": (14, 22)}  # top and left
README_SIDE = 100

Pixels = NDArray[np.generic]
Method = Callable[[Pixels, int], Pixels]


def bicubic(pixels: Pixels, scale: int) -> Pixels:
    """Upscale (H, W, 3) by bicubic interpolation."""
    channels_first = torch.from_numpy(pixels.copy()).movedim(-1, 0)[None]
    return resize_bicubic(channels_first, scale)[0].movedim(0, -1).numpy()


def network(name: str) -> Method:
    """Return what upscales by a model."""
    return lambda pixels, scale: Upscaler(name, scale=scale)(pixels)


def upscaled(file: str, scale: int, method: Method) -> Pixels:
    """Upscale an example."""
    return method(read_image(EXAMPLES / file).pixels, scale)


def part(pixels: Pixels, top: int, left: int, side: int) -> Pixels:
    """Return a square of a ×4 result, given in pixels of the input."""
    return pixels[4 * top : 4 * (top + side), 4 * left : 4 * (left + side)]


def write(pixels: Pixels, path: Path) -> None:
    """Write a WebP file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyvips.Image.new_from_array(pixels).webpsave(str(path), Q=QUALITY, effort=6, strip=True)


def main() -> None:
    """Draw all images."""
    methods = {name: network(name) for name in ("esc-nano", "esc-nano-real", "esc-small-real")}
    methods["bicubic"] = bicubic
    for file, scale in CLEAN.items():
        for name in ("bicubic", "esc-nano"):
            write(upscaled(file, scale, methods[name]), STATIC / "gallery" / f"{Path(file).stem}-{name}.webp")
    for file, corner in REAL.items():
        for name in ("bicubic", "esc-nano-real", "esc-small-real"):
            square = part(upscaled(file, 4, methods[name]), *corner, SIDE)
            write(square, STATIC / "gallery" / f"{Path(file).stem}-{name}.webp")
    rows = [
        [part(upscaled(file, 4, method), *corner, README_SIDE) for method in (bicubic, methods["esc-nano"])]
        for file, corner in README_PARTS.items()
    ]
    write(np.vstack([np.hstack(row) for row in rows]), STATIC / "result.webp")


if __name__ == "__main__":
    main()
