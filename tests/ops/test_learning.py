"""Training of networks by the compiled kernels, compiled and in several processes."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convattn.models.registry import build
from convattn.ops.cpu import gradients
from convattn.ops.cpu.library import library

pytestmark = pytest.mark.skipif(library is None, reason="the kernels are not built here")


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the kernels of gradients that were called."""
    names: set[str] = set()
    run = gradients.run

    def record(kernel: str, *args: object) -> bool:
        names.add(kernel)
        return run(kernel, *args)

    monkeypatch.setattr(gradients, "run", record)
    return names


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.rand(4, 3, 16, 20), torch.rand(4, 3, 32, 40)


def test_compiled_networks_learn_the_same(batch: tuple[Tensor, Tensor], called: set[str]) -> None:
    network = build("esc-nano", 2)
    found = {}
    for backend in (None, "aot_eager"):
        called.clear()
        own = copy.deepcopy(network)
        module = torch.compile(own, backend=backend) if backend else own
        found[backend] = _learn(module, own, batch)
        assert "feed_forward_gradient" in called
    for one, other in zip(*found.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def _learn(module: nn.Module, own: nn.Module, batch: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Three steps; the parameters afterwards."""
    optimizer = torch.optim.SGD(own.parameters(), lr=0.01)
    for _ in range(3):
        F.mse_loss(module(batch[0]), batch[1]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.detach() for parameter in own.parameters()]


_WORKER = """
import sys, torch, torch.distributed as dist, torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from convattn.models.registry import build
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
network = build("esc-nano", 2)
network.load_state_dict(torch.load(f"{folder}/weights.pt"))
low, high = (part.chunk(2)[rank] for part in torch.load(f"{folder}/batch.pt"))
replica = DistributedDataParallel(network)
F.mse_loss(replica(low), high).backward()
torch.save([parameter.grad for parameter in network.parameters()], f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.skipif(
    sys.platform == "win32" or not torch.distributed.is_available(), reason="needs gloo and file://"
)
def test_two_processes_find_the_gradients_of_one(tmp_path: Path, batch: tuple[Tensor, Tensor]) -> None:
    network = build("esc-nano", 2)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    torch.save(batch, tmp_path / "batch.pt")
    command = [sys.executable, "-c", _WORKER]
    workers = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    F.mse_loss(network(batch[0]), batch[1]).backward()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for parameter, one, other in zip(network.parameters(), first, second, strict=True):
        assert torch.equal(one, other)
        assert parameter.grad is not None
        assert (one - parameter.grad).norm() <= 1e-4 * parameter.grad.norm() + 1e-7
