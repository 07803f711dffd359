"""Adversarial training for real-world images (stage 2 of ESC-Real)."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from convattn.models.discriminator import Discriminator, adversarial_loss
from convattn.training.config import Recipe
from convattn.training.data import ImageFolder
from convattn.training.real_world import Patches, RealTraining

__all__ = ["AdversarialTraining"]


class AdversarialTraining(RealTraining):
    """Training with a discriminator, besides the absolute error and a perceptual loss.

    One step updates both networks; the discriminator learns from the output before the update, as if it had a
    step of its own. AdamW treats each weight separately, so one optimizer equals the two of the paper.

    Raises:
        InputError: The perceptual loss has a weight, but its VGG weights are not available.
    """

    def __init__(self, recipe: Recipe, network: nn.Module, images: ImageFolder) -> None:
        super().__init__(recipe, network, images)
        self.discriminator = Discriminator(recipe.discriminator_channels)

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of both networks."""
        return itertools.chain(super().trainable_parameters(), self.discriminator.parameters())

    def loss(self, batch: Patches) -> Tensor:
        """Return the sum of the network's losses and the discriminator's, a scalar."""
        low, high = batch
        made = self.network(low)
        parts = self.image_losses(made, high)
        with _frozen(self.discriminator):
            adversarial = adversarial_loss(self.discriminator(made), real=True)
        parts["adversarial"] = self.recipe.adversarial * adversarial
        on_real = adversarial_loss(self.discriminator(high), real=True)
        on_made = adversarial_loss(self.discriminator(made.detach()), real=False)
        parts["discriminator"] = on_real + on_made
        return self.total(parts)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through a module without reaching its parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
