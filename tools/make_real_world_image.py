"""Draw docs/_static/real.png: photos upscaled by bicubic interpolation and by three models.

python tools/make_real_world_image.py
"""

from pathlib import Path

import numpy as np
import pyvips

from convattn import Upscaler
from convattn.images.io import read_rgb
from convattn.images.resize import resize_bicubic

ROOT = Path(__file__).parents[1]
SCALE = 4
PARTS = {"kitten-on-lawn": (10, 10), "budgie-branch": (40, 40), "roman-colosseum": (8, 10)}  # top and left
SIDE = 80  # of a part


def main() -> None:
    """Draw the image."""
    upscalers = [Upscaler(name, scale=SCALE) for name in ("esc-nano", "esc-nano-real", "esc-small-real")]
    rows = []
    for name, (top, left) in PARTS.items():
        pixels = read_rgb(ROOT / "examples" / "real" / f"{name}.jpg")
        large = [resize_bicubic(pixels[None], SCALE)[0].movedim(0, -1).numpy()]
        large += [upscale(pixels.movedim(0, -1).numpy()) for upscale in upscalers]
        part = tuple(slice(SCALE * start, SCALE * (start + SIDE)) for start in (top, left))
        rows.append(np.hstack([image[part] for image in large]))
    pyvips.Image.new_from_array(np.vstack(rows)).write_to_file(
        str(ROOT / "docs" / "_static" / "real.png"), compression=9, filter="all"
    )


if __name__ == "__main__":
    main()
