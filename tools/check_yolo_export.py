"""Export a detector to every format a CPU can run and compare its detections with PyTorch's. Run by hand.

python tools/check_yolo_export.py weights.pt picture.jpg
"""

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
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


def main(
    weights: Path, picture: Path, size: Annotated[int, typer.Option(help="Picture side.")] = 320
) -> None:
    """Print a table with a row for each export."""
    warnings.filterwarnings("ignore")
    table = Table("export", "detections", "of PyTorch's", "lowest overlap", "largest difference in score")
    for name, options in EXPORTS.items():
        table.add_row(name, *_compare(weights, picture, size, dict(options)))
    Console().print(table)


def _compare(weights: Path, picture: Path, size: int, options: dict[str, Any]) -> list[str]:
    expected = _detect(weights, picture, size, options.get("nms"))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(weights, folder))
        try:
            found = _detect(
                YOLO(copy).export(imgsz=size, device="cpu", **options), picture, size, options.get("nms")
            )
        except Exception as error:
            return [f"{type(error).__name__}: {str(error).splitlines()[0]}", "", "", ""]
    if not len(found) or not len(expected):
        return [str(len(found)), str(len(expected)), "", ""]
    overlap, match = box_iou(expected[:, :4], found[:, :4]).max(1)
    scores = (expected[:, 4] - found[match, 4]).abs().max()
    return [str(len(found)), str(len(expected)), f"{overlap.min():.4f}", f"{scores:.1e}"]


def _detect(model: str | Path, picture: Path, size: int, nms: bool | None) -> torch.Tensor:
    head = {} if nms is None else {"nms": nms}
    result = YOLO(model, task="detect").predict(
        picture, imgsz=size, rect=False, device="cpu", verbose=False, **head
    )
    return result[0].boxes.data


if __name__ == "__main__":
    typer.run(main)
