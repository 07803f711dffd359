"""Latency of detection networks against the first of them: forward passes in turns, one picture, one thread.

python benchmarks/yolo_latency.py yolo26n.yaml yolo26n-C3k2_ESC.yaml yolo26n-C3k2_ESC-neck.yaml
"""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from ultralytics import YOLO

import convattn.yolo  # noqa: F401 - makes the names known
from convattn.yolo.comparison.cost import measure_costs
from convattn.yolo.variants import ROWS

MODELS = [
    "yolo26n.yaml",
    *(f"yolo26n-C3k2_ESC-{rows}{start}.yaml" for start in ("", "-zero") for rows in ROWS),
]


def main(
    models: Annotated[list[str] | None, typer.Argument(help="YAML names or weights files.")] = None,
    size: Annotated[int, typer.Option(help="Side of the picture in pixels.")] = 640,
    rounds: Annotated[int, typer.Option(help="How often each network is timed.")] = 30,
) -> None:
    networks = {
        name: (YOLO(name).model.fuse(verbose=False).eval().requires_grad_(False), size)
        for name in models or MODELS
    }
    table = Table("network", "parameters", "GFLOPs", "ms", "ratio")
    for name, cost in measure_costs(networks, rounds).items():
        table.add_row(
            name,
            f"{cost.parameters:,}",
            f"{cost.gflops:.1f}",
            f"{cost.latency:.1f}",
            f"{cost.latency_ratio:.3f}",
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
