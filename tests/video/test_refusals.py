"""What cannot be upscaled is refused in one sentence, before the long work."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from convattn.errors import InputError
from convattn.video import upscale_video

from .conftest import double, make_video


def test_no_video(tmp_path: Path) -> None:
    text = tmp_path / "clip.mp4"
    with pytest.raises(InputError, match="no file"):
        upscale_video(text, tmp_path / "big.mp4", double)
    text.write_bytes(b"hello" * 1000)
    with pytest.raises(InputError, match="not a video that can be read"):
        upscale_video(text, tmp_path / "big.mp4", double)


def test_no_video_stream(tmp_path: Path) -> None:
    song = tmp_path / "song.mp4"
    with av.open(str(song), "w") as video:
        audio = video.add_stream("aac", rate=48000)
        tone = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        tone.sample_rate = 48000
        video.mux(audio.encode(tone))
        video.mux(audio.encode(None))
    with pytest.raises(InputError, match="no video stream"):
        upscale_video(song, tmp_path / "big.mp4", double)


def test_no_frames(tmp_path: Path) -> None:
    empty = tmp_path / "empty.mkv"
    with av.open(str(empty), "w") as video:
        stream, audio = video.add_stream("libx264", rate=25), video.add_stream("pcm_s16le", rate=48000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 9600), np.int16), "s16", "stereo")
        tone.sample_rate = 48000
        video.mux(audio.encode(tone))
    with pytest.raises(InputError, match="no frames"):
        upscale_video(empty, tmp_path / "big.mkv", double)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_video_is_refused_before_the_long_work(tmp_path: Path, suffix: str, kept: float) -> None:
    times = list(range(0, 8000, 40))
    clip = make_video(
        tmp_path / f"clip.{suffix}", times=times, sound=None, options={"bf": "0"}, fast_start=True
    )
    clip.write_bytes(clip.read_bytes()[: int(clip.stat().st_size * kept)])
    calls = []
    with pytest.raises(InputError, match=r"cut off|is missing"):
        upscale_video(clip, tmp_path / "big.mkv", lambda x: calls.append(1) or double(x))
    assert calls == []
    assert [path.name for path in tmp_path.iterdir()] == [clip.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"codec": "nonsense"}, "no video codec nonsense"),
        ({"codec": "aac"}, "no video codec aac"),
        ({"codec": "mpeg4", "crf": 20}, "no constant rate factor"),
        ({"codec": "ffv1", "target": "big.mp4"}, None),
        ({"codec": "h264", "target": "big.webm"}, "webm files cannot hold"),
        ({"codec": "hevc", "crf": 60}, "crf of the codec hevc is 0 to 51, not 60"),
        ({"target": "big.txt"}, "videos end in"),
        ({"target": "big.avi"}, "videos end in"),
        ({"target": "clip.mp4/big.mp4"}, "cannot be written: Not a directory"),
        ({"target": "clip.mp4"}, "overwrite its original"),
    ],
)
def test_what_cannot_be_written_is_said_at_once(
    tmp_path: Path, arguments: dict[str, Any], message: str | None
) -> None:
    clip = make_video(tmp_path / "clip.mp4")
    target = tmp_path / arguments.pop("target", "big.mp4")
    calls = []
    if message is None:
        return upscale_video(clip, target, double, **arguments)
    with pytest.raises(InputError, match=message):
        upscale_video(clip, target, lambda x: calls.append(1) or double(x), **arguments)
    assert calls == []
