"""What a container holds beside the frames: times, sound, subtitles, covers, chapters."""

from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from convattn.images.io import Image, write_image
from convattn.video import upscale_video

from .conftest import TIMES, double, image, left_behind, make_video, shown_at

SUBTITLES = b"1\n00:00:00,100 --> 00:00:00,500\nHello\n\n2\n00:00:00,600 --> 00:00:00,800\nthere\n"


def packets_of(path: Path, kind: str) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as video:
        stream = next(stream for stream in video.streams if stream.type == kind)
        return [
            (float(packet.pts * packet.time_base), bytes(packet))
            for packet in video.demux(stream)
            if packet.size
        ]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_frames_times_and_sound_stay(tmp_path: Path, suffix: str) -> None:
    clip, big = make_video(tmp_path / f"clip.{suffix}"), tmp_path / f"big.{suffix}"
    upscale_video(clip, big, double)
    assert shown_at(big) == pytest.approx(shown_at(clip), abs=1e-6)
    assert packets_of(big, "audio") == packets_of(clip, "audio")
    with av.open(str(clip)) as before, av.open(str(big)) as after:
        assert (after.streams.video[0].width, after.streams.video[0].height) == (128, 96)
        assert after.duration == pytest.approx(before.duration, abs=2000)
        assert after.chapters() == before.chapters()
        assert after.metadata["title"] == "A test"
        language = before.streams.audio[0].metadata.get("language")
        assert after.streams.audio[0].metadata.get("language") == language
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("pair", ["mp4 mkv", "mkv mp4", "mov ts", "ts mp4"])
def test_sound_stays_with_the_frames_in_another_container(tmp_path: Path, pair: str) -> None:
    before, after = pair.split()
    clip, big = make_video(tmp_path / f"clip.{before}"), tmp_path / f"big.{after}"
    upscale_video(clip, big, double)
    shift = shown_at(big)[0] - shown_at(clip)[0]  # some containers cannot start before zero
    assert shown_at(big) == pytest.approx([seconds + shift for seconds in shown_at(clip)], abs=1.1e-3)
    heard, expected = packets_of(big, "audio"), packets_of(clip, "audio")
    assert [seconds for seconds, _ in heard] == pytest.approx(
        [seconds + shift for seconds, _ in expected], abs=2e-3
    )


def test_attachments_stay(tmp_path: Path) -> None:
    clip, whole = make_video(tmp_path / "clip.mkv"), tmp_path / "whole.mkv"
    with av.open(str(clip)) as source, av.open(str(whole), "w") as video:
        copies = {s.index: video.add_stream_from_template(s, opaque=True) for s in source.streams}
        video.add_attachment("font.ttf", "font/ttf", b"letters")
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                video.mux(packet)
    upscale_video(whole, tmp_path / "big.mkv", double)
    with av.open(str(tmp_path / "big.mkv")) as big:
        (font,) = (stream for stream in big.streams if stream.type == "attachment")
        assert (font.metadata["filename"], bytes(font.data)[:7]) == ("font.ttf", b"letters")
    with pytest.warns(
        UserWarning, match=r"cannot hold font\.ttf attachment, which \.mkv holds; it is left out"
    ):
        upscale_video(whole, tmp_path / "big.mp4", double)


