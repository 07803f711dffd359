"""The upscaler: images of every kind and size, settings, progress and threads."""

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import convattn
from convattn.errors import InputError
from convattn.images.io import Image, write_image
from convattn.inference.upscaler import Upscaler
from convattn.models.registry import build

from .conftest import DTYPES, Bicubic, image_tensor, pixels


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    channels=st.integers(1, 4),
    dtype=st.sampled_from(DTYPES),
    scale=st.integers(1, 4),
    tile=st.sampled_from([None, 16]),
)
def test_shape_numbers_and_range(
    size: tuple[int, int], channels: int, dtype: torch.dtype, scale: int, tile: int | None
) -> None:
    image = image_tensor(2, channels, *size, dtype=dtype)
    upscaled = Upscaler(Bicubic(scale), device="cpu", tile=tile)(image)
    assert upscaled.shape == (2, channels, size[0] * scale, size[1] * scale)
    assert upscaled.dtype == dtype
    if dtype.is_floating_point:
        assert 0 <= upscaled.min() <= upscaled.max() <= 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_color_is_the_output_of_the_network(dtype: torch.dtype) -> None:
    image = image_tensor(2, 3, 9, 7, dtype=dtype)
    largest = {torch.uint8: 255, torch.uint16: 65535}.get(dtype, 1)
    expected = Bicubic()(image.float() / largest).clamp(0, 1) * largest
    if largest > 1:
        expected = expected.round()
    assert torch.equal(Upscaler(Bicubic(), device="cpu")(image), expected.to(dtype))


def test_16_bits_are_not_8() -> None:
    ramp = np.arange(1000, 1064, dtype=np.uint16).reshape(8, 8)
    assert len(np.unique(Upscaler(Bicubic(1), device="cpu")(ramp))) == 64


def test_grayscale_is_the_mean_of_three_equal_channels() -> None:
    class Tinting(Bicubic):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.tensor([0.1, 0.05, -0.2]).view(3, 1, 1)

    upscale = Upscaler(Tinting(), device="cpu")
    grayscale = 0.4 + 0.2 * torch.rand(1, 9, 7)
    torch.testing.assert_close(upscale(grayscale)[0], upscale(grayscale.expand(3, -1, -1)).mean(0))


def test_every_kind_of_image_gives_the_same_pixels(tmp_path: Path) -> None:
    from PIL import Image as PILImage

    upscale = Upscaler(build("esc-nano", 2), device="cpu")
    array = pixels(9, 7, 3)
    upscaled = upscale(array)
    write_image(Image(array), tmp_path / "a.png")
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    image = upscale(PILImage.fromarray(array))
    assert image.mode == "RGB"
    assert np.array_equal(image, upscaled)
    assert np.array_equal(upscale(tmp_path / "a.png").pixels, upscaled)
    assert np.array_equal(upscale(str(tmp_path / "a.png")).pixels, upscaled)
    assert torch.equal(upscale(tensor), torch.from_numpy(upscaled).permute(2, 0, 1))
    assert torch.equal(upscale(tensor[None])[0], upscale(tensor))


@pytest.mark.parametrize(
    ("mode", "result"),
    [("1", "L"), ("L", "L"), ("LA", "LA"), ("P", "RGB"), ("RGBA", "RGBA"), ("CMYK", "RGB"), ("I;16", "I;16")],
)
def test_pil_modes(mode: str, result: str) -> None:
    from PIL import Image

    image = Image.fromarray(pixels(9, 7, dtype=np.uint16)) if mode == "I;16" else Image.new(mode, (7, 9))
    image.info["dpi"] = (300, 300)
    upscaled = Upscaler(Bicubic(), device="cpu")(image)
    assert (upscaled.mode, upscaled.size, upscaled.info["dpi"]) == (result, (14, 18), (300, 300))


def test_transparent_color_of_pil_images_becomes_alpha() -> None:
    from PIL import Image

    image = Image.new("L", (4, 4))
    image.info["transparency"] = 0
    upscaled = Upscaler(Bicubic(), device="cpu")(image)
    assert upscaled.mode == "LA"
    assert np.asarray(upscaled)[..., 1].max() == 0
    assert "transparency" not in upscaled.info


