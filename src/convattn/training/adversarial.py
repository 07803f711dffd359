"""The losses of adversarial training (stage 2 of ESC-Real)."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from convattn.models.discriminator import adversarial_loss

__all__ = ["adversarial_losses"]


def adversarial_losses(
    discriminator: nn.Module, made: Tensor, target: Tensor, *, weight: float
) -> dict[str, Tensor]:
    """Return the losses of a network and of its discriminator, scalars, by name.

    One step updates both networks; the discriminator learns from the output before the update, as if it had a
    step of its own. AdamW treats each weight separately, so one optimizer equals the two of the paper.

    Args:
        discriminator: Takes (N, 3, H, W) and returns logits.
        made: Output of the network, (N, 3, H, W) in [0, 1].
        target: Real images of the same shape.
        weight: Of the network's loss.
    """
    with _frozen(discriminator):
        fooling = adversarial_loss(discriminator(made), real=True)
    on_real = adversarial_loss(discriminator(target), real=True)
    on_made = adversarial_loss(discriminator(made.detach()), real=False)
    return {"adversarial": weight * fooling, "discriminator": on_real + on_made}


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through a module without reaching its parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
