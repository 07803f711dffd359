"""What happens to others when something goes wrong."""

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from .conftest import eventually, running


def test_crash_takes_nothing_with_it(tmp_path: Path, png: Callable[..., bytes]) -> None:
    with running(tmp_path / "tmp") as server:
        poisonous, innocent = server.start_job(png(900, 900), scale=4), server.start_job(png(), scale=2)
        server.wait_for(poisonous, "running")
        (worker,) = server.workers
        worker.kill()
        server.wait_for(innocent, "done")
        answer = server.client.get(f"/v1/jobs/{poisonous}/result")
        assert (answer.status_code, "crashed" in answer.json()["detail"]) == (500, True)
        assert "convattn_worker_crashes_total 1.0" in server.client.get("/metrics").text
        assert len(server.uploads) == 1


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no such signals")
def test_killed_server_leaves_nothing(tmp_path: Path, png: Callable[..., bytes]) -> None:
    with running(tmp_path / "tmp") as server:
        server.wait_for(server.start_job(png(900, 900), scale=4), "running")
        workers = server.workers
        server.process.kill()
        server.process.wait()
        _, alive = psutil.wait_procs(workers, 10)
        assert alive == []
        assert list(server.folder.iterdir()) == []


def test_a_stopping_server_finishes_running_jobs(tmp_path: Path, png: Callable[..., bytes]) -> None:
    with running(tmp_path / "tmp") as server, ThreadPoolExecutor() as threads:
        sent = [
            threads.submit(httpx.post, f"{server.url}/v1/upscale", content=png(192, 192)) for _ in range(3)
        ]
        eventually(lambda: server.client.get("/healthz").json()["waiting"] == 2)
        workers = server.workers
        server.process.terminate()
        assert sorted(answer.result().status_code for answer in sent) == [200, 503, 503]
        assert server.process.wait(30) == 0
        assert not any(worker.is_running() for worker in workers)
        assert list(server.folder.iterdir()) == []


def test_many_clients_share_a_short_queue(tmp_path: Path, png: Callable[..., bytes]) -> None:
    images = {seed: png(16, 16, seed=seed) for seed in range(4)}

    def ask(number: int) -> tuple[Any, ...]:
        rejected = 0
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while (answer := client.post("/v1/upscale", content=images[number % 4])).status_code == 429:
                assert int(answer.headers["retry-after"]) >= 1
                rejected += 1
                time.sleep(0.3)
        return number % 4, answer.status_code, answer.content, rejected

    with running(tmp_path / "tmp", "--queue", 4) as server:
        expected = {
            seed: server.client.post("/v1/upscale", content=image).content for seed, image in images.items()
        }
        with ThreadPoolExecutor(24) as threads:
            answers = list(threads.map(ask, range(24)))
        assert all((status, body) == (200, expected[seed]) for seed, status, body, _ in answers)
        assert sum(rejected for *_, rejected in answers) > 0
        eventually(lambda: not server.uploads)
