"""A folder upscaled by many workers is the folder upscaled by one machine."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ray")

from convattn.checkpoints.loading import save_network
from convattn.cluster import Settings, Summary, images, upscale_on_cluster
from convattn.cluster.jobs import RemoteJob, find_jobs
from convattn.errors import InputError
from convattn.inference.batch_jobs import plan, upscale_files
from convattn.inference.upscaler import Upscaler
from convattn.models.registry import build

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "nano.safetensors"
    save_network(build("esc-nano", 2), str(file))
    return Settings(model=str(file), scale=2, device="cpu")


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_results_names_and_failures_are_those_of_one_machine(settings, folder, tmp_path):
    (folder / "broken.png").write_bytes(b"\x89PNG broken")
    seen: list[int] = []
    many, one = tmp_path / "many", tmp_path / "one"
    summary = upscale_on_cluster([str(folder)], str(many), settings, progress=lambda s: seen.append(s.left))
    errors = upscale_files(Upscaler(settings.model, 2, device="cpu"), plan([str(folder)], str(one)))
    assert contents(many) == contents(one)
    assert [failure.reason for failure in summary.failures] == [str(error) for error in errors]
    assert (summary.done, summary.left, len(seen)) == (summary.found - 1, 0, summary.found)


def test_jobs_are_found_lazily(folder, monkeypatch):
    listed = []

    def listing(address):
        for name in ("a.png", "b.png", "c.png"):
            listed.append(name)
            yield name

    monkeypatch.setattr("convattn.cluster.jobs.list_files", listing)
    jobs = find_jobs([str(folder)], "out")
    next(jobs)
    assert listed == ["a.png"]


def test_existing_results_are_refused_skipped_or_overwritten(settings, folder, tmp_path):
    job = RemoteJob(str(folder / "a.png"), str(tmp_path / "a.png"))
    assert images._Worker(settings, threads=1).upscale(job) is None
    before = (tmp_path / "a.png").stat().st_mtime_ns
    assert "exists already" in images._Worker(settings, threads=1).upscale(job)
    assert images._Worker(replace(settings, existing="skip"), threads=1).upscale(job) is None
    assert (tmp_path / "a.png").stat().st_mtime_ns == before
    assert images._Worker(replace(settings, existing="overwrite"), threads=1).upscale(job) is None
    assert (tmp_path / "a.png").stat().st_mtime_ns > before


class _Killed(images._Worker):
    """Dies at one image: the first time only, or each time."""

    def upscale(self, job):
        mark = job.source + ".mark"
        if "once" in job.source and not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if "always" in job.source:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().upscale(job)


def test_a_killed_worker_costs_only_the_image_that_kills_it(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_Worker", _Killed)
    (tmp_path / "in").mkdir()
    for name in ("1.png", "once.png", "always.png", "4.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "in" / name)
    summary = upscale_on_cluster([str(tmp_path / "in")], str(tmp_path / "out"), settings)
    assert [os.path.basename(failure.source) for failure in summary.failures] == ["always.png"]
    assert "3 times" in summary.failures[0].reason
    done = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert done == ["1.png", "4.png", "once.png"]


def test_nothing_found_is_one_sentence(settings, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image"):
        upscale_on_cluster([str(tmp_path / "empty")], str(tmp_path / "out"), settings)


def test_a_wrong_model_fails_at_once(tmp_path):
    with pytest.raises(InputError):
        upscale_on_cluster([str(tmp_path)], str(tmp_path / "out"), Settings(model="no-such-model"))


def test_what_is_left_is_counted():
    assert Summary(found=5, done=2, failures=[images.Failure("a", "b")]).left == 2


class _Unstartable(images._Worker):
    def __init__(self, settings, threads):
        raise RuntimeError("no such file on this machine")


def test_workers_that_cannot_start_are_one_sentence(settings, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_Worker", _Unstartable)
    with pytest.raises(InputError, match="No worker starts"):
        upscale_on_cluster([str(folder)], str(tmp_path / "out"), settings)


def test_the_command_line_upscales_on_a_cluster(settings, folder, tmp_path, command):
    (folder / "broken.png").write_bytes(b"\x89PNG broken")
    words = ["upscale", folder, "-o", tmp_path / "out", "--model", settings.model, "--device", "cpu"]
    ended = command(*words, "--cluster", "auto")
    assert ended.status == 1
    assert "1 of 6 images failed" in ended.err
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 5
