"""Training pairs cut from a folder of images: high resolution from the files, low resolution made of it."""

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, default_collate, get_worker_info

from convattn.errors import InputError
from convattn.images.io import find_images, read_rgb
from convattn.images.resize import resize_bicubic
from convattn.layers.execution import pixel_centers

__all__ = [
    "MARGIN",
    "ImageFolder",
    "PatchStream",
    "Queries",
    "QueryStream",
    "crop_with_margin",
    "make_pair",
    "oriented",
    "to_input",
]

MARGIN = 2
"""Low-resolution pixels on each side of a patch that its border pixels are made of, too."""


class ImageFolder:
    """The images of a folder, decoded once and kept as bytes in memory as far as they fit.

    Args:
        folder: where the images lie, nested folders included.
        smallest: the least height and width that an image must have.
        memory: how many GiB of decoded images to keep; those beyond are decoded anew each time.

    Attributes:
        paths: the files, sorted.
        sizes: height and width of each.

    Raises:
        InputError: if there are no images, or one cannot be read or is too small.
    """

    def __init__(self, folder: str | Path, *, smallest: int, memory: float = 8.0) -> None:
        self.paths = find_images(folder)
        self.sizes: list[tuple[int, ...]] = []
        self._kept: dict[int, Tensor] = {}
        room = memory * 2**30
        with ThreadPoolExecutor() as pool:
            for index, image in enumerate(pool.map(read_rgb, self.paths)):
                self.sizes.append(tuple(image.shape[1:]))
                if min(image.shape[1:]) < smallest:
                    height, width = image.shape[1:]
                    raise InputError(
                        f"{self.paths[index]} is {width}x{height} pixels, too small for training patches of "
                        f"{smallest}x{smallest}; take it out or make them smaller."
                    )
                if image.nbytes <= room:
                    self._kept[index] = image
                    room -= image.nbytes

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Return an image as ``uint8`` (3, H, W)."""
        kept = self._kept.get(index)
        return read_rgb(self.paths[index]) if kept is None else kept


class PatchStream(IterableDataset[Any]):
    """An endless stream of training batches in which step k is the same whenever and wherever it is made.

    All randomness is a function of the seed and the number of the sample, so a run that was interrupted, or
    that has another number of workers or devices, sees exactly the same samples at the same step.

    Yields ``uint8`` batches (batch / devices, 3, S, S) of high-resolution patches with the margin that
    :func:`make_pair` needs, S = scale * (patch + 2 * MARGIN).

    Args:
        images: what to cut from.
        scale: of the network in training.
        patch: side of a low-resolution patch.
        batch: samples of a step, over all devices together.
        seed: of the crops and orientations.
        first_step: the step to begin with.
        device: which of the devices this stream is for.
        devices: how many share a batch.
    """

    def __init__(
        self,
        images: ImageFolder,
        *,
        scale: int,
        patch: int,
        batch: int,
        seed: int,
        first_step: int = 0,
        device: int = 0,
        devices: int = 1,
    ) -> None:
        self.images = images
        self.scale, self.patch, self.batch, self.seed = scale, patch, batch, seed
        self.first_step, self.device, self.devices = first_step, device, devices

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()  # workers take turns, a whole batch each
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in itertools.count(self.first_step + first, stride):
            samples = range(step * self.batch + self.device, (step + 1) * self.batch, self.devices)
            yield default_collate([self.sample(number) for number in samples])

    def sample(self, number: int) -> Any:
        """Return the sample of that number: a random crop in one of its eight orientations."""
        random = np.random.default_rng([self.seed, number])
        image = self.images[int(random.integers(len(self.images)))]
        corner = [int(random.integers(side // self.scale - self.patch + 1)) for side in image.shape[1:]]
        crop = crop_with_margin(image, corner[0], corner[1], scale=self.scale, patch=self.patch)
        return oriented(crop, random.integers(2, size=3))


class Queries(NamedTuple):
    """Samples for a network of any scale: low-resolution patches, and colors at points of theirs.

    Attributes:
        low: ``uint8`` (N, 3, patch, patch).
        rows: (N, queries), positions in pixels of the patch.
        columns: The same.
        cell: (N, 2), height and width of a high-resolution pixel in pixels of the patch.
        colors: ``uint8`` (N, queries, 3).
    """

    low: Tensor
    rows: Tensor
    columns: Tensor
    cell: Tensor
    colors: Tensor


class QueryStream(PatchStream):
    """The same for networks of any scale: each sample has a scale of its own, between 1 and ``scale``.

    Yields :class:`Queries`. As everywhere in this module the patch is part of a larger image that was
    shrunken, so that its border pixels have seen what lies beyond.

    Args:
        images: what to cut from, each ``scale * (patch + 2 * MARGIN)`` pixels high and wide at least.
        queries: points of a sample, drawn among the high-resolution pixels over the patch.
        **stream: see :class:`PatchStream`.
    """

    def __init__(self, images: ImageFolder, *, queries: int, **stream: int) -> None:
        super().__init__(images, **stream)
        self.queries = queries

    def sample(self, number: int) -> Queries:
        """Return the sample of that number."""
        random = np.random.default_rng([self.seed, number])
        image = self.images[int(random.integers(len(self.images)))]
        side = self.patch + 2 * MARGIN
        large = round(side * random.uniform(1, self.scale))
        row, column = (int(random.integers(length - large + 1)) for length in image.shape[1:])
        orientation = random.integers(2, size=3)
        crop = oriented(image[:, row : row + large, column : column + large], orientation)
        centers = pixel_centers(side, large) - MARGIN
        inside = ((centers > 0) & (centers < self.patch)).nonzero()[:, 0]
        rows, columns = inside[torch.from_numpy(random.integers(len(inside), size=(2, self.queries)))]
        return Queries(
            low=resize_bicubic(crop, size=(side, side))[..., MARGIN:-MARGIN, MARGIN:-MARGIN],
            rows=centers[rows].float(),
            columns=centers[columns].float(),
            cell=torch.full((2,), side / large),
            colors=crop[:, rows, columns].T,
        )


def oriented(crop: Tensor, orientation: Iterable[int]) -> Tensor:
    """Return one of the eight orientations of (…, H, W): rows flipped, columns flipped, transposed or not."""
    flip_rows, flip_columns, transpose = orientation
    if flip_rows:
        crop = crop.flip(-2)
    if flip_columns:
        crop = crop.flip(-1)
    return crop.mT if transpose else crop


def crop_with_margin(image: Tensor, row: int, column: int, *, scale: int, patch: int) -> Tensor:
    """Cut a high-resolution patch and its margin, mirrored where it reaches beyond the image.

    Args:
        image: (3, H, W), of which the largest part divisible by the scale counts.
        row: of the patch's first pixel, in low-resolution pixels.
        column: the same.
        scale: high-resolution pixels of a low-resolution one.
        patch: side of the patch in low-resolution pixels.

    Returns:
        (3, S, S) with S = scale * (patch + 2 * MARGIN).
    """
    rows = _mirrored(row, image.shape[-2], scale, patch)
    columns = _mirrored(column, image.shape[-1], scale, patch)
    return image[:, rows][:, :, columns]


def _mirrored(first: int, side: int, scale: int, patch: int) -> slice | Tensor:
    """Return the range of a patch with its margin along one side; a slice where nothing needs mirroring."""
    side -= side % scale
    start, stop = (first - MARGIN) * scale, (first + patch + MARGIN) * scale
    if start >= 0 and stop <= side:
        return slice(start, stop)
    positions = torch.arange(start, stop) % (2 * side)
    return torch.minimum(positions, 2 * side - 1 - positions)


def make_pair(crops: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Make low- and high-resolution patches of crops with margin, in [0, 1].

    The low-resolution patch is the crop of the whole shrunken image, quantised to 8 bits as the published
    low-resolution files are.

    Args:
        crops: ``uint8`` (N, 3, S, S), S = scale * (patch + 2 * MARGIN).
        scale: of the network in training.

    Returns:
        (N, 3, patch, patch) and (N, 3, scale * patch, scale * patch), float32, channels last.
    """
    inner, outer = slice(MARGIN, -MARGIN), slice(scale * MARGIN, -scale * MARGIN)
    low = resize_bicubic(crops, 1 / scale)[..., inner, inner]
    high = crops[..., outer, outer]
    return to_input(low), to_input(high)


def to_input(batch: Tensor) -> Tensor:
    """Bring ``uint8`` images (N, C, H, W) to float32 in [0, 1], channels last."""
    return batch.contiguous(memory_format=torch.channels_last).float() / 255
