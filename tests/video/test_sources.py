"""Folders of frames and animations as sources of a video."""

from pathlib import Path

import av
import numpy as np
import pytest

from convattn.errors import InputError
from convattn.images.io import Image, write_image
from convattn.video import upscale_video

from .conftest import double, image, images_of, shown_at


def test_a_folder_of_frames_becomes_a_video(tmp_path: Path) -> None:
    for number in range(5):
        write_image(Image(image(number)), tmp_path / "frames" / f"{number:03}.png")
    upscale_video(tmp_path / "frames", tmp_path / "video.mp4", double, fps=10, crf=1)
    assert shown_at(tmp_path / "video.mp4") == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    shown = images_of(tmp_path / "video.mp4")[:, ::2, ::2]
    assert np.abs(shown - np.stack([image(number) for number in range(5)])).mean() < 4


def test_frames_are_in_natural_order(tmp_path: Path) -> None:
    for number in range(1, 13):
        write_image(Image(np.full((32, 32, 3), 20 * number, np.uint8)), tmp_path / f"frames/{number}.png")
    upscale_video(tmp_path / "frames", tmp_path / "video.mkv", double, codec="ffv1")
    levels = [int(frame.mean()) for frame in images_of(tmp_path / "video.mkv")]
    assert levels == sorted(levels)


def test_frames_of_a_folder_must_be_alike(tmp_path: Path) -> None:
    write_image(Image(image(0)), tmp_path / "frames" / "0.png")
    write_image(Image(image(1, 60)), tmp_path / "frames" / "1.png")
    with pytest.raises(InputError, match=r"1.png differs"):
        upscale_video(tmp_path / "frames", tmp_path / "big.mp4", double)


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "apng"])
def test_an_animation_becomes_a_video_on_white(tmp_path: Path, kind: str) -> None:
    from convattn.video.animation import Animation, write_animation

    pixels = np.zeros((3, 24, 32, 4), np.uint8)
    for number in range(3):
        pixels[number, 8:] = 80 * number, 90, 200, 255
    write_animation(Animation(pixels, [50, 120, 70]), tmp_path / f"a.{kind}", quality=100)
    with pytest.warns(UserWarning, match="shows it on white"):
        upscale_video(tmp_path / f"a.{kind}", tmp_path / "video.mp4", double, crf=1)
    assert shown_at(tmp_path / "video.mp4") == pytest.approx([0, 0.05, 0.17])
    with av.open(str(tmp_path / "video.mp4")) as video:
        assert video.duration == pytest.approx(240_000, abs=2000)
    shown = images_of(tmp_path / "video.mp4")
    assert shown[:, :14].min() > 250
    assert np.abs(shown[:, 20::2, ::2] - pixels[:, 10:, :, :3]).max() < 8
