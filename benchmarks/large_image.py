"""A large image from file to file: time, peak memory of the process, and disk for temporary files.

    python benchmarks/large_image.py [--network esc-nano] [--scale 4] [--side 2500] [--threads 1]

By default the result has 100 megapixels. The image is noise of all sizes, made for the occasion. It is
upscaled by the command line in a process of its own, which is watched from here. Linux only.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pyvips

from convattn.images.memmap import temporary_folder


def make(path: Path, side: int) -> None:
    """Three channels of noise, blurred by several amounts, as a PNG file."""
    noise = [
        sum(
            pyvips.Image.gaussnoise(-(-side // size), -(-side // size), mean=0, sigma=12, seed=band)
            .resize(size)
            .crop(0, 0, side, side)
            for size in (1, 8, 64)
        )
        for band in range(3)
    ]
    image = (noise[0].bandjoin(noise[1:]) + 128).cast("uchar").copy(interpretation="srgb")
    image.pngsave(str(path), compression=1)


def bytes_of_files(process: int) -> int:
    """On the disk, of the temporary files that a process holds open."""
    total, folder = 0, str(temporary_folder())
    with suppress(OSError):  # files and process may end meanwhile
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            if os.readlink(descriptor).startswith(folder):
                total += descriptor.stat().st_blocks * 512
    return total


def run(command: list[str], threads: int) -> tuple[float, int]:
    """Run a command, and return the seconds and the bytes of temporary files that it took."""
    names = ("OMP_NUM_THREADS", "VIPS_CONCURRENCY")
    start, disk = time.perf_counter(), 0
    running = subprocess.Popen(command, env=os.environ | dict.fromkeys(names, str(threads)))
    while running.poll() is None:
        disk = max(disk, bytes_of_files(running.pid))
        time.sleep(0.5)
    if running.returncode:
        sys.exit("The image was not upscaled.")
    return time.perf_counter() - start, disk


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="esc-nano")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--side", type=int, default=2500)
    parser.add_argument("--format", default="png")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.png", Path(folder) / f"target.{arguments.format}"
        make(source, arguments.side)
        command = [str(Path(sys.executable).with_name("convattn")), "upscale", str(source), "-o", str(target)]
        command += ["--model", arguments.network, "--scale", str(arguments.scale), "--device", "cpu"]
        seconds, disk = run(command, arguments.threads)
        used, result = resource.getrusage(resource.RUSAGE_CHILDREN), pyvips.Image.new_from_file(str(target))
        computing = used.ru_utime + used.ru_stime
        print(f"{arguments.network} x{arguments.scale} to {result.width}x{result.height} pixels")
        print(
            f"time        {seconds:6.0f} s, {computing:.0f} s of computing by {arguments.threads} thread(s)"
        )
        print(f"peak memory {used.ru_maxrss * 1024 / 1e9:6.2f} GB")
        print(f"disk        {disk / 1e9:6.2f} GB of temporary files")


if __name__ == "__main__":
    main()
