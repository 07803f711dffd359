"""How busy the network is while a video is upscaled, and how many frames a second are made.

``python benchmarks/video.py [--size 640x360] [--frames 24] [--threads 2] [--models esc-nano FILE …]`` makes a
video and upscales it by 2 with each model: a name, or a file of weights or of an exported network. The result
of a model of a larger scale is resized, as in ``convattn upscale``.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from convattn import Upscaler
from convattn.video import upscale_video


def make_video(path: Path, width: int, height: int, frames: int) -> None:
    """A smooth pattern that moves, with some noise."""
    rows, columns = np.mgrid[:height, :width]
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            waves = [np.sin((columns + 3 * number) / s) + np.cos(rows / s) for s in (11.0, 23.0, 37.0)]
            pixels = 128 + 50 * np.stack(waves, -1) + random.normal(0, 4, (height, width, 3))
            image = pixels.clip(0, 255).astype(np.uint8)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        video.mux(stream.encode(None))


def timed(function: Callable[[Tensor], Tensor], spans: list[float]) -> Callable[[Tensor], Tensor]:
    """The same function, which adds the seconds of each call to a list."""

    def call(x: Tensor) -> Tensor:
        start = time.perf_counter()
        out = function(x)
        spans.append(time.perf_counter() - start)
        return out

    return call


def measure(video: Path, name: str, frames: int) -> None:
    """Print the frames a second of a model, and how busy the network is."""
    upscaler = Upscaler(name, 2, device="cpu")
    spans: list[float] = []
    start = time.perf_counter()
    upscale_video(video, video.with_name("large.mp4"), timed(upscaler, spans), batch_size=1)
    wall = time.perf_counter() - start
    busy = 100 * sum(spans) / wall
    print(f"{name}: {frames / wall:.2f} frames/s; the network is busy {busy:.1f} % of the time")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["esc-nano"])
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "small.mp4"
        make_video(video, width, height, options.frames)
        for name in options.models:
            measure(video, name, options.frames)


if __name__ == "__main__":
    main()
