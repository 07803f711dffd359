"""The discriminator of adversarial training and its loss."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convattn.models.discriminator import Discriminator, adversarial_loss


def _written_out(discriminator: Any, x: Tensor) -> Tensor:
    """The U-Net line by line, with weights divided by singular values that LAPACK finds."""

    def conv(layer: nn.Module, x: Tensor, **options: Any) -> Tensor:
        weight = layer.parametrizations.weight.original
        weight = weight / torch.linalg.matrix_norm(weight.flatten(1), 2)
        return F.leaky_relu(F.conv2d(x, weight, padding=1, **options), 0.2)

    full = F.leaky_relu(discriminator.first(x), 0.2)
    half = conv(discriminator.down[0], full, stride=2)
    quarter = conv(discriminator.down[1], half, stride=2)
    eighth = conv(discriminator.down[2], quarter, stride=2)
    x = conv(discriminator.up[0], F.interpolate(eighth, scale_factor=2, mode="bilinear")) + quarter
    x = conv(discriminator.up[1], F.interpolate(x, scale_factor=2, mode="bilinear")) + half
    x = conv(discriminator.up[2], F.interpolate(x, scale_factor=2, mode="bilinear")) + full
    x = conv(discriminator.after[1], conv(discriminator.after[0], x))
    return discriminator.last(x)


def test_it_is_the_normalized_u_net() -> None:
    discriminator, x = Discriminator(4).double(), torch.rand(2, 3, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(150):  # each step of training finds the singular values more exactly
            discriminator(x[:1, :, :8, :8])
        discriminator.eval()
        torch.testing.assert_close(discriminator(x), _written_out(discriminator, x), rtol=1e-3, atol=1e-5)


def test_largest_singular_values_stay_one_while_weights_change() -> None:
    discriminator = Discriminator(4)
    optimizer = torch.optim.Adam(discriminator.parameters(), 1e-3)
    for _ in range(30):
        loss = adversarial_loss(discriminator(torch.rand(2, 3, 16, 16)), real=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    normalized = [*discriminator.down, *discriminator.up, *discriminator.after]
    assert len(normalized) == 8
    for layer in normalized:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("size", [(8, 8), (17, 30)])
def test_every_pixel_has_a_logit(size: tuple[int, int]) -> None:
    logits = Discriminator(4)(torch.rand(1, 3, *size))
    assert logits.shape == (1, 1, *size)


def test_published_width() -> None:
    discriminator = Discriminator()
    assert discriminator.first.weight.shape == (64, 3, 3, 3)
    assert [layer.weight.shape[0] for layer in discriminator.down] == [128, 256, 512]


def test_loss_is_the_cross_entropy() -> None:
    logits = torch.tensor([-3.0, 0.0, 2.0])
    probabilities = 1 / (1 + torch.exp(-logits))
    torch.testing.assert_close(adversarial_loss(logits, real=True), -probabilities.log().mean())
    torch.testing.assert_close(adversarial_loss(logits, real=False), -(1 - probabilities).log().mean())
    assert adversarial_loss(torch.zeros(2), real=True).item() == pytest.approx(math.log(2))
    assert adversarial_loss(torch.tensor([-1e4]), real=True).isfinite()
