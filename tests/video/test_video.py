"""Video: nothing of it is lost, and nothing that was finished."""

import contextlib
import itertools
import math
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from convattn.errors import InputError

av = pytest.importorskip("av")

from av.stream import Disposition  # noqa: E402

from convattn.images.io import Image, write_image  # noqa: E402
from convattn.video import upscale_video  # noqa: E402
from convattn.video.hdr import hdr_metadata_of  # noqa: E402
from convattn.video.stages import batches, prefetch  # noqa: E402
from convattn.video.yuv import Encoding  # noqa: E402

TIMES = [0, 40, 80, 130, 170, 300, 340, 380, 420, 500, 540, 580, 620, 700, 701, 740, 780, 820, 860, 900]
"""Milliseconds of a variable frame rate; the last frame lasts 40."""

SUBTITLES = b"1\n00:00:00,100 --> 00:00:00,500\nHello\n\n2\n00:00:00,600 --> 00:00:00,800\nthere\n"


def double(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


def triple(x):
    return F.interpolate(x, scale_factor=3, mode="nearest")


def image(number, width=64, height=48):
    """Smooth colors that move, (H, W, 3) in uint8."""
    y, x = np.mgrid[:height, :width]
    rgb = [128 + 90 * np.sin((x + k * y + 3 * number) / (9 + 2 * k)) for k in range(3)]
    return np.stack(rgb, -1).round().astype(np.uint8)


def make_video(
    path,
    *,
    times=TIMES,
    size=(64, 48),
    codec="libx264",
    pixel_format="yuv420p",
    matrix=1,
    full=False,
    sound="aac",
    subtitles=None,
    rotation=None,
    options=None,
    fast_start=False,
    draw=image,
):
    with av.open(str(path), "w", container_options={"movflags": "faststart"} if fast_start else {}) as video:
        video.metadata["title"] = "A test"
        stream = video.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        if rotation:
            stream.set_display_rotation(rotation)
        if sound:
            audio = video.add_stream(sound, rate=48000)
            audio.metadata["language"] = "deu"
        if subtitles:
            source = av.open(str(subtitles))
            text = video.add_stream_from_template(source.streams[0])
        video.set_chapters(
            [
                {
                    "id": 1,
                    "start": 0,
                    "end": 400,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": "one"},
                },
                {
                    "id": 2,
                    "start": 400,
                    "end": 900,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": "two"},
                },
            ]
        )
        levels = 2 if full else 1
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(draw(number, *size), "rgb24").reformat(
                format=pixel_format, dst_colorspace=matrix, dst_color_range=levels
            )
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
        if sound:
            for block in range(int((times[-1] + 40) * 48 / 1024)):
                wave = 0.3 * np.sin(np.arange(block * 1024, (block + 1) * 1024) * 2 * math.pi * 440 / 48000)
                tone = av.AudioFrame.from_ndarray(np.stack([wave, wave]).astype(np.float32), "fltp", "stereo")
                tone.sample_rate, tone.pts, tone.time_base = 48000, block * 1024, Fraction(1, 48000)
                video.mux(audio.encode(tone))
            video.mux(audio.encode(None))
        if subtitles:
            for packet in source.demux():
                if packet.size:
                    packet.stream = text
                    video.mux(packet)
            source.close()
    return path


def shown_at(path):
    """When each frame is shown, in seconds."""
    with av.open(str(path)) as video:
        return [float(frame.pts * frame.time_base) for frame in video.decode(video=0)]


def images_of(path):
    """(frames, H, W, 3) by FFmpeg's own conversion."""
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]).astype(int)


def luma_of(frame, dtype):
    plane = frame.planes[0]
    return np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width].astype(int)


def packets_of(path, kind):
    with av.open(str(path)) as video:
        stream = next(stream for stream in video.streams if stream.type == kind)
        return [
            (float(packet.pts * packet.time_base), bytes(packet))
            for packet in video.demux(stream)
            if packet.size
        ]


