"""Many clients at once through a short queue: is anything lost or wrong, how fast, and in how much memory.

Example: python benchmarks/serve.py --clients 200 --queue 32 --workers 1 2
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import httpx
import numpy as np
import psutil
import pyvips

PORT = 8765
URL = f"http://127.0.0.1:{PORT}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--queue", type=int, default=32)
    parser.add_argument("--side", type=int, default=64, help="of the images, in pixels")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    arguments = parser.parse_args()
    print("| workers | images/s | p50 s | p95 s | retries | server MiB | workers MiB | wrong |")
    print("|---|---|---|---|---|---|---|---|")
    for workers in dict.fromkeys(arguments.workers):
        with serving(workers, arguments.queue) as server:
            print(asyncio.run(measure(server, arguments.clients, arguments.side, workers)), flush=True)


@contextmanager
def serving(workers: int, queue: int):
    words = ["serve", "--port", PORT, "--workers", workers, "--queue", queue, "--jobs-per-client", 10**6]
    command = [sys.executable, "-m", "convattn", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        process.stdout.readline()
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


async def measure(server: psutil.Process, clients: int, side: int, workers: int) -> str:
    images = [noise(side, seed) for seed in range(8)]
    async with httpx.AsyncClient(
        base_url=URL, timeout=600, limits=httpx.Limits(max_connections=None)
    ) as client:
        expected = [(await client.post("/v1/upscale", content=image)).content for image in images]
        await print_overhead(client)
        watch = asyncio.create_task(peak_memory(server))
        start = time.perf_counter()
        asked = (ask(client, images[i % 8], expected[i % 8]) for i in range(clients))
        answers = await asyncio.gather(*asked)
        total = time.perf_counter() - start
        watch.cancel()
        own, others = await watch
    seconds, retries, right = zip(*answers, strict=True)
    p50, p95 = np.percentile(seconds, [50, 95])
    return (
        f"| {workers} | {clients / total:.2f} | {p50:.1f} | {p95:.1f} | {sum(retries)} "
        f"| {own / 2**20:.0f} | {others / 2**20:.0f} | {clients - sum(right)} |"
    )


async def print_overhead(client: httpx.AsyncClient) -> None:
    """How long a single image takes, and how much of that is not its computation."""
    start = time.perf_counter()
    answer = await client.post("/v1/upscale", content=noise(256, 0))
    total = time.perf_counter() - start
    compute = float(answer.headers["server-timing"].rpartition("dur=")[2]) / 1000
    print(f"<!-- 256×256 alone: {total:.2f} s, {total - compute:.3f} s more than its computation -->")


def noise(side: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return pyvips.Image.new_from_array(pixels).pngsave_buffer()


async def ask(client: httpx.AsyncClient, image: bytes, expected: bytes) -> tuple[float, int, bool]:
    """Seconds until the result is there, how often the queue was full, and whether the result is right."""
    start, retries = time.perf_counter(), 0
    while (answer := await client.post("/v1/upscale", content=image)).status_code == 429:
        retries += 1
        await asyncio.sleep(int(answer.headers["retry-after"]))
    return time.perf_counter() - start, retries, answer.content == expected


async def peak_memory(server: psutil.Process) -> tuple[int, int]:
    """Most bytes of the server and of its workers together, until it is cancelled."""
    own = others = 0
    with suppress(asyncio.CancelledError):
        while True:
            own = max(own, server.memory_info().rss)
            with suppress(psutil.NoSuchProcess):
                others = max(others, sum(child.memory_info().rss for child in server.children()))
            await asyncio.sleep(0.2)
    return own, others


if __name__ == "__main__":
    main()
