"""Average precision and recall by the size of objects."""

import math

import numpy as np
import pytest

from convattn.errors import InputError
from convattn_yolo.comparison.accuracy import coco_format, coco_metrics, count_by_size


def _truth(*boxes: tuple[float, float, float, float]) -> dict:
    """One image of 400×300 with boxes of one class: left, top, width, height in pixels."""
    rows = [((x + w / 2) / 400, (y + h / 2) / 300, w / 400, h / 300) for x, y, w, h in boxes]
    label = {
        "im_file": "a/007.jpg",
        "shape": (300, 400),
        "cls": np.zeros((len(rows), 1)),
        "bboxes": np.array(rows),
    }
    return coco_format([label], {0: "thing"})


def _detection(box: tuple[float, float, float, float], score: float = 0.9) -> dict:
    return {"image_id": 1, "category_id": 0, "bbox": list(box), "score": score}


TINY = (100, 10, 9, 7)
SMALL, MEDIUM, LARGE = (10, 10, 20, 20), (50, 50, 40, 60), (150, 100, 200, 150)


def test_labels_become_boxes_in_pixels_of_the_original_image() -> None:
    truth = _truth(SMALL, MEDIUM)
    assert truth["images"] == [{"id": 1, "file_name": "a/007.jpg", "width": 400, "height": 300}]
    assert [annotation["bbox"] for annotation in truth["annotations"]] == [
        pytest.approx(SMALL),
        pytest.approx(MEDIUM),
    ]
    assert [annotation["area"] for annotation in truth["annotations"]] == pytest.approx([400, 2400])


def test_objects_are_counted_by_their_area() -> None:
    truth = _truth(SMALL, SMALL, MEDIUM, (0, 0, 33, 32), (0, 0, 97, 96))
    assert count_by_size(truth) == {"tiny": 0, "small": 2, "medium": 2, "large": 1}
    assert count_by_size(_truth(SMALL, TINY)) == {"tiny": 1, "small": 2, "medium": 0, "large": 0}


def test_average_precision_by_size() -> None:
    found = coco_metrics(_truth(SMALL, MEDIUM, LARGE), [_detection(SMALL), _detection(LARGE, 0.8)])
    # Two of three are found without a mistake: precision is 1 at the recall points 0.00 to 0.66, 0 above.
    expected = {"AP": 67 / 101, "AP50": 67 / 101, "AP_small": 1, "AP_medium": 0, "AP_large": 1, "AR_small": 1}
    assert found == pytest.approx(expected | {"AP_tiny": math.nan}, nan_ok=True)


def test_tiny_objects_and_the_recall_of_small_ones() -> None:
    found = coco_metrics(_truth(TINY, SMALL, MEDIUM), [_detection(TINY), _detection(MEDIUM, 0.8)])
    # One of two small objects is found without a mistake: precision is 1 at the recall points 0.00 to 0.50.
    assert found["AP_tiny"] == pytest.approx(1)
    assert found["AP_small"] == pytest.approx(51 / 101)
    assert found["AR_small"] == pytest.approx(0.5)


def test_average_precision_over_overlaps() -> None:
    left, top, width, height = LARGE
    overlap = _detection((left, top, 0.72 * width, height))  # good enough for 0.50, 0.55, 0.60, 0.65 and 0.70
    found = coco_metrics(_truth(LARGE), [overlap])
    assert (found["AP"], found["AP50"], found["AP_large"]) == pytest.approx((0.5, 1, 0.5))


def test_false_positives_of_another_size_do_not_count() -> None:
    found = coco_metrics(_truth(SMALL), [_detection(LARGE, 0.95), _detection(SMALL)])
    assert found["AP_small"] == pytest.approx(1)
    assert found["AP"] == pytest.approx(0.5)


def test_without_detections_or_without_objects_of_a_size() -> None:
    found = coco_metrics(_truth(SMALL), [])
    assert (found["AP"], found["AP_small"]) == (0, 0)
    assert math.isnan(found["AP_large"])


def test_images_with_the_same_name_are_refused() -> None:
    labels = [
        {"im_file": file, "shape": (9, 9), "cls": np.zeros((1, 1)), "bboxes": np.full((1, 4), 0.5)}
        for file in ("a/7.jpg", "b/007.png")
    ]
    with pytest.raises(InputError, match=r"a/7.jpg and b/007.png have the same name"):
        coco_format(labels, {0: "thing"})


def test_labels_without_objects_are_refused() -> None:
    with pytest.raises(InputError, match="no labeled objects"):
        _truth()
