"""Whole images, tiles, strips, videos and evaluation with the meta device in place of an accelerator."""

from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from convattn.evaluation.protocol import Pair, evaluate, with_network
from convattn.inference import memory_budget
from convattn.inference.upscaler import Upscaler
from convattn.models.registry import build

ATEN = torch.ops.aten
READS = (ATEN._local_scalar_dense.default, ATEN.item.default, ATEN.is_nonzero.default)
"""Operations that read a value: the last two come undecomposed in inference mode."""


class Downloads(TorchDispatchMode):
    """Lets tensors leave the meta device where code copies them: they are zero, and true if asked."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        source = args[0] if args and isinstance(args[0], Tensor) else None
        if source is not None and source.is_meta and kwargs.get("device") == torch.device("cpu"):
            return torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)
        if func is ATEN.copy_.default and args[1].is_meta and not args[0].is_meta:
            return args[0].zero_()
        if func in READS and args[0].is_meta:
            return True
        return func(*args, **kwargs)


@pytest.fixture(autouse=True)
def _downloads() -> Iterator[None]:
    with Downloads():
        yield


@pytest.fixture
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "_ALWAYS_WHOLE", 0)
    monkeypatch.setattr(memory_budget, "_SHARE_FOR_IMAGES", 0)
    monkeypatch.setattr(memory_budget, "_SHARE_FOR_STRIPS", 0)


def upscaler(name: str, **options: Any) -> Upscaler:
    network = build(name, None if name.endswith("lte") else 2)
    made = Upscaler(network, 2, device="meta", **options)
    assert all(parameter.is_meta for parameter in network.parameters())
    return made


def result(upscale: Upscaler, channels: int, size: tuple[int, int] = (70, 45)) -> np.ndarray:
    image = np.full((*size, channels), 255, np.uint8)
    image[: size[0] // 2, :, -1] = 9  # alpha, where there is any, varies
    made: np.ndarray = upscale(image)
    return made


CASES = [("esc-nano", 1), ("esc-nano", 4), ("esc-nano-lte", 4)]


@pytest.mark.parametrize(("name", "channels"), CASES)
def test_whole_images(name: str, channels: int) -> None:
    assert result(upscaler(name), channels).shape == (140, 90, channels)


def test_tiles() -> None:
    assert result(upscaler("esc-nano", tile=96), 3, (130, 100)).shape == (260, 200, 3)


@pytest.mark.usefixtures("_little_memory")
@pytest.mark.parametrize(("name", "channels"), CASES)
def test_strips(name: str, channels: int) -> None:
    assert result(upscaler(name), channels).shape == (140, 90, channels)


def test_self_ensemble() -> None:
    assert result(upscaler("esc-nano", self_ensemble=True), 3).shape == (140, 90, 3)


def test_half_precision_is_checked_for_overflow() -> None:
    assert result(upscaler("esc-nano", precision="fp16"), 3).shape == (140, 90, 3)


def test_evaluation() -> None:
    low, high = (torch.zeros(3, 33 * scale, 40 * scale, dtype=torch.uint8) for scale in (1, 2))
    pair = Pair("set", "image", low, high)
    method = with_network(build("esc-nano", 2), 2, torch.device("meta"))
    (score,) = evaluate(method, [pair], 2)
    assert score.psnr == float("inf")


def test_batches_of_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    from convattn.video import stages
    from convattn.video.source import Frame
    from convattn.video.yuv import BT709, Encoding

    def frames() -> Generator[Frame, None, None]:
        for number in range(5):
            yield Frame(np.zeros((3, 36, 40), np.uint8), number, 1, number)

    # In one thread, as a dispatch mode holds for no other.
    monkeypatch.setattr(stages, "prefetch", lambda items, depth=2: items)
    encoding, shapes = Encoding(BT709, full=False, depth=8), []
    upscale = upscaler("esc-nano")

    def observed(rgb: Tensor) -> Tensor:
        shapes.append((rgb.device.type, *rgb.shape))
        return upscale(rgb)

    made = stages.upscale_frames(
        frames(), encoding.decode, observed, encoding.encode, batch_size=2, device="meta"
    )
    assert [(frame.number, frame.samples.shape) for frame in made] == [(n, (3, 72, 80)) for n in range(5)]
    assert shapes == [("meta", n, 3, 36, 40) for n in (2, 2, 1)]
