"""Start or resume the training of the weights that ship with convattn.

    python tools/weights_queue.py --photos PHOTOS --pairs PAIRS --validation SET5 --out runs/weights

Each run begins with the weights that ship, if any, and resumes from its last checkpoint; finished runs are
passed over. Ctrl-C stops all at checkpoints. A run's folder holds its log, checkpoint and weights.
"""

import argparse
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

BUNDLED = Path(__file__).parents[1] / "src/convattn/checkpoints/bundled"


@dataclass(frozen=True)
class Run:
    """A training of the queue.

    Attributes:
        name: Of its folder, and of the weights that it begins with.
        recipe: Of ``convattn train``.
        data: Which of the folders given on the command line it learns from.
        settings: What differs from the recipe.
    """

    name: str
    recipe: str
    data: Literal["photos", "pairs"]
    settings: dict[str, object] = field(default_factory=dict)

    def command(self, options: argparse.Namespace) -> list[str]:
        """Return the command that starts or resumes it."""
        settings = dict(self.settings, data=getattr(options, self.data), output_dir=options.out / self.name)
        weights = BUNDLED / f"{self.name}.safetensors"
        if weights.is_file():
            settings["start_from"] = weights
        if options.validation and self.data == "photos":
            settings["validation"] = options.validation
        train = ["nice", "-n", "19", sys.executable, "-m", "convattn", "train", self.recipe]
        return [*train, *(f"{key}={value}" for key, value in settings.items())]

    def start(self, options: argparse.Namespace) -> subprocess.Popen[bytes]:
        """Start or resume it, with its output in its log."""
        log = options.out / self.name / "train.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"{self.name}: {log}", flush=True)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with log.open("ab") as file:
            return subprocess.Popen(self.command(options), stdout=file, stderr=file, env=environment)


QUEUE = [
    Run("esc-nano-x2", "esc-nano", "photos", {"scale": 2}),
    Run("esc-small-real-x4", "esc-small-real", "pairs", {"learning_rate": 4e-4}),
    Run("esc-nano-x4", "esc-nano", "photos", {"scale": 4}),
    Run("esc-nano-x3", "esc-nano", "photos", {"scale": 3}),
]
"""In the order in which they start."""


def work_through(options: argparse.Namespace) -> list[str]:
    """Train as many at a time as there are jobs; return the names of the runs that failed."""
    started: list[subprocess.Popen[bytes]] = []

    def train(run: Run) -> int:
        started.append(run.start(options))
        return started[-1].wait()

    with ThreadPoolExecutor(options.jobs) as pool:
        runs = [pool.submit(train, run) for run in QUEUE]
        try:
            return [run.name for run, future in zip(QUEUE, runs, strict=True) if future.result()]
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in started:
                process.terminate()
            raise


def main() -> None:
    """Run the queue."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of good images")
    parser.add_argument("--pairs", type=Path, required=True, help="folder that make_teacher_pairs.py filled")
    parser.add_argument("--validation", type=Path, help="folder of images to measure PSNR on")
    parser.add_argument("--out", type=Path, default=Path("runs/weights"))
    parser.add_argument("--jobs", type=int, default=1, help="how many train at a time, a core each")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if failed := work_through(parser.parse_args()):
        sys.exit(f"These runs failed, see their logs: {', '.join(failed)}")


if __name__ == "__main__":
    main()
