"""Training on pairs of files: low-resolution images and their targets.

The targets may be photographs or the output of a larger network. Such output is a function of the input, so a
network that learns it by mean absolute error does not blur.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor

from convattn.errors import InputError
from convattn.evaluation.protocol import Pair
from convattn.training.classic import Training
from convattn.training.config import Recipe
from convattn.training.data import ImageFolder, PatchStream, oriented, to_input

__all__ = ["PairFolder", "PairStream", "PairTraining", "holds_pairs"]


def holds_pairs(folder: str | Path) -> bool:
    """Return whether a folder holds pairs, in the folders ``LR`` and ``HR``."""
    return all((Path(folder) / part).is_dir() for part in ("LR", "HR"))


class PairFolder(ImageFolder):
    """The high-resolution images of a folder ``HR``, paired with those of the same names in ``LR``.

    Args:
        folder: Folder of ``LR`` and ``HR``; the suffixes of the two files of a pair may differ.
        scale: Upscaling factor.
        smallest: Smallest height and width of a low-resolution image.
        cache_gib: Largest size of the cache of decoded images in GiB.

    Raises:
        InputError: An image is missing, too small, or not ``scale`` times as large as its partner.
    """

    def __init__(self, folder: str | Path, *, scale: int, smallest: int, cache_gib: float = 8.0) -> None:
        low, high = (Path(folder) / part for part in ("LR", "HR"))
        share = cache_gib / (1 + scale**2)
        super().__init__(high, smallest=scale * smallest, cache_gib=cache_gib - share)
        self.low = ImageFolder(low, smallest=smallest, cache_gib=share)
        self.names = _names(high, self.paths)
        if unmatched := sorted({*self.names} ^ {*_names(low, self.low.paths)}):
            raise InputError(f"{folder} has {unmatched[0]} in one of LR and HR only; add it to the other.")
        for path, size, low_size in zip(self.paths, self.sizes, self.low.sizes, strict=True):
            if size != tuple(scale * side for side in low_size):
                raise InputError(
                    f"{path} is {size[1]}x{size[0]} pixels, but its low-resolution image is "
                    f"{low_size[1]}x{low_size[0]}; at ×{scale} it must be {scale} times as large."
                )

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a low- and a high-resolution image, ``uint8`` (3, H, W) and (3, scale · H, scale · W)."""
        return self.low[index], self[index]


def _names(folder: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(folder).with_suffix("").as_posix() for path in paths]


class PairStream(PatchStream):
    """An endless stream of pairs of patches at the same place and in the same one of eight orientations.

    Yields ``uint8`` batches (N, 3, P, P) and (N, 3, scale · P, scale · P), P = patch_size.
    """

    images: PairFolder

    def sample(self, number: int) -> tuple[Tensor, Tensor]:
        """Return the sample of a number: (3, P, P) and (3, scale · P, scale · P) in uint8."""
        random = np.random.default_rng([self.seed, number])
        low, high = self.images.pair(int(random.integers(len(self.images))))
        top, left = (int(random.integers(side - self.patch_size + 1)) for side in low.shape[1:])
        orientation = random.integers(2, size=3)
        patches = (self._cut(image, top, left, scale) for image, scale in ((low, 1), (high, self.scale)))
        low, high = (oriented(patch, orientation) for patch in patches)
        return low, high

    def _cut(self, image: Tensor, top: int, left: int, scale: int) -> Tensor:
        rows, columns = (slice(scale * start, scale * (start + self.patch_size)) for start in (top, left))
        return image[:, rows, columns]


class PairTraining(Training):
    """Training on a :class:`PairFolder`."""

    stream_type: ClassVar[type[PatchStream]] = PairStream

    @classmethod
    def open_images(cls, recipe: Recipe) -> ImageFolder:
        """Open the pairs."""
        return PairFolder(
            recipe.data, scale=recipe.scale, smallest=recipe.patch_size, cache_gib=recipe.cache_gib
        )

    @classmethod
    def validation(cls, recipe: Recipe) -> Iterator[Pair]:
        """Yield pairs of files, or pairs made from high-resolution images by the usual protocol."""
        folder = str(recipe.validation)
        if not holds_pairs(folder):
            yield from super().validation(recipe)
            return
        images = PairFolder(folder, scale=recipe.scale, smallest=1)
        for index, name in enumerate(images.names):
            yield Pair(Path(folder).name, name, *images.pair(index))

    def make_pair(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Convert both, (N, 3, P, P) and (N, 3, scale · P, scale · P), to float32 in [0, 1]."""
        low, high = batch
        return to_input(low), to_input(high)
