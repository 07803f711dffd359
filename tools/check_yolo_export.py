"""Export a detector to every format a CPU can run and compare its detections with PyTorch's. Run by hand.

python tools/check_yolo_export.py weights.pt image.jpg
"""

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from ultralytics import YOLO
from ultralytics.utils.metrics import box_iou

EXPORTS: dict[str, dict[str, Any]] = {
    "TorchScript": {"format": "torchscript"},
    "TorchScript, NMS inside": {"format": "torchscript", "nms": True},
    "ONNX": {"format": "onnx"},
    "ONNX, dynamic": {"format": "onnx", "dynamic": True},
    "ONNX, half precision": {"format": "onnx", "half": True},
    "ONNX, NMS inside": {"format": "onnx", "nms": True},
    "ONNX, NMS-free head": {"format": "onnx", "nms": False},
    "OpenVINO": {"format": "openvino"},
    "OpenVINO, dynamic, half precision": {"format": "openvino", "dynamic": True, "half": True},
}


def main(weights: Path, image: Path, size: Annotated[int, typer.Option(help="Image side.")] = 320) -> None:
    """Print a line for each export."""
    warnings.filterwarnings("ignore")
    for name, options in EXPORTS.items():
        print(f"{name}: {_compare(weights, image, size, dict(options))}", flush=True)


def _compare(weights: Path, image: Path, size: int, options: dict[str, Any]) -> str:
    expected = _detect(weights, image, size, options.get("nms"))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(weights, folder))
        try:
            exported = YOLO(copy).export(imgsz=size, device="cpu", **options)
            found = _detect(exported, image, size, options.get("nms"))
        except Exception as error:
            return f"failed with {type(error).__name__}: {str(error).splitlines()[0]}"
    if not len(found) or not len(expected):
        return f"{len(found)} of {len(expected)} detections"
    overlap, match = box_iou(expected[:, :4], found[:, :4]).max(1)
    scores = (expected[:, 4] - found[match, 4]).abs().max()
    return (
        f"{len(found)} of {len(expected)} detections, overlapping by {overlap.min():.4f} at least, "
        f"scores differ by {scores:.1e} at most"
    )


def _detect(model: str | Path, image: Path, size: int, nms: bool | None) -> torch.Tensor:
    head = {} if nms is None else {"nms": nms}
    result = YOLO(model, task="detect").predict(
        image, imgsz=size, rect=False, device="cpu", verbose=False, **head
    )
    return result[0].boxes.data


if __name__ == "__main__":
    typer.run(main)