def left_behind(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


# --- What must stay ---


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_frames_times_and_sound_stay(tmp_path, suffix):
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
def test_sound_stays_with_the_frames_in_another_container(tmp_path, pair):
    before, after = pair.split()
    clip, big = make_video(tmp_path / f"clip.{before}"), tmp_path / f"big.{after}"
    upscale_video(clip, big, double)
    shift = shown_at(big)[0] - shown_at(clip)[0]  # some containers cannot start before zero
    assert shown_at(big) == pytest.approx([seconds + shift for seconds in shown_at(clip)], abs=1.1e-3)
    heard, expected = packets_of(big, "audio"), packets_of(clip, "audio")
    assert [seconds for seconds, _ in heard] == pytest.approx(
        [seconds + shift for seconds, _ in expected], abs=2e-3
    )


def test_attachments_stay(tmp_path):
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
    with pytest.raises(InputError, match=r"cannot hold the attachment .*font.ttf"):
        upscale_video(whole, tmp_path / "big.mp4", double)


@pytest.mark.parametrize("codec", ["hevc", "av1", "vp9", "ffv1", "mpeg4"])
def test_every_codec_keeps_the_times(tmp_path, codec):
    clip, big = make_video(tmp_path / "clip.mkv"), tmp_path / "big.mkv"
    upscale_video(clip, big, double, codec=codec)
    assert shown_at(big) == pytest.approx(shown_at(clip), abs=1e-6)
    assert np.abs(images_of(big)[:, ::2, ::2] - images_of(clip)).mean() < 6


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_parts_make_no_difference_to_times(tmp_path, monkeypatch, parts):
    monkeypatch.setattr("convattn.video.job._SEGMENT", parts)
    clip, big = make_video(tmp_path / "clip.mp4"), tmp_path / "big.mp4"
    upscale_video(clip, big, double)
    assert shown_at(big) == pytest.approx(shown_at(clip), abs=1e-6)
    with av.open(str(clip)) as before, av.open(str(big)) as after:
        assert after.duration == pytest.approx(before.duration, abs=2000)
        decoding = [packet.dts for packet in after.demux(video=0) if packet.size]
    assert decoding == sorted(set(decoding))


def test_chapters_may_go_on_beyond_the_last_frame(tmp_path):
    clip = make_video(tmp_path / "clip.mp4", times=TIMES[:5])
    upscale_video(clip, tmp_path / "big.mp4", double)
    assert len(shown_at(tmp_path / "big.mp4")) == 5


def test_subtitles_stay(tmp_path):
    (tmp_path / "text.srt").write_bytes(SUBTITLES)
    clip = make_video(tmp_path / "clip.mkv", subtitles=tmp_path / "text.srt")
    upscale_video(clip, tmp_path / "big.mkv", double)
    assert packets_of(tmp_path / "big.mkv", "subtitle") == packets_of(clip, "subtitle")


def test_rotation_stays(tmp_path):
    clip = make_video(tmp_path / "clip.mp4", rotation=90)
    upscale_video(clip, tmp_path / "big.mp4", double)
    with av.open(str(tmp_path / "big.mp4")) as big:
        frame = next(big.decode(video=0))
        assert frame.rotation == 90
        assert (frame.width, frame.height) == (128, 96)


@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("full", [False, True])
def test_colors_stay(tmp_path, matrix, full):
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


def test_ten_bits_stay(tmp_path):
    clip = make_video(tmp_path / "clip.mkv", codec="ffv1", pixel_format="yuv420p10le")
    upscale_video(clip, tmp_path / "big.mkv", double, codec="ffv1")
    with av.open(str(clip)) as before, av.open(str(tmp_path / "big.mkv")) as after:
        old, new = next(before.decode(video=0)), next(after.decode(video=0))
        assert new.format.name == "yuv420p10le"
        old_luma, new_luma = (luma_of(frame, np.uint16) for frame in (old, new))
        assert np.abs(new_luma[::2, ::2] - old_luma).max() <= 2
        assert (new_luma % 4).any()


def flat(number, width, height):
    return np.broadcast_to(np.uint8([12 * number, 255 - 12 * number, 128]), (height, width, 3)).copy()


@pytest.mark.parametrize("size", [(64, 48), (32, 720)])
def test_colors_of_a_video_without_tags_stay_for_a_player(tmp_path, size):
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


def test_odd_sides_are_filled_up_where_color_is_halved(tmp_path):
    clip = make_video(tmp_path / "clip.mkv", size=(33, 25), codec="ffv1", pixel_format="yuv444p")
    upscale_video(clip, tmp_path / "even.mp4", triple, codec="h264")
    upscale_video(clip, tmp_path / "odd.mkv", triple, codec="ffv1")
    upscale_video(clip, tmp_path / "even.mov", triple, codec="prores")
    assert images_of(tmp_path / "odd.mkv").shape[1:3] == (75, 99)
    assert images_of(tmp_path / "even.mov").shape[1:3] == (76, 100)


def test_pixels_that_are_not_square_stay_so(tmp_path):
    clip = tmp_path / "clip.mkv"
    with av.open(str(clip), "w") as video:
        stream = video.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        for number in range(5):
            video.mux(stream.encode(av.VideoFrame.from_ndarray(image(number), "rgb24")))
        video.mux(stream.encode(None))
    upscale_video(clip, tmp_path / "big.mkv", double)
    with av.open(str(clip)) as before, av.open(str(tmp_path / "big.mkv")) as after:
        aspect = before.streams.video[0].sample_aspect_ratio
        assert after.streams.video[0].sample_aspect_ratio == aspect != 1


def test_a_folder_of_frames_becomes_a_video(tmp_path):
    for number in range(5):
        write_image(Image(image(number)), tmp_path / "frames" / f"{number:03}.png")
    upscale_video(tmp_path / "frames", tmp_path / "video.mp4", double, fps=10, crf=1)
    assert shown_at(tmp_path / "video.mp4") == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    shown = images_of(tmp_path / "video.mp4")[:, ::2, ::2]
    assert np.abs(shown - np.stack([image(number) for number in range(5)])).mean() < 4


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "apng"])
def test_an_animation_becomes_a_video_on_white(tmp_path, kind):
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


