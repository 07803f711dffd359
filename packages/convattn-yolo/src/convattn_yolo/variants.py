"""Models by name: Ultralytics' own model files with C3k2_ESC in place of some C3k2 rows.

A name is that of an Ultralytics model with ``C3k2_ESC``, one of ``p3`` and ``p4``, or both in it, and
optionally a suffix that chooses rows, and ``zero``: ``yolo26n-C3k2_ESC.yaml``, ``yolo26n-p3.yaml``,
``yolo26s-seg-C3k2_ESC-neck.yaml``, ``YOLO26-p2-C3k2_ESC-stride8-zero.yaml``. Neither case nor ``-`` or ``_``
between the suffixes matters.

========== ==============================================================================================
suffix     meaning
========== ==============================================================================================
(none)     every C3k2 row
stride8    every C3k2 row but those at stride 4, whose feature maps are the largest and cost the most
neck       the rows of the neck
finest     the one row that feeds the finest detection level, where small objects are found
zero       keep C3k2 and add a branch that starts at zero: all stock weights fit, and the start is the stock
           network
p2         not a variant of ours, but Ultralytics' model with a detection level at stride 4, for objects below
           16 pixels: ``yolo26n-p2-C3k2_ESC-finest.yaml``
k3         a control: a shared kernel of 3×3 in place of 13×13 pixels
static     a control: no kernel made per image
p3, p4     detect at strides up to 8 or 16 and leave out the rows behind them: for images without large
           objects. What it saves pays for a larger imgsz
========== ==============================================================================================
"""

import difflib
import itertools
import os
import re
import uuid
from collections import ChainMap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from convattn.errors import InputError

__all__ = ["CONTROLS", "LEVELS", "ROWS", "Variant", "find_file", "generate", "list_bases", "parse_name"]

Rows = list[list[Any]]

LEVELS = {"p3": 8, "p4": 16}
"""Name of a detection level to its stride."""

CONTROLS: dict[str, dict[str, Any]] = {"k3": {"kernel_size": 3}, "static": {"dynamic": False}}
"""Name of a control to what it changes in all blocks, for the key ``esc`` of a model."""


@dataclass(frozen=True)
class Variant:
    """The parts of a model's name.

    Attributes:
        base: The Ultralytics model without its size, as ``yolo26-seg``.
        size: One of n, s, m, l, x, or empty if the name has none.
        rows: A key of :data:`ROWS`, or empty for the stock rows.
        zero: Whether to keep C3k2 and add a branch that starts at zero.
        coarsest: A key of :data:`LEVELS`, or empty for all levels.
        controls: Keys of :data:`CONTROLS`.
    """

    base: str
    size: str = ""
    rows: str = "all"
    zero: bool = False
    coarsest: str = ""
    controls: tuple[str, ...] = ()


def parse_name(name: str | Path) -> Variant | None:
    """Parse a model's name.

    Args:
        name: File name or path; only its last part counts.

    Returns:
        The variant, or None if the name is not of this kind. Base and size are not checked.
    """
    stem = _fold(Path(name).stem)
    family, *words = stem.replace("c3k2-esc", "").strip("-").split("-")
    match = re.fullmatch(r"(yolov?\d+)([a-z]*)", family)
    block, coarsest = "c3k2-esc" in stem, next((word for word in words if word in LEVELS), "")
    if match is None or not (block or coarsest):
        return None
    rows = next((word for word in words if word in ROWS), "all") if block else ""
    ours = {"", coarsest, *((rows, "zero", *CONTROLS) if block else ())}
    rest = [word for word in words if word not in ours]
    controls = tuple(word for word in CONTROLS if word in words and block)
    return Variant("-".join([match[1], *rest]), match[2], rows, block and "zero" in words, coarsest, controls)


