"""Other people's networks: loaded by spandrel, used like ours."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from convattn.checkpoints.loading import load_network
from convattn.errors import InputError
from convattn.export import export
from convattn.inference.upscaler import Upscaler
from convattn.runtimes.exported import load_exported
from convattn.runtimes.pretrained import from_pretrained

spandrel = pytest.importorskip("spandrel")

from spandrel.architectures.Compact import Compact  # noqa: E402
from spandrel.architectures.DITN import DITN  # noqa: E402
from spandrel.architectures.DnCNN import DnCNN  # noqa: E402
from spandrel.architectures.ESRGAN import ESRGAN  # noqa: E402
from spandrel.architectures.SPAN import SPAN  # noqa: E402
from spandrel.architectures.SwinIR import SwinIR  # noqa: E402

NETWORKS = {
    "compact": lambda: Compact(num_feat=8, num_conv=2, upscale=2),
    "esrgan": lambda: ESRGAN(num_filters=8, num_blocks=1, scale=4),
    "span": lambda: SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=3),
    "swinir": lambda: SwinIR(
        img_size=16,
        window_size=8,
        depths=[1, 1],
        embed_dim=12,
        num_heads=[2, 2],
        upscale=2,
        upsampler="pixelshuffle",
        mlp_ratio=2,
    ),
    "ditn": lambda: DITN(dim=8, ITL_blocks=1, SAL_blocks=1, upscale=2),
    "restore": lambda: Compact(num_feat=8, num_conv=2, upscale=1),
    "grayscale": lambda: DnCNN(nc=8, nb=9, act_mode="R"),
}


@pytest.fixture
def network(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    """A network of random weights, and its file."""
    made = NETWORKS[request.param]().eval()
    with torch.no_grad():
        for tensor in made.parameters():
            tensor.mul_(0.5)  # so that colors are not all clipped
    torch.save({"params_ema": made.state_dict()}, tmp_path / "network.pth")
    return made, tmp_path / "network.pth"


def every(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("network", names, indirect=True)


def by_hand(network: Any, image: np.ndarray) -> np.ndarray:
    """What the network makes of an image (H, W, 3) in [0, 1] whose size it can take."""
    x = torch.from_numpy(image).movedim(-1, 0)[None]
    with torch.no_grad():
        if isinstance(network, DnCNN):
            x = torch.cat([network(band) for band in x.split(1, 1)], 1)
        else:
            x = network(x)
        return x[0].movedim(0, -1).clamp(0, 1).numpy()


def colors(*size: int) -> np.ndarray:
    return np.random.default_rng(0).random((*size, 3), np.float32)


@every(*NETWORKS)
def test_the_result_is_the_networks_own(network: tuple[Any, Path]) -> None:
    made, path = network
    image = colors(16, 24)
    upscaled = Upscaler(path, device="cpu")(image)
    np.testing.assert_allclose(upscaled, by_hand(made, image), atol=1e-5)
    assert upscaled.std() > 0.01


@every(*NETWORKS)
@pytest.mark.parametrize("size", [(1, 1), (3, 17), (21, 5)])
def test_every_size(network: tuple[Any, Path], size: tuple[int, int]) -> None:
    upscaler = Upscaler(network[1], device="cpu")
    upscaled = upscaler(colors(*size))
    assert upscaled.shape == (size[0] * upscaler.scale, size[1] * upscaler.scale, 3)
    assert np.isfinite(upscaled).all()


@every("compact", "swinir")
def test_images_of_a_batch_do_not_meet(network: tuple[Any, Path]) -> None:
    spandrel = load_network(network[1])
    x = torch.rand(3, 3, 9, 11)
    alone = torch.cat([spandrel(image) for image in x.split(1)])
    torch.testing.assert_close(spandrel(x), alone)


@every("compact", "grayscale")
def test_exports_take_any_batch_and_size(network: tuple[Any, Path], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    spandrel = load_network(network[1])
    export(spandrel, tmp_path / "exported.onnx")
    exported = load_exported(tmp_path / "exported.onnx")
    for shape in [(1, 3, 5, 3), (3, 3, 9, 12)]:
        x = torch.rand(shape)
        with torch.inference_mode():
            torch.testing.assert_close(exported(x), spandrel(x), rtol=1e-4, atol=1e-4)


@every("span")
def test_tiles_make_no_difference_to_a_small_receptive_field(network: tuple[Any, Path]) -> None:
    image = colors(20, 170)
    whole, tiled = (Upscaler(network[1], device="cpu", tile=tile)(image) for tile in (None, 100))
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


@every("swinir")
def test_tiles_lie_on_the_windows(network: tuple[Any, Path]) -> None:
    upscaler = Upscaler(network[1], device="cpu", tile=1)
    assert upscaler.network.window_size == 32
    image = colors(20, 170)
    whole, tiled = Upscaler(network[1], device="cpu")(image), upscaler(image)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


@every("compact")
def test_transparency_grayscale_and_depth(network: tuple[Any, Path]) -> None:
    upscaler = Upscaler(network[1], device="cpu")
    for channels in (1, 2, 4):
        pixels = np.random.default_rng(0).integers(0, 65535, (7, 9, channels), np.uint16)
        upscaled = upscaler(pixels)
        assert (upscaled.shape, upscaled.dtype) == ((14, 18, channels), np.uint16)


@every("swinir")
def test_half_precision_falls_back_where_the_architecture_has_none(network: tuple[Any, Path]) -> None:
    with pytest.warns(UserWarning, match="cannot compute in fp16"):
        upscaler = Upscaler(network[1], device="cpu", precision="fp16")
    assert upscaler.dtype == torch.float32
    assert Upscaler(network[1], device="cpu", precision="bf16").dtype == torch.bfloat16


@every("compact")
def test_every_kind_of_file(network: tuple[Any, Path], tmp_path: Path) -> None:
    made, path = network
    state = made.state_dict()
    expected = load_network(path)(torch.ones(1, 3, 4, 4))
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pt")
    torch.save(
        {"epoch": 3, "state_dict": {"module." + key: tensor for key, tensor in state.items()}},
        tmp_path / "c.ckpt",
    )
    torch.save({key: tensor.half() for key, tensor in state.items()}, tmp_path / "d.pth")
    for name in ("a.safetensors", "b.pt", "c.ckpt", "d.pth"):
        torch.testing.assert_close(
            load_network(tmp_path / name)(torch.ones(1, 3, 4, 4)), expected, atol=1e-3, rtol=0
        )


@every("esrgan")
def test_the_scale_must_be_the_networks(network: tuple[Any, Path]) -> None:
    assert from_pretrained(network[1], 4).scale == 4
    with pytest.raises(InputError, match="upscales ×4, not ×2"):
        from_pretrained(network[1], 2)


def described(monkeypatch: pytest.MonkeyPatch, **descriptor: Any) -> None:
    """Let spandrel find something in any weights."""
    found = type("Descriptor", (), {"architecture": type("Architecture", (), {"name": "Face"}), **descriptor})
    monkeypatch.setattr(spandrel.MAIN_REGISTRY, "load", lambda state: found)


@pytest.mark.parametrize(
    ("descriptor", "message"),
    [
        ({"purpose": "FaceSR"}, "is a network for FaceSR"),
        ({"purpose": "Inpainting"}, "is a network for Inpainting"),
        ({"purpose": "SR", "input_channels": 4, "output_channels": 4}, "turns 4 channels into 4"),
    ],
)
@every("compact")
def test_networks_for_something_else_are_refused(
    network: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch, descriptor: dict[str, Any], message: str
) -> None:
    described(monkeypatch, **descriptor)
    with pytest.raises(InputError, match=message):
        load_network(network[1])


def test_weights_of_nothing_known_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(3)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a.pth holds no network that convattn or spandrel knows"):
        load_network(tmp_path / "a.pth")
    torch.save({"body.0.weight": torch.ones(3), "body.1.weight": torch.ones(3)}, tmp_path / "b.pth")
    with pytest.raises(InputError, match=r"b.pth looks like a network that spandrel knows"):
        load_network(tmp_path / "b.pth")


@every("compact")
def test_without_spandrel_the_sentence_says_what_to_install(
    network: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(InputError, match=r"network.pth holds no ESC network.*convattn\[spandrel\]"):
        load_network(network[1])


@every("compact")
def test_nothing_but_tensors_is_unpickled(network: tuple[Any, Path], tmp_path: Path) -> None:
    torch.save({"params": network[0]}, tmp_path / "module.pth")
    with pytest.raises(InputError, match="never unpickled"):
        load_network(tmp_path / "module.pth")
