"""The study behind docs/small-objects.md: resume it, or extend it by seeds, with the same command.

    python tools/small_objects_study.py DATA --weights yolo26n.pt --out study --seeds 5

DATA holds the YOLO data sets colony/, aerial/ and bccd/, each with its data.yaml. Every set gets its first
seed before any gets its second, and a model whose AP of small objects is decided gets no further seeds.
Stop it at any time.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from convattn_yolo.comparison import Budget, Comparison, SequentialTest, summarize, write_report


@dataclass(frozen=True)
class Study:
    """One data set, what is compared on it, and the budget of each training."""

    data: str
    models: tuple[str, ...]
    imgsz: int
    epochs: int
    batch: int


STUDIES = {
    "colony": Study(
        "colony",
        (
            "yolo26n.yaml",
            "yolo26n-p4.yaml@192",
            "yolo26n-p3.yaml@224",
            "yolo26n-p3.yaml",
            "yolo26n.yaml@192",
            "yolo26n.yaml@224",
            "yolo26n-p3-C3k2_ESC-finest-zero.yaml@224",
        ),
        160,
        12,
        16,
    ),
    "aerial": Study("aerial", ("yolo26n.yaml", "yolo26n-p4.yaml@352", "yolo26n-p3.yaml@384"), 320, 8, 8),
    "bccd": Study("bccd", ("yolo26n.yaml", "yolo26n-p4.yaml@352", "yolo26n-p3.yaml@384"), 320, 6, 8),
}
"""aerial: tools/tile_dataset.py DATA/aerial_cars DATA/aerial --side 320 --most 240."""


def with_absolute_path(data: Path, out: Path) -> Path:
    """A copy of a data.yaml that can be used from anywhere."""
    description = yaml.safe_load((data / "data.yaml").read_text()) | {"path": str(data.resolve())}
    file = out / f"{data.name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(description))
    return file


def comparisons(arguments: argparse.Namespace) -> Iterator[tuple[Comparison, SequentialTest]]:
    """All comparisons with one seed, then all with two, and so on."""
    test = SequentialTest(arguments.seeds)
    for seeds in range(1, arguments.seeds + 1):
        for name in arguments.only or STUDIES:
            study = STUDIES[name]
            budget = Budget(
                str(with_absolute_path(arguments.data / study.data, arguments.out)),
                arguments.weights,
                study.epochs,
                study.imgsz,
                study.batch,
                bf16=arguments.bf16,
            )
            yield Comparison(study.models, budget, seeds, arguments.out / name), test


def main() -> None:
    """Read the arguments, do what is missing and report on each set after each seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", required=True, help="stock YOLO26n weights to start from")
    parser.add_argument("--out", type=Path, default=Path("study"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--bf16", action="store_true", help="faster where the processor computes in bfloat16")
    parser.add_argument("--only", choices=STUDIES, action="append", help="this set alone; may be repeated")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for comparison, test in comparisons(arguments):
        for progress in comparison.train_missing("cpu", test):
            print(progress, flush=True)
        summaries = summarize(comparison.runs(), comparison.measure_costs("cpu"), test)
        print(write_report(comparison, summaries, test))


if __name__ == "__main__":
    main()
