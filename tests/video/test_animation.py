"""Animations: their frames, delays, loops and transparency stay."""

import struct
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import pyvips
import torch.nn.functional as F
from torch import Tensor

from convattn.errors import InputError
from convattn.video.animation import (
    Animation,
    read_animation,
    upscale_animation,
    write_animation,
)

from .conftest import double

DELAYS = [100, 50, 70, 200, 30]
KINDS = ["gif", "webp", "png", "apng", "avif"]


@pytest.fixture
def animation() -> Animation:
    """A square that moves over nothing, in few colors."""
    frames = np.zeros((5, 18, 26, 4), np.uint8)
    for number in range(5):
        frames[number, 3:12, 3 * number : 3 * number + 9] = (40 * number, 200, 255 - 40 * number, 255)
    return Animation(frames, DELAYS, loop=3)


def shown(animation: Animation) -> np.ndarray:
    """Pixels on grayscale, so that clear ones are all the same."""
    alpha = animation.frames[..., 3:] / 255
    return animation.frames[..., :3] * alpha + 128 * (1 - alpha)


@pytest.mark.parametrize("kind", KINDS)
def test_animations_come_back(tmp_path: Path, animation: Animation, kind: str) -> None:
    write_animation(animation, tmp_path / f"a.{kind}", quality=100)
    back = read_animation(tmp_path / f"a.{kind}")
    assert (back.delays, back.loop) == (DELAYS, 0 if kind == "avif" else 3)
    difference = np.abs(shown(back) - shown(animation))
    assert difference.max() <= {"gif": 4, "avif": 60}.get(kind, 0)
    assert difference.mean() < 1


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", ["gif", "webp", "png", "avif"])
def test_everything_stays_from_any_kind_to_any_kind(
    tmp_path: Path, animation: Animation, source: str, target: str
) -> None:
    write_animation(animation, tmp_path / f"a.{source}", quality=100)
    seen: list[float] = []
    upscale_animation(
        tmp_path / f"a.{source}",
        tmp_path / f"b.{target}",
        double,
        batch_size=2,
        quality=100,
        progress=seen.append,
    )
    large = read_animation(tmp_path / f"b.{target}")
    assert (large.delays, large.frames.shape) == (DELAYS, (5, 36, 52, 4))
    assert large.loop == (0 if "avif" in (source, target) else 3)
    tolerance = 60 if "avif" in (source, target) else 8 if "gif" in (source, target) else 0
    assert np.abs(shown(large)[:, ::2, ::2] - shown(animation)).max() <= tolerance
    assert seen == [0.4, 0.8, 1]


def test_equal_frames_are_kept_or_last_as_long(tmp_path: Path, animation: Animation) -> None:
    animation.frames[2] = animation.frames[1]
    for kind in ("gif", "png", "webp"):
        write_animation(animation, tmp_path / f"a.{kind}")
        back = read_animation(tmp_path / f"a.{kind}")
        assert sum(back.delays) == sum(DELAYS)
        assert len(back.frames) == (5 if kind == "gif" else 4)


def test_color_under_what_is_clear_does_not_leak(tmp_path: Path) -> None:
    frames = np.zeros((2, 12, 12, 4), np.uint8)
    frames[..., :3] = 255, 0, 0  # red where nothing is seen
    frames[:, 4:8, 4:8] = 0, 0, 255, 255
    write_animation(Animation(frames, [50, 50]), tmp_path / "a.png")

    def smooth(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear")

    upscale_animation(tmp_path / "a.png", tmp_path / "b.png", smooth)
    large = read_animation(tmp_path / "b.png").frames
    seen = large[large[..., 3] > 0]
    assert seen[:, 0].max() == 0
    assert set(large[..., 3][:, ::23, ::23].flatten().tolist()) == {0}


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_a_cut_off_animation_is_refused(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (6, 40, 40, 4), np.uint8)
    path = tmp_path / f"a.{kind}"
    write_animation(Animation(frames, [40] * 6), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError):
        upscale_animation(path, tmp_path / "b.gif", double)
    assert not (tmp_path / "b.gif").exists()


def test_bad_names_are_refused(tmp_path: Path, animation: Animation) -> None:
    write_animation(animation, tmp_path / "a.gif")
    with pytest.raises(InputError, match="animations end in"):
        upscale_animation(tmp_path / "a.gif", tmp_path / "b.jpg", double)
    with pytest.raises(InputError, match="There is no file"):
        upscale_animation(tmp_path / "absent.gif", tmp_path / "b.gif", double)
    (tmp_path / "text.gif").write_bytes(b"no animation")
    with pytest.raises(InputError, match="cut off"):
        upscale_animation(tmp_path / "text.gif", tmp_path / "b.gif", double)


@pytest.mark.parametrize("kind", ["webp", "png", "avif"])
def test_color_profiles_and_short_delays_stay(tmp_path: Path, animation: Animation, kind: str) -> None:
    profile = pyvips.Image.profile_load("p3")
    write_animation(Animation(animation.frames, [10, 20, 1000, 10, 10], 0, profile), tmp_path / f"a.{kind}")
    upscale_animation(tmp_path / f"a.{kind}", tmp_path / f"b.{kind}", double)
    large = read_animation(tmp_path / f"b.{kind}")
    assert large.profile == profile
    assert large.delays == [10, 20, 1000, 10, 10]


def test_gif_gets_srgb_colors(tmp_path: Path) -> None:
    frames = np.full((2, 8, 8, 4), (0, 255, 0, 255), np.uint8)
    frames[1, 0, 0] = 0, 0, 0, 255
    write_animation(Animation(frames, [50, 50], 0, pyvips.Image.profile_load("p3")), tmp_path / "a.gif")
    assert read_animation(tmp_path / "a.gif").frames[0, 4, 4].tolist() == [0, 255, 0, 255]
    frames[..., :3] = 200, 100, 100
    write_animation(Animation(frames, [50, 50], 0, pyvips.Image.profile_load("p3")), tmp_path / "a.gif")
    red, green, _, _ = read_animation(tmp_path / "a.gif").frames[0, 4, 4].tolist()
    assert red > 205
    assert green < 97


def test_what_a_gif_does_not_cover_is_transparent(tmp_path: Path) -> None:
    """The canvas is larger than its frames."""
    frames = [PIL.Image.new("P", (20, 20), color) for color in (1, 2)]
    for frame in frames:
        frame.putpalette([9, 9, 9, 255, 0, 0, 0, 0, 255])
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=50)
    data = bytearray((tmp_path / "a.gif").read_bytes())
    data[6:10] = struct.pack("<2H", 30, 30)
    (tmp_path / "a.gif").write_bytes(data)
    upscale_animation(tmp_path / "a.gif", tmp_path / "b.gif", double)
    large = read_animation(tmp_path / "b.gif").frames
    assert large.shape == (2, 60, 60, 4)
    assert large[:, 45:, 45:, 3].max() == 0
    assert large[0, 5, 5].tolist() == [255, 0, 0, 255]
