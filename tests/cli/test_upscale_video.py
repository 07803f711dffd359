"""``convattn upscale`` of videos and animations, with a network that nobody trained."""

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from convattn.images.io import Image, write_image
from convattn.inference.animations import becomes_animation

av = pytest.importorskip("av")

from convattn.video.animation import Animation, read_animation, write_animation  # noqa: E402


def frames(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, 12, 16, 4), np.uint8)


def make_clip(path: Path) -> None:
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 12, 16, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for number, pixels in enumerate(frames(5)):
            frame = av.VideoFrame.from_ndarray(pixels, "rgba")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))


def look_of(path: Path) -> tuple[Any, ...]:
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        return stream.codec_context.name, (stream.width, stream.height), sum(1 for _ in video.decode(stream))


def test_a_video(upscale: Callable[..., Any], tmp_path: Path) -> None:
    make_clip("clip.mp4")
    assert upscale("clip.mp4", "-o", "big.mp4") == (0, "")
    assert look_of("big.mp4") == ("h264", (32, 24), 5)
    assert upscale("clip.mp4", "-o", "b.mp4", "--codec", "hevc", "--crf", "30", "--batch", "2") == (0, "")
    assert look_of("b.mp4") == ("hevc", (32, 24), 5)


def test_a_video_into_a_folder(upscale: Callable[..., Any], tmp_path: Path) -> None:
    make_clip("clip.mp4")
    status, said = upscale("clip.mp4", "-o", "frames/", "--output-format", "webp")
    assert (status, said) == (0, "clip.mp4 has 25 frames per second.\n")
    assert [path.name for path in sorted((tmp_path / "frames").iterdir())] == [
        f"00000{number}.webp" for number in range(1, 6)
    ]
    assert upscale("frames", "-o", "video.mkv", "--existing", "skip") == (0, "")
    assert look_of("video.mkv")[1:] == ((64, 48), 5)


def test_a_folder_of_frames(upscale: Callable[..., Any]) -> None:
    for number, pixels in enumerate(frames()):
        write_image(Image(pixels), f"in/{number}.png")
    status, said = upscale("in", "-o", "video.mkv", "--fps", "5")
    assert status == 0
    assert re.fullmatch(r"Warning: in/0\.png is partly transparent; the result is not, .*\n", said)
    assert look_of("video.mkv")[2] == 3


def test_animations_to_animations_and_to_video(upscale: Callable[..., Any]) -> None:
    write_animation(Animation(frames(), [50, 100, 70]), "a.gif")
    for target in ("b.gif", "b.webp", "b.apng"):
        assert upscale("a.gif", "-o", target) == (0, "")
        assert read_animation(target).delays == [50, 100, 70]
    assert upscale("a.gif", "-o", "b.mp4") == (
        0,
        "Warning: a.gif is partly transparent; the video shows it on white.\n",
    )
    assert look_of("b.mp4")[1:] == ((32, 24), 3)


def test_what_exists_is_refused_kept_or_replaced(upscale: Callable[..., Any], tmp_path: Path) -> None:
    make_clip("clip.mp4")
    (tmp_path / "big.mp4").write_bytes(b"mine")
    status, said = upscale("clip.mp4", "-o", "big.mp4")
    assert (status, "exists already" in said) == (1, True)
    assert upscale("clip.mp4", "-o", "big.mp4", "--existing", "skip") == (0, "")
    assert (tmp_path / "big.mp4").read_bytes() == b"mine"
    assert upscale("clip.mp4", "-o", "big.mp4", "--existing", "overwrite") == (0, "")
    assert look_of("big.mp4")[2] == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("absent.mp4", "-o", "big.mp4"), "There is no file absent.mp4"),
        (("clip.mp4", "other.mp4", "-o", "big.mp4"), "cannot all become big.mp4"),
        (("clip.mp4", "-o", "big.png"), "videos end in"),
        (("clip.mp4", "-o", "big.mkv", "--output-format", "png"), "leave the format out"),
        (("clip.mp4", "-o", "empty", "--output-format", "bmp"), "must end in"),
        (("clip.mp4", "-o", "big.mp4", "--codec", "nonsense"), "no video codec nonsense"),
        (("empty", "-o", "big.mp4"), "no images"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    upscale: Callable[..., Any], tmp_path: Path, arguments: tuple[Any, ...], said: str
) -> None:
    make_clip("clip.mp4")
    (tmp_path / "empty").mkdir()
    status, error = upscale(*arguments)
    assert status == 1
    assert said in error
    assert error.count("\n") == 1


