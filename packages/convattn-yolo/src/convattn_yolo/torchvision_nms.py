"""Non-maximum suppression in plain PyTorch, for a torchvision whose own operators cannot be loaded.

That happens when torch and torchvision are builds for different devices or versions. Importing such a
torchvision fails, although this is the only one of its operators that Ultralytics needs.
"""

import logging
from types import ModuleType

import torch
from torch import Tensor

__all__ = ["define_nms", "nms"]

_library: torch.library.Library | None = None


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Select the boxes that overlap no selected box of a higher score by more than the threshold.

    Args:
        boxes: Corners x1, y1, x2, y2, (N, 4).
        scores: (N,).
        iou_threshold: Largest intersection over union with a selected box, from 0 to 1.

    Returns:
        Indices of the selected boxes in descending order of their scores, int64.
    """
    # Half precision is computed in float32, as by torchvision's kernels.
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    order = scores.argsort(descending=True, stable=True)
    kept = [order[:0]]
    while len(order):
        block, order = order[:_BLOCK], order[_BLOCK:]
        overlaps = _iou(boxes[block], boxes[block]) > iou_threshold
        kept.append(block[_survivors(overlaps.triu(1))])
        order = order[~(_iou(boxes[kept[-1]], boxes[order]) > iou_threshold).any(0)]
    return torch.cat(kept)


_BLOCK = 256  # number of boxes compared at once


def _survivors(overlaps: Tensor) -> Tensor:
    """Return which of N boxes overlap no earlier survivor, given overlaps (N, N)."""
    survives = overlaps.new_ones(len(overlaps))
    while True:  # each iteration decides at least one more box, and usually all
        before, survives = survives, ~overlaps[survives].any(0)
        if torch.equal(before, survives):
            return survives


def _iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the intersection over union of (N, 4) and (M, 4), (N, M); NaN for two empty boxes."""
    low = torch.maximum(boxes[:, None, :2], others[:, :2])
    high = torch.minimum(boxes[:, None, 2:], others[:, 2:])
    intersection = (high - low).clamp(min=0).prod(2)
    areas, other_areas = ((b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, others))
    return intersection / (areas[:, None] + other_areas - intersection)


def define_nms(extension: ModuleType) -> None:
    """Define the operator ``torchvision::nms`` if torchvision could not load its own.

    Args:
        extension: The module ``torchvision.extension`` right after its execution.
    """
    global _library
    if extension._has_ops() or _library is not None:
        return
    _library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):  # importing torchvision 0.28 needs qnms declared
        _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.impl("nms", nms, "CompositeExplicitAutograd")
    extension._assert_has_ops = lambda: None  # type: ignore[attr-defined]
    logging.getLogger("ultralytics").warning(
        "torchvision cannot load its operators with torch %s, so convattn-yolo provides nms; install the "
        "matching build: pip install --force-reinstall torchvision --index-url https://download.pytorch.org/whl/%s",
        torch.__version__,
        _index(),
    )


def _index() -> str:
    """Return the name of PyTorch's package index for the installed torch."""
    if torch.version.hip:
        return f"rocm{'.'.join(torch.version.hip.split('.')[:2])}"
    return f"cu{torch.version.cuda.replace('.', '')}" if torch.version.cuda else "cpu"
