"""Loads weights into models with C3k2_ESC, and folds their kernels."""

import copy
from collections.abc import Callable
from typing import Any

from convattn.errors import InputError
from convattn_yolo.registration.parsing import NAMES

__all__ = ["allow_in_safe_loading", "fuse", "load"]


def load(original: Callable[..., Any], self: Any, weights: Any, *args: Any, **kwargs: Any) -> Any:
    """Refuse weights of another task, and report the share of parameters that fit.

    Ultralytics reports the number of tensors, most of which are tiny.
    """
    from ultralytics.utils import LOGGER

    source = (weights.get("ema") or weights["model"]) if isinstance(weights, dict) else weights
    if _has_our_blocks(self):
        _check_task(self, source)
    if getattr(self, "yaml", {}).get("coarsest"):
        weights = source = _without_coarse_levels(source, self.model[-1])
    result = original(self, weights, *args, **kwargs)
    if _has_our_blocks(self):
        LOGGER.info(_report(self, source))
    return result


def _without_coarse_levels(source: Any, head: Any) -> Any:
    """A copy of a network without the detection levels, and the rows behind them, that a head leaves out."""
    from torch import nn

    given = source.model[-1]
    if not isinstance(given.f, list) or given.i <= head.i or given.f[: len(head.f)] != head.f:
        return source
    pruned = copy.deepcopy(source)
    last = pruned.model[-1]
    for name, part in last.named_children():
        if isinstance(part, nn.ModuleList) and len(part) == len(given.f):
            setattr(last, name, part[: len(head.f)])
    pruned.model = nn.Sequential(*pruned.model[: head.i], last)
    return pruned


def _check_task(model: Any, source: Any) -> None:
    from ultralytics.nn.tasks import guess_model_task

    given, own = guess_model_task(source), guess_model_task(model)
    if given != own:
        raise InputError(
            f"These weights are for the task {given}, but the model is for the task {own}: "
            f"load weights for {own}."
        )


def _report(model: Any, source: Any) -> str:
    given = {name: tensor.shape for name, tensor in source.state_dict().items()}
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    fitting = sum(
        sizes[name] for name, parameter in model.named_parameters() if given.get(name) == parameter.shape
    )
    total = sum(sizes.values())
    if fitting < total / 100:
        raise InputError(
            f"Only {fitting:,} of {total:,} parameters fit this model: load weights of its family and size."
        )
    return f"C3k2_ESC: {fitting:,} of {total:,} parameters ({fitting / total:.1%}) carried over"


def fuse(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Fold the shared large kernels before Ultralytics fuses its own layers."""
    if _has_our_blocks(self):
        from convattn_yolo.blocks import SharedLargeKernel

        for module in self.modules():
            if isinstance(module, SharedLargeKernel):
                module.fold()
    return original(self, *args, **kwargs)


def _has_our_blocks(model: Any) -> bool:
    return any(type(layer).__name__ in NAMES for layer in getattr(model, "model", ()))


def allow_in_safe_loading(original: Callable[..., Any]) -> dict[str, Any]:
    """Add the classes of networks with C3k2_ESC to those that ULTRALYTICS_SAFE_LOAD unpickles."""
    import convattn.layers as layers
    from convattn_yolo import blocks

    ours = [getattr(module, name) for module in (layers, blocks) for name in module.__all__]
    classes = [cls for cls in ours if isinstance(cls, type)] + [blocks.SpatialWindowAttention]
    return {**original(), **{f"{cls.__module__}.{cls.__qualname__}": cls for cls in classes}}
