"""How far 8-bit results in bfloat16 are from those in float32, on a folder of images.

``python benchmarks/precision.py FOLDER [--model esc-nano] [--scale 2]`` prints the largest difference in
steps of 1/255, and the share of values that differ by more than one step.
"""

import argparse
from pathlib import Path

from convattn import Upscaler
from convattn.images.io import find_images, read_rgb

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="esc-nano")
    parser.add_argument("--scale", type=int, default=2)
    arguments = parser.parse_args()
    precise, quick = (
        Upscaler(arguments.model, arguments.scale, precision=precision, device="cpu")
        for precision in ("fp32", "bf16")
    )
    largest = beyond = count = 0
    for path in find_images(arguments.folder):
        image = read_rgb(path)
        difference = (precise(image).int() - quick(image).int()).abs()
        largest = max(largest, int(difference.max()))
        beyond += int((difference > 1).sum())
        count += difference.numel()
    print(f"at most {largest} of 255; {100 * beyond / count:.5f} % of the values differ by more than 1")
