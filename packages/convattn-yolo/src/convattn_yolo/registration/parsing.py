"""Lets Ultralytics parse model files with rows of C3k2_ESC, and finds those files by their names."""

import difflib
import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from convattn.errors import InputError
from convattn_yolo import variants

__all__ = ["NAMES", "check_yaml", "guess_model_scale", "parse_model"]

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


def parse_model(original: Callable[..., Any], d: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Let Ultralytics parse rows of C3k2_ESC as rows of C3k2, and build the right block for each."""
    tasks: Any = sys.modules["ultralytics.nn.tasks"]
    # Models without our rows wait too: another thread may have replaced C3k2.
    with _parsing:
        rows = _rows(d)
        for index, row in enumerate(rows):
            _check_name(index, row[2], tasks)
            _check_row(index, row, tasks.C3k2)
        if not any(row[2] in NAMES for row in rows):
            return original(d, *args, **kwargs)
        stock, blocks = tasks.C3k2, _build_blocks(rows, tasks.C3k2, _options(d))
        tasks.C3k2 = _dispatcher(stock, blocks)
        try:
            network, save = original(_as_c3k2(d), *args, **kwargs)
        finally:
            tasks.C3k2 = stock
        _check_network(network, rows)
        return network, save


def _rows(d: Any) -> list[list[Any]]:
    """Return the rows of backbone and head; raise an InputError where they are none."""
    parts = [d.get(part) for part in ("backbone", "head")] if isinstance(d, dict) else [None]
    if not all(isinstance(part, list) for part in parts):
        raise InputError("This is no model: it needs the lists backbone and head.")
    rows = [row for part in parts for row in part or ()]
    for index, row in enumerate(rows):
        if not (isinstance(row, list) and len(row) == 4 and isinstance(row[2], str)):
            raise InputError(f"Row {index} is {row}; it needs [from, repeats, module, arguments].")
    return rows


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


def _options(d: dict[str, Any]) -> dict[str, Any]:
    """Return what the key ``esc`` of a model says about all its blocks."""
    options = d.get("esc", {})
    known = {"kernel_size": 13, "dynamic": True}
    if not (isinstance(options, dict) and options.keys() <= known.keys()):
        raise InputError(f"This model's key esc is {options}; it takes {' and '.join(known)}.")
    size, dynamic = (known | options).values()
    if type(size) is not int or size < 1 or size % 2 == 0 or type(dynamic) is not bool:
        raise InputError(
            f"This model's key esc is {options}; kernel_size is an odd number of pixels, and dynamic is true "
            "or false."
        )
    return options


def _build_blocks(
    rows: list[list[Any]], stock: type, options: dict[str, Any]
) -> Iterator[Callable[..., Any]]:
    """Yield constructors for the C3k2-like rows in order; the first ESC block owns the large kernel."""
    from convattn_yolo.blocks import BLOCKS

    owner = None
    names = list(inspect.signature(stock).parameters)  # their order differs between releases

    def build(block: type, *args: Any) -> Any:
        nonlocal owner
        named = dict(zip([*names, "window"], args, strict=False))
        built = block(**named, **options, kernel_owner=owner)
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


def check_yaml(original: Callable[..., Any], file: Any, *args: Any, **kwargs: Any) -> Any:
    """Find the model file of a variant by its name, or generate it."""
    import ultralytics
    from ultralytics.utils import USER_CONFIG_DIR

    installed = Path(ultralytics.__file__).parent / "cfg" / "models"
    found = variants.find_file(file, installed, Path(USER_CONFIG_DIR) / "convattn")
    return original(file, *args, **kwargs) if found is None else str(found)


def guess_model_scale(original: Callable[..., Any], model_path: Any) -> Any:
    """Read the size from a variant's name in any spelling."""
    variant = variants.parse_name(model_path)
    return variant.size if variant else original(model_path)
