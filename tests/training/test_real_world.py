"""Training for real-world images: its pairs, its two stages, and that an interruption changes nothing."""

import copy
import itertools
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

pytest.importorskip("lightning")

from convattn.checkpoints.loading import load_network, save_network
from convattn.errors import InputError
from convattn.models.discriminator import adversarial_loss
from convattn.models.registry import build
from convattn.training import Training, losses, real_world, train
from convattn.training.config import Recipe
from convattn.training.data import ImageFolder
from convattn.training.real_world import CropStream, DegradedPairs, RealTraining
from convattn.training.run import start_from

from .conftest import AtStep, MakeRecipe


@pytest.fixture(scope="module")
def recipe_of(quick_recipe: MakeRecipe) -> MakeRecipe:
    """Makes the recipe of an output folder, with changes."""
    return partial(
        quick_recipe,
        network="esc-nano-real",
        scale=4,
        max_steps=5,
        batch_size=4,
        crop_size=12,
        patches_per_crop=2,
        pool_size=8,
        discriminator_channels=4,
        checkpoint_every=3,
    )


def _training(recipe: Recipe) -> RealTraining:
    images = ImageFolder(recipe.data, smallest=RealTraining.smallest_image(recipe))
    return RealTraining(recipe, build("esc-nano-real"), images)


def _pairs(recipe: Recipe, first_step: int = 0, rank: int = 0) -> Any:
    stream = _training(recipe).stream(first_step=first_step)
    return iter(DegradedPairs(stream, recipe, first_step=first_step, rank=rank))


# --- Pairs ---


def test_crops_are_mirrored_from_left_to_right_only(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:50, :60].astype(np.uint8)
    Image.fromarray(np.stack([rows, columns, columns], -1)).save(tmp_path / "ramp.png")
    stream = CropStream(ImageFolder(tmp_path, smallest=1), scale=4, patch_size=3, batch_size=1, seed=0)
    mirrored = set()
    for number in range(40):
        crop = stream.sample(number).int()
        assert crop.shape == (3, 12, 12)
        assert (crop[0].diff(dim=0) == 1).all()
        steps = crop[1].diff(dim=1).unique()
        assert steps.numel() == 1
        mirrored.add(steps.item())
    assert mirrored == {-1, 1}


def test_low_and_high_quality_show_the_same_place(
    recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_world, "sharpen", lambda x: x)
    monkeypatch.setattr(real_world, "degrade", lambda x, settings, generator: F.avg_pool2d(x, settings.scale))
    for low, high in itertools.islice(_pairs(recipe_of(tmp_path)), 3):
        assert (low.shape, high.shape) == ((4, 3, 8, 8), (4, 3, 32, 32))
        torch.testing.assert_close(low, F.avg_pool2d(high, 4))


