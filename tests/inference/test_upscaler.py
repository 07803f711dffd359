import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import convattn
from convattn.errors import InputError
from convattn.images.io import Image, write_image
from convattn.images.resize import resize_bicubic
from convattn.inference import devices
from convattn.inference.upscaler import Upscaler
from convattn.models.registry import build


class Bicubic(torch.nn.Module):
    """A network that overshoots at edges and whose result is known."""

    def __init__(self, scale=2):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return F.interpolate(x, scale_factor=self.scale, mode="bicubic")


class ArbitraryScale(torch.nn.Module):
    scale = None

    def forward(self, x, size):
        return F.interpolate(x, size)


class ShortOfMemory(Bicubic):
    """Runs out of memory beyond some size, as each device says it."""

    def __init__(self, error, largest):
        super().__init__()
        self.error, self.largest, self.seen = error, largest, []

    def forward(self, x):
        self.seen.append(tuple(x.shape[2:]))
        if max(x.shape[2:]) > self.largest:
            raise self.error
        return super().forward(x)


def pixels(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def image_tensor(*shape, dtype):
    if dtype.is_floating_point:
        return torch.rand(shape).to(dtype)
    numpy_dtype = {torch.uint8: np.uint8, torch.uint16: np.uint16}[dtype]
    return torch.from_numpy(pixels(*shape, dtype=numpy_dtype))


DTYPES = [torch.uint8, torch.uint16, torch.float32, torch.float64, torch.float16]


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    channels=st.integers(1, 4),
    dtype=st.sampled_from(DTYPES),
    scale=st.integers(1, 4),
    tile=st.sampled_from([None, 16]),
)
def test_shape_numbers_and_range(size, channels, dtype, scale, tile):
    image = image_tensor(2, channels, *size, dtype=dtype)
    upscaled = Upscaler(Bicubic(scale), device="cpu", tile=tile)(image)
    assert upscaled.shape == (2, channels, size[0] * scale, size[1] * scale)
    assert upscaled.dtype == dtype
    if dtype.is_floating_point:
        assert 0 <= upscaled.min() <= upscaled.max() <= 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_color_is_the_output_of_the_network(dtype):
    image = image_tensor(2, 3, 9, 7, dtype=dtype)
    largest = {torch.uint8: 255, torch.uint16: 65535}.get(dtype, 1)
    expected = Bicubic()(image.float() / largest).clamp(0, 1) * largest
    if largest > 1:
        expected = expected.round()
    assert torch.equal(Upscaler(Bicubic(), device="cpu")(image), expected.to(dtype))


def test_16_bits_are_not_8():
    ramp = np.arange(1000, 1064, dtype=np.uint16).reshape(8, 8)
    assert len(np.unique(Upscaler(Bicubic(1), device="cpu")(ramp))) == 64


def test_grayscale_is_the_mean_of_three_equal_channels():
    class Tinting(Bicubic):
        def forward(self, x):
            return super().forward(x) + torch.tensor([0.1, 0.05, -0.2]).view(3, 1, 1)

    upscale = Upscaler(Tinting(), device="cpu")
    grayscale = 0.4 + 0.2 * torch.rand(1, 9, 7)
    torch.testing.assert_close(upscale(grayscale)[0], upscale(grayscale.expand(3, -1, -1)).mean(0))


def test_every_kind_of_image_gives_the_same_pixels(tmp_path):
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
def test_pil_modes(mode, result):
    from PIL import Image

    image = Image.fromarray(pixels(9, 7, dtype=np.uint16)) if mode == "I;16" else Image.new(mode, (7, 9))
    image.info["dpi"] = (300, 300)
    upscaled = Upscaler(Bicubic(), device="cpu")(image)
    assert (upscaled.mode, upscaled.size, upscaled.info["dpi"]) == (result, (14, 18), (300, 300))


def test_transparent_color_of_pil_images_becomes_alpha():
    from PIL import Image

    image = Image.new("L", (4, 4))
    image.info["transparency"] = 0
    upscaled = Upscaler(Bicubic(), device="cpu")(image)
    assert upscaled.mode == "LA"
    assert np.asarray(upscaled)[..., 1].max() == 0
    assert "transparency" not in upscaled.info


