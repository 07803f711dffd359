"""The perceptual loss: how far apart two images are in the features of VGG19."""

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convattn.checkpoints.key_names import StateDict
from convattn.errors import InputError

__all__ = ["PerceptualLoss", "vgg19_weights"]

_STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels and convolutions
_SHARES = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's images


class PerceptualLoss(nn.Module):
    """Mean absolute difference of VGG19 features before their ReLU, weighted and summed over five layers.

    Sources: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
    ICLR 2015, for the network; Wang et al., "Real-ESRGAN", ICCVW 2021, section 4.1, for layers and shares.

    Args:
        weights: Of VGG19 in torchvision's layout; see :func:`vgg19_weights`. They are not trained, and not
            part of the module's state.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, weights: StateDict) -> None:
        super().__init__()
        for (name, _), (weight, bias) in zip(_layers(), _convolutions(weights), strict=True):
            self.register_buffer(f"{name}_weight", weight, persistent=False)
            self.register_buffer(f"{name}_bias", bias, persistent=False)
        for name, values in (("mean", _MEAN), ("deviation", _DEVIATION)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of (N, 3, H, W) in [0, 1], H and W at least 16; targets get no gradient."""
        with torch.no_grad():
            wanted = dict(self.features(targets))
        parts = [_SHARES[name] * F.l1_loss(made, wanted[name]) for name, made in self.features(images)]
        return torch.stack(parts).sum()

    def features(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the names of the five layers and their values before the ReLU."""
        x = (x - self.mean) / self.deviation
        for name, follows_pool in _layers():
            x = F.max_pool2d(x, 2) if follows_pool else x
            x = F.conv2d(x, getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias"), padding=1)
            if name in _SHARES:
                yield name, x
            x = F.relu(x)


def vgg19_weights(path: str | None = None) -> StateDict:
    """Load the weights of VGG19 as trained on ImageNet.

    Args:
        path: A file in torchvision's layout; if not given, torchvision downloads it or finds it in its cache.

    Raises:
        InputError: They are not to be had, or the file holds something else.
    """
    if path is None:
        try:
            return _from_torchvision()
        except Exception as error:  # torchvision may be missing or unfit for this torch, or the network down
            reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
            raise InputError(
                f"The perceptual loss needs VGG19's weights, which torchvision could not provide ({reason}); "
                "install torchvision and let it download them, give the file vgg19-dcbb9e9d.pth of "
                "download.pytorch.org/models by vgg=FILE, or do without by perceptual=0."
            ) from error
    if not Path(path).is_file():
        raise InputError(f"There is no file {path} with the weights of VGG19.")
    try:
        weights: StateDict = torch.load(path, map_location="cpu", weights_only=True)
        _convolutions(weights)
    except Exception as error:  # damaged bytes make a reader raise anything
        raise InputError(
            f"{path} does not hold the weights of VGG19 in torchvision's layout; give vgg19-dcbb9e9d.pth of "
            "download.pytorch.org/models."
        ) from error
    return weights


def _from_torchvision() -> StateDict:
    from torchvision.models import VGG19_Weights

    weights: StateDict = VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
    return weights


def _layers() -> Iterator[tuple[str, bool]]:
    """Yield the names of the convolutions, and whether the maps are halved before them."""
    for stage, (_, count) in enumerate(_STAGES, 1):
        for number in range(1, count + 1):
            yield f"conv{stage}_{number}", stage > 1 and number == 1


def _convolutions(weights: StateDict) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each convolution, of torchvision's names, which count ReLUs and poolings, too.

    Raises:
        KeyError: One is missing.
        ValueError: One has another shape.
    """
    convolutions, position, channels = [], 0, 3
    for width, count in _STAGES:
        for _ in range(count):
            weight, bias = (weights[f"features.{position}.{kind}"] for kind in ("weight", "bias"))
            if weight.shape != (width, channels, 3, 3) or bias.shape != (width,):
                raise ValueError(f"features.{position} has the shape {tuple(weight.shape)}")
            convolutions.append((weight.float(), bias.float()))
            channels, position = width, position + 2
        position += 1
    return convolutions
