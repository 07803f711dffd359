"""Put trained weights among those that ship, with a model card in their header: what they are, and measured.

    python tools/publish_weights.py runs/weights/esc-nano-x2/esc-nano-x2.safetensors --benchmarks BENCHMARKS

``BENCHMARKS`` holds Set5, Set14 and B100. Weights of a classic network that are worse on any of them
than those that ship are refused. Without ``--benchmarks`` only the texts of the card are renewed.
"""

import argparse
import sys
from pathlib import Path

import yaml
from safetensors import safe_open

from convattn.checkpoints.loading import load_network, save_network
from convattn.checkpoints.model_card import ModelCard, Task, read_card
from convattn.evaluation.protocol import evaluate, mean_scores, pairs, with_network

BUNDLED = Path(__file__).parents[1] / "src/convattn/checkpoints/bundled"
CARDS = Path(__file__).with_name("model_cards.yaml")
SETS = ("Set5", "Set14", "B100")


def measure(path: Path, benchmarks: Path) -> dict[str, float]:
    """Return PSNR-Y and SSIM-Y of weights on the benchmark sets, as ``convattn evaluate`` does."""
    network, figures = load_network(path), {}
    for name in SETS:
        method = with_network(network, network.scale)
        (mean,) = mean_scores(evaluate(method, pairs(benchmarks / name, network.scale), network.scale))
        figures |= {f"{name} PSNR-Y": round(mean.psnr, 2), f"{name} SSIM-Y": round(mean.ssim, 4)}
    return figures


def card_of(path: Path, benchmarks: Path | None) -> ModelCard:
    """Return the card of weights; their figures are kept where they are not measured again."""
    name = path.stem.rsplit("-x", 1)[0]
    texts = yaml.safe_load(CARDS.read_text(encoding="utf-8"))[name]
    task = Task(texts.pop("task"))
    before = read_card(path)
    figures = dict(before.figures) if before else {}
    if benchmarks and task is Task.classic:
        figures = measure(path, benchmarks)
    return ModelCard(task=task, figures=figures, **texts)


def falls(path: Path, figures: dict[str, float], benchmarks: Path) -> list[str]:
    """Return the figures that are lower than those of the weights that ship."""
    if not path.is_file():
        return []
    return [name for name, value in measure(path, benchmarks).items() if figures.get(name, value) < value]


def main() -> None:
    """Publish weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path, nargs="+", help="files named like esc-nano-x2.safetensors")
    parser.add_argument("--benchmarks", type=Path, help="folder of Set5, Set14 and B100")
    options = parser.parse_args()
    for path in options.weights:
        card, target = card_of(path, options.benchmarks), BUNDLED / path.name
        if options.benchmarks and (worse := falls(target, dict(card.figures), options.benchmarks)):
            sys.exit(f"{path} is worse than the weights that ship: {', '.join(worse)}.")
        with safe_open(path, "numpy") as file:
            trained = {
                key: value for key, value in (file.metadata() or {}).items() if key in ("steps", "seed")
            }
        save_network(load_network(path), target, metadata=trained | card.header())
        print(f"{target.name}: {dict(card.figures)}")


if __name__ == "__main__":
    main()
