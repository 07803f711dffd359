"""Colors: matrix and range, bit depth, HDR and transparency."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from convattn.errors import InputError
from convattn.images.io import Image, write_image
from convattn.video import upscale_video
from convattn.video.hdr import hdr_metadata_of
from convattn.video.yuv import Encoding

from .conftest import TIMES, double, image, make_video


@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("full", [False, True])
def test_colors_stay(tmp_path: Path, matrix: int, full: bool) -> None:
    """Numbers of the upscaled video are those of the clip, and are tagged the same."""
    clip = make_video(tmp_path / "clip.mkv", codec="ffv1", pixel_format="yuv444p", matrix=matrix, full=full)
    big = tmp_path / "big.mkv"
    upscale_video(clip, big, double, codec="ffv1")
    with av.open(str(clip)) as before, av.open(str(big)) as after:
        for old, new in zip(before.decode(video=0), after.decode(video=0), strict=True):
            assert (new.colorspace, new.color_range) == (matrix, 2 if full else 1)
            assert new.format.name == old.format.name
            difference = new.to_ndarray()[:, ::2, ::2].astype(int) - old.to_ndarray()
            assert np.abs(difference).max() <= 1


def luma_of(frame: Any, dtype: type) -> np.ndarray:
    plane = frame.planes[0]
    return np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width].astype(int)


def test_ten_bits_stay(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mkv", codec="ffv1", pixel_format="yuv420p10le")
    upscale_video(clip, tmp_path / "big.mkv", double, codec="ffv1")
    with av.open(str(clip)) as before, av.open(str(tmp_path / "big.mkv")) as after:
        old, new = next(before.decode(video=0)), next(after.decode(video=0))
        assert new.format.name == "yuv420p10le"
        old_luma, new_luma = (luma_of(frame, np.uint16) for frame in (old, new))
        assert np.abs(new_luma[::2, ::2] - old_luma).max() <= 2
        assert (new_luma % 4).any()


def flat(number: int, width: int, height: int) -> np.ndarray:
    return np.broadcast_to(np.uint8([12 * number, 255 - 12 * number, 128]), (height, width, 3)).copy()


@pytest.mark.parametrize("size", [(64, 48), (32, 720)])
def test_colors_of_a_video_without_tags_stay_for_a_player(tmp_path: Path, size: tuple[int, int]) -> None:
    """By FFmpeg's own conversion; what is assumed for small videos stays true when they become large."""
    clip = make_video(tmp_path / "clip.mkv", codec="mpeg4", sound=None, matrix=2, draw=flat, size=size)
    with av.open(str(clip)) as video:
        assert next(video.decode(video=0)).colorspace == 2
    upscale_video(clip, tmp_path / "big.mkv", double, crf=1)
    with av.open(str(tmp_path / "big.mkv")) as video:
        assert next(video.decode(video=0)).colorspace == (6 if size[1] < 720 else 1)
    with av.open(str(clip)) as video:
        matrix = 6 if size[1] < 720 else 1
        frames = [frame.to_ndarray(format="rgb24", src_colorspace=matrix) for frame in video.decode(video=0)]
    expected = np.stack(frames).astype(int)
    with av.open(str(tmp_path / "big.mkv")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert np.abs(np.stack(frames)[:, ::2, ::2] - expected).max() <= 3


@pytest.mark.parametrize(("codec", "pixel_format"), [("ffv1", "yuva444p10le"), ("prores_ks", "yuva444p10le")])
def test_transparency_that_is_lost_is_said(tmp_path: Path, codec: str, pixel_format: str) -> None:
    clip = make_video(tmp_path / "clip.mkv", codec=codec, pixel_format=pixel_format, times=TIMES[:2])
    with pytest.warns(UserWarning, match="is partly transparent; the result is not"):
        upscale_video(clip, tmp_path / "big.mkv", double)


def test_transparency_that_lies_apart_is_said_too(tmp_path: Path) -> None:
    """As VP8 and VP9 have it."""
    clip = tmp_path / "clip.webm"
    with av.open(str(clip), "w") as video:
        stream = video.add_stream("libvpx-vp9", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.metadata["alpha_mode"] = "1"
        video.mux([*stream.encode(av.VideoFrame.from_ndarray(image(0), "rgb24")), *stream.encode(None)])
    with pytest.warns(UserWarning, match="is partly transparent"):
        upscale_video(clip, tmp_path / "big.mkv", double)


@pytest.mark.parametrize("channels", [2, 4])
def test_transparency_of_images_is_said_once_where_there_is_any(tmp_path: Path, channels: int) -> None:
    pixels = np.full((4, 48, 64, channels), 255, np.uint8)
    pixels[2:, 5, 5, -1] = 254
    for number, frame in enumerate(pixels):
        write_image(Image(frame), tmp_path / f"frames/{number}.png")
    with pytest.warns(UserWarning, match=r"2\.png is partly transparent; the result is not") as said:
        upscale_video(tmp_path / "frames", tmp_path / "big.mkv", double)
    assert len(said) == 1


HDR = (
    "log-level=none:hdr10=1:bframes=0:max-cll=1000,400:"
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
)


def make_hdr_video(path: Path) -> Path:
    return make_video(
        path,
        codec="libx265",
        pixel_format="yuv420p10le",
        matrix=9,
        times=TIMES[:2],
        sound=None,
        options={"x265-params": f"{HDR}:colorprim=9:transfer=16:colormatrix=9"},
    )


def hdr_of(path: Path) -> tuple[Any, Any]:
    with av.open(str(path)) as video:
        frame = next(video.decode(video=0))
        return frame, hdr_metadata_of(frame, path)


@pytest.mark.parametrize("codec", ["hevc", "h264", "av1"])
def test_hdr10_is_kept(tmp_path: Path, codec: str) -> None:
    clip = make_hdr_video(tmp_path / "clip.mkv")
    upscale_video(clip, tmp_path / "big.mkv", double, codec=codec)
    (_, old), (after, new) = (hdr_of(path) for path in (clip, tmp_path / "big.mkv"))
    assert (after.color_primaries, after.color_trc, after.colorspace) == (9, 16, 9)
    assert after.format.name == "yuv420p10le"
    assert new.light == old.light == (1000, 400)
    assert new.display == pytest.approx(old.display, rel=1e-2, abs=1e-3)


def test_hdr_without_a_place_for_it_is_said_or_refused(tmp_path: Path) -> None:
    clip = make_hdr_video(tmp_path / "clip.mkv")
    with pytest.warns(UserWarning, match="ffv1 does not hold the HDR10 metadata"):
        upscale_video(clip, tmp_path / "big.mkv", double, codec="ffv1")
    with pytest.raises(InputError, match="is HDR, which needs 10 bits per sample; mpeg4 has 8"):
        upscale_video(clip, tmp_path / "big.mp4", double, codec="mpeg4")


@pytest.mark.parametrize("matrix", [1, 5, 6, 7, 9, None])
@pytest.mark.parametrize(("full", "depth"), [(False, 8), (True, 8), (False, 10), (True, 12)])
def test_encodings_come_back(matrix: int | None, full: bool, depth: int) -> None:
    encoding = Encoding(matrix, full or matrix is None, depth)
    rgb = torch.rand(2, 3, 5, 7)
    decoded = encoding.decode(encoding.encode(rgb))
    assert (decoded - rgb).abs().max() < 2.5 / (2**depth - 1)


@pytest.mark.parametrize(
    ("rgb", "samples"),
    [
        ((0, 0, 0), (16, 128, 128)),
        ((1, 1, 1), (235, 128, 128)),
        ((1, 0, 0), (63, 102, 240)),
        ((0, 1, 0), (173, 42, 26)),
        ((0, 0, 1), (32, 240, 118)),
    ],
)
def test_bt709_has_its_known_samples(rgb: tuple[int, int, int], samples: tuple[int, int, int]) -> None:
    encoded = Encoding(1, False, 8).encode(torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1))
    assert encoded.flatten().tolist() == list(samples)
