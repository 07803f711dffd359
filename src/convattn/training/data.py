"""Training pairs cut from a folder of high-resolution images."""

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
"""Low-resolution pixels around a patch within the receptive field of the downscaling."""


class ImageFolder:
    """The images of a folder, decoded once and cached as ``uint8`` as far as they fit.

    Args:
        folder: Folder of the images, including its subfolders.
        smallest: Smallest height and width of an image.
        cache_gib: Largest size of the cache in GiB; other images are decoded on each access.

    Attributes:
        paths: The files, sorted.
        sizes: Height and width of each image.

    Raises:
        InputError: There are no images, or one cannot be read or is too small.
    """

    def __init__(self, folder: str | Path, *, smallest: int, cache_gib: float = 8.0) -> None:
        self.paths = find_images(folder)
        self.sizes: list[tuple[int, ...]] = []
        self._cached: dict[int, Tensor] = {}
        room = cache_gib * 2**30
        with ThreadPoolExecutor() as pool:
            for index, image in enumerate(pool.map(read_rgb, self.paths)):
                self.sizes.append(tuple(image.shape[1:]))
                if min(image.shape[1:]) < smallest:
                    height, width = image.shape[1:]
                    raise InputError(
                        f"{self.paths[index]} is {width}x{height} pixels, too small for training patches of "
                        f"{smallest}x{smallest}; remove it or reduce patch_size."
                    )
                if image.nbytes <= room:
                    self._cached[index] = image
                    room -= image.nbytes

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Return an image as ``uint8`` (3, H, W)."""
        cached = self._cached.get(index)
        return read_rgb(self.paths[index]) if cached is None else cached


class PatchStream(IterableDataset[Any]):
    """An endless, reproducible stream of training batches.

    All randomness is a function of the seed and the number of the sample: the batch of a step is the same
    after a resumption, and with any number of workers and devices.

    Yields ``uint8`` batches (batch_size / devices, 3, S, S) of high-resolution patches with the margin that
    :func:`make_pair` needs, S = scale * (patch_size + 2 * MARGIN).

    Args:
        images: The images.
        scale: Upscaling factor of the network.
        patch_size: Side of a low-resolution patch in pixels.
        batch_size: Samples per step, over all devices.
        seed: Seed of crops and orientations.
        first_step: Number of the first step.
        device: Index of the device that the stream is for.
        devices: Number of devices that share a batch.
    """

    def __init__(
        self,
        images: ImageFolder,
        *,
        scale: int,
        patch_size: int,
        batch_size: int,
        seed: int,
        first_step: int = 0,
        device: int = 0,
        devices: int = 1,
    ) -> None:
        self.images = images
        self.scale, self.patch_size, self.batch_size, self.seed = scale, patch_size, batch_size, seed
        self.first_step, self.device, self.devices = first_step, device, devices

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()  # workers take turns, one batch each
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in itertools.count(self.first_step + first, stride):
            samples = range(step * self.batch_size + self.device, (step + 1) * self.batch_size, self.devices)
            yield default_collate([self.sample(number) for number in samples])

    def sample(self, number: int) -> Any:
        """Return the sample of that number: a random crop in one of its eight orientations."""
        random = np.random.default_rng([self.seed, number])
        image = self.images[int(random.integers(len(self.images)))]
        corner = [int(random.integers(side // self.scale - self.patch_size + 1)) for side in image.shape[1:]]
        crop = crop_with_margin(image, corner[0], corner[1], scale=self.scale, patch_size=self.patch_size)
        return oriented(crop, random.integers(2, size=3))


class Queries(NamedTuple):
    """Samples for a network of arbitrary scale: low-resolution patches and colors at points.

    Attributes:
        low: ``uint8`` (N, 3, patch_size, patch_size).
        rows: (N, queries), positions in pixels of the patch.
        columns: (N, queries), positions in pixels of the patch.
        cell: (N, 2), height and width of a high-resolution pixel, in pixels of the patch.
        colors: ``uint8`` (N, queries, 3).
    """

    low: Tensor
    rows: Tensor
    columns: Tensor
    cell: Tensor
    colors: Tensor


class QueryStream(PatchStream):
    """A stream for networks of arbitrary scale: the scale of each sample is random between 1 and ``scale``.

    Yields :class:`Queries`. The patch is cut from a larger downscaled image, so that its border pixels depend
    on their surroundings as in a whole image.

    Args:
        images: The images, at least ``scale * (patch_size + 2 * MARGIN)`` pixels high and wide.
        queries: Number of points per sample, drawn from the high-resolution pixels of the patch.
        **stream: As for :class:`PatchStream`.
    """

    def __init__(self, images: ImageFolder, *, queries: int, **stream: int) -> None:
        super().__init__(images, **stream)
        self.queries = queries

    def sample(self, number: int) -> Queries:
        """Return the sample with the given number."""
        random = np.random.default_rng([self.seed, number])
        image = self.images[int(random.integers(len(self.images)))]
        side = self.patch_size + 2 * MARGIN
        large = round(side * random.uniform(1, self.scale))
        row, column = (int(random.integers(length - large + 1)) for length in image.shape[1:])
        orientation = random.integers(2, size=3)
        crop = oriented(image[:, row : row + large, column : column + large], orientation)
        centers = pixel_centers(side, large) - MARGIN
        inside = ((centers > 0) & (centers < self.patch_size)).nonzero()[:, 0]
        rows, columns = inside[torch.from_numpy(random.integers(len(inside), size=(2, self.queries)))]
        return Queries(
            low=resize_bicubic(crop, size=(side, side))[..., MARGIN:-MARGIN, MARGIN:-MARGIN],
            rows=centers[rows].float(),
            columns=centers[columns].float(),
            cell=torch.full((2,), side / large),
            colors=crop[:, rows, columns].T,
        )


def oriented(crop: Tensor, orientation: Iterable[int]) -> Tensor:
    """Return one of the eight orientations of (…, H, W), given as (flip rows, flip columns, transpose)."""
    flip_rows, flip_columns, transpose = orientation
    if flip_rows:
        crop = crop.flip(-2)
    if flip_columns:
        crop = crop.flip(-1)
    return crop.mT if transpose else crop


def crop_with_margin(image: Tensor, row: int, column: int, *, scale: int, patch_size: int) -> Tensor:
    """Cut a high-resolution patch with margin, mirrored beyond the image's borders.

    Args:
        image: (3, H, W); rows and columns beyond the last multiple of the scale are ignored.
        row: First row of the patch in low-resolution pixels.
        column: First column of the patch in low-resolution pixels.
        scale: Upscaling factor.
        patch_size: Side of the patch in low-resolution pixels.

    Returns:
        (3, S, S) with S = scale * (patch_size + 2 * MARGIN).
    """
    rows = _mirrored(row, image.shape[-2], scale, patch_size)
    columns = _mirrored(column, image.shape[-1], scale, patch_size)
    return image[:, rows][:, :, columns]


def _mirrored(first: int, side: int, scale: int, patch_size: int) -> slice | Tensor:
    """Return the positions of a patch with margin along one axis; a slice unless some are mirrored."""
    side -= side % scale
    start, stop = (first - MARGIN) * scale, (first + patch_size + MARGIN) * scale
    if start >= 0 and stop <= side:
        return slice(start, stop)
    positions = torch.arange(start, stop) % (2 * side)
    return torch.minimum(positions, 2 * side - 1 - positions)


def make_pair(crops: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Make low- and high-resolution patches from crops with margin.

    The low-resolution patch equals that of the whole downscaled image, rounded to 8 bits like the published
    low-resolution files.

    Args:
        crops: ``uint8`` (N, 3, S, S), S = scale * (patch_size + 2 * MARGIN).
        scale: Upscaling factor.

    Returns:
        (N, 3, patch_size, patch_size) and (N, 3, scale * patch_size, scale * patch_size), float32 in [0, 1],
        channels last.
    """
    inner, outer = slice(MARGIN, -MARGIN), slice(scale * MARGIN, -scale * MARGIN)
    low = resize_bicubic(crops, 1 / scale)[..., inner, inner]
    high = crops[..., outer, outer]
    return to_input(low), to_input(high)


def to_input(batch: Tensor) -> Tensor:
    """Convert ``uint8`` images (N, C, H, W) to float32 in [0, 1], channels last."""
    return batch.contiguous(memory_format=torch.channels_last).float() / 255
