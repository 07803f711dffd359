"""Build, load, fuse and save detectors with C3k2_ESC under several releases of Ultralytics. Run by hand.

    python tools/check_ultralytics_releases.py 8.3.0 8.4.0 8.4.190

Each release is fetched without its dependencies into a folder of its own, ahead of the installed one.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

RELEASES = ["8.3.0", "8.3.100", "8.3.200", "8.4.0", "8.4.50", "8.4.100", "8.4.150", "8.4.190"]
IMPORT_ONLY = "import sys; from ultralytics import YOLO; YOLO(sys.argv[1])"


def main(releases: list[str]) -> int:
    """Print a line for each release and return how many failed."""
    return sum(not _works(release) for release in releases or RELEASES)


def _works(release: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
        subprocess.run([*pip, f"ultralytics=={release}"], check=True)
        environment = {
            **os.environ,
            "PYTHONPATH": folder,
            "YOLO_CONFIG_DIR": folder,
            "YOLO_OFFLINE": "1",
            "YOLO_AUTOINSTALL": "0",
        }
        run = subprocess.run(
            [sys.executable, __file__, "--inside", folder], env=environment, capture_output=True, text=True
        )
    lines = (run.stdout if run.returncode == 0 else run.stderr).strip().splitlines()
    print(f"{release}: {lines[-1] if lines else 'no output'}", flush=True)
    return run.returncode == 0


def _check_inside(folder: str) -> None:
    """The check itself, in a process that sees the release."""
    import torch
    import ultralytics
    from ultralytics import YOLO

    import convattn_yolo

    convattn_yolo.install()  # the start-up hook may be off

    torch.set_num_threads(1)
    family = "yolo26" if list(Path(ultralytics.__file__).parent.rglob("yolo26.yaml")) else "yolo11"
    image = torch.rand(1, 3, 64, 64)
    stock = YOLO(f"{family}n.yaml").model
    for layer in stock.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.running_mean, -0.1, 0.1)
    zero = YOLO(f"{family}n-C3k2_ESC-zero.yaml").model
    zero.load(stock)
    assert torch.equal(zero.eval()(image)[0], stock.eval()(image)[0]), (
        "the zero start is not the stock network"
    )

    names = [f"{family}{name}.yaml" for name in ("m-C3k2_ESC", "s-seg_c3k2-esc_stride8", "X-cls-C3K2_ESC")]
    for name in names:
        network = YOLO(name).model
        kernels = [key for key in network.state_dict() if "large_kernel" in key]
        assert len(kernels) == 1, f"{name} has {len(kernels)} kernels"

    model = YOLO(f"{family}n-C3k2_ESC-neck.yaml")
    before = model.model.eval()(image)[0]
    torch.save({"model": model.model, "train_args": {}}, f"{folder}/saved.pt")
    subprocess.run([sys.executable, "-c", IMPORT_ONLY, f"{folder}/saved.pt"], check=True, capture_output=True)
    gflops = model.info()[-1]
    model.fuse()
    after = model.model(image)[0]
    assert torch.allclose(before, after, rtol=1e-3, atol=1e-3), "fusing changes the network"
    print(f"works with {family} of ultralytics {ultralytics.__version__}, {gflops:.2f} GFLOPs with the neck")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        _check_inside(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1:]))
