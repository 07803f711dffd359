"""Measure the models that ship, and peers; write the tables, the plot and the cards of the docs' model page.

    python tools/model_table.py --benchmarks BENCHMARKS [--peer dat-light=DAT_light_x4.pth ...] [--lpips FILE]

``BENCHMARKS`` holds Set5, Set14 and B100. Peers are weights that spandrel loads. Measurements are kept in
docs/model_table.json with the hash of the tensors, so that a second run measures only what is new: peers need
their files once, and new weights of a network keep its time and memory. Times are processor time on one
thread. LPIPS is that of 20 images of B100, degraded as for training (seeds 0 to 19); where they come out
otherwise than before, as a new version of a codec makes them, all models are measured on them again.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convattn.bench.memory import peak
from convattn.bench.networks import trained_candidate
from convattn.bench.spec import Candidate, Setting
from convattn.bench.timing import time_in_turns
from convattn.checkpoints.catalog import Availability, models
from convattn.checkpoints.loading import load_network
from convattn.checkpoints.model_card import Task, read_card
from convattn.evaluation.lpips import LPIPS, load_lpips
from convattn.evaluation.protocol import Method, Pair, bicubic, evaluate, mean_scores, pairs, with_network
from convattn.files import replacing
from convattn.images.io import find_images, read_rgb
from convattn.images.pixel_range import from_unit
from convattn.training.degradation import Degradation, degrade

DOCS = Path(__file__).parents[1] / "docs"
PAGE, RESULTS, PLOT = DOCS / "models.md", DOCS / "model_table.json", DOCS / "_static" / "models.svg"
SETS = ("Set5", "Set14", "B100")
WIDTH, HEIGHT = 1280, 720  # of the result whose time and memory are measured
REAL_IMAGES, REAL_SIDE = 20, 320
CLASSIC_BESIDE_REAL = ("bicubic", "esc-nano")


@dataclass(frozen=True)
class Entry:
    """A model at a scale; bicubic interpolation has no file, and a peer with a ``known_key`` needs none."""

    name: str
    scale: int
    task: Task
    file: Path | None
    is_peer: bool = False
    known_key: str = ""

    @property
    def key(self) -> str:
        """What its measurements are kept under."""
        if self.known_key:
            return self.known_key
        data = self.file.read_bytes() if self.file else b""
        if self.file and self.file.suffix == ".safetensors":
            data = data[8 + int.from_bytes(data[:8], "little") :]  # the card in the header may change
        return f"{self.name} x{self.scale} {hashlib.sha256(data).hexdigest()[:16]}"

    @property
    def is_in_real_table(self) -> bool:
        """Whether it is measured on degraded images."""
        return self.scale == 4 and (self.task is Task.real_world or self.name in CLASSIC_BESIDE_REAL)

    def method(self) -> Method:
        """Return how it upscales."""
        return with_network(load_network(self.file), self.scale) if self.file else bicubic(self.scale)


@dataclass
class Row:
    """What was measured: scores by set as (PSNR-Y, SSIM-Y); ``degraded`` hashes the real-world set."""

    parameters: int
    milliseconds: float
    megabytes: float
    scores: dict[str, tuple[float, float]]
    lpips: float | None = None
    degraded: str = ""


def entries(peers: list[str], known: Iterable[str] = ()) -> Iterator[Entry]:
    """Yield bicubic interpolation, the models that ship, the given peers, and those whose keys are known."""
    bundled, given = {"bicubic"}, set()
    for scale in (2, 3, 4):
        yield Entry("bicubic", scale, Task.classic, None)
    for model in models().values():
        for scale, weights in model.weights.items():
            if weights.availability is Availability.bundled:
                bundled.add(model.name)
                for each in (scale,) if scale else (2, 3, 4):
                    yield Entry(model.name, each, model.card.task, weights.path)
    for peer in peers:
        name, _, file = peer.partition("=")
        scale = int(load_network(file).scale)  # type: ignore[arg-type]
        given.add((name, scale))
        yield Entry(name, scale, _task_of_peer(name), Path(file), is_peer=True)
    for key in known:
        name, factor, _ = key.split(" ")
        scale = int(factor[1:])
        if name not in bundled and (name, scale) not in given:
            yield Entry(name, scale, _task_of_peer(name), None, is_peer=True, known_key=key)


def _task_of_peer(name: str) -> Task:
    return Task.real_world if "real" in name else Task.classic


def real_pairs(folder: Path) -> Iterator[Pair]:
    """Yield the real-world set: middles of images of B100, and what degradation makes of them at ×4."""
    settings = Degradation(scale=4)
    for seed, path in enumerate(find_images(folder / "B100" / "HR")[:REAL_IMAGES]):
        image = read_rgb(path)
        top, left = ((side - REAL_SIDE) // 2 for side in image.shape[1:])
        high = image[:, max(top, 0) :, max(left, 0) :][:, :REAL_SIDE, :REAL_SIDE]
        low = degrade(high[None] / 255, settings, generator=torch.Generator().manual_seed(seed))
        yield Pair("real-world", path.name, from_unit(low[0], torch.uint8), high)


def measure(entry: Entry, benchmarks: Path, known: dict[str, Row]) -> Row:
    """Measure an entry; the time and memory of a network do not depend on its weights."""
    width, height = round(WIDTH / entry.scale), round(HEIGHT / entry.scale)
    candidate = trained_candidate(entry.name, entry.file, entry.scale, width, height)
    parameters = sum(parameter.numel() for parameter in candidate.build().parameters())
    same = f"{entry.name} x{entry.scale} "
    equal = [row for key, row in known.items() if key.startswith(same) and row.parameters == parameters]
    row = replace(equal[0], scores={}, degraded="") if equal else measure_cost(entry, candidate, parameters)
    if entry.task is not Task.real_world:
        row.scores |= scores_in_card(entry) or {
            name: scores_on(benchmarks / name, entry.method(), entry.scale) for name in SETS
        }
    return row


def measure_on_degraded(entry: Entry, row: Row, degraded: list[Pair], lpips: LPIPS) -> None:
    """Add the real-world scores of an entry to its row."""
    if entry.known_key:
        sys.exit(f"{entry.name} was measured on other degraded images; give --peer {entry.name}=FILE.")
    (mean,) = mean_scores(evaluate(entry.method(), degraded, 4, lpips))
    row.lpips, row.scores["real-world"] = mean.lpips, (mean.psnr, mean.ssim)


def measure_cost(entry: Entry, candidate: Candidate, parameters: int) -> Row:
    """Measure the time and memory of an entry."""
    setting = Setting(threads=1)
    growth = peak(candidate, setting) or 0
    rounds = 1 if entry.is_peer else 3
    with setting.limited_threads():
        run = {entry.name: candidate.prepare(setting)}
        (seconds,) = time_in_turns(run, rounds, warm_up=1, clock=time.process_time).values()
    return Row(parameters, 1e3 * float(np.median(seconds)), growth / 1e6, {})


def scores_in_card(entry: Entry) -> dict[str, tuple[float, float]]:
    """Return what tools/publish_weights.py measured of weights of one scale, and wrote into their header."""
    card = read_card(entry.file) if entry.file and not entry.is_peer else None
    figures = card.figures if card else {}
    if any(f"{name} SSIM-Y" not in figures for name in SETS):
        return {}
    return {name: (figures[f"{name} PSNR-Y"], figures[f"{name} SSIM-Y"]) for name in SETS}


def scores_on(folder: Path, method: Method, scale: int) -> tuple[float, float]:
    """Return mean PSNR-Y and SSIM-Y on a set."""
    (mean,) = mean_scores(evaluate(method, pairs(folder, scale), scale))
    return mean.psnr, mean.ssim


def classic_table(rows: dict[Entry, Row]) -> list[str]:
    """Return the table of models for clean images."""
    lines = ["| Model | Scale | Parameters | " + " | ".join(SETS) + " | Time | Memory |", "|---" * 8 + "|"]
    for entry, row in sorted(rows.items(), key=lambda item: item[0].scale):
        if entry.task is not Task.real_world:
            scores = " | ".join(
                f"{psnr:.2f} / {ssim:.4f}" for psnr, ssim in map(row.scores.__getitem__, SETS)
            )
            lines.append(f"| {entry.name} | ×{entry.scale} | {_parameters(row)} | {scores} | {_cost(row)} |")
    return lines


def real_table(rows: dict[Entry, Row]) -> list[str]:
    """Return the table of models for real-world images, beside bicubic interpolation and esc-nano."""
    lines = ["| Model | Parameters | LPIPS ↓ | PSNR-Y | Time | Memory |", "|---" * 6 + "|"]
    for entry, row in sorted(rows.items(), key=lambda item: -(item[1].lpips or 0)):
        if entry.is_in_real_table:
            psnr = row.scores["real-world"][0]
            lines.append(
                f"| {entry.name} | {_parameters(row)} | {row.lpips:.3f} | {psnr:.2f} | {_cost(row)} |"
            )
    return lines


def _parameters(row: Row) -> str:
    return f"{row.parameters / 1e6:.2f} M" if row.parameters else "–"


def _cost(row: Row) -> str:
    return f"{row.milliseconds:,.0f} ms | {row.megabytes:,.0f} MB"


def cards() -> Iterator[str]:
    """Yield the cards of the weights that ship, from their headers."""
    for model in models().values():
        for weights in model.weights.values():
            card = read_card(weights.path) if weights.availability is Availability.bundled else None
            if card:
                yield from (f"### {weights.path.stem}", "", f"{card.good_for}. License: {card.license}.", "")
                parts = {"Data": card.data, "Limits": card.limits, "Repeat": f"`{card.repeat}`"}
                yield from (
                    f"- **{title}.** {text.strip()}" for title, text in parts.items() if text.strip("`")
                )
                yield ""


def plot(rows: dict[Entry, Row]) -> None:
    """Draw quality against time: PSNR of classic models at ×4, and LPIPS of those for real-world images."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = "convattn"
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 5), layout="constrained")
    for entry, row in rows.items():
        if entry.scale != 4:
            continue
        is_ours = bool(entry.file) and not entry.is_peer
        style: dict[str, Any] = dict(marker="o", color="C0" if is_ours else "0.5")
        label: dict[str, Any] = dict(va="center", textcoords="offset points", fontsize=9)
        label |= dict(xytext=(-6, 0), ha="right") if entry.is_peer else dict(xytext=(6, 0))
        points = []
        if "B100" in row.scores:
            points.append((left, row.scores["B100"][0]))
        if row.lpips is not None and entry.name != "esc-nano":
            points.append((right, row.lpips))
        for axes, value in points:
            axes.plot(row.milliseconds, value, **style)
            axes.annotate(entry.name, (row.milliseconds, value), **label)
    left.set(title="Clean images, ×4", ylabel="PSNR-Y on B100 (dB)")
    right.set(title="Real-world images, ×4", ylabel="LPIPS, lower is better")
    right.invert_yaxis()
    for axes in (left, right):
        axes.margins(y=0.2)
        axes.set(xscale="log", xlim=(20, 300_000), xlabel=f"ms for {WIDTH}×{HEIGHT}, one thread")
        axes.set_xticks([100, 1_000, 10_000, 100_000], ["100", "1,000", "10,000", "100,000"])
        axes.grid(alpha=0.3)
    with replacing(PLOT) as temporary:
        figure.savefig(temporary, metadata={"Date": None})