def find_file(name: str | Path, installed: Path, cache: Path) -> Path | None:
    """Find or generate the model file of a variant, if no file has exactly that name.

    A file in the same folder whose name differs only in case, in ``-`` and ``_`` or in the size is found. If
    there is none, the file is generated from a name without folder.

    Args:
        name: Name or path given by the user.
        installed: Folder of the installed Ultralytics' own model files.
        cache: Folder for generated files.

    Returns:
        The file, or None if the file exists or the name is not of this kind.

    Raises:
        InputError: There is no such model.
    """
    path = Path(name)
    if "\0" in str(name) or path.exists():
        return None
    if parse_name(path) is None:
        _refuse_near_miss(path, installed)
        return None
    beside = _file_beside(path)
    if beside is not None:
        return beside
    if path.parent != Path("."):
        raise InputError(
            f"There is no file {path}: without its folder, {path.name} is made from Ultralytics' own."
        )
    return _write(generate(path.name, installed), cache / path.name)


def _refuse_near_miss(path: Path, installed: Path) -> None:
    """Raise an InputError for a name such as ``yolo26n-C3k2ESC`` that is almost one of a variant."""
    folded = _fold(path.stem)
    words = {*ROWS, "zero"} & set(folded.split("-"))
    is_near = re.search(r"c3.*esc|k2.?esc", folded) or words or _nearest_level(folded)
    if not re.match(r"yolov?\d", folded) or not is_near:
        return
    if hint := _suggestion(path.name, list_bases(installed)):
        raise InputError(f"There is no model {path.name}{hint}.")


def _suggestion(name: str, bases: dict[str, Path]) -> str:
    """Return a hint at the nearest name of a variant, or nothing."""
    stem = _fold(Path(name).stem)
    size = re.match(r"yolov?\d+([a-z]?)", stem)
    level = _nearest_level(stem)
    without_block = [("", "")] if level and level not in stem.split("-") else []
    names = {}
    for base, (spelling, suffix) in itertools.product(bases, [*_blocks(), *without_block]):
        family, _, rest = base.partition("-")
        parts = [f"{family}{size[1] if size else ''}", rest, level]
        names[_fold(_join(*parts, spelling))] = _join(*parts, suffix)
    near = difflib.get_close_matches(stem, names, n=1, cutoff=0.7)
    return f" (did you mean {names[near[0]]}.yaml?)" if near else ""


def _nearest_level(stem: str) -> str:
    """Return the key of :data:`LEVELS` that a word of the name is or almost is, or nothing."""
    matches = (difflib.get_close_matches(word, LEVELS, n=1, cutoff=0.7) for word in stem.split("-"))
    return next((match[0] for match in matches if match), "")


def _blocks() -> Iterator[tuple[str, str]]:
    """Yield spellings of a block and its suffixes in a model's name, each with the right one."""
    for rows in ("", *ROWS):
        block = _join("C3k2_ESC", rows)
        yield block, block
        yield _join(block, "zero"), _join(block, "zero")
        yield _join("C3k2_ESCBranch", rows), _join(block, "zero")


def _join(*parts: str) -> str:
    return "-".join(filter(None, parts))


def _fold(stem: str) -> str:
    return stem.lower().replace("_", "-")


def generate(name: str, installed: Path) -> dict[str, Any]:
    """Generate the description of a model from that of the installed Ultralytics.

    Args:
        name: A name such as ``yolo26n-seg-C3k2_ESC-neck.yaml``.
        installed: Folder of the installed Ultralytics' own model files.

    Returns:
        The content of the model file.

    Raises:
        InputError: Ultralytics has no such model, size or task, or there is no such variant.
    """
    variant = parse_name(name)
    bases = list_bases(installed)
    if variant is None or variant.base not in bases:
        raise InputError(
            f"There is no model {name}{_suggestion(name, bases)}; names consist of one of "
            f"{', '.join(sorted(bases))} with its size, -C3k2_ESC, -p3 or -p4, and optionally one of "
            f"{', '.join(ROWS)}, and zero, {', '.join(CONTROLS)}."
        )
    description = yaml.safe_load(bases[variant.base].read_text(encoding="utf-8"))
    sizes = list(description.get("scales", {}))
    if variant.size and variant.size not in sizes:
        raise InputError(
            f"{name} asks for size {variant.size!r}: {variant.base} comes in {', '.join(sizes)}."
        )
    if variant.coarsest:
        description = _keep_levels(description, variant)
    if variant.rows:
        _replace_rows(description, variant, name)
    if variant.controls:
        description["esc"] = dict(ChainMap(*(CONTROLS[word] for word in variant.controls)))
    return description


