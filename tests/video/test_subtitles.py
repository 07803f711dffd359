"""Subtitles in another container: text is converted, images are left out with a warning."""

import struct
import warnings
from pathlib import Path

import pytest

av = pytest.importorskip("av")

from tests.video.conftest import double, make_video  # noqa: E402

from convattn.video import upscale_video  # noqa: E402

SUBTITLES = """1
00:00:00,100 --> 00:00:00,180
Hello <i>World</i>!

2
00:00:00,200 --> 00:00:00,300
Am Ende –
da

"""

CODECS = {"mp4": "mov_text", "mov": "mov_text", "webm": "webvtt", "mkv": "subrip"}


def lines_of(path: Path) -> list[tuple[float, float, bytes]]:
    """Start, length and text of each line that is shown, in seconds."""
    with av.open(str(path)) as video:
        stream = video.streams.subtitles[0]
        found = []
        for packet in video.demux(stream):
            shown = stream.codec_context.decode2(packet) if packet.size else None
            if shown and shown.rects:
                text = shown.rects[0].ass.split(b",,", 2)[-1].replace(rb"{\r}", rb"{\i0}")
                found.append(
                    (float(packet.pts * packet.time_base), float(packet.duration * packet.time_base), text)
                )
        return [line for line in found if line[2]]


@pytest.mark.parametrize("source", ["mkv", "mp4"])
@pytest.mark.parametrize("target", ["mp4", "mov", "webm", "mkv"])
def test_text_is_converted(tmp_path: Path, source: str, target: str) -> None:
    (tmp_path / "text.srt").write_text(SUBTITLES)
    make_video(tmp_path / "clip.mkv", subtitles=tmp_path / "text.srt", sound=None)
    clip = tmp_path / "clip.mkv"
    if source == "mp4":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            upscale_video(clip, tmp_path / "clip.mp4", double)
        clip = tmp_path / "clip.mp4"
    big, codec = tmp_path / f"big.{target}", CODECS[target]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        upscale_video(clip, big, double)
    is_converted = codec != CODECS[source]
    assert [f"converted to {codec}" in str(warning.message) for warning in said] == [True] * is_converted
    expected = lines_of(clip)
    assert len(expected) > 0
    for (start, length, text), (start2, length2, text2) in zip(lines_of(big), expected, strict=True):
        assert text == text2
        assert (start, length) == (pytest.approx(start2, abs=2e-3), pytest.approx(length2, abs=2e-3))


@pytest.mark.parametrize("target", ["mp4", "webm", "ts"])
def test_what_has_no_place_is_left_out_with_a_word(tmp_path: Path, target: str) -> None:
    (tmp_path / "text.srt").write_text(SUBTITLES)
    clip = make_video(tmp_path / "clip.mkv", subtitles=tmp_path / "text.srt", sound=None)
    if target != "ts":  # which holds no text
        clip = _with_image_subtitles(tmp_path)
    with pytest.warns(UserWarning, match=r"cannot hold \w+ subtitles, which \.mkv holds; it is left out"):
        upscale_video(clip, tmp_path / f"big.{target}", double)
    with av.open(str(tmp_path / f"big.{target}")) as big:
        assert not big.streams.subtitles
        assert sum(1 for _ in big.decode(video=0)) > 0


def _with_image_subtitles(folder: Path) -> Path:
    """A video with an empty line in the format of Blu-ray."""
    (folder / "images.sup").write_bytes(b"PG" + struct.pack(">2IBH", 9000, 0, 0x80, 0))
    return make_video(folder / "images.mkv", subtitles=folder / "images.sup", sound=None)
