"""Training for real-world images: L1 loss on degraded pairs (stage 1 of ESC-Real)."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from convattn.evaluation.protocol import Pair
from convattn.images.pixel_range import from_unit
from convattn.training.classic import Training
from convattn.training.config import Recipe
from convattn.training.data import PatchStream
from convattn.training.degradation import Degradation, degrade, sharpen

__all__ = ["CropStream", "DegradedPairs", "RealTraining"]

Patches = tuple[Tensor, Tensor]


class CropStream(PatchStream):
    """An endless stream of high-resolution crops of side ``scale * patch_size``, half of them mirrored."""

    def sample(self, number: int) -> Tensor:
        """Return the sample with the given number, ``uint8`` (3, S, S)."""
        random = np.random.default_rng([self.seed, number])
        image = self.images[int(random.integers(len(self.images)))]
        side = self.scale * self.patch_size
        top, left = (int(random.integers(length - side + 1)) for length in image.shape[1:])
        crop = image[:, top : top + side, left : left + side]
        return crop.flip(-1) if random.integers(2) else crop


class RealTraining(Training):
    """Training of a network for real-world images: mean absolute error to sharpened targets.

    Source: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data",
    ICCVW 2021, sections 3 and 4.
    """

    stream_type = CropStream

    @classmethod
    def smallest_image(cls, recipe: Recipe) -> int:
        """Return the smallest height and width of an image that crops can be cut from."""
        return recipe.scale * recipe.crop_size

    @classmethod
    def validation(cls, recipe: Recipe) -> Iterator[Pair]:
        """Yield the validation images, each with its own fixed degradation."""
        for number, pair in enumerate(super().validation(recipe)):
            target = sharpen(pair.high[None] / 255)
            generator = Generator().manual_seed(number)
            low = degrade(target, Degradation(scale=recipe.scale), generator=generator)
            low, high = (from_unit(x[0], torch.uint8) for x in (low, target))
            yield replace(pair, low=low, high=high)

    def stream(self, *, first_step: int = 0, **settings: int) -> PatchStream:
        """Return the endless stream of crops, from the first step of the given step's pool on."""
        recipe = self.recipe
        settings |= dict(patch_size=recipe.crop_size, batch_size=recipe.batch_size // recipe.patches_per_crop)
        return super().stream(first_step=first_step - first_step % recipe.pooled_steps, **settings)

    def train_dataloader(self) -> Any:
        """Return the degraded pairs from the current step on."""
        crops = super().train_dataloader()
        return DegradedPairs(
            crops, self.recipe, first_step=self.global_step, rank=self.global_rank, device=self.device
        )

    def make_pair(self, batch: Patches) -> Patches:
        """Return the batch, which already is a pair."""
        return batch


class DegradedPairs:
    """An endless stream of batches of degraded patches and their targets.

    All crops of a batch share the intermediate sizes of the degradation. For variety within a batch, the
    pairs of several steps are made at once, as a pool, and shuffled. Unlike the pool of Real-ESRGAN, whose
    pairs are replaced one by one, it is a function of seed and step, so a resumed run sees the same batches.

    Yields float batches in [0, 1]: (N, 3, P, P) and (N, 3, scale · P, scale · P), P = patch_size.

    Args:
        crops: Batches of ``uint8`` (M, 3, S, S), S = scale · crop_size, from the first step of the pool of
            ``first_step`` on.
        recipe: The configuration.
        first_step: Number of the first step.
        rank: Index of the device that the stream is for; each has its own random numbers.
        device: Device of the degradation.
    """

    def __init__(
        self,
        crops: Iterable[Tensor],
        recipe: Recipe,
        *,
        first_step: int = 0,
        rank: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.crops, self.recipe = crops, recipe
        self.first_step, self.rank, self.device = first_step, rank, device

    def __iter__(self) -> Iterator[Patches]:
        crops, steps = iter(self.crops), self.recipe.pooled_steps
        for pool_start in itertools.count(self.first_step - self.first_step % steps, steps):
            made = [self._make(next(crops), step) for step in range(pool_start, pool_start + steps)]
            low, high = (torch.cat(part) for part in zip(*made, strict=True))
            order = torch.randperm(len(low), generator=self._generator(pool_start, 1))
            for step, chosen in enumerate(order.chunk(steps), pool_start):
                if step >= self.first_step:
                    yield _channels_last(low[chosen]), _channels_last(high[chosen])

    def _make(self, crops: Tensor, step: int) -> Patches:
        """Sharpen crops, degrade them and cut patches from both."""
        generator, scale = self._generator(step, 0), self.recipe.scale
        high = sharpen(crops.to(self.device) / 255)
        low = degrade(high, Degradation(scale=scale), generator=generator)
        places = self.recipe.crop_size - self.recipe.patch_size + 1
        patches: list[Patches] = []
        for _ in range(self.recipe.patches_per_crop):
            for one_low, one_high in zip(low, high, strict=True):
                top, left = torch.randint(places, (2,), generator=generator).tolist()
                patches.append((self._cut(one_low, top, left, 1), self._cut(one_high, top, left, scale)))
        lows, highs = zip(*patches, strict=True)
        return torch.stack(lows), torch.stack(highs)

    def _cut(self, image: Tensor, top: int, left: int, scale: int) -> Tensor:
        rows, columns = (
            slice(scale * start, scale * (start + self.recipe.patch_size)) for start in (top, left)
        )
        return image[:, rows, columns]

    def _generator(self, step: int, purpose: int) -> Generator:
        seeds = np.random.SeedSequence([self.recipe.seed, self.rank, step, purpose])
        return Generator().manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> 1))


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
