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
    order = scores.argsort(descending=True, stable=True)
    kept = [order[:0]]
    while len(order):
        block, order = order[:_BLOCK], order[_BLOCK:]
        overlaps = _iou(boxes[block], boxes[block]) > iou_threshold
        kept.append(block[_survivors(overlaps.triu(1))])
        order = order[~(_iou(boxes[kept[-1]], boxes[order]) > iou_threshold).any(0)]
    return torch.cat(kept)


_BLOCK = 256  # boxes compared with each other at once


def _survivors(overlaps: Tensor) -> Tensor:
    """Which boxes no surviving box before them overlaps, of (N, N) with earlier boxes in rows."""
    survives = overlaps.new_ones(len(overlaps))
    while True:  # each round settles one box more at least, and most often all
        before, survives = survives, ~overlaps[survives].any(0)
        if torch.equal(before, survives):
            return survives


def _iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of (N, 4) with (M, 4): (N, M), and not a number for two empty boxes."""
    low = torch.maximum(boxes[:, None, :2], others[:, :2])
    high = torch.minimum(boxes[:, None, 2:], others[:, 2:])
    intersection = (high - low).clamp(min=0).prod(2)
    areas, other_areas = ((b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, others))
    return intersection / (areas[:, None] + other_areas - intersection)


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