def test_pil_is_needed_by_nobody_else(monkeypatch):
    monkeypatch.delitem(sys.modules, "PIL.Image", raising=False)
    assert Upscaler(Bicubic(), device="cpu")(pixels(3, 3)).shape == (6, 6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
@pytest.mark.parametrize("channels", [2, 4])
def test_hidden_colors_do_not_show(channels, dtype):
    upscale = Upscaler(build("esc-nano", 2), device="cpu")
    image = image_tensor(channels, 24, 20, dtype=dtype)
    image[-1, :, :10] = 0
    other = image.clone()
    other[:-1, :, :10] = image_tensor(channels - 1, 24, 10, dtype=dtype)
    assert torch.equal(upscale(image), upscale(other))


def test_no_dark_fringe_around_cut_out_objects():
    image = np.zeros((16, 16, 4), np.uint8)  # white on transparent black
    image[:, 8:] = 255
    upscaled = Upscaler(Bicubic(), device="cpu")(image)
    assert upscaled[..., :3].min() == 255
    assert set(np.unique(upscaled[:, :14, 3])) == {0}
    assert set(np.unique(upscaled[:, 18:, 3])) == {255}


@pytest.mark.parametrize("value", [0, 100, 65535])
def test_constant_alpha_stays_what_it_is(value):
    image = pixels(12, 12, 4, dtype=np.uint16)
    image[..., 3] = value
    upscaled = Upscaler(build("esc-nano", 2), device="cpu")(image)
    assert set(np.unique(upscaled[..., 3])) == {value}


def test_tiles_are_seamless():
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
def test_extreme_sizes(size):
    assert Upscaler(build("esc-nano", 2), device="cpu")(pixels(*size, 4)).shape == (
        size[0] * 2,
        size[1] * 2,
        4,
    )


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        ),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        MemoryError(),
    ],
)
def test_short_of_memory_the_tiles_become_smaller(error):
    network = ShortOfMemory(error, largest=200)
    image = image_tensor(3, 400, 10, dtype=torch.uint8)
    upscaled = Upscaler(network, device="cpu", tile=1000)(image)
    assert network.seen[0] == (400, 10)
    assert max(size[0] for size in network.seen[1:]) <= 200
    assert torch.equal(upscaled, Upscaler(Bicubic(), device="cpu")(image))


def test_no_memory_at_all_is_reported():
    network = ShortOfMemory(MemoryError(), largest=0)
    with pytest.raises(InputError, match="not even in tiles of 160 pixels"):
        Upscaler(network, device="cpu", tile=300)(image_tensor(3, 300, 300, dtype=torch.uint8))


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match="a fault"):
        Upscaler(ShortOfMemory(RuntimeError("a fault"), largest=0), device="cpu")(pixels(9, 9))


@pytest.mark.parametrize(
    ("size", "memory", "largest"), [(500, 2**24, 160), (500, 2**34, 500), (9, 2**24, 500)]
)
def test_tiles_follow_the_free_memory(monkeypatch, size, memory, largest):
    network, shown = Bicubic(), []
    network.register_forward_pre_hook(lambda module, args: shown.append(max(args[0].shape[2:])))
    monkeypatch.setattr("convattn.inference.memory_budget.free_memory", lambda device: memory)
    Upscaler(network, device="cpu")(pixels(size, 500, 3))
    assert max(shown) == largest


def test_half_precision_that_overflows_is_computed_again():
    class Overflowing(Bicubic):
        def forward(self, x):
            upscaled = super().forward(x)
            return upscaled / 0 if torch.is_autocast_enabled("cpu") else upscaled

    image = pixels(9, 9, 3)
    halves, singles = (Upscaler(n, device="cpu", precision="bf16") for n in (Overflowing(), Bicubic()))
    assert np.array_equal(halves(image), singles(image))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close(precision):
    network, image = build("esc-nano", 2), image_tensor(3, 24, 24, dtype=torch.float32)
    exact = Upscaler(network, device="cpu", precision="fp32")(image)
    assert (Upscaler(network, device="cpu", precision=precision)(image) - exact).abs().max() < 0.02


def test_progress_runs_from_nothing_to_one():
    parts = []
    Upscaler(Bicubic(), device="cpu", tile=64)(pixels(200, 200, 4), progress=parts.append)
    assert parts == sorted(parts)
    assert parts[-1] == 1
    assert len(parts) > 2


def test_results_may_take_part_in_training():
    weight = torch.ones(1, requires_grad=True)
    (Upscaler(Bicubic(), device="cpu")(torch.rand(3, 4, 4)) * weight).sum().backward()
    assert weight.grad is not None


def test_networks_of_arbitrary_scale():
    assert Upscaler(ArbitraryScale(), scale=3, device="cpu")(pixels(4, 5, 3)).shape == (12, 15, 3)
    with pytest.raises(InputError, match="scale=2"):
        Upscaler(ArbitraryScale(), device="cpu")


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
def test_impossible_settings(arguments, complaint):
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
def test_what_is_not_an_image(image):
    with pytest.raises(InputError):
        Upscaler(Bicubic(), device="cpu")(image)


