"""Networks on the meta device, which refuses tensors of the CPU as a GPU would.

It computes no values. These tests find mixed devices, hidden copies to the CPU, wrong shapes and dtypes.
"""

import pytest
import torch
from torch import Tensor

from convattn.images.resize import resize_bicubic
from convattn.inference.tiles import shared_averages, with_averages
from convattn.models.discriminator import Discriminator, adversarial_loss
from convattn.models.registry import NAMES, build
from convattn.ops import conv_attention, window_attention
from convattn.ops.conv_attention import BACKENDS as CONVOLUTIONS
from convattn.ops.window_attention import BACKENDS as ATTENTIONS

SMALL = [name for name in NAMES if name != "esc-xl"]


def on_meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, device="meta", dtype=dtype)


def run(network: torch.nn.Module, x: Tensor, scale: int = 2) -> Tensor:
    """The output of a network, also of one that takes a size."""
    if network.scale is None:
        return network(x, (x.shape[2] * scale, x.shape[3] * scale))
    return network(x)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_networks_infer(name: str, dtype: torch.dtype) -> None:
    network = build(name, 2 if name.startswith("esc") and "real" not in name else None).to("meta", dtype)
    with torch.inference_mode():
        out = run(network, on_meta(2, 3, 37, 50, dtype=dtype))
    scale = network.scale or 2
    expected = torch.float32 if network.scale is None else dtype  # positions need float32
    assert (out.device.type, out.dtype) == ("meta", expected)
    assert out.shape == (2, 3, 37 * scale, 50 * scale)


@pytest.mark.parametrize("name", SMALL)
def test_networks_train_a_step(name: str) -> None:
    network = build(name, 2 if "real" not in name else None).to("meta")
    optimizer = torch.optim.AdamW(network.parameters())
    run(network, on_meta(2, 3, 24, 24)).abs().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", sorted({*ATTENTIONS} - {"flex"}))  # which compiles for a device that runs
def test_window_attention(backend: str, dtype: torch.dtype) -> None:
    q, k, v = (on_meta(1, 32, 20, 33, dtype=dtype).requires_grad_() for _ in range(3))
    table = on_meta(2, 15**2, dtype=dtype).requires_grad_()
    out = window_attention(q, k, v, table, backend=backend)
    out.sum().backward()
    assert out.shape == q.shape
    assert {x.grad.device.type for x in (q, k, v, table)} == {"meta"}


@pytest.mark.parametrize("backend", sorted(CONVOLUTIONS))
def test_conv_attention(backend: str) -> None:
    x = on_meta(2, 8, 20, 33).requires_grad_()
    large, dynamic = on_meta(8, 8, 13, 13).requires_grad_(), on_meta(2, 8, 3, 3).requires_grad_()
    conv_attention(x, large, dynamic, backend=backend).sum().backward()
    assert all(tensor.grad is not None for tensor in (x, large, dynamic))


def test_a_tensor_left_on_the_cpu_is_noticed() -> None:
    network = build("esc-nano", 2).to("meta")
    with pytest.raises(Exception, match="device"):
        network(torch.zeros(1, 3, 24, 24))


def test_what_training_on_a_gpu_adds() -> None:
    logits = Discriminator(16).to("meta")(on_meta(1, 3, 64, 64))
    adversarial_loss(logits, real=True).backward()
    assert resize_bicubic(on_meta(1, 3, 64, 64), 0.5).device.type == "meta"


def test_tiles_share_their_averages() -> None:
    network = build("esc-nano", 2).to("meta")
    with torch.inference_mode():
        averages = shared_averages(network, [on_meta(1, 3, 40, 48), on_meta(1, 3, 40, 32)])
        out = with_averages(network, on_meta(1, 3, 64, 48), averages)
    assert {average.device.type for average in averages} == {"meta"}
    assert (out.device.type, out.shape) == ("meta", (1, 3, 128, 96))
