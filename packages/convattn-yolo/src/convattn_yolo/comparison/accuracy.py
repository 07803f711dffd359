"""Average precision and recall by object size, from YOLO labels and predictions.

The evaluation is COCO's (Lin et al., 2014), computed by faster-coco-eval. Sizes are areas of the labeled
boxes in pixels of the original images, whatever the network's input size: small up to 32², medium 32² to 96²,
large from 96². Tiny, up to 16², is a part of small and not one of COCO's sizes. Up to 300 detections per
image count, which is the number that Ultralytics keeps; COCO counts 100, too few for crowded images.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convattn.errors import InputError

__all__ = [
    "METRICS",
    "SIZES",
    "coco_format",
    "coco_metrics",
    "count_by_size",
    "ground_truth",
    "image_key",
]

SIZES: dict[str, tuple[float, float]] = {
    "tiny": (0, 16**2),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1e10),
}
"""Box areas in square pixels of the original image, both ends included."""

METRICS = ("AP", "AP50", *(f"AP_{size}" for size in SIZES), "AR_small")

_MAX_DETECTIONS = 300


def image_key(path: str | int | Path) -> str:
    """Return the ID of an image in Ultralytics' predictions: its file name without the suffix.

    Ultralytics turns names that are numbers into integers, so ``000123.jpg`` becomes ``123``.
    """
    stem = Path(str(path)).stem
    return str(int(stem)) if stem.isnumeric() else stem


def coco_format(labels: Iterable[Mapping[str, Any]], names: Mapping[int, str]) -> dict[str, Any]:
    """Convert YOLO labels to a COCO annotation dictionary.

    Args:
        labels: One mapping per image: ``im_file``; ``shape``, (height, width) in pixels; ``cls``, (N, 1)
            class indices; ``bboxes``, (N, 4) boxes as center x, center y, width, height, relative to the
            image.
        names: Class index to class name.

    Returns:
        ``images``, ``annotations`` (boxes as left, top, width, height in pixels) and ``categories``; image
        and annotation ids count from 1, category ids are the class indices.

    Raises:
        InputError: Two images have the same name, or there are no boxes.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    for image_id, label in enumerate(labels, start=1):
        file, (height, width) = str(label["im_file"]), label["shape"]
        if (other := seen.setdefault(image_key(file), file)) != file:
            raise InputError(
                f"The validation images {other} and {file} have the same name, so their predictions "
                "cannot be distinguished: rename one of them and its label file."
            )
        images.append({"id": image_id, "file_name": file, "width": int(width), "height": int(height)})
        boxes = np.asarray(label["bboxes"], float).reshape(-1, 2, 2) * [width, height]
        center, size = boxes[:, 0], boxes[:, 1]
        for cls, box in zip(
            np.ravel(label["cls"]), np.hstack([center - size / 2, size]).tolist(), strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(cls),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    if not annotations:
        raise InputError(
            "The validation images have no labeled objects, so accuracy cannot be measured: check the labels."
        )
    categories = [{"id": index, "name": name} for index, name in names.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def ground_truth(data: Mapping[str, Any]) -> dict[str, Any]:
    """Read the labels of a dataset's validation images as a COCO annotation dictionary.

    Args:
        data: A checked dataset as Ultralytics describes it: ``val``, ``names``, ``nc``, ``channels``.

    Raises:
        InputError: As for :func:`coco_format`.
    """
    from ultralytics.data.dataset import YOLODataset

    dataset = YOLODataset(img_path=data["val"], data=dict(data), task="detect", augment=False)
    return coco_format(dataset.labels, data["names"])


def count_by_size(truth: Mapping[str, Any]) -> dict[str, int]:
    """Count the labeled objects in each of :data:`SIZES`."""
    areas = np.array([annotation["area"] for annotation in truth["annotations"]])
    return {size: int(((areas >= low) & (areas <= high)).sum()) for size, (low, high) in SIZES.items()}


def coco_metrics(truth: Mapping[str, Any], detections: list[dict[str, Any]]) -> dict[str, float]:
    """Compute COCO average precision, overall and by object size, and the average recall of small objects.

    Args:
        truth: A COCO annotation dictionary.
        detections: COCO results: ``image_id``, ``category_id``, ``bbox`` (left, top, width, height in pixels
            of the original image), ``score``.

    Returns:
        A value in [0, 1] for each of :data:`METRICS`; NaN for a size that no labeled object has.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    coco = COCO(dict(truth), use_deepcopy=True)
    evaluation = COCOeval_faster(
        coco,
        coco.loadRes([dict(detection) for detection in detections]),
        iouType="bbox",
        ranges={size: list(limits) for size, limits in SIZES.items()},
        print_function=lambda *_: None,
    )
    evaluation.params.maxDets = [_MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    # IoU thresholds × recall points × classes × sizes ("all" first); −1 where a class has no such object.
    precision = np.asarray(evaluation.eval["precision"])[..., -1]
    recall = np.asarray(evaluation.eval["recall"])[..., -1]  # the same without recall points
    every_size, at_half = precision[..., 0], precision[:1, ..., 0]
    small = recall[..., 1 + list(SIZES).index("small")]
    tables = [every_size, at_half, *np.moveaxis(precision[..., 1:], -1, 0), small]
    return {name: _mean_of_known(table) for name, table in zip(METRICS, tables, strict=True)}


def _mean_of_known(table: np.ndarray) -> float:
    known = table[table > -1]
    return float(known.mean()) if known.size else float("nan")
