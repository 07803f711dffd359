"""Cut a YOLO detection dataset into square tiles, so that small objects keep their pixels at a small imgsz.

    python tools/tile_dataset.py SOURCE TARGET --side 320 --most 240

Tiles lie side by side; the last of a row or column moves inwards. A box stays where at least half of it lies
in the tile. Tiles without objects are left out; of the others each split keeps at most ``--most``, evenly.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

Tile = tuple[Image.Image, np.ndarray]


def starts(length: int, side: int) -> list[int]:
    """Where the tiles along one axis begin, in pixels."""
    return sorted({max(min(start, length - side), 0) for start in range(0, length, side)})


def clip(boxes: np.ndarray, left: int, top: int, width: int, height: int) -> np.ndarray:
    """Boxes (class, left, top, right, bottom in pixels) within a tile, in its own pixels."""
    low, high = boxes[:, 1:3], boxes[:, 3:5]
    origin, end = np.array([left, top]), np.array([left + width, top + height])
    inside_low, inside_high = np.clip(low, origin, end), np.clip(high, origin, end)
    share = np.prod(inside_high - inside_low, 1) / np.prod(high - low, 1)
    kept = np.hstack([boxes[:, :1], inside_low - origin, inside_high - origin])
    return kept[share >= 0.5]


def tiles(image: Image.Image, boxes: np.ndarray, side: int) -> Iterator[Tile]:
    """The tiles of an image that hold objects."""
    for top in starts(image.height, side):
        for left in starts(image.width, side):
            width, height = min(side, image.width), min(side, image.height)
            within = clip(boxes, left, top, width, height)
            if len(within):
                yield image.crop((left, top, left + width, top + height)), within


def read_boxes(file: Path, width: int, height: int) -> np.ndarray:
    """A YOLO label file as (class, left, top, right, bottom) in pixels."""
    rows = np.loadtxt(file, ndmin=2).reshape(-1, 5) if file.exists() else np.zeros((0, 5))
    center, size = rows[:, 1:3] * [width, height], rows[:, 3:5] * [width, height]
    return np.hstack([rows[:, :1], center - size / 2, center + size / 2])


def yolo_lines(boxes: np.ndarray, width: int, height: int) -> str:
    """Boxes in pixels as the lines of a YOLO label file."""
    low, high = boxes[:, 1:3] / [width, height], boxes[:, 3:5] / [width, height]
    rows = np.hstack([(low + high) / 2, high - low])
    return "".join(
        f"{int(cls)} {' '.join(f'{value:.6f}' for value in row)}\n"
        for cls, row in zip(boxes[:, 0], rows, strict=True)
    )


def cut_split(source: Path, target: Path, split: str, side: int, most: int) -> int:
    """Write the tiles of one split; returns how many."""
    found: list[tuple[str, Tile]] = []
    for file in sorted((source / "images" / split).iterdir()):
        image = Image.open(file).convert("RGB")
        boxes = read_boxes(source / "labels" / split / f"{file.stem}.txt", *image.size)
        found += [(f"{file.stem}-{index}", tile) for index, tile in enumerate(tiles(image, boxes, side))]
    chosen = (
        sorted({len(found) * index // most for index in range(most)})
        if len(found) > most
        else range(len(found))
    )
    for kind in ("images", "labels"):
        (target / kind / split).mkdir(parents=True, exist_ok=True)
    for name, (image, boxes) in (found[index] for index in chosen):
        image.save(target / "images" / split / f"{name}.png")
        (target / "labels" / split / f"{name}.txt").write_text(yolo_lines(boxes, *image.size))
    return len(chosen)


def read_names(source: Path) -> list[str]:
    """The class names of a dataset by its data.yaml."""
    file = source / "data.yaml"
    if not file.is_file():
        sys.exit(f"There is no {file}; give the class names by --names.")
    names = yaml.safe_load(file.read_text(encoding="utf-8"))["names"]
    return list(names.values()) if isinstance(names, dict) else names


def main() -> None:
    """Read the arguments and cut both splits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", type=Path, help="folder with images/ and labels/, each with train/ and val/"
    )
    parser.add_argument("target", type=Path, help="folder for the tiles")
    parser.add_argument("--side", type=int, default=320, help="side of a tile in pixels")
    parser.add_argument("--most", type=int, default=10**9, help="tiles kept in each split")
    parser.add_argument(
        "--names", help="class names, separated by commas; by default those of SOURCE/data.yaml"
    )
    arguments = parser.parse_args()
    names = arguments.names.split(",") if arguments.names else read_names(arguments.source)
    for split in ("train", "val"):
        count = cut_split(arguments.source, arguments.target, split, arguments.side, arguments.most)
        print(f"{split}: {count} tiles")
    description = dict(
        path=str(arguments.target.resolve()), train="images/train", val="images/val", names=names
    )
    (arguments.target / "data.yaml").write_text(
        yaml.safe_dump(description, sort_keys=False), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
