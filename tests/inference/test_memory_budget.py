"""Tiles follow the free memory, and become smaller when it runs out."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from convattn.errors import InputError
from convattn.inference import devices
from convattn.inference.upscaler import Upscaler

from .conftest import Bicubic, image_tensor, pixels


class ShortOfMemory(Bicubic):
    """Runs out of memory beyond some size, as each device says it."""

    def __init__(self, error: Exception, largest: int) -> None:
        super().__init__()
        self.error, self.largest = error, largest
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape[2:]))
        if max(x.shape[2:]) > self.largest:
            raise self.error
        return super().forward(x)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        ),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        MemoryError(),
    ],
)
def test_short_of_memory_the_tiles_become_smaller(error: Exception) -> None:
    network = ShortOfMemory(error, largest=200)
    image = image_tensor(3, 400, 10, dtype=torch.uint8)
    upscaled = Upscaler(network, device="cpu", tile=1000)(image)
    assert network.seen[0] == (400, 10)
    assert max(size[0] for size in network.seen[1:]) <= 200
    assert torch.equal(upscaled, Upscaler(Bicubic(), device="cpu")(image))


def test_no_memory_at_all_is_reported() -> None:
    network = ShortOfMemory(MemoryError(), largest=0)
    with pytest.raises(InputError, match="not even in tiles of 160 pixels"):
        Upscaler(network, device="cpu", tile=300)(image_tensor(3, 300, 300, dtype=torch.uint8))


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        Upscaler(ShortOfMemory(RuntimeError("a bug"), largest=0), device="cpu")(pixels(9, 9))


@pytest.mark.parametrize(
    ("size", "memory", "largest"), [(500, 2**24, 160), (500, 2**34, 500), (9, 2**24, 500)]
)
def test_tiles_follow_the_free_memory(
    monkeypatch: pytest.MonkeyPatch, size: int, memory: int, largest: int
) -> None:
    network, shown = Bicubic(), []
    network.register_forward_pre_hook(lambda module, args: shown.append(max(args[0].shape[2:])))
    monkeypatch.setattr("convattn.inference.memory_budget.free_memory", lambda device: memory)
    Upscaler(network, device="cpu")(pixels(size, 500, 3))
    assert max(shown) == largest


def test_free_memory_heeds_the_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    monkeypatch.setattr(devices, "_CONTAINER", tmp_path)
    assert devices.free_memory(torch.device("cpu")) == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.free_memory(torch.device("cpu")) > 10**6