def test_constant_rate_factor_decides_the_size(tmp_path):
    clip, sizes = make_video(tmp_path / "clip.mp4", sound=None), []
    for crf in (10, 40):
        upscale_video(clip, tmp_path / f"{crf}.mp4", double, crf=crf)
        sizes.append((tmp_path / f"{crf}.mp4").stat().st_size)
    assert sizes[0] > 1.5 * sizes[1]


def test_progress_counts_every_frame(tmp_path):
    clip, seen = make_video(tmp_path / "clip.mp4"), []
    upscale_video(clip, tmp_path / "big.mp4", double, progress=seen.append)
    assert [step.done for step in seen] == list(range(1, 21))
    assert {step.total for step in seen} == {20}
    assert seen[-1].seconds_left == 0
    assert seen[-1].per_second > 0


# --- Interruptions ---


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_video_goes_on_where_it_stopped(tmp_path, monkeypatch, interruption):
    monkeypatch.setattr("convattn.video.job._SEGMENT", 4)
    clip, big, whole = make_video(tmp_path / "clip.mp4"), tmp_path / "big.mp4", tmp_path / "whole.mp4"
    upscale_video(clip, whole, double)
    calls = []

    def stops(x):
        calls.append(len(x))
        if len(calls) == 6:
            raise interruption
        return double(x)

    with pytest.raises(interruption):
        upscale_video(clip, big, stops, batch_size=2)
    assert not big.exists()
    finished = len(list((tmp_path / ".big.mp4.parts").glob("*.mkv")))
    assert finished == 2
    assert not list((tmp_path / ".big.mp4.parts").glob("*.unfinished"))
    again, seen = [], []
    upscale_video(clip, big, lambda x: again.append(len(x)) or double(x), batch_size=2, progress=seen.append)
    assert sum(again) == 20 - 4 * finished
    assert (seen[0].done, seen[-1].done) == (4 * finished + 1, 20)
    assert shown_at(big) == shown_at(whole)
    assert np.array_equal(images_of(big), images_of(whole))
    assert left_behind(tmp_path) == []


