"""A folder upscaled by many workers is the folder upscaled by one machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ray")

from convattn.checkpoints.loading import save_network
from convattn.cluster import Failure, Settings, Summary, upscale_on_cluster, upscaling
from convattn.cluster.finding import find_jobs
from convattn.cluster.storage import Address
from convattn.cluster.worker import Worker
from convattn.errors import InputError
from convattn.inference.batch_jobs import plan, upscale_files
from convattn.inference.results import Job
from convattn.inference.upscaler import Upscaler
from convattn.models.registry import build

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    file = tmp_path_factory.mktemp("weights") / "nano.safetensors"
    save_network(build("esc-nano", 2), str(file))
    return Settings(model=str(file), scale=2, device="cpu")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_results_names_and_failures_are_those_of_one_machine(
    settings: Settings, folder: Path, tmp_path: Path
) -> None:
    (folder / "broken.png").write_bytes(b"\x89PNG broken")
    seen: list[float] = []
    many, one = tmp_path / "many", tmp_path / "one"
    summary = upscale_on_cluster([str(folder)], str(many), settings, progress=seen.append)
    errors = upscale_files(Upscaler(settings.model, 2, device="cpu"), plan([str(folder)], str(one)))
    assert contents(many) == contents(one)
    assert [failure.reason for failure in summary.failures] == [str(error) for error in errors]
    assert (summary.done, summary.left) == (summary.found - 1, 0)
    assert (seen[-1], len(seen)) == (1, summary.found)


def test_jobs_are_found_lazily(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = []

    def listing(self: Any) -> Iterator[PurePath]:
        for name in ("a.png", "b.png", "c.png"):
            listed.append(name)
            yield PurePath(name)

    monkeypatch.setattr(Address, "files", listing)
    jobs = find_jobs([str(folder)], "out")
    next(jobs)
    assert listed == ["a.png"]


def test_existing_results_are_refused_skipped_or_overwritten(
    settings: Settings, folder: Path, tmp_path: Path
) -> None:
    job = Job(Address(str(folder / "a.png")), Address(str(tmp_path / "a.png")))
    Worker(settings).upscale_image(job)
    before = (tmp_path / "a.png").stat().st_mtime_ns
    with pytest.raises(InputError, match="exists already"):
        Worker(settings).upscale_image(job)
    Worker(replace(settings, existing="skip")).upscale_image(job)
    assert (tmp_path / "a.png").stat().st_mtime_ns == before
    Worker(replace(settings, existing="overwrite")).upscale_image(job)
    assert (tmp_path / "a.png").stat().st_mtime_ns > before


class _Killed(Worker):
    """Dies at one image: the first time only, or each time."""

    def upscale_image(self, job: Any) -> Any:
        mark = str(job.source) + ".mark"
        if "once" in mark and not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if "always" in mark:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().upscale_image(job)


def test_a_killed_worker_costs_only_the_image_that_kills_it(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upscaling, "Worker", _Killed)
    (tmp_path / "in").mkdir()
    for name in ("1.png", "once.png", "always.png", "4.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "in" / name)
    summary = upscale_on_cluster([str(tmp_path / "in")], str(tmp_path / "out"), settings)
    assert [os.path.basename(failure.source) for failure in summary.failures] == ["always.png"]
    assert "3 times" in summary.failures[0].reason
    done = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert done == ["1.png", "4.png", "once.png"]


def test_nothing_found_is_one_sentence(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image"):
        upscale_on_cluster([str(tmp_path / "empty")], str(tmp_path / "out"), settings)


def test_a_wrong_model_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        upscale_on_cluster([str(tmp_path)], str(tmp_path / "out"), Settings(model="no-such-model"))


def test_no_result_lies_among_the_inputs(folder: Path) -> None:
    for inputs, output in (
        ([folder], folder),
        ([folder / "a.png"], folder / "a.png"),
        ([folder / "a.png"], folder),
    ):
        with pytest.raises(InputError, match="choose another output"):
            list(find_jobs([str(given) for given in inputs], str(output)))


def test_earlier_results_are_no_inputs(folder: Path) -> None:
    found = [str(job.source) for job in find_jobs([str(folder)], str(folder / "sub"))]
    assert len(found) == 4
    assert not [source for source in found if "/sub/" in source]


def test_a_single_file_becomes_the_output_itself(folder: Path) -> None:
    (job,) = find_jobs([str(folder / "b.bmp")], str(folder.parent / "large.jpg"))
    assert job.target == Address(str(folder.parent / "large.jpg"))
    with pytest.raises(InputError, match="videos end in"):
        list(find_jobs(["clip.mp4"], "clip.jpg"))


def test_what_is_left_is_counted() -> None:
    assert Summary(found=5, done=2, failures=[Failure("a", "b")]).left == 2


class _Unstartable(Worker):
    def __init__(self, settings: Settings) -> None:
        raise RuntimeError("no such file on this machine")


def test_workers_that_cannot_start_are_one_sentence(
    settings: Settings, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upscaling, "Worker", _Unstartable)
    with pytest.raises(InputError, match="No worker starts"):
        upscale_on_cluster([str(folder)], str(tmp_path / "out"), settings)


def test_the_command_line_upscales_on_a_cluster(
    settings: Settings, folder: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    (folder / "broken.png").write_bytes(b"\x89PNG broken")
    words = ["upscale", folder, "-o", tmp_path / "out", "--model", str(settings.model), "--device", "cpu"]
    ended = command(*words, "--cluster", "auto")
    assert ended.status == 1
    assert "1 of 6 files failed" in ended.err
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 5


def test_ctrl_c_leaves_no_litter_and_is_resumed(settings: Settings, tmp_path: Path) -> None:
    """A real signal to a real process, which then is started again."""
    import ray

    (tmp_path / "in").mkdir()
    random = np.random.default_rng(0)
    for number in range(40):
        pixels = random.integers(0, 255, (96, 96, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.png")
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-c",
        "import signal, convattn.cli as cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\ncli.main()",
    ]
    command += [
        "upscale",
        str(tmp_path / "in"),
        "-o",
        str(out),
        "--model",
        str(settings.model),
        "--device",
        "cpu",
    ]
    command += ["--cluster", ray.get_runtime_context().gcs_address, "--existing", "skip"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (out.is_dir() and list(out.glob("*.png"))) and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 1
    assert "--existing skip resumes" in errors
    assert "Traceback" not in errors
    finished = sorted(path.name for path in out.iterdir())
    assert 0 < len(finished) < 40
    assert not [name for name in finished if name.startswith(".")]
    subprocess.run(command, check=True)
    assert len(list(out.iterdir())) == 40
