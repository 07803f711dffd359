"""The detector that ships with the examples."""

from pathlib import Path

import pytest
from ultralytics import YOLO

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_shipped_detector_detects(tmp_path: Path) -> None:
    weights = EXAMPLES / "bccd-yolo26n-C3k2_ESC-finest.pt"
    assert weights.stat().st_size <= 6_000_000
    data = tmp_path / "data.yaml"
    data.write_text(
        (EXAMPLES / "bccd/data.yaml").read_text().replace("path: .", f"path: {EXAMPLES / 'bccd'}")
    )
    box = (
        YOLO(weights)
        .val(data=data, imgsz=320, batch=1, plots=False, device="cpu", project=tmp_path, workers=0)
        .box
    )
    assert box.map50 == pytest.approx(0.91, abs=0.04)
