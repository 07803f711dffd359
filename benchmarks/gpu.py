"""Everything to run first on a machine with a GPU, in eight minutes: tests, correctness, timings, a report.

    python benchmarks/gpu.py [--output gpu-report] [--device cuda] [--quick]

Writes report.md with a plot, and says which backend of window attention should be the default. With
``--device cpu --quick`` it shows that the script itself works.
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from convattn.models.registry import build
from convattn.ops import window_attention

ROOT = Path(__file__).parents[1]
BACKENDS = {"cuda": ("sdpa", "flex", "triton"), "cpu": ("sdpa", "reference")}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Layer(NamedTuple):
    """The shape of a window attention layer: ESC's, on the feature map that the paper measures."""

    size: int = 288
    dim: int = 64
    heads: int = 4
    window: int = 32

    def arguments(self, device: str, dtype: torch.dtype) -> list[Tensor]:
        """Queries, keys and values in channels-last memory, and a bias table; all want gradients."""
        shape = (1, 3 * self.dim, self.size, self.size)
        qkv = torch.randn(shape, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        table = 0.1 * torch.randn(self.heads, (2 * self.window - 1) ** 2, device=device)
        return [x.detach().requires_grad_() for x in (*qkv.chunk(3, 1), table)]


class Timing(NamedTuple):
    """Median milliseconds and peak megabytes of one backend."""

    what: str
    precision: str
    backend: str
    milliseconds: float
    megabytes: float


def forward_and_backward(args: list[Tensor], backend: str) -> list[Tensor]:
    """The output of window attention, and the gradients of its sum of squares."""
    out = window_attention(*args, backend=backend)
    return [out, *torch.autograd.grad(out.square().sum(), args)]


def errors(device: str, layer: Layer) -> Iterator[tuple[str, str, float]]:
    """The largest error of each backend and precision, relative to the largest value in float64."""
    for precision, dtype in DTYPES.items():
        args = layer.arguments(device, dtype)
        exact_args = [x.detach().double().cpu().requires_grad_() for x in args]
        exact = forward_and_backward(exact_args, "reference")
        for backend in BACKENDS[device]:
            found = forward_and_backward(args, backend)
            yield (
                precision,
                backend,
                max(
                    ((a.double().cpu() - b).abs().max() / b.abs().max()).item()
                    for a, b in zip(found, exact, strict=True)
                ),
            )


def synchronize(device: str) -> None:
    """Wait until a device has done all it was asked for."""
    if device != "cpu":
        torch.cuda.synchronize()


def seconds(run: Callable[[], object], device: str) -> float:
    """How long a call takes on a device."""
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def peak_megabytes(run: Callable[[], object], device: str) -> float:
    """Memory that a call takes beyond what is allocated before."""
    if device == "cpu":
        return float("nan")
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def alternate(
    runs: dict[str, Callable[[], object]], what: str, precision: str, device: str, rounds: int
) -> list[Timing]:
    """Time several candidates, alternating."""
    memory = {}
    for name, run in runs.items():
        for _ in range(3):  # compiles and warms up
            run()
        memory[name] = peak_megabytes(run, device)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run, device))
    return [
        Timing(what, precision, name, 1000 * statistics.median(times[name]), memory[name]) for name in runs
    ]


def attention_timings(device: str, layer: Layer, rounds: int) -> list[Timing]:
    """Window attention, forward alone and with backward, in every precision."""
    timings = []
    for precision, dtype in DTYPES.items():
        args = layer.arguments(device, dtype)

        def forward(backend: str, args: list[Tensor] = args) -> Tensor:
            with torch.no_grad():
                return window_attention(*args, backend=backend)

        def both(backend: str, args: list[Tensor] = args) -> list[Tensor]:
            return forward_and_backward(args, backend)

        for what, call in {"forward": forward, "training": both}.items():
            runs = {backend: (lambda b=backend, c=call: c(b)) for backend in BACKENDS[device]}
            timings += alternate(runs, what, precision, device, rounds)
    return timings