def _replace_rows(description: dict[str, Any], variant: Variant, name: str) -> None:
    chosen = ROWS[variant.rows](description)
    if not chosen:
        raise InputError(
            f"{variant.base} has no C3k2 row for {variant.rows!r}: leave that word out of {name}."
        )
    for row in chosen:
        row[2] = "C3k2_ESCBranch" if variant.zero else "C3k2_ESC"


def _keep_levels(description: dict[str, Any], variant: Variant) -> dict[str, Any]:
    """The network up to the last detection level whose stride is no larger, and the head on those levels."""
    *_, head = description["head"]
    strides, sources = _strides(description), head[0] if isinstance(head[0], list) else []
    kept = [source for source in sources if strides[source] <= LEVELS[variant.coarsest]]
    if not kept or kept == sources:
        raise InputError(
            f"{variant.base} has no detection levels to keep, or none to leave out, for {variant.coarsest}: "
            f"leave {variant.coarsest} out of the name."
        )
    rows = description["head"][: max(kept) + 1 - len(description["backbone"])]
    return {**description, "head": [*rows, [kept, *head[1:]]], "coarsest": variant.coarsest}


def list_bases(installed: Path) -> dict[str, Path]:
    """Ultralytics' model files that have C3k2 rows, by name without size."""
    files = sorted(installed.rglob("yolo[v0-9]*.yaml"))
    return {file.stem: file for file in files if "C3k2," in file.read_text(encoding="utf-8")}


def _rows(description: dict[str, Any]) -> Rows:
    return [*description["backbone"], *description["head"]]


def _all(description: dict[str, Any]) -> Rows:
    return [row for row in _rows(description) if row[2] == "C3k2"]


def _stride8(description: dict[str, Any]) -> Rows:
    pairs = zip(_rows(description), _strides(description), strict=True)
    return [row for row, stride in pairs if row[2] == "C3k2" and stride >= 8]


def _neck(description: dict[str, Any]) -> Rows:
    return [row for row in description["head"] if row[2] == "C3k2"]


def _finest(description: dict[str, Any]) -> Rows:
    rows, strides = _rows(description), _strides(description)
    sources = rows[-1][0]
    if isinstance(sources, int):
        return []
    finest = min(sources, key=lambda source: strides[source])
    return [rows[finest]] if rows[finest][2] == "C3k2" else []


def _strides(description: dict[str, Any]) -> list[float]:
    """Pixels of the image for each pixel of the row's output, row by row."""
    strides: list[float] = []
    for source, _, module, args in _rows(description):
        first = source if isinstance(source, int) else source[0]
        stride = strides[first] if strides else 1.0
        if module == "Conv" and len(args) > 2:
            stride *= args[2]
        elif module == "nn.Upsample":
            stride /= args[1]
        strides.append(stride)
    return strides


ROWS: dict[str, Callable[[dict[str, Any]], Rows]] = {
    "all": _all,
    "stride8": _stride8,
    "neck": _neck,
    "finest": _finest,
}


def _file_beside(path: Path) -> Path | None:
    if not path.parent.is_dir():
        return None
    wanted = {_key(path), _key(path, size=False)}
    files = (file for file in sorted(path.parent.iterdir()) if file.suffix.lower() in {".yaml", ".yml"})
    found = [file for file in files if _key(file) in wanted]
    return max(found, key=lambda file: len(file.name), default=None)  # the file of the very size comes first


def _key(path: Path, size: bool = True) -> str:
    stem = _fold(path.stem)
    return stem if size else re.sub(r"^(yolov?\d+)[a-z]", r"\1", stem)


def _write(description: dict[str, Any], path: Path) -> Path:
    """Write atomically: several processes may ask for the same model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.yaml")
    temporary.write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
    os.replace(temporary, path)
    return path
