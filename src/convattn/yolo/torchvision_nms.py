"""Non-maximum suppression in plain PyTorch, for a torchvision whose own operators cannot be loaded.

That happens when torch and torchvision are builds for different devices or versions. Such a torchvision
cannot even be imported, though of its operators Ultralytics needs but this one.
"""

import logging
import sys
from types import ModuleType

import torch
from torch import Tensor

__all__ = ["define_nms", "nms"]

_library: torch.library.Library | None = None


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Keep the boxes that no kept box of a higher score overlaps by more than the threshold.

    Args:
        boxes: Corners x1, y1, x2, y2, (N, 4).
        scores: (N,).
        iou_threshold: Largest intersection over union with a kept box, from 0 to 1.

    Returns:
        Indices of the kept boxes in the order of falling scores, int64.
    """
    # As torchvision's kernels do, half precision is computed in float32.
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    order = scores.argsort(descending=True, stable=True)
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        low = torch.maximum(boxes[best, :2], boxes[rest, :2])
        high = torch.minimum(boxes[best, 2:], boxes[rest, 2:])
        intersection = (high - low).clamp(min=0).prod(1)
        iou = intersection / (areas[best] + areas[rest] - intersection)
        order = rest[~(iou > iou_threshold)]  # the ratio of two empty boxes is not a number: both stay
    return torch.stack(kept) if kept else order


def define_nms(extension: ModuleType) -> None:
    """Define the operator ``torchvision::nms`` where torchvision could not load its own.

    Args:
        extension: The module ``torchvision.extension``, just executed and nothing of torchvision after it.
    """
    global _library
    if extension._has_ops() or _library is not None:
        return
    _library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):  # torchvision 0.28 will not import without the quantised one, nor compute it
        _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.impl("nms", nms, "CompositeExplicitAutograd")
    extension._assert_has_ops = lambda: None  # type: ignore[attr-defined]
    if "ultralytics" not in sys.modules:
        return  # nobody else needs to know
    logging.getLogger("ultralytics").warning(
        "torchvision cannot load its operators beside torch %s, so convattn provides nms; the right build "
        "comes with: pip install --force-reinstall torchvision --index-url https://download.pytorch.org/whl/%s",
        torch.__version__,
        _index(),
    )


def _index() -> str:
    """The part of PyTorch's package index that matches the torch at hand."""
    if torch.version.hip:
        return f"rocm{'.'.join(torch.version.hip.split('.')[:2])}"
    return f"cu{torch.version.cuda.replace('.', '')}" if torch.version.cuda else "cpu"