def write_page(blocks: dict[str, list[str]]) -> None:
    """Replace what stands between the markers of the page."""
    text = PAGE.read_text(encoding="utf-8")
    for name, lines in blocks.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        before, rest = text.split(begin)
        text = before + begin + "\n" + "\n".join(lines).rstrip() + "\n\n" + end + rest.split(end)[1]
    with replacing(PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_results() -> dict[str, Row]:
    """Return the measurements of earlier runs."""
    if not RESULTS.is_file():
        return {}
    return {key: Row(**row) for key, row in json.loads(RESULTS.read_text(encoding="utf-8")).items()}


def write_results(rows: dict[str, Row]) -> None:
    """Keep measurements for later runs."""
    text = json.dumps({key: asdict(row) for key, row in rows.items()}, indent=1) + "\n"
    with replacing(RESULTS) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main() -> None:
    """Measure what is new and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--benchmarks", type=Path, required=True, help="folder of Set5, Set14 and B100")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--lpips", type=Path, help="weights, see convattn evaluate --help")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lpips, known, rows = load_lpips(options.lpips), read_results(), {}
    degraded = list(real_pairs(options.benchmarks))
    digest = hashlib.sha256(b"".join(pair.low.numpy().tobytes() for pair in degraded)).hexdigest()[:16]
    for entry in list(entries(options.peer, known)):
        if entry.key not in known:
            known[entry.key] = measure(entry, options.benchmarks, known)
        row = rows[entry] = known[entry.key]
        if entry.is_in_real_table and row.degraded != digest:
            measure_on_degraded(entry, row, degraded, lpips)
            row.degraded = digest
        print(entry.key, row, flush=True)
        write_results(known)
    write_results({entry.key: row for entry, row in rows.items()})
    write_page({"classic": classic_table(rows), "real": real_table(rows), "cards": list(cards())})
    plot(rows)


if __name__ == "__main__":
    main()
