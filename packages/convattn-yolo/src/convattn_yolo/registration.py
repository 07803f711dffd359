"""Makes Ultralytics know C3k2_ESC: the only file that touches Ultralytics' internals.

Nothing of Ultralytics is edited or copied. A few of its functions are wrapped; each wrapper leaves models
without C3k2_ESC as they were.
"""

import copy
import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from convattn.errors import InputError
from convattn_yolo import variants

__all__ = ["register"]

NAMES = ("C3k2_ESC", "C3k2_ESCBranch")
ARGUMENTS: dict[str, tuple[type, ...]] = {
    "c2": (int,),
    "c3k": (bool,),
    "e": (float, int),
    "attn": (bool,),
    "g": (int,),
    "shortcut": (bool,),
    "window": (int,),
}

_parsing = threading.RLock()


def register(tasks: ModuleType) -> None:
    """Extend Ultralytics.

    Args:
        tasks: The module ``ultralytics.nn.tasks``. Extending it again does nothing.
    """
    if getattr(tasks.parse_model, "knows_c3k2_esc", False):
        return
    _wrap(tasks, "parse_model", _parse_model)
    _wrap(tasks, "check_yaml", _check_yaml)
    _wrap(tasks, "guess_model_scale", _guess_model_scale)
    _wrap(tasks.BaseModel, "load", _load)
    _wrap(tasks.BaseModel, "fuse", _fuse)
    if hasattr(tasks, "_SafeLoad"):
        _wrap(tasks._SafeLoad, "_build", _allow_in_safe_loading, staticmethod)
    _register_ddp()
    _register_flops()


def _wrap(
    owner: Any, name: str, wrapper: Callable[..., Any], kind: Callable[[Any], Any] = lambda function: function
) -> None:
    """Put ``wrapper``, which gets the original as its first argument, in the place of ``owner.name``."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    wrapped.knows_c3k2_esc = True  # type: ignore[attr-defined]
    setattr(owner, name, kind(wrapped))
    # A name that `from ... import` has copied already is the original's still.
    for module in ("ultralytics.nn",):
        if getattr(sys.modules.get(module), name, None) is original:
            setattr(sys.modules[module], name, wrapped)


def _parse_model(original: Callable[..., Any], d: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Let Ultralytics parse rows of C3k2_ESC as if they said C3k2, and build the right block for each."""
    tasks: Any = sys.modules["ultralytics.nn.tasks"]
    # Another thread may be parsing with C3k2 replaced, so models without our rows wait too.
    with _parsing:
        rows = [*d["backbone"], *d["head"]]
        if not any(row[2] in NAMES for row in rows):
            return original(d, *args, **kwargs)
        for index, row in enumerate(rows):
            _check_row(index, row, tasks.C3k2)
        stock, blocks = tasks.C3k2, _build_blocks(rows, tasks.C3k2)
        tasks.C3k2 = _dispatcher(stock, blocks)
        try:
            network, save = original(_as_c3k2(d), *args, **kwargs)
        finally:
            tasks.C3k2 = stock
        _check_network(network, rows)
        return network, save


def _as_c3k2(d: dict[str, Any]) -> dict[str, Any]:
    def rename(rows: list[list[Any]]) -> list[list[Any]]:
        return [[*row[:2], "C3k2" if row[2] in NAMES else row[2], *row[3:]] for row in rows]

    return {**d, "backbone": rename(d["backbone"]), "head": rename(d["head"])}


def _dispatcher(stock: type, blocks: Iterator[Callable[..., Any]]) -> type:
    """A class that passes for C3k2 and builds the next of the blocks at each call."""

    class Shown(type):
        """parse_model prints and records the class; it shall be the one that was built."""

        built: type = stock

        def __str__(cls) -> str:
            return str(cls.built)

    class Dispatcher(stock, metaclass=Shown):  # type: ignore[misc, valid-type]
        def __new__(cls, *args: Any) -> Any:
            block = next(blocks)(*args)
            cls.built = type(block)
            return block

    return Dispatcher


def _build_blocks(rows: list[list[Any]], stock: type) -> Iterator[Callable[..., Any]]:
    """Constructors for the C3k2-like rows in their order; the first ESC block owns the large kernel."""
    from convattn_yolo.blocks import BLOCKS

    owner = None
    names = list(inspect.signature(stock).parameters)  # their order differs between releases

    def build(block: type, *args: Any) -> Any:
        nonlocal owner
        named = dict(zip([*names, "window"], args, strict=False))
        built = block(**named, kernel_owner=owner)
        owner = owner or built
        return built

    for row in rows:
        if row[2] == "C3k2":
            yield stock
        elif row[2] in NAMES:
            yield functools.partial(build, BLOCKS[row[2]])


