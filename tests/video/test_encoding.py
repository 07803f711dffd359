"""Codecs, segments and the constant rate factor."""

import os
from pathlib import Path

import av
import numpy as np
import pytest

from convattn.video import upscale_video

from .conftest import double, images_of, make_video, shown_at


@pytest.mark.parametrize("codec", ["hevc", "av1", "vp9", "ffv1", "mpeg4"])
def test_every_codec_keeps_the_times(tmp_path: Path, codec: str) -> None:
    clip, big = make_video(tmp_path / "clip.mkv"), tmp_path / "big.mkv"
    upscale_video(clip, big, double, codec=codec)
    assert shown_at(big) == pytest.approx(shown_at(clip), abs=1e-6)
    assert np.abs(images_of(big)[:, ::2, ::2] - images_of(clip)).mean() < 6


def test_av1_is_encoded_silently_and_leaves_the_environment_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    environment = dict(os.environ)
    upscale_video(make_video(tmp_path / "clip.mkv"), tmp_path / "big.mkv", double, codec="av1")
    assert capfd.readouterr().err == ""
    assert dict(os.environ) == environment


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_parts_make_no_difference_to_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    monkeypatch.setattr("convattn.video.job._SEGMENT", parts)
    clip, big = make_video(tmp_path / "clip.mp4"), tmp_path / "big.mp4"
    upscale_video(clip, big, double)
    assert shown_at(big) == pytest.approx(shown_at(clip), abs=1e-6)
    with av.open(str(clip)) as before, av.open(str(big)) as after:
        assert after.duration == pytest.approx(before.duration, abs=2000)
        decoding = [packet.dts for packet in after.demux(video=0) if packet.size]
    assert decoding == sorted(set(decoding))


def test_constant_rate_factor_decides_the_size(tmp_path: Path) -> None:
    clip, sizes = make_video(tmp_path / "clip.mp4", sound=None), []
    for crf in (10, 40):
        upscale_video(clip, tmp_path / f"{crf}.mp4", double, crf=crf)
        sizes.append((tmp_path / f"{crf}.mp4").stat().st_size)
    assert sizes[0] > 1.5 * sizes[1]


def test_progress_counts_every_frame(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4")
    seen: list[float] = []
    upscale_video(clip, tmp_path / "big.mp4", double, progress=seen.append)
    assert seen == [frame / 20 for frame in range(1, 21)]