def test_a_batch_of_pairs_depends_on_its_step_alone(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    batches = list(itertools.islice(_pairs(recipe), 6))
    for first_step in (2, 3):
        resumed = list(itertools.islice(_pairs(recipe, first_step), 2))
        torch.testing.assert_close(resumed, batches[first_step : first_step + 2], rtol=0, atol=0)
    assert not torch.equal(next(_pairs(recipe, rank=1))[0], batches[0][0])


def test_a_batch_mixes_the_steps_of_its_pool(
    recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = itertools.count()
    monkeypatch.setattr(
        real_world, "degrade", lambda x, *_, **__: torch.full_like(x[..., ::4, ::4], next(number))
    )
    batches = itertools.islice(_pairs(recipe_of(tmp_path, pool_size=16)), 8)
    steps = torch.stack([low.mean((1, 2, 3)) for low, _ in batches])
    for pool, made in enumerate(steps.split(4)):
        assert sorted(made.flatten().tolist()) == [4 * pool + step for step in range(4) for _ in range(4)]
    assert (steps != steps[:, :1]).any()


# --- Training ---


def _checkpoint(run: Path) -> Any:
    return torch.load(run / "last.ckpt", weights_only=False)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else []
    return [tensor for item in values for tensor in _tensors(item)]


@pytest.mark.parametrize("adversarial", [0.0, 0.1])
def test_a_broken_run_ends_like_an_unbroken_one(
    recipe_of: MakeRecipe, adversarial: float, tmp_path: Path, at_step: AtStep
) -> None:
    """Killed in the middle of a pool, then interrupted."""

    def kill() -> None:
        raise ArithmeticError

    unbroken, broken = (
        recipe_of(tmp_path / name, adversarial=adversarial) for name in ("unbroken", "broken")
    )
    train(unbroken)
    at_step(4, kill)
    with pytest.raises(ArithmeticError):
        train(broken)
    torch.rand(3)  # the resumed run is not to depend on what came before it
    at_step(3, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(InputError, match="after 4 steps; the same command resumes it"):
        train(broken)
    train(broken)
    for part in ("state_dict", "optimizer_states"):
        ended, expected = (_tensors(_checkpoint(recipe.folder)[part]) for recipe in (broken, unbroken))
        torch.testing.assert_close(ended, expected, rtol=0, atol=0)
    has_discriminator = any("discriminator" in key for key in _checkpoint(broken.folder)["state_dict"])
    assert has_discriminator == bool(adversarial)
    assert load_network(broken.weights).scale == 4


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("adversarial", [0, 1e-3])
def test_a_batch_can_be_learnt_by_heart(adversarial: float, recipe_of: MakeRecipe, tmp_path: Path) -> None:
    training = _training(recipe_of(tmp_path, adversarial=adversarial))
    low, high = next(_pairs(training.recipe))
    optimizer = training.configure_optimizers()["optimizer"]
    errors = []
    for _ in range(25):
        optimizer.zero_grad()
        training.loss((low, high)).backward()
        optimizer.step()
        errors.append(F.l1_loss(training.network(low), high).item())
    assert errors[-1] < 0.6 * errors[0]


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_each_network_learns_from_its_own_loss(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    training = _training(recipe_of(tmp_path, adversarial=0.1))
    assert training.discriminator
    training.discriminator.eval()  # its singular values stay as they are
    low, high = next(_pairs(training.recipe))
    training.loss((low, high)).backward()

    made, discriminator = training.network(low), training.discriminator
    deceived = adversarial_loss(discriminator(made), real=True)
    expected = torch.autograd.grad(
        F.l1_loss(made, high) + 0.1 * deceived, list(training.network.parameters())
    )
    torch.testing.assert_close([p.grad for p in training.network.parameters()], list(expected))
    loss = adversarial_loss(discriminator(high), real=True) + adversarial_loss(
        discriminator(made.detach()), real=False
    )
    expected = torch.autograd.grad(loss, list(discriminator.parameters()))
    torch.testing.assert_close([p.grad for p in discriminator.parameters()], list(expected))


def test_validation_is_on_degraded_images(recipe_of: MakeRecipe, images: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, validation=str(images), max_steps=1)
    train(recipe)
    assert "psnr" in (tmp_path / "csv/version_0/metrics.csv").read_text()
    first, second = list(RealTraining.validation(recipe)), list(RealTraining.validation(recipe))
    for pair, again, plain in zip(first, second, Training.validation(recipe), strict=True):
        assert torch.equal(pair.low, again.low)
        assert pair.low.shape == plain.low.shape
        difference = (pair.low.float() - plain.low).abs().mean()
        assert 1 < difference < 60


def test_it_starts_from_its_like_or_from_classic_features(tmp_path: Path) -> None:
    classic, own = build("esc-nano", 2), build("esc-nano-real")
    for network, name in ((classic, "classic"), (own, "own")):
        save_network(network, tmp_path / f"{name}.safetensors")
        begun = build("esc-nano-real")
        start_from(begun, str(tmp_path / f"{name}.safetensors"))
        torch.testing.assert_close(begun.features.state_dict(), network.features.state_dict())
    torch.testing.assert_close(begun.state_dict(), own.state_dict())


@pytest.mark.parametrize("name", ["esc-nano", "esc-nano-real", "esc-nano-lte"])
def test_weights_of_another_depth_start_nothing(name: str, tmp_path: Path) -> None:
    network, other, path = build(name, 4), build("esc-nano", 2), tmp_path / "other.safetensors"
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    blocks = list(other.features.blocks)
    for count, message in ((1, "missing there, but"), (3, "there, but missing here")):
        other.features.blocks = nn.ModuleList(copy.deepcopy(block) for block in (blocks * 2)[:count])
        save_network(other, path)
        with pytest.raises(InputError, match=rf"are of another network .*: features\.blocks.* {message}"):
            start_from(network, str(path))
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


def test_without_vgg_the_training_ends_in_a_sentence(
    recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ImportError("No module named 'torchvision'")

    monkeypatch.setattr(losses, "_from_torchvision", missing)
    with pytest.raises(InputError, match=r"No module named 'torchvision'.*perceptual=0"):
        train(recipe_of(tmp_path, adversarial=0.1, perceptual=1))


def test_stages_do_not_share_a_run_folder(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    first = recipe_of(tmp_path, max_steps=1)
    train(first)
    with pytest.raises(
        InputError, match=r"holds a training of esc-nano-real x4; choose another output_dir=FOLDER"
    ):
        train(recipe_of(tmp_path, adversarial=0.1, start_from=str(first.weights)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patches_per_crop": 3}, "4, must be a multiple"),
        ({"patch_size": 13}, "larger than its crop_size of 12"),
        ({"network": "esc-nano-lte", "perceptual": 1.0}, "single points"),
        ({"network": "esc-nano-lte", "lpips": 1.0}, "single points"),
        ({"network": "esc-nano-lte", "adversarial": 1.0}, "single points.* set adversarial=0"),
    ],
)
def test_unfit_recipes_are_explained(
    recipe_of: MakeRecipe, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        recipe_of(tmp_path, **changes)
