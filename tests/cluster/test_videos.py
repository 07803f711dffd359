"""A video upscaled segment by segment, anywhere and in any order, is the video upscaled by one machine."""

import os
import signal
import uuid
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

av = pytest.importorskip("av")
pytest.importorskip("ray")

from convattn.checkpoints.loading import save_network  # noqa: E402
from convattn.cluster import Settings, upscale_on_cluster, upscaling  # noqa: E402
from convattn.cluster.storage import Address  # noqa: E402
from convattn.cluster.worker import Worker  # noqa: E402
from convattn.errors import InputError  # noqa: E402
from convattn.inference.results import Job  # noqa: E402
from convattn.models.registry import build  # noqa: E402
from convattn.video import upscale_video  # noqa: E402

FRAMES, SEGMENT = 10, 4


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convattn.video.job._SEGMENT", SEGMENT)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    file = tmp_path_factory.mktemp("weights") / "nano.safetensors"
    save_network(build("esc-nano", 2), str(file))
    return Settings(model=str(file), scale=2, device="cpu", batch_size=3)


def make_clip(path: Path, codec: str = "libx264", options: dict[str, str] | None = None) -> Path:
    """Ten noisy frames, with a key frame every third."""
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as video:
        stream = video.add_stream(codec, rate=25, options=options or {"g": "3", "bf": "1"})
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(random.integers(0, 255, (16, 32, 3), np.uint8), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip.mp4")


def on_one_machine(clip: Path, target: Path, settings: Settings) -> bytes:
    worker = Worker(settings)
    options = dict(batch_size=settings.batch_size, label=settings.label(worker._upscaler))
    upscale_video(clip, target, worker._upscaler, **options)
    return target.read_bytes()


def packets_of(path: Path) -> list[tuple[Any, ...]]:
    """Everything but the header, in which Matroska has random numbers."""
    with av.open(str(path)) as video:
        return [(packet.pts, packet.dts, packet.duration, bytes(packet)) for packet in video.demux()]


def job_of(clip: Path, target: Path) -> Job[Address]:
    return Job(Address(str(clip)), Address(str(target)))


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".mp4", "libx264", {"g": "3", "bf": "1"}),
        (".mkv", "libx264", {"g": "6", "bf": "2", "x264-params": "open-gop=1"}),
        (".mp4", "libx264", {"g": "100"}),
        (".webm", "libvpx-vp9", {"g": "4"}),
        (".ts", "mpeg2video", {"g": "4", "bf": "2"}),
    ],
)
def test_segments_in_any_order_give_the_video_of_one_machine(
    settings: Settings, tmp_path: Path, suffix: str, codec: str, options: dict[str, str]
) -> None:
    clip = make_clip(tmp_path / f"clip{suffix}", codec, options)
    job = job_of(clip, tmp_path / f"many{suffix}")
    assert Worker(settings).plan_video(job) == [0, 1, 2]
    for number in (2, 0, 1):
        cut = Worker(settings).upscale_segment(job, number)
        assert cut or suffix == ".ts"  # where a seek may miss, one worker decodes from the start
    worker = Worker(settings)
    worker.finish_video(job)
    one = on_one_machine(clip, tmp_path / f"one{suffix}", settings)
    many = tmp_path / f"many{suffix}"
    assert packets_of(many) == packets_of(tmp_path / f"one{suffix}")
    assert many.read_bytes() == one or suffix in (".mkv", ".webm")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_job_that_one_machine_began_is_resumed(settings: Settings, clip: Path, tmp_path: Path) -> None:
    target, worker = tmp_path / "big.mp4", Worker(settings)
    calls = []

    def stops(frames: Tensor) -> Tensor:
        calls.append(len(frames))
        if len(calls) == 4:
            raise RuntimeError
        return worker._upscaler(frames)

    with pytest.raises(RuntimeError):
        upscale_video(clip, target, stops, batch_size=3, label=settings.label(worker._upscaler))
    assert worker.plan_video(job_of(clip, target)) == [1, 2]


def test_segments_on_a_storage_are_those_of_one_machine(
    settings: Settings, clip: Path, tmp_path: Path
) -> None:
    root = f"memory://{uuid.uuid4().hex}"
    with Address(f"{root}/in/clip.mp4").replacing() as path:
        path.write_bytes(clip.read_bytes())
    job = job_of(f"{root}/in/clip.mp4", f"{root}/out/clip.mp4")
    assert Worker(settings).plan_video(job) == [0, 1, 2]
    assert Worker(settings).upscale_segment(job, 1)
    assert Worker(settings).plan_video(job) == [0, 2]
    assert Worker(replace(settings, crf=30)).plan_video(job) == [0, 1, 2]  # another job
    assert Worker(settings).plan_video(job) == [0, 1, 2]
    for number in (0, 1, 2):
        assert Worker(settings).upscale_segment(job, number)
    Worker(settings).finish_video(job)
    with job.target.local_copy() as path:
        assert path.read_bytes() == on_one_machine(clip, tmp_path / "one.mp4", settings)
    assert not (Address(f"{root}/out/.clip.mp4.parts/job")).exists()


def test_existing_videos_are_refused_or_skipped(settings: Settings, clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "big.mp4"
    target.write_bytes(b"older")
    with pytest.raises(InputError, match="exists already"):
        Worker(settings).plan_video(job_of(clip, target))
    assert Worker(replace(settings, existing="skip")).plan_video(job_of(clip, target)) is None
    assert target.read_bytes() == b"older"


class _Killed(Worker):
    """Dies once, at the second segment."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        import convattn.video.job

        convattn.video.job._SEGMENT = SEGMENT

    def upscale_segment(self, job: Any, number: int) -> Any:
        mark = str(job.source) + ".mark"
        if number == 1 and not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().upscale_segment(job, number)


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_costs_only_its_segment(
    settings: Settings, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upscaling, "Worker", _Killed)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    summary = upscale_on_cluster([str(clip), str(tmp_path / "broken.mp4")], str(tmp_path / "out"), settings)
    assert [os.path.basename(failure.source) for failure in summary.failures] == ["broken.mp4"]
    assert (summary.done, summary.segments, summary.left) == (1, 3, 0)
    one = on_one_machine(clip, tmp_path / "one.mp4", settings)
    assert (tmp_path / "out" / "clip.mp4").read_bytes() == one
