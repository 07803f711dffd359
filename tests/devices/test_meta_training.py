"""What surrounds a network in a training step, on the meta device."""

import pytest
import torch

pytest.importorskip("lightning")

from convattn.models.registry import build
from convattn.training.classic import Training
from convattn.training.config import Recipe


@pytest.mark.parametrize("name", ["esc-nano", "esc-light"])
def test_a_training_step_with_its_pairs_and_optimizer(name: str) -> None:
    recipe = Recipe(
        network=name, scale=2, data="unused", max_steps=1, frequency=0.1, laplacian=0.1, patch_size=16
    )
    training = Training(recipe, build(name, 2), images=None).to("meta")
    low, high = training.make_pair(torch.empty(2, 3, 40, 40, dtype=torch.uint8, device="meta"))
    losses = training.image_losses(training.network(low), high)
    assert {loss.device.type for loss in losses.values()} == {"meta"}
    torch.stack(list(losses.values())).sum().backward()
    optimizer = training.configure_optimizers()["optimizer"]
    optimizer.step()
    assert {image.device.type for image in training.samples((low, high), 1)} == {"meta"}
