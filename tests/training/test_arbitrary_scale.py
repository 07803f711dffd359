"""Training of networks of arbitrary scale: its samples, resuming and learning."""

from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("lightning")

from convattn.checkpoints.loading import load_network, save_network
from convattn.errors import InputError
from convattn.models.registry import build
from convattn.training import train
from convattn.training.data import MARGIN, ImageFolder, QueryStream

from .conftest import Figures, MakeRecipe


@pytest.fixture(scope="module")
def recipe_of(quick_recipe: MakeRecipe) -> MakeRecipe:
    """Makes the recipe of an output folder, with changes."""
    return partial(
        quick_recipe,
        network="esc-nano-lte",
        scale=4,
        max_steps=4,
        queries=50,
        ema_decay=0,
        checkpoint_every=2,
    )


@given(number=st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_colors_lie_where_their_positions_say(number: int) -> None:
    """On an image whose colors are its coordinates, upscaling and shrinking cancel."""
    side = 60
    ramp = torch.arange(side, dtype=torch.uint8) * 4
    image = torch.stack((ramp[:, None].expand(side, side), ramp.expand(side, side), ramp.expand(side, side)))
    stream = QueryStream([image], queries=40, scale=4, patch_size=8, batch_size=1, seed=3)  # type: ignore[arg-type]
    low, rows, columns, cell, colors = stream.sample(number)
    assert (low.shape, colors.shape, cell.shape) == ((3, 8, 8), (40, 3), (2,))
    assert 1 / 4 <= cell[0] == cell[1] <= 1
    assert ((rows > 0) & (rows < 8) & (columns > 0) & (columns < 8)).all()
    slopes = (low.float()[:, 1:].diff(dim=1)).mean((1, 2)), (low.float()[:, :, 1:].diff(dim=2)).mean((1, 2))
    middle = low.float().mean((1, 2))
    expected = middle + (rows - 4)[:, None] * slopes[0] + (columns - 4)[:, None] * slopes[1]
    assert (colors.float() - expected).abs().max() < 2.5  # a low-resolution pixel is 4 to 16 steps


def test_a_sample_depends_on_its_number_alone(images: Path) -> None:
    folder = ImageFolder(images, smallest=4 * (8 + 2 * MARGIN))
    first, again = (
        QueryStream(folder, queries=9, scale=4, patch_size=8, batch_size=2, seed=1, first_step=step)
        for step in (0, 1)
    )
    batches = iter(first)
    next(batches)
    for one, other in zip(next(batches), next(iter(again)), strict=True):
        assert torch.equal(one, other)
    assert next(batches).cell[:, 0].unique().numel() == 2  # each sample has its own scale


def test_it_starts_from_features_and_resumes(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    classic = build("esc-nano", 2)
    save_network(classic, tmp_path / "x2.safetensors")
    started = train(
        recipe_of(
            tmp_path / "a",
            max_steps=1,
            learning_rate=1e-12,
            start_from=str(tmp_path / "x2.safetensors"),
        )
    )
    network = load_network(started)
    assert started.name == "esc-nano-lte.safetensors"
    for key, value in classic.features.state_dict().items():
        torch.testing.assert_close(network.features.state_dict()[key], value)

    whole = train(recipe_of(tmp_path / "b", start_from=str(started)))
    train(recipe_of(tmp_path / "c", max_steps=2, start_from=str(started)))
    resumed = train(recipe_of(tmp_path / "c"))
    for one, other in zip(*(load_network(path).parameters() for path in (whole, resumed)), strict=True):
        assert torch.equal(one, other)

    save_network(build("esc-light", 2), tmp_path / "light.safetensors")
    with pytest.raises(InputError, match="are of another network"):
        train(recipe_of(tmp_path / "d", start_from=str(tmp_path / "light.safetensors")))


def test_it_learns_and_shows_it(
    recipe_of: MakeRecipe, images: Path, figures: Figures, tmp_path: Path
) -> None:
    changes = {"samples_every": 20, "validation": str(images), "validate_every": 20, "scale": 2}
    train(recipe_of(tmp_path, max_steps=40, learning_rate=2e-3, batch_size=4, **changes))
    columns = figures(tmp_path)
    assert sum(columns["loss"][-5:]) < 0.8 * sum(columns["loss"][:5])
    assert columns["psnr"][-1] > columns["psnr"][0]
    assert Image.open(tmp_path / "samples/20.png").size == (2 * 16, 4 * 16)


def test_images_must_hold_a_patch_at_the_largest_scale(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    Image.new("RGB", (47, 60)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="47x60 pixels, too small for training patches of 48x48"):
        train(recipe_of(tmp_path / "run", data=str(tmp_path)))