def training_timings(device: str, rounds: int, batch_size: int) -> list[Timing]:
    """A training step of ESC-light in float32 and in mixed precision."""
    network = build("esc-light", 2).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters())
    x, target = (
        torch.rand(batch_size, 3, 64, 64, device=device),
        torch.rand(batch_size, 3, 128, 128, device=device),
    )

    def step(dtype: torch.dtype) -> None:
        with torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32):
            loss = (network(x) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    runs = {name: (lambda d=dtype: step(d)) for name, dtype in DTYPES.items() if name != "fp16"}
    return alternate(runs, f"ESC-light ×2, batch size {batch_size}", "", device, rounds)


def best_backends(timings: list[Timing]) -> Iterator[str]:
    """One sentence for each precision and pass: the fastest backend, and its lead."""
    for key in dict.fromkeys((timing.what, timing.precision) for timing in timings):
        ranked = sorted((t for t in timings if (t.what, t.precision) == key), key=lambda t: t.milliseconds)
        lead = ranked[1].milliseconds / ranked[0].milliseconds
        yield f"- {key[0]}, {key[1]}: **{ranked[0].backend}**, {lead:.2f} × as fast as {ranked[1].backend}"


def command(*words: str) -> str:
    """What a command prints, in a block."""
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, cwd=ROOT)
    return f"`{' '.join(words)}`\n\n```text\n{(done.stdout + done.stderr).strip()[-6000:]}\n```\n"


def table(timings: list[Timing]) -> str:
    """Timings as a Markdown table."""
    rows = [
        f"| {t.what} | {t.precision} | {t.backend} | {t.milliseconds:.2f} | {t.megabytes:.1f} |"
        for t in timings
    ]
    return "\n".join(["| Pass | Precision | Candidate | ms | MB |", "|---|---|---|---|---|", *rows])


def draw(timings: list[Timing], path: Path) -> None:
    """Bars of the milliseconds of each backend, a panel for each pass."""
    from matplotlib.figure import Figure

    passes = list(dict.fromkeys(timing.what for timing in timings))
    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, what in zip(figure.subplots(1, len(passes), squeeze=False)[0], passes, strict=True):
        shown = [timing for timing in timings if timing.what == what]
        names = [f"{timing.backend}, {timing.precision}" for timing in shown]
        bars = axes.barh(names, [timing.milliseconds for timing in shown])
        axes.bar_label(bars, fmt="%.3g", padding=3)
        axes.invert_yaxis()
        axes.set(title=what, xlabel="median (ms)")
    figure.savefig(path, dpi=150)


def sections(device: str, quick: bool, folder: Path) -> Iterator[str]:
    """The parts of the report, as they are finished."""
    name = torch.cuda.get_device_name() if device != "cpu" else "CPU"
    yield f"# convattn on {name}\n\ntorch {torch.__version__}\n"
    if importlib.util.find_spec("pytest"):
        yield "## Tests\n\n" + command("pytest", "-q", "tests/ops/test_triton.py", "tests/devices")
    layer = Layer(64, 32, 2, 16) if quick else Layer()
    rounds = 3 if quick else 30
    rows = "\n".join(f"| {p} | {b} | {e:.1e} |" for p, b, e in errors(device, layer._replace(size=64)))
    yield f"## Correctness\n\n| Precision | Backend | Largest relative error |\n|---|---|---|\n{rows}\n"
    timings = attention_timings(device, layer, rounds)
    plot = ""
    if importlib.util.find_spec("matplotlib"):
        draw(timings, folder / "attention.png")
        plot = "\n![window attention](attention.png)\n"
    best = "\n".join(best_backends(timings))
    yield f"## Window attention\n\n{table(timings)}\n\n{best}\n{plot}"
    yield f"## Training\n\n{table(training_timings(device, rounds, 1 if quick else 16))}\n"
    options = ["--device", device, *(["--quick"] if quick else ["--rounds", "3"])]
    yield "## Networks\n\n" + command("convattn", "bench", "networks", *options)
    if importlib.util.find_spec("convattn_yolo"):
        yield "## Detectors\n\n" + command("convattn", "bench", "detector", *options)


def main() -> None:
    """Write the report, section by section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("gpu-report"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        sys.exit("There is no CUDA GPU here; run this on a machine with one, or with --device cpu --quick.")
    options.output.mkdir(parents=True, exist_ok=True)
    report = options.output / "report.md"
    report.write_text("", encoding="utf-8")
    for section in sections(options.device, options.quick, options.output):
        print(section, flush=True)
        with report.open("a", encoding="utf-8") as file:
            file.write(f"{section}\n")


if __name__ == "__main__":
    main()
