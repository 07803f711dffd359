"""Training on pairs of files: what is cut from them, and what is refused."""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

pytest.importorskip("lightning")

from convattn.checkpoints.loading import load_network
from convattn.errors import InputError
from convattn.training import train
from convattn.training.config import Recipe
from convattn.training.pairs import PairFolder, PairStream

SIZES = {"a": (12, 17), "nested/b": (20, 9), "c": (9, 9)}


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **({"lossless": True} if path.suffix == ".webp" else {}))


def _repeated(low: Any, scale: int = 2) -> Any:
    return low.repeat(scale, 0).repeat(scale, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Random images, and the same with each pixel repeated 2×2 times, in files of two formats."""
    random = np.random.default_rng(1)
    for name, size in SIZES.items():
        low = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        _save(tmp_path / f"pairs/LR/{name}.png", low)
        _save(tmp_path / f"pairs/HR/{name}.webp", _repeated(low))
    return tmp_path / "pairs"


@pytest.fixture
def recipe_of(quick_recipe: Callable[..., Recipe], folder: Path) -> Callable[..., Recipe]:
    return partial(
        quick_recipe, network="esc-nano", scale=2, data=str(folder), max_steps=3, checkpoint_every=2
    )


def _doubled(low: Tensor) -> Tensor:
    return low.repeat_interleave(2, -2).repeat_interleave(2, -1)


@pytest.mark.parametrize("cache_gib", [0, 1])
def test_patches_of_a_pair_show_the_same(folder: Path, cache_gib: float) -> None:
    images = PairFolder(folder, scale=2, smallest=9, cache_gib=cache_gib)
    stream = PairStream(images, scale=2, patch_size=8, batch_size=5, seed=3)
    seen = set()
    for low, high in itertools.islice(stream, 20):
        assert low.shape == (5, 3, 8, 8)
        assert torch.equal(high, _doubled(low))
        seen |= {patch.numpy().tobytes() for patch in low}
    assert len(seen) > 60


def test_places_and_orientations_are_all_seen(tmp_path: Path) -> None:
    ramp = np.add.outer(20 * np.arange(9), np.arange(9)).astype(np.uint8)
    _save(tmp_path / "LR/ramp.png", ramp)
    _save(tmp_path / "HR/ramp.png", _repeated(ramp))
    stream = PairStream(
        PairFolder(tmp_path, scale=2, smallest=8), scale=2, patch_size=8, batch_size=1, seed=0
    )
    seen = {stream.sample(number)[0].numpy().tobytes() for number in range(400)}
    assert len(seen) == 4 * 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "LR/a.png").unlink(), "has a in one of LR and HR only"),
        (lambda folder: (folder / "HR/nested/b.webp").unlink(), "has nested/b in one of LR and HR only"),
        (
            lambda folder: _save(folder / "HR/a.webp", np.zeros((24, 33, 3), np.uint8)),
            "a.webp is 33x24 pixels, but its low-resolution image is 17x12; at ×2 it must be 2 times",
        ),
        (lambda folder: _save(folder / "LR/d.png", np.zeros((4, 9, 3), np.uint8)), "d.png is 9x4.*too small"),
    ],
)
def test_unfit_pairs_are_named(
    recipe_of: Callable[..., Recipe],
    folder: Path,
    tmp_path: Path,
    change: Callable[[Path], None],
    message: str,
) -> None:
    change(folder)
    with pytest.raises(InputError, match=message):
        train(recipe_of(tmp_path / "run"))


def test_pairs_train_networks_of_one_scale(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds pairs, which train networks of one scale"):
        train(recipe_of(tmp_path / "run", network="esc-nano-lte", scale=4, patch_size=8))


def test_a_discriminator_learns_from_pairs(
    recipe_of: Callable[..., Recipe], figures: Callable[[Path], dict[str, list[float]]], tmp_path: Path
) -> None:
    train(recipe_of(tmp_path / "run", adversarial=0.1, discriminator_channels=4, max_steps=20))
    logged = figures(tmp_path / "run")
    assert sum(logged["discriminator"][-5:]) < sum(logged["discriminator"][:5])
    names = "loss", "pixel", "adversarial", "discriminator"
    for total, *parts in zip(*(logged[name] for name in names), strict=True):
        assert total == pytest.approx(sum(parts), rel=1e-4)


def test_the_network_learns_the_pairs(
    recipe_of: Callable[..., Recipe],
    folder: Path,
    figures: Callable[[Path], dict[str, list[float]]],
    tmp_path: Path,
) -> None:
    settings = dict(
        max_steps=30, laplacian=0.5, validation=str(folder), validate_every=10, learning_rate=2e-3
    )
    weights = train(recipe_of(tmp_path / "run", **settings))
    logged = figures(tmp_path / "run")
    for total, pixel, laplacian in zip(*(logged[n] for n in ("loss", "pixel", "laplacian")), strict=True):
        assert total == pytest.approx(pixel + laplacian, rel=1e-4)
    assert sum(logged["loss"][-5:]) < 0.8 * sum(logged["loss"][:5])
    assert len(logged["psnr"]) == 3
    network = load_network(weights)
    low = torch.from_numpy(np.array(Image.open(folder / "LR/a.png"))).permute(2, 0, 1)[None] / 255
    assert network(low).shape == (1, 3, 24, 34)
