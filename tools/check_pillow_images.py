"""Upscale every test image of Pillow and compare what was read with Pillow's own decode.

    pip download --no-deps --no-binary :all: pillow && tar xzf pillow-*.tar.gz
    python tools/check_pillow_images.py pillow-*/Tests/images

Each image that Pillow opens is read, doubled, written as PNG and read again. Its pixels must be Pillow's
within one step of 8 bits (within 3 for lossy formats, whose decoders round differently, and within 10 for
Lab, where Pillow's conversion to sRGB is up to 9 away from the exact one).
"""

import argparse
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image as PILImage
from PIL import ImageCms, ImageOps

from convattn.errors import InputError
from convattn.images.io import Image, read_image, write_image
from convattn.images.io.formats import PLUGINS

_LOSSY = {"JPEG", "MPO", "AVIF", "TIFF", "WEBP"}


def pillow_pixels(image: PILImage.Image) -> np.ndarray | None:
    """Return a PIL image as RGBA of 8 bits; None where Pillow has no colors of its own for it."""
    if image.mode == "CMYK" or image.mode == "F":
        return None  # Pillow converts CMYK without a profile
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if image.mode == "I" or image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(258, (16,))
        scale = 4095 if bits == (12,) else 65535
        gray = (np.asarray(image).astype(float) * 255 / scale).round().clip(0, 255).astype(np.uint8)
        opaque = 255 * (np.asarray(image) != image.info.get("transparency")).astype(np.uint8)
        return np.dstack([gray, gray, gray, opaque])
    return np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))


def our_pixels(image: Image) -> np.ndarray:
    """Return one of our images as RGBA of 8 bits."""
    pixels = image.pixels
    if pixels.dtype == np.uint16:
        pixels = (pixels / 257).round().astype(np.uint8)
    if pixels.shape[2] < 3:
        pixels = np.concatenate([pixels[..., :1].repeat(3, 2), pixels[..., 1:]], 2)
    opaque = np.full_like(pixels[..., :1], 255)
    return pixels if pixels.shape[2] == 4 else np.concatenate([pixels, opaque], 2)


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference of what is visible."""
    if ours.shape != theirs.shape:
        return float("inf")
    a, b = (x.astype(float) for x in (ours, theirs))
    a[..., :3] *= a[..., 3:] / 255
    b[..., :3] *= b[..., 3:] / 255
    return float(np.abs(a - b).max(initial=0))


def check(path: Path, result: Path) -> tuple[str, str]:
    """Return the verdict on one image, and its reason."""
    try:
        with PILImage.open(path) as opened:
            opened.load()
            format, theirs = opened.format or "", pillow_pixels(opened)
            tolerance = 10 if opened.mode == "LAB" else 3 if format in _LOSSY else 1
    except Exception:  # whatever Pillow raises, it does not open this file
        return "not opened by Pillow", ""
    try:
        image = read_image(path)
        larger = Image(image.pixels.repeat(2, 0).repeat(2, 1), image.metadata, image.resolution)
        write_image(larger, result)
        same = np.array_equal(read_image(result).pixels, larger.pixels)
    except InputError as error:
        return "refused", str(error)
    if theirs is None:
        return "upscaled, no reference", format
    off = difference(our_pixels(image), theirs)
    right = same and off <= tolerance
    return ("upscaled, equal", "") if right else ("upscaled, DIFFERENT", f"{format} {path.name}: {off:g}")


def main() -> None:
    """Print how many images of a folder are upscaled, and all that are not or come out differently."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for module, _ in PLUGINS.values():
        __import__(module).register_heif_opener() if module == "pillow_heif" else __import__(module)
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            verdict, reason = check(path, Path(temporary) / "result.png")
            counts[verdict] += 1
            if reason and "no reference" not in verdict:
                print(f"{verdict}: {reason}")
    opened = sum(counts.values()) - counts["not opened by Pillow"]
    for verdict, count in counts.most_common():
        print(f"{count:5} {verdict}")
    print(
        f"{(counts['upscaled, equal'] + counts['upscaled, no reference']) / opened:.1%} of {opened} are right"
    )


if __name__ == "__main__":
    main()
