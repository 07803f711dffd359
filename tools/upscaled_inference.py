"""Detection on images that super-resolution or bilinear interpolation has upscaled, with the same detector.

    python tools/upscaled_inference.py WEIGHTS DATA.yaml --imgsz 160 --scale 2

Prints AP, AP of small objects, their recall and the computing time of an image, relative to the first row:
the detector at imgsz, then at scale × imgsz, where Ultralytics interpolates, then the same after a model of
convattn has upscaled the image.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from ultralytics import YOLO

from convattn import Upscaler
from convattn_yolo.comparison.accuracy import coco_metrics, ground_truth
from convattn_yolo.comparison.dataset import resolve_dataset

Detect = Callable[[np.ndarray], list[dict[str, Any]]]
METRICS = ("AP", "AP_small", "AR_small")


def detector(weights: str, imgsz: int, upscaler: Upscaler | None = None, scale: int = 1) -> Detect:
    """Return a function from an image to its detections in pixels of that image."""
    model = YOLO(weights)

    def detect(pixels: np.ndarray) -> list[dict[str, Any]]:
        larger = pixels if upscaler is None else upscaler(pixels)
        result = model.predict(larger[..., ::-1], imgsz=imgsz, conf=0.001, device="cpu", verbose=False)[0]
        boxes = result.boxes.xyxy.numpy() / scale
        return [
            {"category_id": int(cls), "bbox": [*box[:2], *(box[2:] - box[:2])], "score": float(score)}
            for box, cls, score in zip(boxes, result.boxes.cls, result.boxes.conf, strict=True)
        ]

    return detect


def measure(detect: Detect, truth: Mapping[str, Any]) -> tuple[dict[str, float], float]:
    """COCO's metrics of a way to detect, and the median of its computing time, in seconds."""
    detections: list[dict[str, Any]] = []
    seconds = []
    for image in truth["images"]:
        pixels = np.asarray(ImageOps.exif_transpose(Image.open(image["file_name"])).convert("RGB"))
        start = time.process_time()
        found = detect(pixels)
        seconds.append(time.process_time() - start)
        detections += [{"image_id": image["id"], **one} for one in found]
    return coco_metrics(truth, detections), float(np.median(seconds))


def main() -> None:
    """Read the arguments and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights")
    parser.add_argument("data", help="a data.yaml")
    parser.add_argument("--imgsz", type=int, default=640, help="side of the images")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--model", default="esc-nano", help="a model of convattn")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    weights, scale, side = arguments.weights, arguments.scale, arguments.imgsz * arguments.scale
    ways = {
        f"imgsz {arguments.imgsz}": detector(weights, arguments.imgsz),
        f"imgsz {side}": detector(weights, side),
        f"{arguments.model} ×{scale}, imgsz {side}": detector(
            weights, side, Upscaler(arguments.model, scale=scale, device="cpu"), scale
        ),
    }
    truth = ground_truth(resolve_dataset(arguments.data))
    results = {name: measure(detect, truth) for name, detect in ways.items()}
    _, unit = next(iter(results.values()))
    print("| | " + " | ".join(METRICS) + " | time × |")
    for name, (metrics, seconds) in results.items():
        figures = " | ".join(f"{metrics[metric]:.3f}" for metric in METRICS)
        print(f"| {name} | {figures} | {seconds / unit:.2f} |")


if __name__ == "__main__":
    main()
