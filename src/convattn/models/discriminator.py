"""The discriminator of adversarial training: classifies each pixel as real or generated."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

__all__ = ["Discriminator", "adversarial_loss"]


class Discriminator(nn.Module):
    """A U-Net with spectral normalization of all convolutions but the first and the last.

    Sources: Wang et al., "Real-ESRGAN", ICCVW 2021, section 3.5; Miyato et al., "Spectral Normalization for
    Generative Adversarial Networks", ICLR 2018.

    Args:
        width: Channels at full resolution; they double at each of the three downsamplings.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        channels = [width, 2 * width, 4 * width, 8 * width]
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList(_normalized(channels[i], channels[i + 1], 4, stride=2) for i in range(3))
        self.up = nn.ModuleList(_normalized(channels[i + 1], channels[i], 3) for i in (2, 1, 0))
        self.after = nn.ModuleList(_normalized(width, width, 3) for _ in range(2))
        self.last = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], at least 8×8, to logits (N, 1, H, W), positive where pixels look real."""
        x = _activate(self.first(x))
        skips = []
        for conv in self.down:
            skips.append(x)
            x = _activate(conv(x))
        for conv, skip in zip(self.up, reversed(skips), strict=True):
            x = F.interpolate(x, size=skip.shape[2:], mode="bilinear")
            x = _activate(conv(x)) + skip
        for conv in self.after:
            x = _activate(conv(x))
        return self.last(x)


def adversarial_loss(logits: Tensor, *, real: bool) -> Tensor:
    """Return the mean cross-entropy of a discriminator's logits.

    Source: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014.

    Args:
        logits: Of any shape.
        real: The label of all pixels. The generator's loss is that of its images labelled real.
    """
    return F.softplus(-logits if real else logits).mean()


def _normalized(channels_in: int, channels_out: int, size: int, stride: int = 1) -> nn.Module:
    return spectral_norm(nn.Conv2d(channels_in, channels_out, size, stride, padding=1, bias=False))


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)