def test_damaged_parts_and_those_of_another_job_are_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("convattn.video.job._SEGMENT", 4)
    clip, big = make_video(tmp_path / "clip.mp4"), tmp_path / "big.mp4"

    def run(label, stop_after=None):
        count = itertools.count()
        frames = []

        def upscale(x):
            if next(count) == stop_after:
                raise RuntimeError
            frames.append(len(x))
            return double(x)

        with contextlib.suppress(RuntimeError):
            upscale_video(clip, big, upscale, label=label, batch_size=2)
        return sum(frames)

    run("a", 7)
    part = tmp_path / ".big.mp4.parts" / "000001.mkv"
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    assert run("a") == 16
    run("a", 7)
    assert run("b") == 20
    assert len(shown_at(big)) == 20


def test_ctrl_c_leaves_one_sentence_and_goes_on(tmp_path):
    """A real signal to a real process, which then is started again."""
    clip, big = make_video(tmp_path / "clip.mp4"), tmp_path / "big.mp4"
    script = tmp_path / "run.py"
    script.write_text(
        "import signal, sys, time, torch\n"
        "import convattn.video as video\n"
        "import convattn.video.job as job\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # which jobs in the background lack\n"
        "job._SEGMENT = 4\n"
        "def slow(x):\n"
        "    time.sleep(float(sys.argv[3]))\n"
        "    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)\n"
        "video.upscale_video(sys.argv[1], sys.argv[2], slow, batch_size=2)\n"
    )
    running = subprocess.Popen([sys.executable, script, clip, big, "0.5"], stderr=subprocess.PIPE)
    parts = tmp_path / ".big.mp4.parts"
    deadline = time.monotonic() + 60
    while not (parts / "000000.mkv").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=30)
    assert running.returncode != 0
    assert not big.exists()
    assert not list(parts.glob("*.unfinished"))
    subprocess.run([sys.executable, script, clip, big, "0"], check=True)
    assert len(shown_at(big)) == 20


# --- Bad input ---


def test_a_full_disk_keeps_what_is_finished(full_disk, tmp_path, monkeypatch):
    monkeypatch.setattr("convattn.video.job._SEGMENT", 4)
    clip, big = make_video(tmp_path / "clip.mp4"), tmp_path / "big.mp4"
    big.write_bytes(b"older video")

    def noisy(x):
        return torch.rand(len(x), 3, 192, 256, generator=torch.Generator().manual_seed(0))

    with (
        full_disk(400_000),
        pytest.raises(InputError, match=r"big.mp4 cannot be written: .*resumes from there"),
    ):
        upscale_video(clip, big, noisy)
    assert big.read_bytes() == b"older video"
    assert len(list((tmp_path / ".big.mp4.parts").glob("*.mkv"))) == 5
    frames = []
    upscale_video(clip, big, lambda x: frames.append(1) or noisy(x))
    assert frames == []
    assert len(shown_at(big)) == 20
    assert left_behind(tmp_path) == []


def test_no_video(tmp_path):
    text = tmp_path / "clip.mp4"
    with pytest.raises(InputError, match="no file"):
        upscale_video(text, tmp_path / "big.mp4", double)
    text.write_bytes(b"hello" * 1000)
    with pytest.raises(InputError, match="not a video that can be read"):
        upscale_video(text, tmp_path / "big.mp4", double)


def test_no_video_stream(tmp_path):
    song = tmp_path / "song.mp4"
    with av.open(str(song), "w") as video:
        audio = video.add_stream("aac", rate=48000)
        tone = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        tone.sample_rate = 48000
        video.mux(audio.encode(tone))
        video.mux(audio.encode(None))
    with pytest.raises(InputError, match="no video stream"):
        upscale_video(song, tmp_path / "big.mp4", double)


def test_no_frames(tmp_path):
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
def test_a_truncated_video_is_refused_before_the_long_work(tmp_path, suffix, kept):
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
def test_what_cannot_be_written_is_said_at_once(tmp_path, arguments, message):
    clip = make_video(tmp_path / "clip.mp4")
    target = tmp_path / arguments.pop("target", "big.mp4")
    calls = []
    if message is None:
        return upscale_video(clip, target, double, **arguments)
    with pytest.raises(InputError, match=message):
        upscale_video(clip, target, lambda x: calls.append(1) or double(x), **arguments)
    assert calls == []


def test_sound_that_the_target_cannot_hold_is_encoded_again(tmp_path):
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


