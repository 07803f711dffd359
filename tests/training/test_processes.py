"""Two processes train the network that one process trains with the whole batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")

from safetensors.torch import load_file


def _train(images: Path, out: Path, processes: int) -> None:
    """Run ``convattn train`` for three steps by as many processes, started as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = dict(
        data=images,
        output_dir=out,
        scale=2,
        max_steps=3,
        batch_size=4,
        patch_size=8,
        accelerator="cpu",
        precision="32-true",
        num_threads=1,
        devices=processes,
        ema_decay=0.5,
    )
    words = [f"{key}={value}" for key, value in settings.items()]
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command = [*launcher, f"--master-port={port}", "-m", "convattn", "train", "esc-nano", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-2000:]


@pytest.mark.skipif(sys.platform != "linux", reason="gloo over the loopback device of Linux")
def test_two_processes_train_what_one_trains_with_their_batches_together(
    images: Path, tmp_path: Path
) -> None:
    for processes in (1, 2):
        _train(images, tmp_path / str(processes), processes)
    one, two = (load_file(tmp_path / str(n) / "esc-nano-x2.safetensors") for n in (1, 2))
    assert one.keys() == two.keys()
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, rtol=0, atol=1e-4)
    step = torch.load(tmp_path / "2" / "last.ckpt", map_location="cpu", weights_only=False)["global_step"]
    assert step == 3
