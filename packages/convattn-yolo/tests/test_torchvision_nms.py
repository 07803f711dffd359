import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convattn_yolo.torchvision_nms import nms


def slow_nms(boxes: list[list[float]], scores: list[float], threshold: float) -> list[int]:
    """The definition, box by box."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


@given(st.integers(0, 60), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_keeps_what_the_definition_keeps(count: int, threshold: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    sides = 0.05 + torch.rand(count, 2, generator=generator, dtype=torch.float64)
    boxes, scores = torch.cat((corners, corners + sides), 1), torch.rand(count, generator=generator)
    assert nms(boxes, scores, threshold).tolist() == slow_nms(boxes.tolist(), scores.tolist(), threshold)


def test_equal_scores_keep_their_order_and_empty_boxes_stay() -> None:
    boxes = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [5, 5, 5, 5], [5, 5, 5, 5]], dtype=torch.float16)
    assert nms(boxes, torch.ones(4), 0.5).tolist() == [0, 2, 3]


@pytest.mark.parametrize(("first", "defined"), [("convattn", "False"), ("ultralytics", "True")])
def test_a_torchvision_without_operators_is_completed_for_ultralytics_only(
    first: str, defined: str, tmp_path: Path
) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text("from torchvision import extension")
    (tmp_path / "torchvision/extension.py").write_text("_has_ops = lambda: False")
    code = (  # without the exception that tests make
        f"import sys, types, torch, convattn\nfrom convattn_yolo import startup\nstartup.install()\n"
        "startup._EXTENSIONS['torchvision.extension'] = startup._extend_torchvision\n"
        f"sys.modules.setdefault({first!r}, types.ModuleType({first!r}))\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\nimport torchvision\n"
        "print(hasattr(torch.ops.torchvision, 'nms'))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == defined


def test_torchvision_can_be_imported_after_ultralytics() -> None:
    """Whether its operators load in this environment or not."""
    code = (
        "import convattn_yolo, ultralytics, torch, torchvision\n"
        "boxes = torch.tensor([[0., 0, 2, 2], [0, 0, 2, 1.9], [3, 3, 4, 4]])\n"
        "print(torchvision.ops.nms(boxes, torch.tensor([.1, .9, .5]), 0.5).tolist())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[1, 2]"
