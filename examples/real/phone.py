"""Make an image look as if a cheap phone had taken it: python phone.py IMAGE... -o FOLDER

A chain of its own, on purpose: it shares nothing with the degradation that convattn trains on. In linear
light the lens is out of focus and the sensor noisy; the phone smooths and oversharpens, and a messenger
compresses.
"""

import argparse
from pathlib import Path

import pyvips

SCALE = 4  # how many times smaller the image becomes
FOCUS = 3.0  # radius of the circle of confusion, in pixels of the original
SHOT, READ = 0.05, 0.008  # noise at full light and in the dark, of a range of 1
QUALITY = 40  # of the JPEG file


def disc(radius: float) -> pyvips.Image:
    """A round blur kernel with soft borders."""
    side = 2 * int(radius + 1) + 1
    place = pyvips.Image.xyz(side, side) - side // 2
    distance = (place[0] ** 2 + place[1] ** 2) ** 0.5
    inside = radius + 0.5 - distance
    inside = (inside < 0).ifthenelse(0, (inside > 1).ifthenelse(1, inside))
    return inside / (inside.avg() * side * side)


def noise(light: pyvips.Image, seed: int) -> pyvips.Image:
    """What a sensor adds to an amount of light: more where there is more, of the same in no two channels."""
    size = light.width, light.height
    grain = [pyvips.Image.gaussnoise(*size, mean=0, sigma=1, seed=seed + channel) for channel in range(3)]
    return (light * SHOT**2 + READ**2) ** 0.5 * grain[0].bandjoin(grain[1:])


def photograph(image: pyvips.Image, seed: int) -> pyvips.Image:
    """The image as the phone would show it, before compression."""
    light = image.colourspace("scrgb").extract_band(0, n=3)
    light = light.conv(disc(FOCUS), precision="float").resize(1 / SCALE, kernel="linear")
    light = (light > 0).ifthenelse(light, 0)
    seen = (light + noise(light, seed)).copy(interpretation="scrgb").colourspace("srgb").cast("uchar")
    smooth = seen.median(3)
    return (0.5 * seen + 0.5 * smooth).cast("uchar").copy(interpretation="srgb").sharpen(sigma=1, m2=3)


def main() -> None:
    """Write a JPEG file for each image."""
    parser = argparse.ArgumentParser()
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    for seed, path in enumerate(arguments.images):
        image = photograph(pyvips.Image.new_from_file(str(path)), 10 * seed)
        name = path.stem.rstrip("_0123456789")
        image.jpegsave(str(arguments.output / f"{name}.jpg"), Q=QUALITY, strip=True)


if __name__ == "__main__":
    main()