def test_pil_is_needed_by_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "PIL.Image", raising=False)
    assert Upscaler(Bicubic(), device="cpu")(pixels(3, 3)).shape == (6, 6)


def test_tiles_are_seamless() -> None:
    """With the dynamic kernels at work, 20 tiles differ from the whole by less than a step of 8 bits."""
    network = build("esc-nano", 2)
    for name, parameter in network.named_parameters():
        if "predictor" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    y, x = torch.meshgrid(torch.linspace(0, 9, 200), torch.linspace(0, 9, 160), indexing="ij")
    image = torch.stack([(x * y).sin(), (x + y).cos(), (x - 2 * y).sin()]) / 2 + 0.5
    whole = Upscaler(network, device="cpu")(image)
    tiled = Upscaler(network, device="cpu", tile=104)(image)
    assert (tiled - whole).abs().max() < 0.5 / 255
    assert not torch.equal(tiled, whole)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 400)])
def test_extreme_sizes(size: tuple[int, int]) -> None:
    assert Upscaler(build("esc-nano", 2), device="cpu")(pixels(*size, 4)).shape == (
        size[0] * 2,
        size[1] * 2,
        4,
    )


def test_progress_runs_from_nothing_to_one() -> None:
    parts: list[float] = []
    Upscaler(Bicubic(), device="cpu", tile=64)(pixels(200, 200, 4), progress=parts.append)
    assert parts == sorted(parts)
    assert parts[-1] == 1
    assert len(parts) > 2


def test_results_may_take_part_in_training() -> None:
    weight = torch.ones(1, requires_grad=True)
    (Upscaler(Bicubic(), device="cpu")(torch.rand(3, 4, 4)) * weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"scale": 3}, "by 2, not by 3"),
        ({"device": "tpu"}, "tpu is not available here"),
        ({"precision": "int8"}, "auto, fp32, bf16, fp16"),
        ({"tile": 0}, "at least one pixel"),
        ({"scale": "big"}, "number from 1 to 30"),
        ({"scale": (1, 2, 3)}, "number from 1 to 30"),
        ({"fidelity": 0.5}, "named model"),
    ],
)
def test_impossible_settings(
    arguments: dict[str, float] | dict[str, int] | dict[str, str] | dict[str, tuple[int, int, int]],
    complaint: str,
) -> None:
    with pytest.raises(InputError, match=complaint):
        Upscaler(Bicubic(), **arguments)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((4, 4), np.int32),
        torch.zeros(4, 4),
        [[0, 0], [0, 0]],
        np.zeros((4, 4), np.complex64),
        np.full((4, 4), np.nan, np.float32),
        np.full((4, 4, 3), 255, np.float32),
        torch.full((3, 4, 4), -1.0),
    ],
)
def test_what_is_not_an_image(image: Tensor | list[list[int]] | np.ndarray) -> None:
    with pytest.raises(InputError):
        Upscaler(Bicubic(), device="cpu")(image)


def test_the_package_offers_it() -> None:
    assert convattn.Upscaler is Upscaler
    with pytest.raises(AttributeError):
        _ = convattn.nothing


def test_lists_of_images() -> None:
    upscale = Upscaler(Bicubic(), device="cpu")
    fractions: list[float] = []
    images = [pixels(4, 5, 3), torch.rand(1, 6, 7)]
    first, second = upscale(images, progress=fractions.append)
    assert np.array_equal(first, upscale(images[0]))
    assert torch.equal(second, upscale(images[1]))
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_an_upscaler_can_be_pickled() -> None:
    upscale, image = Upscaler("esc-nano", 2, device="cpu", tile=64), pixels(9, 7, 3)
    assert np.array_equal(pickle.loads(pickle.dumps(upscale))(image), upscale(image))


def test_threads_share_an_upscaler() -> None:
    upscale = Upscaler("esc-nano", 2, device="cpu", tile=104)
    images = [pixels(120, 9, 3, seed=seed) for seed in range(4)]
    expected = [upscale(image) for image in images]
    with ThreadPoolExecutor(4) as threads:
        for result, right in zip(threads.map(upscale, images), expected, strict=True):
            assert np.array_equal(result, right)