@pytest.mark.parametrize(("codec", "pixel_format"), [("ffv1", "yuva444p10le"), ("prores_ks", "yuva444p10le")])
def test_transparency_that_is_lost_is_said(tmp_path, codec, pixel_format):
    clip = make_video(tmp_path / "clip.mkv", codec=codec, pixel_format=pixel_format, times=TIMES[:2])
    with pytest.warns(UserWarning, match="is partly transparent; the result is not"):
        upscale_video(clip, tmp_path / "big.mkv", double)


def test_transparency_that_lies_apart_is_said_too(tmp_path):
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
def test_transparency_of_images_is_said_once_where_there_is_any(tmp_path, channels):
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


@pytest.mark.parametrize("codec", ["hevc", "h264", "av1"])
def test_hdr10_is_kept(tmp_path, codec):
    clip = make_hdr_video(tmp_path / "clip.mkv")
    upscale_video(clip, tmp_path / "big.mkv", double, codec=codec)
    (_, old), (after, new) = (hdr_of(path) for path in (clip, tmp_path / "big.mkv"))
    assert (after.color_primaries, after.color_trc, after.colorspace) == (9, 16, 9)
    assert after.format.name == "yuv420p10le"
    assert new.light == old.light == (1000, 400)
    assert new.display == pytest.approx(old.display, rel=1e-2, abs=1e-3)


def make_hdr_video(path):
    return make_video(
        path,
        codec="libx265",
        pixel_format="yuv420p10le",
        matrix=9,
        times=TIMES[:2],
        sound=None,
        options={"x265-params": f"{HDR}:colorprim=9:transfer=16:colormatrix=9"},
    )


def hdr_of(path):
    with av.open(str(path)) as video:
        frame = next(video.decode(video=0))
        return frame, hdr_metadata_of(frame, path)


def test_hdr_without_a_place_for_it_is_said_or_refused(tmp_path):
    clip = make_hdr_video(tmp_path / "clip.mkv")
    with pytest.warns(UserWarning, match="ffv1 does not hold the HDR10 metadata"):
        upscale_video(clip, tmp_path / "big.mkv", double, codec="ffv1")
    with pytest.raises(InputError, match="is HDR, which needs 10 bits per sample; mpeg4 has 8"):
        upscale_video(clip, tmp_path / "big.mp4", double, codec="mpeg4")


def test_frames_of_a_folder_must_be_alike(tmp_path):
    write_image(Image(image(0)), tmp_path / "frames" / "0.png")
    write_image(Image(image(1, 60)), tmp_path / "frames" / "1.png")
    with pytest.raises(InputError, match=r"1.png differs"):
        upscale_video(tmp_path / "frames", tmp_path / "big.mp4", double)


# --- Parts ---


@pytest.mark.parametrize("matrix", [1, 5, 6, 7, 9, None])
@pytest.mark.parametrize(("full", "depth"), [(False, 8), (True, 8), (False, 10), (True, 12)])
def test_encodings_come_back(matrix, full, depth):
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
def test_bt709_has_its_known_samples(rgb, samples):
    encoded = Encoding(1, False, 8).encode(torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1))
    assert encoded.flatten().tolist() == list(samples)


def test_stages_work_at_the_same_time():
    def slowly(items):
        for item in items:
            time.sleep(0.05)
            yield item

    start = time.monotonic()
    assert list(prefetch(slowly(prefetch(slowly(iter(range(10))))))) == list(range(10))
    assert time.monotonic() - start < 0.9


