"""Train in two processes on a CPU through Ultralytics' own launcher and compare their networks. Run by hand.

    python tools/check_yolo_ddp.py data.yaml [model.yaml]

Ultralytics trains so on several GPUs only; the trainer here does without: gloo in place of NCCL, no device
indices, no final evaluation (which calls torch.cuda).
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.torch_utils import unwrap_model

WORLD_SIZE = 2


class ProcessorParallel(nn.parallel.DistributedDataParallel):
    """Takes device indices and does without them."""

    def __init__(self, module: nn.Module, device_ids: Any = None, **options: Any) -> None:
        super().__init__(module, **options)


class TwoProcessTrainer(DetectionTrainer):
    """A detection trainer whose workers are two processes on the same CPU."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.world_size = WORLD_SIZE
        self.ddp = "LOCAL_RANK" not in os.environ

    def _setup_ddp(self) -> None:
        self.device = torch.device("cpu")
        nn.parallel.DistributedDataParallel = ProcessorParallel
        dist.init_process_group("gloo", rank=int(os.environ["RANK"]), world_size=WORLD_SIZE)

    def final_eval(self) -> None:
        """Keep this process's parameters in place of an evaluation."""
        parameters = {name: p.detach() for name, p in unwrap_model(self.model).named_parameters()}
        torch.save(parameters, Path(self.save_dir) / f"rank{os.environ['RANK']}.pt")
        dist.barrier()


def main(data: str, model: str) -> None:
    """Print whether both processes ended with the same parameters and one kernel."""
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "imgsz": 64,
            "epochs": 2,
            "batch": 4,
            "workers": 0,
            "plots": False,
            "val": False,
            "device": "cpu",
        }
        YOLO(model).train(trainer=TwoProcessTrainer, data=data, project=folder, name="ddp", **options)
        first, second = (torch.load(Path(folder, "ddp", f"rank{rank}.pt")) for rank in range(WORLD_SIZE))
    equal = all(torch.equal(first[name], second[name]) for name in first)
    kernels = [name for name in first if "large_kernel" in name]
    print(f"{len(first)} parameters, equal in both processes: {equal}; large kernels: {kernels}")
    sys.exit(not equal or len(kernels) != 1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "yolo26n-C3k2_ESC.yaml")
