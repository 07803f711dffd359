from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("ultralytics")
pytest.importorskip("sahi")

from ultralytics import YOLO

SIDE = 96
THRESHOLD = 0.9


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sahi") / "detector.pt"
    torch.manual_seed(0)
    detector = YOLO("yolo26n-C3k2_ESC-finest.yaml")
    _normalize(detector.model, torch.rand(4, 3, SIDE, SIDE))
    head = detector.model.model[-1]
    for boxes, classes in ((head.cv2, head.cv3), (head.one2one_cv2, head.one2one_cv3)):
        for box, cls in zip(boxes, classes, strict=True):
            torch.nn.init.zeros_(box[-1].weight)  # all boxes are squares
            torch.nn.init.zeros_(cls[-1].bias)  # half of everything is an object
    detector.save(file)
    return file


def _normalize(network: torch.nn.Module, images: torch.Tensor) -> None:
    """Let batch normalisation know an untrained network's features, or none would depend on the image."""
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    network.train()(images)
    network.eval()


def _boxes_slice_by_slice(weights: Path, image: np.ndarray) -> np.ndarray:
    """What the detector finds in each square by itself, in pixels of the whole image."""
    model, found = YOLO(weights), []
    for top in range(0, image.shape[0], SIDE):
        for left in range(0, image.shape[1], SIDE):
            square = image[top : top + SIDE, left : left + SIDE, ::-1]
            result = model.predict(square, imgsz=SIDE, conf=THRESHOLD, verbose=False)[0]
            found.append(np.add(result.boxes.xyxy.numpy(), [left, top, left, top]))
    return np.concatenate(found)


def test_sliced_inference_finds_what_each_slice_holds(weights: Path) -> None:
    from sahi import AutoDetectionModel
    from sahi.predict import get_sliced_prediction

    image = np.random.default_rng(0).integers(0, 256, (2 * SIDE, 3 * SIDE, 3), np.uint8)
    detector = AutoDetectionModel.from_pretrained(
        "ultralytics", model_path=str(weights), confidence_threshold=THRESHOLD, image_size=SIDE, device="cpu"
    )
    result = get_sliced_prediction(
        image,
        detector,
        slice_height=SIDE,
        slice_width=SIDE,
        overlap_height_ratio=0.0,
        overlap_width_ratio=0.0,
        perform_standard_pred=False,
        postprocess_match_threshold=1.1,  # nothing is merged
        verbose=0,
    )
    found = np.array([prediction.bbox.to_xyxy() for prediction in result.object_prediction_list])
    expected = _boxes_slice_by_slice(weights, image)
    assert len(expected) > 0
    assert np.sort(found, axis=0) == pytest.approx(np.sort(expected, axis=0), abs=1e-3)