def test_the_package_offers_it():
    assert convattn.Upscaler is Upscaler
    with pytest.raises(AttributeError):
        _ = convattn.nothing


def test_free_memory_heeds_the_container(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    monkeypatch.setattr(devices, "_CONTAINER", tmp_path)
    assert devices.free_memory(torch.device("cpu")) == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.free_memory(torch.device("cpu")) > 10**6


@pytest.mark.parametrize("scale", [2, 2.0, "2", np.float32(2), np.int64(2), (2, "2"), np.array([2, 2])])
def test_scales_of_every_type(scale):
    assert Upscaler(Bicubic(), scale, device="cpu")(pixels(4, 5, 3)).shape == (8, 10, 3)


def test_the_default_scale_is_two():
    assert Upscaler(device="cpu")(pixels(4, 5, 3)).shape == (8, 10, 3)
    assert Upscaler("esc-nano", device="cpu")(pixels(4, 5, 3)).shape == (8, 10, 3)


def test_lists_of_images():
    upscale, fractions = Upscaler(Bicubic(), device="cpu"), []
    images = [pixels(4, 5, 3), torch.rand(1, 6, 7)]
    first, second = upscale(images, progress=fractions.append)
    assert np.array_equal(first, upscale(images[0]))
    assert torch.equal(second, upscale(images[1]))
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_smaller_scale_resizes_the_result(dtype):
    image = pixels(12, 10, 4, dtype=np.uint16)
    image = image / 65535 if dtype == np.float32 else (image >> (8 if dtype == np.uint8 else 0))
    image = image.astype(dtype)
    large = torch.from_numpy(Upscaler(Bicubic(4), device="cpu")(image)).movedim(-1, 0)
    expected = resize_bicubic(large.double(), size=(24, 20)).movedim(0, -1)
    result = Upscaler(Bicubic(4), 2, device="cpu")(image)
    assert (result.shape, result.dtype) == ((24, 20, 4), dtype)
    largest = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    expected = expected.clamp(0, largest).numpy()
    assert np.abs(result - expected).max() <= (1 if largest > 1 else 1e-6)
    assert Upscaler(Bicubic(4), size=(None, 25), device="cpu")(image).shape == (30, 25, 4)


def test_a_named_model_of_a_larger_scale_is_used():
    upscale = Upscaler("esc-nano-real", 2, device="cpu")
    assert upscale.scale == 4
    assert upscale(pixels(6, 5, 3)).shape == (12, 10, 3)
    assert Upscaler("esc-nano", 2.5, device="cpu").scale == 3


def test_an_upscaler_can_be_pickled():
    upscale, image = Upscaler("esc-nano", 2, device="cpu", tile=64), pixels(9, 7, 3)
    assert np.array_equal(pickle.loads(pickle.dumps(upscale))(image), upscale(image))


def test_threads_share_an_upscaler():
    upscale = Upscaler("esc-nano", 2, device="cpu", tile=104)
    images = [pixels(120, 9, 3, seed=seed) for seed in range(4)]
    expected = [upscale(image) for image in images]
    with ThreadPoolExecutor(4) as threads:
        for result, right in zip(threads.map(upscale, images), expected, strict=True):
            assert np.array_equal(result, right)


def test_the_self_ensemble_commutes_with_flips_and_rotations():
    upscale, image = Upscaler("esc-nano", 2, device="cpu", self_ensemble=True), pixels(12, 9, 4)
    result = upscale(image).astype(int)
    assert np.abs(upscale(np.rot90(image)) - np.rot90(result)).max() <= 1
    assert np.abs(upscale(image[::-1]) - result[::-1]).max() <= 1
    assert not np.array_equal(result, Upscaler("esc-nano", 2, device="cpu")(image))


def test_the_self_ensemble_is_the_mean_of_eight():
    network, image = build("esc-nano", 2), torch.rand(3, 6, 8)
    upscale = Upscaler(network, device="cpu")
    results = []
    for turns in range(4):
        turned = image.rot90(turns, (1, 2))
        results.append(upscale(turned).rot90(-turns, (1, 2)))
        results.append(upscale(turned.flip(2)).flip(2).rot90(-turns, (1, 2)))
    expected = torch.stack(results).mean(0)
    torch.testing.assert_close(Upscaler(network, device="cpu", self_ensemble=True)(image), expected)


def test_the_self_ensemble_with_a_scale_for_each_side():
    image = pixels(6, 8, 3)
    assert Upscaler("esc-nano-lte", (1.5, 3), device="cpu", self_ensemble=True)(image).shape == (9, 24, 3)
