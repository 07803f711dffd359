"""Whole images at several sizes against sliced inference through sahi, with the same detector.

    python tools/sliced_inference.py WEIGHTS DATA.yaml --imgsz 640 1280 1920 --slice 320

Prints AP, AP of small objects, their recall, and seconds an image on one thread. Detections count from a
score of 0.05; sahi then suppresses by IoU, as Ultralytics does.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from sahi import AutoDetectionModel
from sahi.predict import get_prediction, get_sliced_prediction

from convattn_yolo.comparison.accuracy import coco_metrics, ground_truth
from convattn_yolo.comparison.dataset import resolve_dataset

Predict = Callable[[np.ndarray], Any]
METRICS = ("AP", "AP_small", "AR_small")


def detector(weights: str, imgsz: int) -> Any:
    """The detector as sahi runs it."""
    return AutoDetectionModel.from_pretrained(
        "ultralytics", model_path=weights, confidence_threshold=0.05, image_size=imgsz, device="cpu"
    )


def measure(predict: Predict, truth: Mapping[str, Any]) -> tuple[dict[str, float], float]:
    """COCO's metrics of a way to predict, and its seconds an image."""
    detections: list[dict[str, Any]] = []
    seconds = 0.0
    for image in truth["images"]:
        pixels = np.asarray(ImageOps.exif_transpose(Image.open(image["file_name"])).convert("RGB"))
        start = time.perf_counter()
        result = predict(pixels)
        seconds += time.perf_counter() - start
        detections += [
            {
                "image_id": image["id"],
                "category_id": found.category.id,
                "bbox": found.bbox.to_xywh(),
                "score": found.score.value,
            }
            for found in result.object_prediction_list
        ]
    return coco_metrics(truth, detections), seconds / len(truth["images"])


def main() -> None:
    """Read the arguments and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights")
    parser.add_argument("data", help="a data.yaml")
    parser.add_argument("--imgsz", type=int, nargs="*", default=[640], help="sides of whole images")
    parser.add_argument("--slice", type=int, default=320, help="side of a slice; slices overlap by a fifth")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    truth = ground_truth(resolve_dataset(arguments.data))
    slicing = detector(arguments.weights, arguments.slice)

    def sliced(pixels: np.ndarray) -> Any:
        return get_sliced_prediction(
            pixels,
            slicing,
            slice_height=arguments.slice,
            slice_width=arguments.slice,
            overlap_height_ratio=0.2,
            overlap_width_ratio=0.2,
            perform_standard_pred=False,
            verbose=0,
        )

    ways: dict[str, Predict] = {}
    for side in arguments.imgsz:
        whole = detector(arguments.weights, side)
        ways[f"whole, imgsz {side}"] = lambda pixels, whole=whole: get_prediction(pixels, whole)
    ways[f"slices of {arguments.slice}"] = sliced
    print("| | " + " | ".join(METRICS) + " | s an image |")
    for name, predict in ways.items():
        metrics, seconds = measure(predict, truth)
        print(
            f"| {name} | "
            + " | ".join(f"{metrics[metric]:.3f}" for metric in METRICS)
            + f" | {seconds:.2f} |"
        )


if __name__ == "__main__":
    main()