def _check_row(index: int, row: list[Any], stock: type) -> None:
    """Refuse a row whose name or arguments are wrong before Ultralytics computes with them."""
    module, args = row[2], row[3]
    if module.startswith("C3k2_ESC") and module not in NAMES:
        raise InputError(f"Row {index} names {module}, which does not exist: write {' or '.join(NAMES)}.")
    if module not in NAMES:
        return
    names = [
        "c2",
        *[name for name in inspect.signature(stock).parameters if name not in ("c1", "c2", "n")],
        "window",
    ]
    fits = 0 < len(args) <= len(names) and all(
        type(value) in ARGUMENTS[name] for name, value in zip(names, args, strict=False)
    )
    if not fits:
        expected = ", ".join(f"{name} ({ARGUMENTS[name][0].__name__})" for name in names)
        raise InputError(
            f"Row {index} gives {module} the arguments {args}: it takes {expected}, and needs c2 at least."
        )


def _check_network(network: Any, rows: list[list[Any]]) -> None:
    """A release that reads its model files in another way must not end in a wrong network."""
    import ultralytics

    built = [type(layer).__name__ for layer in network]
    for index, row in enumerate(rows):
        if (row[2] in NAMES or row[2] == "C3k2") and built[index] != row[2]:
            raise InputError(
                f"convattn does not understand ultralytics {ultralytics.__version__}, which made row {index} "
                f"a {built[index]}, not a {row[2]}: use another release of it or a newer convattn."
            )


def _check_yaml(original: Callable[..., Any], file: Any, *args: Any, **kwargs: Any) -> Any:
    import ultralytics
    from ultralytics.utils import USER_CONFIG_DIR

    installed = Path(ultralytics.__file__).parent / "cfg" / "models"
    found = variants.find_file(file, installed, Path(USER_CONFIG_DIR) / "convattn")
    return original(file, *args, **kwargs) if found is None else str(found)


def _guess_model_scale(original: Callable[..., Any], model_path: Any) -> Any:
    variant = variants.parse_name(model_path)
    return variant.size if variant else original(model_path)


def _load(original: Callable[..., Any], self: Any, weights: Any, *args: Any, **kwargs: Any) -> Any:
    """Say how much of the weights carries over; Ultralytics counts tensors, of which most are tiny."""
    from ultralytics.utils import LOGGER

    source = (weights.get("ema") or weights["model"]) if isinstance(weights, dict) else weights
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


def _report(model: Any, source: Any) -> str:
    from ultralytics.nn.tasks import guess_model_task

    given = {name: tensor.shape for name, tensor in source.state_dict().items()}
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    fitting = sum(
        sizes[name] for name, parameter in model.named_parameters() if given.get(name) == parameter.shape
    )
    total = sum(sizes.values())
    if not fitting:
        raise InputError("None of these weights fit this model: load weights of the same family and size.")
    tasks = guess_model_task(source), guess_model_task(model)
    hint = "" if tasks[0] == tasks[1] else f"; they are weights to {tasks[0]} and this model is to {tasks[1]}"
    return f"C3k2_ESC: {fitting:,} of {total:,} parameters ({fitting / total:.1%}) carried over{hint}"


def _fuse(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    if _has_our_blocks(self):
        from convattn_yolo.blocks import SharedLargeKernel

        for module in self.modules():
            if isinstance(module, SharedLargeKernel):
                module.fold()
    return original(self, *args, **kwargs)


def _has_our_blocks(model: Any) -> bool:
    return any(type(layer).__name__ in NAMES for layer in getattr(model, "model", ()))


def _allow_in_safe_loading(original: Callable[..., Any]) -> dict[str, Any]:
    """The classes that ULTRALYTICS_SAFE_LOAD may unpickle, with those of a network with C3k2_ESC."""
    import convattn.layers as layers
    from convattn_yolo import blocks

    ours = [getattr(module, name) for module in (layers, blocks) for name in module.__all__]
    classes = [cls for cls in ours if isinstance(cls, type)] + [blocks.SpatialWindowAttention]
    return {**original(), **{f"{cls.__module__}.{cls.__qualname__}": cls for cls in classes}}


def _register_ddp() -> None:
    import ultralytics.utils.dist as dist

    _wrap(dist, "generate_ddp_file", _generate_ddp_file)


def _generate_ddp_file(original: Callable[..., Any], trainer: Any) -> str:
    """Import us in the workers, which are fresh interpreters, in case the start-up hook is off there."""
    file = Path(original(trainer))
    main = 'if __name__ == "__main__":\n'
    code = file.read_text(encoding="utf-8")
    file.write_text(
        code.replace(main, f"{main}    import convattn_yolo; convattn_yolo.install()\n", 1), encoding="utf-8"
    )
    return str(file)


def _register_flops() -> None:
    """Count the convolutions whose kernels are no module's, which the profiler does not see."""
    try:
        import thop  # noqa: F401
    except ImportError:
        return
    from convattn.layers import ConvAttention, WindowAttention

    rules = sys.modules["thop.profile"].register_hooks
    rules[ConvAttention] = _count_conv_attention
    rules[WindowAttention] = _count_window_attention


def _count_conv_attention(layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, large_kernel = inputs
    positions = output.numel() // output.shape[1]
    size = layer.predictor.size
    layer.total_ops += positions * (large_kernel.numel() + layer.large_kernel_dim * size * size)


def _count_window_attention(layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Linear in the image's area, as windows are; the profiler extrapolates from small images."""
    bias = layer.relative_position_bias
    window = (int(bias.shape[-1] ** 0.5) + 1) // 2
    layer.total_ops += 2 * output.numel() * window * window
