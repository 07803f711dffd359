"""Training pairs cut from a folder of pictures: high resolution from the files, low resolution made of it."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, default_collate, get_worker_info

from convattn.errors import InputError
from convattn.sr.lte import pixel_centres
from convattn.sr.pictures import find_pictures, read_picture
from convattn.sr.resize import resize_bicubic

__all__ = [
    "MARGIN",
    "PatchStream",
    "PictureFolder",
    "Queries",
    "QueryStream",
    "crop_with_margin",
    "make_pair",
    "read_rgb",
]

MARGIN = 2
"""Low-resolution pixels on each side of a patch that its border pixels are made of, too."""


def read_rgb(path: str | Path) -> Tensor:
    """Read a picture file as 8-bit RGB: ``uint8`` (3, H, W); grey is repeated, alpha is dropped.

    Raises:
        InputError: if the file is missing or cannot be read as a picture.
    """
    pixels = read_picture(path).pixels
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    colours = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1].repeat(3, axis=-1)
    return torch.from_numpy(np.ascontiguousarray(colours.transpose(2, 0, 1)))


class PictureFolder:
    """The pictures of a folder, decoded once and kept as bytes in memory as far as they fit.

    Args:
        folder: where the pictures lie, nested folders included.
        smallest: the least height and width that a picture must have.
        memory: how many GiB of decoded pictures to keep; those beyond are decoded anew each time.

    Raises:
        InputError: if there are no pictures, or one cannot be read or is too small.
    """

    def __init__(self, folder: str | Path, *, smallest: int, memory: float = 8.0) -> None:
        self.paths = find_pictures(folder)
        self._kept: dict[int, Tensor] = {}
        room = memory * 2**30
        with ThreadPoolExecutor() as pool:
            for index, picture in enumerate(pool.map(read_rgb, self.paths)):
                if min(picture.shape[1:]) < smallest:
                    height, width = picture.shape[1:]
                    raise InputError(
                        f"{self.paths[index]} is {width}x{height} pixels, too small for training patches of "
                        f"{smallest}x{smallest}; take it out or make them smaller."
                    )
                if picture.nbytes <= room:
                    self._kept[index] = picture
                    room -= picture.nbytes

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Return a picture as ``uint8`` (3, H, W)."""
        kept = self._kept.get(index)
        return read_rgb(self.paths[index]) if kept is None else kept


class PatchStream(IterableDataset[Any]):
    """An endless stream of training batches in which step k is the same whenever and wherever it is made.

    All randomness is a function of the seed and the number of the sample, so a run that was interrupted, or
    that has another number of workers or devices, sees exactly the same samples at the same step.

    Yields ``uint8`` batches (batch / devices, 3, S, S) of high-resolution patches with the margin that
    :func:`make_pair` needs, S = scale * (patch + 2 * MARGIN).

    Args:
        pictures: what to cut from.
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
        pictures: PictureFolder,
        *,
        scale: int,
        patch: int,
        batch: int,
        seed: int,
        first_step: int = 0,
        device: int = 0,
        devices: int = 1,
    ) -> None:
        self.pictures = pictures
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
        picture = self.pictures[int(random.integers(len(self.pictures)))]
        corner = [int(random.integers(side // self.scale - self.patch + 1)) for side in picture.shape[1:]]
        crop = crop_with_margin(picture, corner[0], corner[1], scale=self.scale, patch=self.patch)
        return _turned(crop, random)


class Queries(NamedTuple):
    """Samples for a network of any scale: low-resolution patches, and colours at points of theirs.

    Attributes:
        low: ``uint8`` (N, 3, patch, patch).
        rows: (N, queries), positions in pixels of the patch.
        columns: The same.
        cell: (N, 2), height and width of a high-resolution pixel in pixels of the patch.
        colours: ``uint8`` (N, queries, 3).
    """

    low: Tensor
    rows: Tensor
    columns: Tensor
    cell: Tensor
    colours: Tensor


class QueryStream(PatchStream):
    """The same for networks of any scale: each sample has a scale of its own, between 1 and ``scale``.

    Yields :class:`Queries`. As everywhere in this module the patch is part of a larger picture that was
    shrunken, so that its border pixels have seen what lies beyond.

    Args:
        pictures: what to cut from, each ``scale * (patch + 2 * MARGIN)`` pixels high and wide at least.
        queries: points of a sample, drawn among the high-resolution pixels over the patch.
        **stream: see :class:`PatchStream`.
    """

    def __init__(self, pictures: PictureFolder, *, queries: int, **stream: int) -> None:
        super().__init__(pictures, **stream)
        self.queries = queries

    def sample(self, number: int) -> Queries:
        """Return the sample of that number."""
        random = np.random.default_rng([self.seed, number])
        picture = self.pictures[int(random.integers(len(self.pictures)))]
        side = self.patch + 2 * MARGIN
        large = round(side * random.uniform(1, self.scale))
        row, column = (int(random.integers(length - large + 1)) for length in picture.shape[1:])
        crop = _turned(picture[:, row : row + large, column : column + large], random)
        centres = pixel_centres(side, large) - MARGIN
        inside = ((centres > 0) & (centres < self.patch)).nonzero()[:, 0]
        rows, columns = inside[torch.from_numpy(random.integers(len(inside), size=(2, self.queries)))]
        return Queries(
            low=resize_bicubic(crop, size=(side, side))[..., MARGIN:-MARGIN, MARGIN:-MARGIN],
            rows=centres[rows].float(),
            columns=centres[columns].float(),
            cell=torch.full((2,), side / large),
            colours=crop[:, rows, columns].T,
        )


def _turned(crop: Tensor, random: np.random.Generator) -> Tensor:
    """One of the eight orientations."""
    flip_rows, flip_columns, transpose = random.integers(2, size=3)
    if flip_rows:
        crop = crop.flip(-2)
    if flip_columns:
        crop = crop.flip(-1)
    return crop.mT if transpose else crop


def crop_with_margin(picture: Tensor, row: int, column: int, *, scale: int, patch: int) -> Tensor:
    """Cut a high-resolution patch and its margin, mirrored where it reaches beyond the picture.

    Args:
        picture: (3, H, W), of which the largest part divisible by the scale counts.
        row: of the patch's first pixel, in low-resolution pixels.
        column: the same.
        scale: high-resolution pixels of a low-resolution one.
        patch: side of the patch in low-resolution pixels.

    Returns:
        (3, S, S) with S = scale * (patch + 2 * MARGIN).
    """
    rows = _mirrored(row, picture.shape[-2], scale, patch)
    columns = _mirrored(column, picture.shape[-1], scale, patch)
    return picture[:, rows][:, :, columns]


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

    The low-resolution patch is the crop of the whole shrunken picture, quantised to 8 bits as the published
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
    low, high = (x.contiguous(memory_format=torch.channels_last).float() / 255 for x in (low, high))
    return low, high
