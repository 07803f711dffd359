"""Make pairs to learn from: low-resolution images, and what a larger network makes of each.

    python tools/make_teacher_pairs.py PHOTOS PAIRS --teacher RealESRGAN_x4plus.pth --count 900

A third of the low-resolution images are degraded as in the training of Real-ESRGAN, a third are shrunken and
mildly compressed, and a third are clean. The same command resumes where it was interrupted, and adds pairs
where the count has grown. ``convattn train esc-small-real data=PAIRS`` learns from them.

For a classic network, ``--clean`` makes clean images only, and pairs each with the photograph as well:

    python tools/make_teacher_pairs.py PHOTOS PAIRS --teacher DAT_light_x4.pth --clean --side 128 --count 319
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Generator, Tensor, nn

from convattn.checkpoints.loading import load_network
from convattn.images.io import Image, find_images, read_rgb, write_image
from convattn.images.pixel_range import from_unit
from convattn.images.resize import resize_bicubic
from convattn.training.degradation import Degradation, compress, degrade

Make = Callable[[Tensor, int, Generator], Tensor]
"""Makes a low-resolution image of a good one: (1, 3, H, W) in [0, 1], and how many times smaller it gets."""


def clean(image: Tensor, scale: int, generator: Generator) -> Tensor:
    """Shrink an image."""
    return resize_bicubic(image, 1 / scale).clamp(0, 1)


def mild(image: Tensor, scale: int, generator: Generator) -> Tensor:
    """Shrink an image and compress it as cameras and web sites do."""
    quality = int(torch.randint(60, 96, (), generator=generator))
    return compress(clean(image, scale, generator), ["jpeg"], [quality])


def degraded(image: Tensor, scale: int, generator: Generator) -> Tensor:
    """Degrade an image in two rounds."""
    return degrade(image, Degradation(scale=scale), generator=generator)


KINDS: tuple[Make, ...] = (degraded, mild, clean)


def crop(paths: list[Path], number: int, side: int) -> Tensor:
    """Cut the part of a photograph that belongs to a number, ``uint8`` (1, 3, side, side)."""
    random = np.random.default_rng(number)
    image = read_rgb(paths[int(random.integers(len(paths)))])
    top, left = (int(random.integers(length - side + 1)) for length in image.shape[1:])
    return image[None, :, top : top + side, left : left + side]


def low_resolution(photo: Tensor, make: Make, number: int, scale: int) -> Tensor:
    """Make the low-resolution image of ``uint8`` (1, 3, H, W), ``uint8`` too."""
    return from_unit(make(photo / 255, scale, Generator().manual_seed(number)), torch.uint8)


@torch.inference_mode()
def imitate(teacher: nn.Module, low: Tensor) -> Tensor:
    """Return what the teacher makes of ``uint8`` (1, 3, H, W), ``uint8`` too."""
    bf16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return from_unit(teacher(low / 255).float(), torch.uint8)


def save_pair(low: Tensor, high: Tensor, pairs: Path, name: str) -> None:
    """Write ``uint8`` (1, 3, h, w) and (1, 3, H, W) as the files of a pair."""
    for folder, pixels in (("LR", low), ("HR", high)):
        write_image(Image(pixels[0].movedim(0, -1).contiguous().numpy()), pairs / folder / name)


def main() -> None:
    """Make the pairs that are missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", help="folder of good images")
    parser.add_argument("pairs", type=Path, help="folder for LR and HR")
    parser.add_argument("--teacher", required=True, help="file of the larger network")
    parser.add_argument("--count", type=int, default=900)
    parser.add_argument("--side", type=int, default=96, help="of the low-resolution images in pixels")
    parser.add_argument(
        "--clean", action="store_true", help="clean images only, in a second pair with the photo"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    teacher = load_network(options.teacher).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    paths = find_images(options.photos)
    kinds = (clean,) if options.clean else KINDS
    for number in track(range(options.count), "Pairs"):
        target = options.pairs / "HR" / f"{number:05d}.png"
        if target.exists():
            continue
        photo = crop(paths, number, options.side * teacher.scale)
        low = low_resolution(photo, kinds[number % len(kinds)], number, teacher.scale)
        if options.clean:
            save_pair(low, photo, options.pairs, f"{target.stem}-photo.png")
        save_pair(low, imitate(teacher, low), options.pairs, target.name)


if __name__ == "__main__":
    main()
