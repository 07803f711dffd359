"""Measure the cluster: the speed-up of two workers, and the memory of a long listing.

python benchmarks/cluster.py [--images 200] [--names 100000]

Both runs upscale the same images on a local Ray cluster, of one core and of two, alternating.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def run_workers(cores: int, folder: str, output: str) -> None:
    """Print the images a second of so many workers, after each of them has worked once."""
    import ray

    from convattn.cluster import Settings, upscale_on_cluster

    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (as the driver's, so that both share the cores fairly)
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    times: list[float] = []

    settings = Settings(scale=2, device="cpu")
    upscale_on_cluster([folder], output, settings, progress=lambda _: times.append(time.perf_counter()))
    print((len(times) - 1 - 2 * cores) / (times[-1] - times[2 * cores]))


def run_listing(folder: str) -> None:
    """Print the growth of the process, in MB, while it lists a folder and names the results."""
    from convattn.cluster.finding import find_jobs

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    listed = sum(1 for _ in find_jobs([folder], "out"))
    assert listed
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def in_a_process(*words: object) -> float:
    """Return what this program prints when it is run with some arguments."""
    command = [sys.executable, __file__, *map(str, words)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def listing_memory(count: int) -> float:
    """Return the memory, in MB, for listing so many files in one folder."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            Path(folder, f"photo-{number}.png").touch()
        return in_a_process("--listing", folder)


def main() -> None:
    """Run the measurements."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--names", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", nargs=3)
    parser.add_argument("--listing")
    arguments = parser.parse_args()
    if arguments.workers:
        cores, folder, output = arguments.workers
        return run_workers(int(cores), folder, output)
    if arguments.listing:
        return run_listing(arguments.listing)
    print(f"{arguments.names} names in one folder listed in {listing_memory(arguments.names):.0f} MB")

    from convattn.images.io import Image, write_image

    random = np.random.default_rng(0)
    speeds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.images):
            pixels = random.integers(0, 256, (arguments.side, arguments.side, 3), dtype=np.uint8)
            write_image(Image(pixels), Path(folder) / "in" / f"{number}.png")
        for round_ in range(arguments.rounds):
            for cores in speeds:
                output = f"{folder}/{round_}-{cores}"
                speeds[cores].append(in_a_process("--workers", cores, f"{folder}/in", output))
    one, two = (statistics.median(values) for values in speeds.values())
    print(f"1 worker {one:.1f} images/s, 2 workers {two:.1f} images/s, speed-up {two / one:.2f} ×")
    return None


if __name__ == "__main__":
    main()
