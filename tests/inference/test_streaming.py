"""Images too large for memory: the same result, little memory, and nothing left behind."""

import errno
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from convattn.errors import InputError
from convattn.images import memmap
from convattn.images.io import Image, read_image, write_image
from convattn.inference import memory_budget, streaming
from convattn.inference.batch_jobs import upscale_files
from convattn.inference.results import Job
from convattn.inference.tiles import TiledModel
from convattn.inference.upscaler import Upscaler
from convattn.models.registry import build


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Everything is too large for memory; temporary files go to the folder that is returned."""
    monkeypatch.setattr(memory_budget, "_ALWAYS_WHOLE", 0)
    monkeypatch.setattr(memory_budget, "_MOST_FOR_IMAGES", 0)
    monkeypatch.setattr(memory_budget, "_MOST_FOR_FEATURE_MAPS", 0)
    monkeypatch.setattr(memory_budget, "_MOST_FOR_REGION", 2**19)
    for module in (memmap, streaming):
        monkeypatch.setattr(module, "LARGE", 1)
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture(scope="module")
def upscale() -> Upscaler:
    return Upscaler("esc-nano", 2, device="cpu")


def image(channels: int, dtype: type, size: tuple[int, int] = (53, 67)) -> Image:
    """Noise; half of alpha, where there is any, is 0."""
    random = np.random.default_rng(channels)
    pixels = random.integers(0, np.iinfo(dtype).max, (*size, channels), dtype, endpoint=True)
    if channels in (2, 4):
        pixels[..., -1] *= random.integers(0, 2, size, dtype)
    return Image(pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_files_of_large_images_are_those_of_small_ones(
    channels: int, dtype: type, upscale: Upscaler, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source, whole, streamed = (tmp_path / name for name in ("source.png", "whole.png", "streamed.png"))
    write_image(image(channels, dtype), source)
    upscale_files(upscale, [Job(source, whole)])
    folder = request.getfixturevalue("little_memory")
    assert not upscale_files(upscale, [Job(source, streamed)])
    assert not list(folder.iterdir())
    expected, result = read_image(whole).pixels.astype(int), read_image(streamed).pixels
    assert isinstance(result, np.memmap)
    step = np.abs(expected - result)
    assert step.max() <= 1
    assert (step > 0).mean() <= (5e-4 if dtype == np.uint8 else 1e-2)  # 14,000 numbers of noise


def test_flat_alpha_and_numbers_of_every_kind(upscale: Upscaler, little_memory: Path) -> None:
    pixels = torch.rand(2, 4, 20, 30)
    pixels[:, 3] = 0.25
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        upscaled = upscale(pixels.to(dtype))
        assert (upscaled.shape, upscaled.dtype) == ((2, 4, 40, 60), dtype)
        assert (upscaled[:, 3] == 0.25).all()


def test_any_scale(request: pytest.FixtureRequest) -> None:
    """With another factor for each side, and alpha limited where the pixels lie."""
    network = build("esc-nano-lte").eval()
    pixels = image(4, np.uint8).pixels
    expected = Upscaler(network, (2.7, 1.3), device="cpu")(pixels)
    request.getfixturevalue("little_memory")
    step = np.abs(Upscaler(network, (2.7, 1.3), device="cpu")(pixels).astype(int) - expected)
    assert step.shape == (143, 87, 4)
    assert step.max() <= 1
    assert (step > 0).mean() <= 1e-3


def test_turned_images_are_turned(upscale: Upscaler, little_memory: Path, tmp_path: Path) -> None:
    from PIL import Image

    pil_image, exif = Image.fromarray(image(3, np.uint8).pixels), Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    pil_image.save(tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0)
    expected = np.rot90(np.asarray(Image.open(tmp_path / "turned.jpg")), -1)
    assert np.array_equal(read_image(tmp_path / "turned.jpg").pixels, expected)


def test_progress_runs_from_nothing_to_one(upscale: Upscaler, little_memory: Path) -> None:
    parts: list[float] = []
    upscale(image(4, np.uint8).pixels, progress=parts.append)
    assert parts == sorted(parts)
    assert (parts[0] < 0.1, parts[-1]) == (True, 1)


def test_out_of_memory_the_same_in_smaller_regions(
    monkeypatch: pytest.MonkeyPatch, upscale: Upscaler
) -> None:
    pixels, asked = image(3, np.uint8).pixels, []
    expected = upscale(pixels)

    def recording(*args: Any, budget: Any, **options: Any) -> Any:
        asked.append(budget.divisor)
        if budget.divisor < 16:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return streamed(*args, budget=budget, **options)

    def failing(*args: Any, **options: Any) -> None:
        asked.append(0)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    streamed = streaming.upscale
    monkeypatch.setattr(streaming, "upscale", recording)
    monkeypatch.setattr(TiledModel, "upscale", failing)
    assert np.abs(upscale(pixels).astype(int) - expected).max() <= 1
    assert asked == [0, 1, 4, 16]
    monkeypatch.setattr(streaming, "upscale", failing)
    with pytest.raises(InputError, match="does not suffice"):
        upscale(pixels)


def test_half_precision_that_overflows_is_computed_again(little_memory: Path) -> None:
    network = build("esc-nano", 2).eval()
    network.features.blocks[0].norm_out.weight.data *= 1e20
    network.features.blocks[0].conv_out.weight.data *= 1e-20
    pixels = image(3, np.uint8).pixels
    halves, singles = (Upscaler(network, device="cpu", precision=name)(pixels) for name in ("fp16", "fp32"))
    assert np.array_equal(halves, singles)


def test_results_that_cannot_be_written_stop_no_others(upscale: Upscaler, tmp_path: Path) -> None:
    """Errors come in the order of the images, whether reading or writing failed."""
    write_image(image(3, np.uint8), tmp_path / "source.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    for name in ("first.png", "last.png"):
        (tmp_path / name).mkdir()
    sources = ("source", "broken", "source", "source", "source")
    targets = ("first", "a", "b", "last", "c")
    jobs = [
        Job(tmp_path / f"{source}.png", tmp_path / f"{target}.png")
        for source, target in zip(sources, targets, strict=True)
    ]
    first, second, last = map(str, upscale_files(upscale, jobs, existing="overwrite"))
    assert "first.png" in first
    assert "broken.png" in second
    assert "last.png" in last
    assert not (tmp_path / "a.png").exists()
    assert np.array_equal(read_image(tmp_path / "b.png").pixels, read_image(tmp_path / "c.png").pixels)


def test_too_small_a_disk_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch, upscale: Upscaler, little_memory: Path, tmp_path: Path
) -> None:
    write_image(image(3, np.uint8), tmp_path / "source.tif")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    (error,) = upscale_files(upscale, [Job(tmp_path / "source.tif", tmp_path / "target.png")])
    assert "GB of temporary files" in str(error)
    assert "TMPDIR" in str(error)
    assert not (tmp_path / "target.png").exists()


def test_a_disk_that_fills_up(
    monkeypatch: pytest.MonkeyPatch, upscale: Upscaler, little_memory: Path, tmp_path: Path
) -> None:
    """Nothing half-written stays, and what was there before is kept."""
    (tmp_path / "target.png").write_text("kept")
    write_image(image(3, np.uint8), tmp_path / "source.tif")
    room = [200_000]

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: memoryview) -> int:
            room[0] -= data.nbytes
            if room[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    create = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: Full(create(**options)))
    jobs = [Job(tmp_path / "source.tif", tmp_path / "target.png")]
    (error,) = upscale_files(upscale, jobs, existing="overwrite")
    assert "No space left on device" in str(error)
    assert (tmp_path / "target.png").read_text() == "kept"
    assert not list(little_memory.iterdir())


def test_interruption_leaves_nothing(upscale: Upscaler, little_memory: Path, tmp_path: Path) -> None:
    write_image(image(3, np.uint8), tmp_path / "source.tif")

    def interrupt(done: float) -> None:
        if done > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_files(upscale, [Job(tmp_path / "source.tif", tmp_path / "target.png")], progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.tif", "temporary"]
    assert not list(little_memory.iterdir())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_bounded() -> None:
    """Upscaling takes less than a quarter of what showing the network the whole takes."""
    code = """
import numpy as np, re, sys
from pathlib import Path
from convattn.images import memmap
from convattn.inference import memory_budget
from convattn.inference.upscaler import Upscaler
if sys.argv[1] == "streamed":
    memory_budget._MOST_FOR_IMAGES, memory_budget._MOST_FOR_FEATURE_MAPS = 0, 0
    memory_budget._MOST_FOR_REGION = 2**24
    memmap.LARGE = 1
upscale = Upscaler("esc-nano", 2, device="cpu")
upscale(np.zeros((64, 64, 3), np.uint8))
# Not getrusage, which knows of the process that started this one as well.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
before = peak()
upscale(np.zeros((400, 400, 3), np.uint8))
assert "torch._dynamo" not in sys.modules, "a hundred megabytes that nobody needs"
print(peak() - before)
"""
    streamed, whole = (
        float(subprocess.run([sys.executable, "-c", code, kind], capture_output=True, check=True).stdout)
        for kind in ("streamed", "whole")
    )
    assert streamed < whole / 4
