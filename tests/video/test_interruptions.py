"""Nothing that was finished is lost when a video is interrupted."""

import contextlib
import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from convattn.errors import InputError
from convattn.video import upscale_video

from .conftest import (
    double,
    images_of,
    left_behind,
    make_video,
    shown_at,
)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_video_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    monkeypatch.setattr("convattn.video.job._SEGMENT", 4)
    clip, big, whole = make_video(tmp_path / "clip.mp4"), tmp_path / "big.mp4", tmp_path / "whole.mp4"
    upscale_video(clip, whole, double)
    calls = []

    def stops(x: Tensor) -> Tensor:
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
    again: list[int] = []
    seen: list[float] = []
    upscale_video(clip, big, lambda x: again.append(len(x)) or double(x), batch_size=2, progress=seen.append)
    assert sum(again) == 20 - 4 * finished
    assert (seen[0], seen[-1]) == ((4 * finished + 1) / 20, 1)
    assert shown_at(big) == shown_at(whole)
    assert np.array_equal(images_of(big), images_of(whole))
    assert left_behind(tmp_path) == []


def test_damaged_parts_and_those_of_another_job_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convattn.video.job._SEGMENT", 4)
    clip, big = make_video(tmp_path / "clip.mp4"), tmp_path / "big.mp4"

    def run(label: str, stop_after: int | None = None) -> int:
        count = itertools.count()
        frames = []

        def upscale(x: Tensor) -> Tensor:
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


def test_ctrl_c_leaves_one_sentence_and_goes_on(tmp_path: Path) -> None:
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


def test_a_full_disk_keeps_what_is_finished(
    full_disk: Callable[[int], AbstractContextManager[None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convattn.video.job._SEGMENT", 4)
    clip, big = make_video(tmp_path / "clip.mp4"), tmp_path / "big.mp4"
    big.write_bytes(b"older video")

    def noisy(x: Tensor) -> Tensor:
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


def test_segments_of_the_same_source_go_with_the_finished_job(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", sound=None)
    other = make_video(tmp_path / "other.mp4", sound=None)

    def stops(x: Tensor) -> Tensor:
        raise RuntimeError

    for source, target in ((clip, "a.mp4"), (other, "b.mp4")):
        with pytest.raises(RuntimeError):
            upscale_video(source, tmp_path / target, stops)
    assert left_behind(tmp_path) == [".a.mp4.parts", ".b.mp4.parts"]
    upscale_video(clip, tmp_path / "a.mkv", double)
    assert left_behind(tmp_path) == [".b.mp4.parts"]
