"""Draw docs/_static/result.png: a part of an example image upscaled by bicubic interpolation and by esc-nano.

python tools/make_result_image.py
"""

from pathlib import Path

import numpy as np
import pyvips
import torch

from convattn import Upscaler
from convattn.images.io import read_image
from convattn.images.resize import resize_bicubic

ROOT = Path(__file__).parents[1]
SCALE = 4
PARTS = {"kitten.png": (slice(20, 120), slice(40, 140)), "circuits.webp": (slice(14, 114), slice(22, 122))}


def main() -> None:
    """Draw the image."""
    upscale = Upscaler("esc-nano", scale=SCALE)
    rows = []
    for name, part in PARTS.items():
        pixels = read_image(ROOT / "examples" / "images" / name).pixels[part]
        bicubic = resize_bicubic(torch.from_numpy(pixels.copy()).movedim(-1, 0)[None], SCALE)[0]
        rows.append(np.hstack((bicubic.movedim(0, -1).numpy(), upscale(pixels))))
    pyvips.Image.new_from_array(np.vstack(rows)).write_to_file(str(ROOT / "docs" / "_static" / "result.png"))


if __name__ == "__main__":
    main()
