"""Sizes, pixel aspect ratio and rotation."""

from pathlib import Path

import av
import pytest
import torch.nn.functional as F
from torch import Tensor

from convattn.video import upscale_video

from .conftest import double, images_of, make_anamorphic_video, make_video


def test_rotation_stays(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", rotation=90)
    upscale_video(clip, tmp_path / "big.mp4", double)
    with av.open(str(tmp_path / "big.mp4")) as big:
        frame = next(big.decode(video=0))
        assert frame.rotation == 90
        assert (frame.width, frame.height) == (128, 96)


def triple(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=3, mode="nearest")


def test_odd_sides_are_filled_up_where_color_is_halved(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mkv", size=(33, 25), codec="ffv1", pixel_format="yuv444p")
    upscale_video(clip, tmp_path / "even.mp4", triple, codec="h264")
    upscale_video(clip, tmp_path / "odd.mkv", triple, codec="ffv1")
    upscale_video(clip, tmp_path / "even.mov", triple, codec="prores")
    assert images_of(tmp_path / "odd.mkv").shape[1:3] == (75, 99)
    assert images_of(tmp_path / "even.mov").shape[1:3] == (76, 100)


def test_pixels_that_are_not_square_stay_so(tmp_path: Path) -> None:
    clip = make_anamorphic_video(tmp_path / "clip.mkv", "mpeg2video")
    upscale_video(clip, tmp_path / "big.mkv", double)
    with av.open(str(clip)) as before, av.open(str(tmp_path / "big.mkv")) as after:
        aspect = before.streams.video[0].sample_aspect_ratio
        assert after.streams.video[0].sample_aspect_ratio == aspect != 1


def test_a_stretched_anamorphic_video_keeps_its_shape(tmp_path: Path) -> None:
    clip = make_anamorphic_video(tmp_path / "clip.mkv", "libx264")
    upscale_video(clip, tmp_path / "big.mkv", lambda x: F.interpolate(x, size=(96, 186)))
    with av.open(str(tmp_path / "big.mkv")) as big:
        stream = big.streams.video[0]
        shape = stream.width * stream.sample_aspect_ratio / stream.height
    assert float(shape) == pytest.approx(64 * 16 / 11 / 48, rel=0.01)
