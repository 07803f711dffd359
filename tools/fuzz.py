"""Feed damaged files to the readers of weights, exports, YAML variants and videos, guided by coverage.

    pip install atheris    # 3.0.0; wheels for Linux, elsewhere it needs LLVM's clang
    python tools/fuzz.py weights --minutes 20    # or: onnx, variants, video

A reader may refuse a file by an InputError and nothing else. Any other error, a call of more than 30 seconds
(raise --timeout on a busy machine) or 3 GiB of memory ends the run; the file is kept as crash-… in the
current folder, and read again by:

    python tools/fuzz.py weights --file crash-…
"""

import argparse
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import atheris

with atheris.instrument_imports(include=["convattn"]):
    import torch

    from convattn.checkpoints.loading import load_network, save_network
    from convattn.errors import InputError
    from convattn.layers import BodyConfig
    from convattn.models.esc import ESC
    from convattn.runtimes.exported import load_exported
    from convattn.video.read import VideoFile

_FRAMES = 40  # that are decoded of one file
_LIMITS = ("-rss_limit_mb=3072", "-max_len=400000")
_ROWS = """
nc: 3
scales: {{n: [0.5, 0.25, 1024]}}
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 2, {block}, {arguments}]
head:
  - [[1], 1, Detect, [nc]]
"""


def _weights(folder: Path) -> Iterator[bytes]:
    body = BodyConfig(
        dim=8,
        large_kernel_dim=4,
        blocks=1,
        layers=1,
        window_size=4,
        heads=2,
        ffn_ratio=1,
        large_kernel_size=3,
    )
    network = ESC(body, scale=2)
    for name in ("a.safetensors", "a.pth"):
        save_network(network, folder / name, layout="reference" if name.endswith("pth") else "convattn")
        yield (folder / name).read_bytes()
    path = folder / "a.ckpt"
    torch.save({"state_dict": {f"network.{k}": v for k, v in network.state_dict().items()}}, path)
    yield path.read_bytes()
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    yield path.read_bytes()


def _read_weights(data: bytes, folder: Path) -> None:
    is_safetensors = data[8:9] == b"{"
    load_network(_written(data, folder / ("weights.safetensors" if is_safetensors else "weights.pth")))


def _onnx(folder: Path) -> Iterator[bytes]:
    import onnx
    from onnx import TensorProto, helper

    sides = [1, 3, "height", "width"]
    for scale in (1, 2):
        scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, scale, scale])
        node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest")
        ends = [
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, sides)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        ]
        graph = helper.make_graph([node], "network", *ends, [scales])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        yield onnx.ModelProto.SerializeToString(model)


def _read_onnx(data: bytes, folder: Path) -> None:
    path = _written(data, folder / "network.onnx")
    with patch("psutil.virtual_memory", lambda: SimpleNamespace(total=2**31)):  # less than the run may take
        load_exported(path)


def _variants(folder: Path) -> Iterator[bytes]:
    with atheris.instrument_imports(include=["convattn_yolo"]):
        from ultralytics.utils import LOGGER

        import_module("ultralytics.nn.tasks")
    LOGGER.setLevel("ERROR")
    for name in (
        "yolo26n-C3k2_ESC",
        "YOLO26-p2-C3k2_ESC-stride8-zero",
        "yolo26s-seg-p4",
        "yolo11n-c3k2-esc-neck",
    ):
        yield f"name {name}.yaml".encode()
    for block, arguments in (("C3k2_ESC", "[128, True]"), ("C3k2_ESCBranch", "[64, False, 0.5]")):
        yield _ROWS.format(block=block, arguments=arguments).encode()


def _read_variant(data: bytes, folder: Path) -> None:
    import yaml
    from ultralytics.nn import tasks

    text = data.decode(errors="replace")
    try:
        if text.startswith("name "):
            tasks.yaml_model_load(text[5:])
        else:
            with torch.device("meta"):
                tasks.parse_model(yaml.safe_load(text), ch=3, verbose=False)
    except InputError:
        raise
    except Exception as error:  # Ultralytics' own complaints are none of our business
        if "convattn_yolo" in traceback.extract_tb(error.__traceback__)[-1].filename:
            raise
        raise InputError(str(error)) from error


def _videos(folder: Path) -> Iterator[bytes]:
    import av

    for suffix, codec in (
        (".mp4", "libx264"),
        (".mkv", "ffv1"),
        (".webm", "libvpx-vp9"),
        (".ts", "mpeg2video"),
    ):
        path = folder / f"video{suffix}"
        with av.open(str(path), "w") as file:
            stream, sound = file.add_stream(codec, rate=25), None
            stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
            if suffix == ".mp4":
                sound = file.add_stream("aac", rate=44100)
            for number in range(6):
                frame = av.VideoFrame(32, 16, "yuv420p")
                frame.pts = number
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
            if sound:
                file.mux(sound.encode(None))
        yield path.read_bytes()


def _read_video(data: bytes, folder: Path) -> None:
    for _ in islice(VideoFile(_written(data, folder / "video")).frames(0), _FRAMES):
        pass


TARGETS: dict[str, tuple[Callable[[Path], Iterator[bytes]], Callable[[bytes, Path], None]]] = {
    "weights": (_weights, _read_weights),
    "onnx": (_onnx, _read_onnx),
    "variants": (_variants, _read_variant),
    "video": (_videos, _read_video),
}
"""Files that are whole, and what reads them and their mutations."""


def _written(data: bytes, path: Path) -> Path:
    path.write_bytes(data)
    return path


def main() -> None:
    """Read one file, or as many mutations of the seeds as the time allows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--timeout", type=int, default=30, help="seconds for one file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--file", type=Path, help="read this file only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    seeds, read = TARGETS[arguments.target]
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))  # atheris ends the process, so nobody can remove it

    def read_one(data: bytes) -> None:
        try:
            read(data, folder)
        except InputError as error:
            if arguments.file:
                print(error)

    if arguments.file:
        return read_one(arguments.file.read_bytes())
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds(folder)):
        (corpus / str(number)).write_bytes(seed)
    options = [*_LIMITS, f"-seed={arguments.seed}", f"-max_total_time={round(arguments.minutes * 60)}"]
    options.append(f"-timeout={arguments.timeout}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    atheris.Setup([sys.argv[0], *options, str(corpus)], read_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
