"""Registers C3k2_ESC in Ultralytics: the only file that touches Ultralytics' internals.

Nothing of Ultralytics is edited or copied. Wrappers of a few of its functions handle models with C3k2_ESC and
leave all others unchanged.
"""

import copy
import difflib
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

__all__ = ["register", "register_trainer"]

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


def register_trainer(trainer: ModuleType) -> None:
    """Let a missing or wrong data.yaml end the training of our models in one sentence.

    Args:
        trainer: The module ``ultralytics.engine.trainer``.
    """
    _wrap(trainer.BaseTrainer, "get_dataset", _get_dataset)
    if Path(sys.argv[0]).stem == "yolo":
        sys.excepthook = functools.partial(_print_sentence, sys.excepthook)


def _get_dataset(original: Callable[..., Any], self: Any) -> Any:
    try:
        return original(self)
    except (OSError, RuntimeError, SyntaxError) as error:
        if variants.parse_name(self.args.model) is None:
            raise
        reason = str(error.__cause__ or error).strip().splitlines()[0].strip(" ❌⚠️.")
        raise InputError(f"The dataset {self.args.data} cannot be used: {reason}.") from error


def _print_sentence(original: Callable[..., Any], kind: Any, error: BaseException, traceback: Any) -> None:
    """Print an InputError without traceback: an exception hook for the command ``yolo`` alone."""
    if isinstance(error, InputError):
        print(f"yolo: {error}", file=sys.stderr)
    else:
        original(kind, error, traceback)


def _wrap(
    owner: Any, name: str, wrapper: Callable[..., Any], kind: Callable[[Any], Any] = lambda function: function
) -> None:
    """Replace ``owner.name`` by ``wrapper``, which gets the original as its first argument."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    wrapped.knows_c3k2_esc = True  # type: ignore[attr-defined]
    setattr(owner, name, kind(wrapped))
    # `from ... import` may have copied the original.
    for module in ("ultralytics.nn",):
        if getattr(sys.modules.get(module), name, None) is original:
            setattr(sys.modules[module], name, wrapped)


def _parse_model(original: Callable[..., Any], d: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Let Ultralytics parse rows of C3k2_ESC as rows of C3k2, and build the right block for each."""
    tasks: Any = sys.modules["ultralytics.nn.tasks"]
    # Models without our rows wait too: another thread may have replaced C3k2.
    with _parsing:
        rows = [*d["backbone"], *d["head"]]
        for index, row in enumerate(rows):
            _check_name(index, row[2], tasks)
            _check_row(index, row, tasks.C3k2)
        if not any(row[2] in NAMES for row in rows):
            return original(d, *args, **kwargs)
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
    """Return a subclass of C3k2 that builds the next of the blocks at each call."""

    class Shown(type):
        """Prints as the class of the last block, for parse_model's table and record."""

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
    """Yield constructors for the C3k2-like rows in order; the first ESC block owns the large kernel."""
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


def _check_name(index: int, module: str, tasks: Any) -> None:
    """Suggest a name for a module that does not exist and whose name is almost that of a C3k2 block."""
    if "." in module or module in NAMES or hasattr(tasks, module):
        return
    names = {_fold(name): name for name in (*NAMES, "C3k2")}
    if near := difflib.get_close_matches(_fold(module), names, n=1, cutoff=0.7):
        raise InputError(f"Row {index} names {module}, which does not exist: did you mean {names[near[0]]}?")


def _fold(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _check_row(index: int, row: list[Any], stock: type) -> None:
    """Refuse a row of ours whose arguments are wrong, before Ultralytics computes with them."""
    module, args = row[2], row[3]
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
    """Refuse a network that a future release of Ultralytics has built differently."""
    import ultralytics

    built = [type(layer).__name__ for layer in network]
    for index, row in enumerate(rows):
        if (row[2] in NAMES or row[2] == "C3k2") and built[index] != row[2]:
            raise InputError(
                f"convattn-yolo does not support ultralytics {ultralytics.__version__}, which built row "
                f"{index} as {built[index]} instead of {row[2]}: use another release of it or a newer "
                "convattn-yolo."
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
    """Add the classes of networks with C3k2_ESC to those that ULTRALYTICS_SAFE_LOAD unpickles."""
    import convattn.layers as layers
    from convattn_yolo import blocks

    ours = [getattr(module, name) for module in (layers, blocks) for name in module.__all__]
    classes = [cls for cls in ours if isinstance(cls, type)] + [blocks.SpatialWindowAttention]
    return {**original(), **{f"{cls.__module__}.{cls.__qualname__}": cls for cls in classes}}


def _register_ddp() -> None:
    import ultralytics.utils.dist as dist

    _wrap(dist, "generate_ddp_file", _generate_ddp_file)


def _generate_ddp_file(original: Callable[..., Any], trainer: Any) -> str:
    """Import this package in the workers, where the start-up hook may be disabled."""
    file = Path(original(trainer))
    main = 'if __name__ == "__main__":\n'
    code = file.read_text(encoding="utf-8")
    file.write_text(
        code.replace(main, f"{main}    import convattn_yolo; convattn_yolo.install()\n", 1), encoding="utf-8"
    )
    return str(file)


def _register_flops() -> None:
    """Count the convolutions with computed kernels, which the profiler misses."""
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
    """Count linearly in the image's area; the profiler extrapolates from small images."""
    bias = layer.relative_position_bias
    window = (int(bias.shape[-1] ** 0.5) + 1) // 2
    layer.total_ops += 2 * output.numel() * window * window
