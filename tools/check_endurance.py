"""Check that upscaling holds out: many images, many threads, many processes, a full disk.

python tools/check_endurance.py images      # 500 images through one upscaler: memory, files and threads
python tools/check_endurance.py threads     # 8 threads with two upscalers give what one thread gives
python tools/check_endurance.py processes   # 3 processes write into one folder
sudo mount -t tmpfs -o size=2m none /mnt && python tools/check_endurance.py full-disk --folder /mnt
"""

import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil

from convattn import Upscaler
from convattn.errors import InputError
from convattn.images.io import Image, read_image, write_image
from convattn.inference.batch_jobs import plan, upscale_files

_MEBIBYTE = 2**20


def noise(seed: int, height: int = 64, width: int = 64) -> np.ndarray:
    """Return a random image (height, width, 3), which no format compresses."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def images(folder: Path) -> None:
    """Upscale 500 images of changing sizes by one upscaler and compare the process before and after."""
    upscale, process = Upscaler(scale=2, device="cpu"), psutil.Process()
    measured = []
    for number in range(500):
        height, width = 16 + number * 7 % 80, 16 + number * 13 % 90
        write_image(Image(noise(number, height, width)), folder / "in.png")
        write_image(upscale(folder / "in.png"), folder / "out.png")
        if number in (99, 499):
            memory = process.memory_info().rss / _MEBIBYTE
            measured.append((memory, process.num_fds(), process.num_threads()))
    for name, before, after in zip(("MiB", "files", "threads"), *measured, strict=True):
        print(f"{name}: {before:.0f} after 100 images, {after:.0f} after 500")
    growth = measured[1][0] / measured[0][0] - 1
    assert growth < 0.1, f"memory grew by {growth:.0%}"
    assert measured[0][1:] == measured[1][1:], "files or threads grew"


def threads(folder: Path) -> None:
    """Upscale by two upscalers in 8 threads and compare with one thread."""
    upscalers = Upscaler(scale=2, device="cpu"), Upscaler(scale=3, device="cpu")

    def upscaled(number: int) -> np.ndarray:
        return upscalers[number % 2](noise(number, 40 + number % 5, 50))

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(upscaled, range(48)))
    for number, result in enumerate(together):
        np.testing.assert_array_equal(result, upscaled(number))
    print("48 images by two upscalers in 8 threads are those of one thread")


def processes(folder: Path) -> None:
    """Let three processes upscale one folder into another, and check that every result is whole."""
    for number in range(30):
        write_image(Image(noise(number)), folder / f"in/{number}.png")
    command = [sys.executable, "-m", "convattn", "upscale", str(folder / "in"), "-o", str(folder / "out")]
    running = [
        subprocess.Popen([*command, "--existing", way], stderr=subprocess.DEVNULL)
        for way in ("overwrite", "overwrite", "skip")
    ]
    assert [process.wait() for process in running] == [0, 0, 0]
    results = list((folder / "out").iterdir())
    assert len(results) == 30, sorted(path.name for path in results)
    assert all(read_image(path).pixels.shape == (128, 128, 3) for path in results)
    print("3 processes made 30 whole images and left nothing else")


def full_disk(folder: Path) -> None:
    """Fill a small file system by a large image, and go on with a small one; then the same with a video."""
    with tempfile.TemporaryDirectory() as elsewhere:
        write_image(Image(noise(0, 900, 900)), Path(elsewhere, "in/1-large.png"))
        write_image(Image(noise(1, 16, 16)), Path(elsewhere, "in/2-small.png"))
        upscale = Upscaler(scale=2, device="cpu")
        errors = upscale_files(upscale, plan([f"{elsewhere}/in"], folder / "out"), existing="overwrite")
        assert len(errors) == 1, errors
        print(errors[0])
        assert [path.name for path in (folder / "out").iterdir()] == ["2-small.png"]
        _full_disk_with_video(Path(elsewhere), folder)


def _full_disk_with_video(elsewhere: Path, folder: Path) -> None:
    from convattn.video import upscale_video

    for number in range(16):
        write_image(Image(noise(number, 300, 400)), elsewhere / f"frames/{number}.png")
    target = folder / "video.mkv"
    target.write_bytes(b"older")
    try:
        upscale_video(elsewhere / "frames", target, lambda x: x, codec="ffv1")
    except InputError as error:
        print(error)
    assert target.read_bytes() == b"older"
    assert sorted(path.name for path in folder.iterdir()) == [".video.mkv.parts", "out", "video.mkv"]


def main() -> None:
    """Run one of the checks in a new folder, or in the one that is given."""
    checks = {"images": images, "threads": threads, "processes": processes, "full-disk": full_disk}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("check", choices=checks)
    parser.add_argument("--folder", type=Path, help="a small file system, for full-disk")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if arguments.folder:
        checks[arguments.check](arguments.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        checks[arguments.check](Path(folder))


if __name__ == "__main__":
    main()