def test_chapters_may_go_on_beyond_the_last_frame(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", times=TIMES[:5])
    upscale_video(clip, tmp_path / "big.mp4", double)
    assert len(shown_at(tmp_path / "big.mp4")) == 5


def test_subtitles_stay(tmp_path: Path) -> None:
    (tmp_path / "text.srt").write_bytes(SUBTITLES)
    clip = make_video(tmp_path / "clip.mkv", subtitles=tmp_path / "text.srt")
    upscale_video(clip, tmp_path / "big.mkv", double)
    assert packets_of(tmp_path / "big.mkv", "subtitle") == packets_of(clip, "subtitle")


@pytest.mark.parametrize("suffix", ["mkv", "ts", "mp4"])
def test_videos_may_start_later_than_zero(tmp_path: Path, suffix: str) -> None:
    clip = make_video(tmp_path / f"clip.{suffix}", times=[5000 + time for time in TIMES], sound=None)
    upscale_video(clip, tmp_path / "big.mkv", double)
    assert shown_at(tmp_path / "big.mkv") == pytest.approx(shown_at(clip), abs=1e-3)


def test_mpeg_ts_with_another_suffix(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.ts")
    clip = clip.rename(tmp_path / "clip.m2ts")
    upscale_video(clip, tmp_path / "big.m2ts", double)
    assert len(shown_at(tmp_path / "big.m2ts")) == len(TIMES)


@pytest.mark.parametrize("pair", ["mkv mkv", "mkv mp4", "mp4 mp4", "mp4 mkv"])
def test_covers_stay_covers(tmp_path: Path, pair: str) -> None:
    before, after = pair.split()
    source = make_video(tmp_path / "plain.mkv", sound=None)
    write_image(Image(image(0)), tmp_path / "cover.jpg")
    cover = (tmp_path / "cover.jpg").read_bytes()
    clip, big = tmp_path / f"clip.{before}", tmp_path / f"big.{after}"
    with av.open(str(source)) as plain, av.open(str(clip), "w") as video:
        stream = video.add_stream_from_template(plain.streams.video[0])
        if before == "mkv":
            video.add_attachment("cover.jpg", "image/jpeg", cover)
        else:
            still = video.add_stream("mjpeg")
            still.width, still.height, still.pix_fmt = 64, 48, "yuvj420p"
            still.disposition = Disposition.attached_pic
            video.start_encoding()
            for packet in still.encode(av.VideoFrame.from_ndarray(image(0), "rgb24")):
                video.mux(packet)
        for packet in plain.demux(video=0):
            if packet.size:
                packet.stream = stream
                video.mux(packet)
    upscale_video(clip, big, double)
    with av.open(str(big)) as result:
        kinds = sorted(bool(stream.disposition & Disposition.attached_pic) for stream in result.streams.video)
    assert kinds == [False, True]
    assert len(shown_at(big)) == len(TIMES)


def test_titles_in_another_encoding_are_no_obstacle(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", sound=None)
    data = (tmp_path / "a.mp4").read_bytes()
    assert b"A test" in data
    (tmp_path / "a.mp4").write_bytes(data.replace(b"A test", b"A t\xdfst"))
    upscale_video(tmp_path / "a.mp4", tmp_path / "b.mkv", double)
    with av.open(str(tmp_path / "b.mkv")) as video:
        assert video.metadata["title"].startswith("A t")


def test_sound_that_the_target_cannot_hold_is_encoded_again(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4")
    with pytest.warns(UserWarning, match="cannot hold aac sound, which is encoded as opus") as said:
        upscale_video(clip, tmp_path / "big.webm", double)
    assert len(said) == 1
    with av.open(str(tmp_path / "big.webm")) as big:
        assert [stream.codec_context.name for stream in big.streams] == ["vp9", "opus"]
        sound = np.concatenate([frame.to_ndarray() for frame in big.decode(audio=0)], 1)
    tone = np.abs(np.fft.rfft(sound[0, 4800:38400]))
    assert np.argmax(tone) * 48000 / 33600 == pytest.approx(440, abs=2)
    assert shown_at(tmp_path / "big.webm") == pytest.approx(shown_at(clip), abs=2e-3)


@pytest.mark.parametrize(("target", "codec"), [("mp4", "aac"), ("mov", "aac"), ("mkv", "flac")])
def test_old_sound_is_encoded_again(tmp_path: Path, target: str, codec: str) -> None:
    clip = make_video(tmp_path / "clip.avi", sound="adpcm_ms", times=range(0, 1000, 40))
    with pytest.warns(UserWarning, match=f"cannot hold adpcm_ms sound, which is encoded as {codec}"):
        upscale_video(clip, tmp_path / f"big.{target}", double)
    with av.open(str(tmp_path / f"big.{target}")) as big:
        assert big.streams.audio[0].codec_context.name == codec
        assert big.duration == pytest.approx(1_000_000, abs=120_000)
