"""A video into a folder of images."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from convattn.errors import InputError
from convattn.images.io import read_image
from convattn.video import upscale_video
from convattn.video.frames import upscale_to_frames

from .conftest import double, write_frames


def make_lossless_video(
    path: Path,
    count: int = 5,
    size: tuple[int, int] = (33, 25),
    pixel_format: str = "bgr0",
    rotation: int | None = None,
    transfer: int | None = None,
) -> np.ndarray:
    """Noise without loss; gives what is in it."""
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 255, (count, height, width, 3), np.uint8)
    with av.open(str(path), "w") as video:
        stream = video.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        if transfer:
            stream.codec_context.color_trc = transfer
        if rotation:
            stream.set_display_rotation(rotation)
        write_frames(video, stream, pixels)
    return pixels


def frames_in(folder: Path) -> list[np.ndarray]:
    return [read_image(path).pixels for path in sorted(folder.glob("[0-9]*"))]


def test_every_frame_becomes_a_image(tmp_path: Path) -> None:
    pixels = make_lossless_video(tmp_path / "clip.mkv")
    seen: list[float] = []
    rate = upscale_to_frames(
        tmp_path / "clip.mkv", tmp_path / "frames", double, batch_size=2, progress=seen.append
    )
    assert rate == 25
    assert [path.name for path in sorted((tmp_path / "frames").iterdir())] == [
        f"00000{number}.png" for number in range(1, 6)
    ]
    assert np.array_equal(np.stack(frames_in(tmp_path / "frames"))[:, ::2, ::2], pixels)
    assert seen == [frame / 5 for frame in range(1, 6)]


@pytest.mark.parametrize(("pixel_format", "dtype"), [("yuv444p", np.uint8), ("yuv444p10le", np.uint16)])
def test_images_are_as_deep_as_the_video(tmp_path: Path, pixel_format: str, dtype: type) -> None:
    make_lossless_video(tmp_path / "clip.mkv", 1, pixel_format=pixel_format)
    upscale_to_frames(tmp_path / "clip.mkv", tmp_path / "frames", double)
    (image,) = frames_in(tmp_path / "frames")
    assert image.dtype == dtype
    largest = np.iinfo(dtype).max
    with av.open(str(tmp_path / "clip.mkv")) as video:
        shown = next(video.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(image[::2, ::2] / largest - shown / 255).mean() < 0.02


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_images_are_upright(tmp_path: Path, rotation: int) -> None:
    pixels = make_lossless_video(tmp_path / "clip.mkv", 1, rotation=rotation)
    with av.open(str(tmp_path / "clip.mkv")) as video:
        assert next(video.decode(video=0)).rotation % 360 == rotation % 360  # counterclockwise
    upscale_to_frames(tmp_path / "clip.mkv", tmp_path / "frames", lambda x: x)
    assert np.array_equal(frames_in(tmp_path / "frames")[0], np.rot90(pixels[0], rotation // 90))


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    pixels, folder, calls = make_lossless_video(tmp_path / "clip.mkv", 9), tmp_path / "frames", []

    def stops(x: Tensor) -> Tensor:
        calls.append(len(x))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return x

    with pytest.raises(KeyboardInterrupt):
        upscale_to_frames(tmp_path / "clip.mkv", folder, stops, batch_size=1)
    finished = len(frames_in(folder))
    assert 1 <= finished <= 3
    again = []
    upscale_to_frames(tmp_path / "clip.mkv", folder, lambda x: again.append(len(x)) or x, batch_size=2)
    assert sum(again) == 9 - finished
    assert np.array_equal(frames_in(folder), pixels)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_what_exists_is_refused_kept_or_replaced(tmp_path: Path) -> None:
    pixels, folder = make_lossless_video(tmp_path / "clip.mkv"), tmp_path / "frames"
    upscale_to_frames(tmp_path / "clip.mkv", folder, lambda x: x)
    (folder / "000003.png").unlink()
    with pytest.raises(InputError, match="is not empty"):
        upscale_to_frames(tmp_path / "clip.mkv", folder, lambda x: x)
    upscale_to_frames(tmp_path / "clip.mkv", folder, torch.zeros_like, existing="skip")
    assert [image.any() for image in frames_in(folder)] == [True, True, False, True, True]
    upscale_to_frames(tmp_path / "clip.mkv", folder, lambda x: x, existing="overwrite")
    assert np.array_equal(frames_in(folder), pixels)


def test_other_formats(tmp_path: Path) -> None:
    make_lossless_video(tmp_path / "clip.mkv", 2)
    upscale_to_frames(tmp_path / "clip.mkv", tmp_path / "frames", double, format="JPG")
    assert [path.suffix for path in (tmp_path / "frames").iterdir()] == [".jpg", ".jpg"]
    with pytest.raises(InputError, match="must end in"):
        upscale_to_frames(tmp_path / "clip.mkv", tmp_path / "other", double, format="bmp")
    assert not (tmp_path / "other").exists()


def test_hdr_is_kept_in_png_and_back_or_said(tmp_path: Path) -> None:
    make_lossless_video(tmp_path / "clip.mkv", 2, pixel_format="yuv444p10le", transfer=16)
    upscale_to_frames(tmp_path / "clip.mkv", tmp_path / "frames", double)
    assert read_image(tmp_path / "frames" / "000001.png").metadata["cicp"][1][1] == 16
    upscale_video(tmp_path / "frames", tmp_path / "back.mkv", double, codec="ffv1")
    with av.open(str(tmp_path / "back.mkv")) as video:
        frame = next(video.decode(video=0))
    assert (frame.color_trc, frame.format.name) == (16, "yuv420p10le")
    with pytest.warns(UserWarning, match="is HDR") as said:
        upscale_to_frames(tmp_path / "clip.mkv", tmp_path / "jpg", double, format="jpg")
    assert len(said) == 1


def test_a_variable_frame_rate_survives_the_way_through_images(tmp_path: Path) -> None:
    times = [0, 40, 80, 300, 341, 900]
    with av.open(str(tmp_path / "clip.mkv"), "w") as video:
        stream = video.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 40 * number, np.uint8), "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
    upscale_to_frames(tmp_path / "clip.mkv", tmp_path / "frames", double)
    lines = (tmp_path / "frames" / "timestamps.txt").read_text().splitlines()
    assert lines[0] == "# timestamp format v2"
    assert [float(line) for line in lines[1:7]] == times
    for suffix in ("mkv", "mp4"):
        upscale_video(tmp_path / "frames", tmp_path / f"back.{suffix}", double)
        with av.open(str(tmp_path / f"back.{suffix}")) as video:
            assert [round(f.pts * f.time_base * 1000) for f in video.decode(video=0)] == times
    (tmp_path / "frames" / "timestamps.txt").write_text("# timestamp format v2\n0\n40\n")
    with pytest.raises(InputError, match="one time for each of 6 frames"):
        upscale_video(tmp_path / "frames", tmp_path / "other.mkv", double)
    upscale_video(tmp_path / "frames", tmp_path / "other.mkv", double, fps=10)


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    make_lossless_video(tmp_path / "clip.mkv", 1)
    with pytest.raises(InputError, match="cannot be written"):
        upscale_to_frames(tmp_path / "clip.mkv", tmp_path / "clip.mkv" / "frames", double)


def test_a_full_disk_keeps_what_is_finished(
    full_disk: Callable[[int], AbstractContextManager[None]], tmp_path: Path
) -> None:
    make_lossless_video(tmp_path / "clip.mkv", 3)

    def third_is_noise(x: Tensor, seen: list[int] = []) -> Tensor:  # noqa: B006
        seen.append(x)
        return torch.rand(1, 3, 200, 200) if len(seen) == 3 else torch.zeros(1, 3, 200, 200)

    with full_disk(50_000), pytest.raises(InputError, match=r"000003.png cannot be written: File too large"):
        upscale_to_frames(tmp_path / "clip.mkv", tmp_path / "frames", third_is_noise, batch_size=1)
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == [
        ".unfinished",
        "000001.png",
        "000002.png",
    ]
