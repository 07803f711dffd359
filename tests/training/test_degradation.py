"""Each step of the degradation against something slow and obvious, and what the whole promises."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pyvips
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from typer.testing import CliRunner

from convattn.training.degradation import (
    Degradation,
    Kernel,
    Stage,
    add_gaussian_noise,
    add_poisson_noise,
    blur,
    compress,
    contact_sheet,
    degrade,
    draw_kernel,
    gaussian_kernel,
    plateau_kernel,
    resize,
    sharpen,
    sinc_kernel,
)

CLEAN = Stage(blur=0, resizing=(0, 0, 1), gaussian_noise=(0, 0), quality=(100, 100))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- Kernels ---


def _kernel_by_loops(size: int, sigma: tuple[float, float], angle: float, profile: Any) -> Tensor:
    """Each pixel by the inverse of a covariance matrix that is written out."""
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]).double()
    covariance = turn @ torch.diag(torch.tensor(sigma, dtype=torch.float64) ** 2) @ turn.T
    kernel = torch.zeros(size, size, dtype=torch.float64)
    for row in range(size):
        for column in range(size):
            x = torch.tensor([column - size // 2, row - size // 2], dtype=torch.float64)
            kernel[row, column] = profile(x @ covariance.inverse() @ x)
    return kernel / kernel.sum()


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_kernels_follow_their_formulas(power: float) -> None:
    shape = (9, (0.7, 2.5), 0.6)
    expected = _kernel_by_loops(*shape, lambda q: torch.exp(-0.5 * q**power))
    torch.testing.assert_close(gaussian_kernel(*shape, power), expected)
    expected = _kernel_by_loops(*shape, lambda q: 1 / (1 + q**power))
    torch.testing.assert_close(plateau_kernel(*shape, power), expected)


@pytest.mark.parametrize("cutoff", [math.pi / 5, math.pi / 2])
def test_sinc_kernel_passes_low_frequencies_alone(cutoff: float) -> None:
    """The transform of a long filter is 1 within the circle and 0 outside it."""
    size = 301
    kernel = torch.fft.ifftshift(sinc_kernel(size, cutoff))
    response = torch.fft.fft2(kernel).real
    frequency = 2 * math.pi * torch.fft.fftfreq(size, dtype=torch.float64)
    radius = torch.hypot(frequency[:, None], frequency[None, :])
    assert (response[radius < cutoff - 0.15] - 1).abs().max() < 0.12
    assert response[radius > cutoff + 0.15].abs().max() < 0.12
    assert kernel.min() < 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_drawn_kernels_keep_brightness_and_are_symmetric(seed: int) -> None:
    kernel = draw_kernel(Degradation(), (0.2, 3), _generator(seed))
    assert kernel.shape == (21, 21)
    torch.testing.assert_close(kernel.sum().item(), 1.0)
    torch.testing.assert_close(kernel, kernel.flip(0, 1))


def test_kernels_come_as_often_as_the_settings_say() -> None:
    """The value in the middle tells kernels of sigma 3 apart."""
    kinds = Kernel("gaussian", True, (1, 1), 0.3), Kernel("plateau", True, (1, 1), 0.7)
    chosen = Degradation(sinc=0.2, kernels=kinds, kernel_sizes=(21, 21))
    generator = _generator()
    kernels = [draw_kernel(chosen, (3, 3), generator) for _ in range(1000)]
    ringing = sum(bool(kernel.min() < 0) for kernel in kernels) / 1000
    gaussian = gaussian_kernel(21, (3, 3))[10, 10]
    gaussians = sum(bool((kernel[10, 10] - gaussian).abs() < 1e-9) for kernel in kernels) / 1000
    assert abs(ringing - 0.2) < 0.05
    assert abs(gaussians - 0.8 * 0.3) < 0.05


# --- The other steps ---


def test_blur_is_a_sum_over_neighbors_with_each_image_its_own_kernel() -> None:
    x, kernels = torch.rand(2, 2, 6, 5, dtype=torch.float64), torch.rand(2, 5, 5, dtype=torch.float64)
    expected = torch.zeros_like(x)
    for n, c, row, column, i, j in torch.cartesian_prod(*map(torch.arange, (*x.shape, 5, 5))).tolist():
        source_row, source_column = abs(row + i - 2), abs(column + j - 2)
        source_row, source_column = min(source_row, 10 - source_row), min(source_column, 8 - source_column)
        expected[n, c, row, column] += kernels[n, i, j] * x[n, c, source_row, source_column]
    torch.testing.assert_close(blur(x, kernels), expected)


def test_blur_takes_images_smaller_than_the_kernel() -> None:
    assert blur(torch.ones(1, 3, 2, 1), sinc_kernel(21, 2.0)[None]) == pytest.approx(1)


def _cubic(t: float, a: float = -0.75) -> float:
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0


def _hat(t: float) -> float:
    return max(0, 1 - abs(t))


@pytest.mark.parametrize(("mode", "weight"), [("bilinear", _hat), ("bicubic", _cubic)])
def test_resizing_weights_the_neighbors_of_each_place(mode: str, weight: Callable[..., Any]) -> None:
    line = torch.rand(12, dtype=torch.float64)
    for length in (7, 12, 30):
        expected = torch.zeros(length, dtype=torch.float64)
        for new in range(length):
            place = (new + 0.5) * 12 / length - 0.5
            for old in range(-3, 15):
                expected[new] += weight(place - old) * line[min(max(old, 0), 11)]
        torch.testing.assert_close(resize(line.expand(1, 1, 3, 12), (3, length), mode)[0, 0, 1], expected)


def test_resizing_by_area_averages() -> None:
    x = torch.rand(1, 1, 6, 8, dtype=torch.float64)
    torch.testing.assert_close(
        resize(x, (2, 2), "area"), x.unflatten(2, (2, 3)).unflatten(4, (2, 4)).mean((3, 5))
    )


def test_gaussian_noise_has_the_sigma_asked_for_and_is_grayscale_on_demand() -> None:
    x = torch.full((3, 200, 200), 0.5)
    colored = add_gaussian_noise(x, 20, grayscale=False, generator=_generator()) - x
    assert colored.std().item() * 255 == pytest.approx(20, rel=0.01)
    assert abs(torch.corrcoef(colored.flatten(1))[0, 1]) < 0.02
    grayscale = add_gaussian_noise(x, 20, grayscale=True, generator=_generator()) - x
    assert torch.equal(grayscale[0], grayscale[1])
    assert grayscale.std().item() * 255 == pytest.approx(20, rel=0.01)


def test_poisson_noise_is_that_of_counted_photons() -> None:
    """The variance of counts is their mean: the noise grows with the root of brightness."""
    values = torch.arange(64) * 2 / 255  # 64 values: white is 64 photons
    x = values[None, :, None].expand(3, -1, 4000)
    strength = 0.4
    noise = add_poisson_noise(x, strength, grayscale=False, generator=_generator()) - x
    middle = slice(16, 48)
    measured = noise.double().std(-1)[:, middle]
    expected = strength * (values[middle].double() / 64).sqrt().expand(3, -1)
    torch.testing.assert_close(measured, expected, rtol=0.06, atol=0)
    assert noise.mean().abs() < 1e-3


def test_grayscale_poisson_noise_is_the_same_in_all_channels() -> None:
    x = torch.rand(3, 20, 30) * 0.2 + 0.4
    noise = add_poisson_noise(x, 0.3, grayscale=True, generator=_generator()) - x
    torch.testing.assert_close(noise[0], noise[2], atol=1e-6, rtol=0)
    assert noise.std() > 0.01


@pytest.mark.parametrize("channels_last", [False, True])
def test_compression_is_libvips_own(channels_last: bool) -> None:
    x = torch.rand(3, 3, 17, 23)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    compressed = compress(x, ["jpeg", "webp", "jpeg"], [40, 60, 95])
    for image, result, suffix in zip(x, compressed, [".jpg[Q=40]", ".webp[Q=60]", ".jpg[Q=95]"], strict=True):
        pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        data = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb").write_to_buffer(suffix)
        decoded = torch.from_numpy(pyvips.Image.new_from_buffer(data, "").numpy())
        assert torch.equal((result * 255).round().to(torch.uint8), decoded.permute(2, 0, 1))


def test_sharpening_is_unsharp_masking_where_there_are_edges() -> None:
    image = torch.rand(1, 1, 6, 7, dtype=torch.float64).repeat_interleave(10, 2).repeat_interleave(10, 3)
    distance = torch.arange(-25, 26, dtype=torch.float64) ** 2
    kernel = torch.exp(-(distance[:, None] + distance) / (2 * 8**2))

    def soften(x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (25,) * 4, mode="reflect"), (kernel / kernel.sum())[None, None])

    detail = image - soften(image)
    edges = soften((detail.abs() > 10 / 255).double())
    expected = edges * (image + 0.5 * detail).clamp(0, 1) + (1 - edges) * image
    torch.testing.assert_close(sharpen(image), expected)


def test_sharpening_steepens_edges_and_leaves_flat_parts_alone() -> None:
    edge = torch.full((1, 3, 160, 160), 0.4)
    edge[..., 80:] = 0.6
    sharp = sharpen(edge)
    assert sharp[0, 0, 80, 79] < 0.38
    assert sharp[0, 0, 80, 80] > 0.62
    torch.testing.assert_close(sharp[..., :20], edge[..., :20], atol=1e-4, rtol=0)
    faint = torch.full((1, 3, 80, 80), 0.5)
    faint[..., 40:] += 8 / 255
    torch.testing.assert_close(sharpen(faint), faint)


# --- The whole ---


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_results_are_8_bit_images_of_the_size_asked_for(scale: int, seed: int) -> None:
    low = degrade(torch.rand(2, 3, 32, 48), Degradation(scale=scale), generator=_generator(seed))
    assert low.shape == (2, 3, 32 // scale, 48 // scale)
    torch.testing.assert_close((low * 255).round() / 255, low, atol=0, rtol=0)
    assert low.min() >= 0
    assert low.max() <= 1


def test_a_image_meets_the_same_whatever_is_beside_it() -> None:
    images = torch.rand(4, 3, 32, 32)
    together = degrade(images, generator=_generator(5))
    assert torch.equal(degrade(images, generator=_generator(5)), together)
    assert torch.equal(degrade(images[:1], generator=_generator(5)), together[:1])
    others = torch.cat((torch.rand(2, 3, 32, 32), images[2:]))
    assert torch.equal(degrade(others, generator=_generator(5))[2:], together[2:])
    assert not torch.equal(degrade(images, generator=_generator(6)), together)


def test_images_of_a_batch_meet_different_things() -> None:
    low = degrade(torch.rand(1, 3, 32, 32).expand(4, -1, -1, -1), generator=_generator())
    assert len({tuple(image.flatten().tolist()) for image in low}) == 4


def test_without_any_damage_only_the_resizing_is_left() -> None:
    chosen = Degradation(scale=1, first=CLEAN, second=CLEAN, final_sinc=0, gaussian=1, webp=0)
    smooth = torch.linspace(0.2, 0.8, 64).expand(1, 3, 32, 64)
    low = degrade(smooth, chosen, generator=_generator())
    torch.testing.assert_close(low, smooth, atol=2.5 / 255, rtol=0)


def test_the_first_round_comes_first() -> None:
    """Noise that the second round must blur away is gone; noise of the second round stays."""
    noisy, blurring = (
        Stage(blur=0, resizing=(0, 0, 1), gaussian_noise=(30, 30), quality=(95, 95)),
        Stage(sigma=(3, 3), resizing=(0, 0, 1), gaussian_noise=(0, 0), quality=(95, 95)),
    )
    grayscale = torch.full((1, 3, 64, 64), 0.5)
    shared = dict(scale=1, sinc=0, final_sinc=0, gaussian=1, webp=0, kernel_sizes=(21, 21))
    calm = degrade(grayscale, Degradation(first=noisy, second=blurring, **shared), generator=_generator())
    loud = degrade(grayscale, Degradation(first=blurring, second=noisy, **shared), generator=_generator())
    assert loud.std() > 4 * calm.std()


def test_sides_must_be_multiples_of_the_scale() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        degrade(torch.rand(1, 3, 32, 30), generator=_generator())


def test_a_sheet_shows_the_target_and_as_many_examples_as_asked_for() -> None:
    image = torch.rand(3, 33, 50)
    sheet = contact_sheet(image, 4, generator=_generator(), side=40)
    assert sheet.shape == (3, 2 * 32, 3 * 40)
    assert torch.equal(sheet[:, :32, :40], sharpen(image[None, :, :32, 5:45])[0])
    assert (sheet[:, 32:, 80:] == 1).all()
    assert len(sheet[:, :32, 40:].unique()) > 50


# --- The command ---


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pyvips.Image.gaussnoise(64, 48).cast("uchar").bandjoin([90, 120]).copy(interpretation="srgb").pngsave(
        str(path)
    )
    return path


def _run(*arguments: Any) -> Any:
    from convattn.cli import app

    return CliRunner().invoke(app, ["degrade", *map(str, arguments)])


def test_the_command_writes_a_sheet_for_each_image_and_the_seed_decides(
    photograph: Path, tmp_path: Path
) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert _run(photograph, "-o", tmp_path / folder, "--count", 2, "--seed", seed).exit_code == 0
    first, again, other = ((tmp_path / folder / "photo.png").read_bytes() for folder in "abc")
    assert first == again != other
    assert pyvips.Image.new_from_file(str(tmp_path / "a" / "photo.png")).width == 2 * 64


def test_the_command_refuses_what_it_cannot_use(photograph: Path, tmp_path: Path) -> None:
    from convattn.errors import InputError

    twin = tmp_path / "other" / "photo.png"
    twin.parent.mkdir()
    twin.write_bytes(photograph.read_bytes())
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    for images in ([photograph, twin], [broken], [tmp_path / "absent.png"]):
        result = _run(*images, "-o", tmp_path / "out")
        assert isinstance(result.exception, InputError)
    assert not (tmp_path / "out").exists()
