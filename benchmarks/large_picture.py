"""A large picture from file to file: time, peak memory of the process, and disk for temporary files.

    python benchmarks/large_picture.py [--network esc-nano] [--scale 4] [--side 2500] [--threads 1]

By default the result has 100 megapixels. The picture is noise of all sizes, made for the occasion. It is
enlarged by the command line in a process of its own, which is watched from here. Linux only.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pyvips

from convattn.sr.storage import temporary_folder


def make(path: Path, side: int) -> None:
    """Three bands of noise, blurred by several amounts, as a PNG file."""
    noise = [
        sum(
            pyvips.Image.gaussnoise(-(-side // size), -(-side // size), mean=0, sigma=12, seed=band)
            .resize(size)
            .crop(0, 0, side, side)
            for size in (1, 8, 64)
        )
        for band in range(3)
    ]
    picture = (noise[0].bandjoin(noise[1:]) + 128).cast("uchar").copy(interpretation="srgb")
    picture.pngsave(str(path), compression=1)


def files_of(process: psutil.Process) -> int:
    """Bytes on disk of the temporary files that a process holds open."""
    total, folder = 0, str(temporary_folder())
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            if os.readlink(descriptor).startswith(folder):
                total += descriptor.stat().st_blocks * 512
        except OSError:  # closed meanwhile
            pass
    return total


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
        command = [Path(sys.executable).with_name("convattn"), "upscale", str(source), "-o", str(target)]
        command += ["--model", arguments.network, "--scale", str(arguments.scale), "--device", "cpu"]
        start, disk = time.perf_counter(), 0
        environment = os.environ | {
            "OMP_NUM_THREADS": str(arguments.threads),
            "VIPS_CONCURRENCY": str(arguments.threads),
        }
        running = subprocess.Popen(command, env=environment)
        while running.poll() is None:
            try:
                disk = max(disk, files_of(psutil.Process(running.pid)))
            except (psutil.Error, FileNotFoundError):
                break
            time.sleep(0.5)
        seconds = time.perf_counter() - start
        if running.wait():
            sys.exit("the picture was not enlarged")
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = pyvips.Image.new_from_file(str(target))
        megapixels = result.width * result.height / 1e6
        print(
            f"{arguments.network} x{arguments.scale}, {megapixels:.0f} megapixels, {arguments.threads} thread(s)"
        )
        print(f"time        {seconds:6.0f} s, computing {used.ru_utime + used.ru_stime:.0f} s")
        print(f"peak memory {used.ru_maxrss * 1024 / 1e9:6.2f} GB")
        print(f"disk        {disk / 1e9:6.2f} GB of temporary files")


if __name__ == "__main__":
    main()
