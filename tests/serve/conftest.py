"""A server of its own process, as users run it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from convattn.images.io import Image, write_image

pytest.importorskip("fastapi", reason="needs the extra serve")


@dataclass
class Server:
    """A running server.

    Attributes:
        url: Its address.
        process: The server process.
        client: Sends requests to it.
        folder: Its temporary folder.
        greeting: The line that it prints when it is ready.
    """

    url: str
    process: subprocess.Popen[str]
    client: httpx.Client
    folder: Path
    greeting: str

    @property
    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    @property
    def uploads(self) -> set[Path]:
        """The uploaded files that lie on the disk; folders may vanish while they are listed."""
        return {
            Path(folder, name)
            for folder, _, names in os.walk(self.folder)
            for name in names
            if name.startswith("source")
        }

    def start_job(self, image: bytes, **options: object) -> str:
        headers = {"Prefer": "respond-async"}
        answer = self.client.post("/v1/upscale", params=options, content=image, headers=headers)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def wait_for(self, id: str, state: str) -> None:
        eventually(lambda: self.client.get(f"/v1/jobs/{id}").json()["state"] == state)


def eventually(look: Callable[[], object], seconds: float = 60) -> object:
    """What a function returns once that is true."""
    end = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < end, f"{look} stays {seen!r}"
        time.sleep(0.02)
    return seen


@contextmanager
def running(folder: Path, *arguments: object, host: str = "127.0.0.1") -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(exist_ok=True)
    words = ["serve", "--host", host, "--port", port, "--workers", 1, *arguments]
    process = subprocess.Popen(
        [sys.executable, "-m", "convattn", *map(str, words)],
        env={**os.environ, "TMPDIR": str(folder), "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.PIPE,
        text=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        assert process.stdout
        greeting = process.stdout.readline()
        assert greeting, f"the server ended with {process.wait()}"
        with httpx.Client(base_url=url, timeout=120) as client:
            yield Server(url, process, client, folder, greeting)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = ("--jobs-per-client", 32, "--max-upload", 8, "--max-pixels", 2, "--max-frames", 40)
    with running(tmp_path_factory.mktemp("server") / "tmp", *limits) as server:
        yield server


@pytest.fixture(scope="session")
def png(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """Makes PNG files of random pixels."""
    folder = tmp_path_factory.mktemp("images")

    def make(
        height: int = 32, width: int = 48, channels: int = 3, dtype: type = np.uint8, seed: int = 0
    ) -> bytes:
        shape, highest = (height, width, channels), np.iinfo(dtype).max
        pixels = np.random.default_rng(seed).integers(0, highest, shape, dtype, endpoint=True)
        write_image(Image(pixels), folder / "image.png")
        return (folder / "image.png").read_bytes()

    return make