def test_an_error_of_a_stage_arrives_and_its_source_is_closed():
    closed = []

    def source():
        try:
            yield from range(3)
            raise ValueError("three")
        finally:
            closed.append(True)

    stage = prefetch(source())
    assert [next(stage) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(stage)
    assert closed == [True]


def test_a_stage_that_is_given_up_ends_its_thread():
    closed = threading.Event()

    def source():
        try:
            yield from itertools.count()
        finally:
            closed.set()

    stage = prefetch(source())
    assert next(stage) == 0
    stage.close()
    assert closed.is_set()


def test_batches():
    assert list(batches(iter(range(5)), 2)) == [[0, 1], [2, 3], [4]]


# --- Containers ---


@pytest.mark.parametrize("suffix", ["mkv", "ts", "mp4"])
def test_videos_may_start_later_than_zero(tmp_path, suffix):
    clip = make_video(tmp_path / f"clip.{suffix}", times=[5000 + time for time in TIMES], sound=None)
    upscale_video(clip, tmp_path / "big.mkv", double)
    assert shown_at(tmp_path / "big.mkv") == pytest.approx(shown_at(clip), abs=1e-3)


def test_mpeg_ts_with_another_suffix(tmp_path):
    clip = make_video(tmp_path / "clip.ts")
    clip = clip.rename(tmp_path / "clip.m2ts")
    upscale_video(clip, tmp_path / "big.m2ts", double)
    assert len(shown_at(tmp_path / "big.m2ts")) == len(TIMES)


@pytest.mark.parametrize("pair", ["mkv mkv", "mkv mp4", "mp4 mp4", "mp4 mkv"])
def test_covers_stay_covers(tmp_path, pair):
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


def test_a_stretched_anamorphic_video_keeps_its_shape(tmp_path):
    clip = tmp_path / "clip.mkv"
    with av.open(str(clip), "w") as video:
        stream = video.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        for number in range(5):
            video.mux(stream.encode(av.VideoFrame.from_ndarray(image(number), "rgb24")))
        video.mux(stream.encode(None))
    upscale_video(clip, tmp_path / "big.mkv", lambda x: F.interpolate(x, size=(96, 186)))
    with av.open(str(tmp_path / "big.mkv")) as big:
        stream = big.streams.video[0]
        shape = stream.width * stream.sample_aspect_ratio / stream.height
    assert float(shape) == pytest.approx(64 * 16 / 11 / 48, rel=0.01)


@pytest.mark.parametrize(("target", "codec"), [("mp4", "aac"), ("mov", "aac"), ("mkv", "flac")])
def test_old_sound_is_encoded_again(tmp_path, target, codec):
    clip = make_video(tmp_path / "clip.avi", sound="adpcm_ms", times=range(0, 1000, 40))
    with pytest.warns(UserWarning, match=f"cannot hold adpcm_ms sound, which is encoded as {codec}"):
        upscale_video(clip, tmp_path / f"big.{target}", double)
    with av.open(str(tmp_path / f"big.{target}")) as big:
        assert big.streams.audio[0].codec_context.name == codec
        assert big.duration == pytest.approx(1_000_000, abs=120_000)


def test_frames_are_in_natural_order(tmp_path):
    for number in range(1, 13):
        write_image(Image(np.full((32, 32, 3), 20 * number, np.uint8)), tmp_path / f"frames/{number}.png")
    upscale_video(tmp_path / "frames", tmp_path / "video.mkv", double, codec="ffv1")
    levels = [int(frame.mean()) for frame in images_of(tmp_path / "video.mkv")]
    assert levels == sorted(levels)


def test_segments_of_the_same_source_go_with_the_finished_job(tmp_path):
    clip = make_video(tmp_path / "clip.mp4", sound=None)
    other = make_video(tmp_path / "other.mp4", sound=None)

    def stops(x):
        raise RuntimeError

    for source, target in ((clip, "a.mp4"), (other, "b.mp4")):
        with pytest.raises(RuntimeError):
            upscale_video(source, tmp_path / target, stops)
    assert left_behind(tmp_path) == [".a.mp4.parts", ".b.mp4.parts"]
    upscale_video(clip, tmp_path / "a.mkv", double)
    assert left_behind(tmp_path) == [".b.mp4.parts"]


def test_titles_in_another_encoding_are_no_obstacle(tmp_path):
    make_video(tmp_path / "a.mp4", sound=None)
    data = (tmp_path / "a.mp4").read_bytes()
    assert b"A test" in data
    (tmp_path / "a.mp4").write_bytes(data.replace(b"A test", b"A t\xdfst"))
    upscale_video(tmp_path / "a.mp4", tmp_path / "b.mkv", double)
    with av.open(str(tmp_path / "b.mkv")) as video:
        assert video.metadata["title"].startswith("A t")