def test_ctrl_c_is_one_sentence(upscale: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    make_clip("clip.mp4")
    monkeypatch.setattr("convattn.video.upscale_video", interrupted)
    status, said = upscale("clip.mp4", "-o", "big.mp4")
    assert status == 1
    assert "the same command resumes" in said
    assert said.count("\n") == 1


def test_still_images_are_no_animation(tmp_path: Path) -> None:
    for kind in ("png", "webp", "avif"):
        write_image(Image(frames()[0]), tmp_path / f"still.{kind}")
        assert not becomes_animation(tmp_path / f"still.{kind}", tmp_path / f"large.{kind}")
        write_animation(Animation(frames(), [50, 50, 50]), tmp_path / f"moving.{kind}")
        assert becomes_animation(tmp_path / f"moving.{kind}", tmp_path / f"large.{kind}")
    assert not becomes_animation(tmp_path / "moving.webp", tmp_path / "large.png")


def test_animations_in_a_folder_stay_animated(upscale: Callable[..., Any], tmp_path: Path) -> None:
    for kind in ("gif", "webp", "png", "apng", "avif"):
        write_animation(Animation(frames(), [50, 100, 70]), tmp_path / f"in/{kind}.{kind}")
    write_image(Image(frames()[0]), tmp_path / "in/gif.png")
    PIL.Image.fromarray(frames()[0]).save(tmp_path / "in/still.gif")
    assert upscale("in", "-o", "out") == (0, "")
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["apng.apng", "avif.avif", "gif.gif", "gif.png", "png.png", "still.png", "webp.webp"]
    for kind in ("gif", "webp", "png", "apng", "avif"):
        assert read_animation(f"out/{kind}.{kind}").delays == [50, 100, 70]
    assert upscale("in", "-o", "webp", "--output-format", "webp") == (0, "")
    assert read_animation("webp/gif.webp").delays == [50, 100, 70]
    status, said = upscale("in/gif.gif", "-o", "jpg/", "--output-format", "jpg")
    assert (status, "holds 3 frames or pages; only the first" in said) == (0, True)


def test_videos_images_and_folders_go_in_one_call(upscale: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    for name in ("in/a.mp4", "in/deep/b.mkv", "in/c.avi", "d.mp4"):
        make_clip(tmp_path / name)
    write_image(Image(frames()[0]), tmp_path / "in/e.png")
    assert upscale("in", "d.mp4", "-o", "out") == (0, "")
    made = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert made == ["a.mp4", "c.mkv", "d.mp4", "deep/b.mkv", "e.png"]
    for name in ("a.mp4", "c.mkv", "d.mp4", "deep/b.mkv"):
        assert look_of(tmp_path / "out" / name)[1:] == ((32, 24), 5)


def test_one_bad_video_does_not_keep_the_others_from_it(upscale: Callable[..., Any], tmp_path: Path) -> None:
    make_clip("a.mp4")
    (tmp_path / "b.mp4").write_bytes(b"no video" * 99)
    status, said = upscale("b.mp4", "a.mp4", "-o", "out")
    assert status == 1
    assert said.splitlines()[-1] == "convattn: 1 of 2 files failed."
    assert look_of("out/a.mp4")[2] == 5


def test_a_colon_is_part_of_a_name(upscale: Callable[..., Any]) -> None:
    make_clip("plain.mp4")
    with open("plain.mp4", "rb") as source, open("Dune: Part Two.mp4", "wb") as copy:
        copy.write(source.read())
    assert upscale("Dune: Part Two.mp4", "-o", "Dune: large.mp4") == (0, "")
    assert look_of("./Dune: large.mp4")[2] == 5


def test_animations_of_every_kind_become_each_other(upscale: Callable[..., Any]) -> None:
    write_animation(Animation(frames(), [10, 20, 1000]), "a.png")
    for target in ("b.webp", "c.avif", "d.apng"):
        assert upscale("a.png", "-o", target) == (0, "")
        assert read_animation(target).delays == [10, 20, 1000]
