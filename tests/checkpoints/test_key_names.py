"""Key names of the reference code, and what it computes from the tensors of these names."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convattn.checkpoints.key_names import from_reference, to_reference
from convattn.checkpoints.loading import load_network, save_network
from convattn.models.esc_real import ESCReal
from convattn.models.registry import build
from convattn.models.upsamplers import DySample

from .conftest import NEAREST, small

# The names of the reference code, written down from a description of its checkpoints, not from our tables.


def parameters_of(*parts: str) -> set[str]:
    return {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}


def body(blocks: int, layers: int, *, norm: bool = False, predictor: str = "dwc_proj") -> set[str]:
    names = parameters_of("proj", "last")
    for i in range(blocks):
        parts = ["ln_proj", "proj.proj", "proj.dwc", "proj.aggr", "ln_attn", "attn.to_qkv", "attn.to_out"]
        for j in range(layers):
            parts += [f"convffns.{j}.proj", f"convffns.{j}.dwc", f"convffns.{j}.aggr", f"pconvs.{j}.aggr"]
            parts += [f"pconvs.{j}.plk.{predictor}.1", f"pconvs.{j}.plk.{predictor}.3"]
            parts += [f"lns.{j}"] if norm else []
        parts += ["ln_out", "conv_out"]
        names |= {f"blocks.{i}.{name}" for name in parameters_of(*parts) | {"attn.relative_position_bias"}}
    return names


def real(blocks: int, layers: int, *positions: int) -> set[str]:
    names = body(blocks, layers, norm=True) | {"plk_filter"}
    return names | parameters_of("skip.0", "skip.1", "skip.3", *(f"to_img.{i}" for i in positions))


REFERENCE_NAMES = {
    "esc": body(5, 5) | {"plk_filter"} | parameters_of("to_img"),
    "esc-light": body(3, 5) | {"plk_filter"} | parameters_of("to_img"),
    "esc-fp": body(5, 5, norm=True, predictor="proj")
    | {"lk_channel", "lk_spatial"}
    | parameters_of("ln_last", "to_img"),
    "esc-xl": body(8, 5, norm=True) | {"plk_filter"} | parameters_of("to_img"),
    "esc-real": real(10, 5, 1, 4, 6, 8),
    "esc-lte": {f"encoder.{name}" for name in body(5, 5) | {"plk_filter"}}
    | {"phase.weight"}
    | parameters_of("coef", "freq", *(f"imnet.layers.{i}" for i in (0, 2, 4, 6))),
}


PARAMETERS: dict[str, dict[int | None, int]] = {
    "esc": {2: 946_728, 3: 955_383, 4: 967_500},
    "esc-light": {2: 603_600, 3: 612_255, 4: 624_372},
    "esc-fp": {2: 523_675, 3: 530_170, 4: 539_263},
    "esc-xl": {2: 12_455_916, 3: 12_481_851, 4: 12_518_160},
    "esc-real": {4: 2_265_307},
    "esc-lte": {None: 1_433_631},
}


@pytest.mark.parametrize("name", REFERENCE_NAMES)
def test_reference_names(name: str) -> None:
    with torch.device("meta"):
        state = build(name, 4).state_dict()
    reference = to_reference(state)
    assert set(reference) == REFERENCE_NAMES[name]
    shuffled = dict(random.Random(0).sample(list(reference.items()), len(reference)))
    assert from_reference(shuffled).keys() == state.keys()


@pytest.mark.parametrize(
    ("name", "scale", "count"),
    [(name, scale, count) for name, counts in PARAMETERS.items() for scale, count in counts.items()],
)
def test_published_networks_survive_the_reference_layout(
    name: str, scale: int | None, count: int, tmp_path: Path
) -> None:
    network = build(name, scale)
    save_network(network, tmp_path / "network.pth", layout="reference")
    loaded = load_network(tmp_path / "network.pth")
    assert sum(parameter.numel() for parameter in loaded.parameters()) == count
    assert loaded.scale == scale
    torch.testing.assert_close(loaded.state_dict(), network.state_dict(), rtol=0, atol=0)


class Reference:
    """What the reference code computes from tensors of these names, for one image of whole windows."""

    def __init__(self, state: dict[str, Tensor], window: int) -> None:
        self.state, self.window = state, window

    def conv(self, name: str, x: Tensor, **options: Any) -> Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **options)

    def norm(self, name: str, x: Tensor) -> Tensor:
        if f"{name}.weight" not in self.state:
            return x
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.layer_norm(x.movedim(1, -1), weight.shape, weight, bias, 1e-6).movedim(-1, 1)

    def ffn(self, name: str, x: Tensor) -> Tensor:
        x = F.gelu(self.conv(f"{name}.proj", x))
        return self.conv(
            f"{name}.aggr", x + F.gelu(self.conv(f"{name}.dwc", x, padding=1, groups=x.shape[1]))
        )

    def attention(self, name: str, x: Tensor) -> Tensor:
        table = self.state[f"{name}.relative_position_bias"]
        side, heads = self.window, len(table)
        pixels = torch.cartesian_prod(torch.arange(side), torch.arange(side))
        row, column = (pixels[None] - pixels[:, None] + side - 1).unbind(-1)
        out = torch.empty_like(x)
        for top in range(0, x.shape[2], side):
            for left in range(0, x.shape[3], side):
                here = (..., slice(top, top + side), slice(left, left + side))
                qkv = self.conv(f"{name}.to_qkv", x[here])
                q, k, v = qkv.reshape(3, heads, -1, side**2).transpose(2, 3)
                score = q @ k.mT / q.shape[-1] ** 0.5 + table[:, row * (2 * side - 1) + column]
                out[here] = (score.softmax(-1) @ v).mT.reshape(1, -1, side, side)
        return self.conv(f"{name}.to_out", out)

    def conv_attention(self, name: str, x: Tensor) -> Tensor:
        factored = "lk_spatial" in self.state
        predictor = f"{name}.plk.{'proj' if factored else 'dwc_proj'}"
        large = self.state["lk_spatial" if factored else "plk_filter"]
        dim, pad = len(large), large.shape[-1] // 2
        first, rest = x[:, :dim], x[:, dim:]
        kernel = F.gelu(self.conv(f"{predictor}.1", first.mean((2, 3), keepdim=True)))
        kernel = self.conv(f"{predictor}.3", kernel).reshape(dim, 1, 3, 3)
        if factored:
            first = F.conv2d(first, self.state["lk_channel"])
            first = F.conv2d(first, large + F.pad(kernel, [pad - 1] * 4), padding=pad, groups=dim)
        else:
            turned = [large.rot90(n, (2, 3)) for n in range(4)]
            mean = sum(turn + turn.flip(3) for turn in turned) / 8
            first = F.conv2d(first, mean, padding=pad) + F.conv2d(first, kernel, padding=1, groups=dim)
        return self.conv(f"{name}.aggr", torch.cat((first, rest), 1))

    def features(self, x: Tensor, blocks: int, layers: int) -> Tensor:
        shallow = x = self.conv("proj", x, padding=1)
        for block in (f"blocks.{i}" for i in range(blocks)):
            skip = x
            x = self.ffn(f"{block}.proj", self.norm(f"{block}.ln_proj", x))
            x = x + self.attention(f"{block}.attn", self.norm(f"{block}.ln_attn", x))
            for j in range(layers):
                y = self.ffn(f"{block}.convffns.{j}", self.norm(f"{block}.lns.{j}", x))
                x = x + self.conv_attention(f"{block}.pconvs.{j}", y)
            x = skip + self.conv(f"{block}.conv_out", self.norm(f"{block}.ln_out", x), padding=1)
        return shallow + self.conv("last", self.norm("ln_last", x), padding=1)

    def classic(self, x: Tensor, scale: int, mode: str = "nearest") -> Tensor:
        residual = F.pixel_shuffle(self.conv("to_img", self.features(x, 2, 2), padding=1), scale)
        return residual + F.interpolate(x, scale_factor=scale, mode=mode)

    def real(self, x: Tensor, doublings: tuple[int, ...]) -> Tensor:
        skip = F.pad(self.conv("skip.0", x), [3] * 4, mode="reflect")
        skip = F.leaky_relu(self.conv("skip.1", skip, groups=skip.shape[1]), 0.2)
        x = self.features(x, 2, 2) + self.conv("skip.3", skip)
        for i in range(1 + max(int(key.split(".")[1]) for key in self.state if key.startswith("to_img"))):
            if i in doublings:
                x = F.interpolate(x, scale_factor=2)
            elif f"to_img.{i}.weight" in self.state:
                x = self.conv(f"to_img.{i}", x, padding=1)
            else:
                x = F.leaky_relu(x, 0.2)
        return x


@pytest.mark.parametrize(
    ("network", "names", "compute"),
    [
        (
            small(scale=3),
            body(2, 2) | {"plk_filter"} | parameters_of("to_img"),
            lambda reference, x: reference.classic(x, 3),
        ),
        (
            small(scale=2, norm=True),
            body(2, 2, norm=True) | {"plk_filter"} | parameters_of("to_img"),
            lambda reference, x: reference.classic(x, 2),
        ),
        (
            small(scale=4, norm=True, factored=True, first_ffn_ratio=1.5, image_skip="bicubic"),
            body(2, 2, norm=True, predictor="proj")
            | {"lk_channel", "lk_spatial"}
            | parameters_of("ln_last", "to_img"),
            lambda reference, x: reference.classic(x, 4, "bicubic"),
        ),
        (
            small(ESCReal, norm=True),
            real(2, 2, 1, 4, 6, 8),
            lambda reference, x: reference.real(x, (0, 3)),
        ),
        (
            small(ESCReal, norm=True, upsampler=NEAREST(convs=(2, 2))),
            real(2, 2, 1, 3, 6, 8, 10),
            lambda reference, x: reference.real(x, (0, 5)),
        ),
        (
            small(ESCReal, norm=True, upsampler=NEAREST(convs=(2,))),
            real(2, 2, 1, 3, 5),
            lambda reference, x: reference.real(x, (0,)),
        ),
    ],
    ids=["classic", "normalized", "factored", "real", "neosr real", "neosr real ×2"],
)
def test_reference_file_computes_what_the_reference_code_would(
    network: nn.Module, names: set[str], compute: Callable[..., Any], tmp_path: Path
) -> None:
    state = to_reference(network.state_dict())
    assert set(state) == names
    torch.save({"params_ema": state}, tmp_path / "network.pth")
    loaded = load_network(tmp_path / "network.pth").double()
    reference = Reference({key: tensor.double() for key, tensor in state.items()}, window=3)
    x = torch.rand(1, 3, 6, 9, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), compute(reference, x))


def test_names_of_dysample() -> None:
    network = small(ESCReal, norm=True, upsampler=partial(DySample, scale=4))
    tail = {"to_img.init_pos", "to_img.scope.weight"} | parameters_of("to_img.offset", "to_img.end_conv")
    assert set(to_reference(network.state_dict())) == real(2, 2) | tail
