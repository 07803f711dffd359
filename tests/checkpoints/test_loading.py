"""Reading and writing weights: every network, every layout, and files that hold none."""

import pickle
import random
import tempfile
import warnings
import zipfile
from contextlib import suppress
from dataclasses import fields
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from convattn.checkpoints import catalog
from convattn.checkpoints.key_names import from_reference, to_reference
from convattn.checkpoints.loading import load_network, save_network, transfer_scale
from convattn.errors import InputError
from convattn.layers import BodyConfig
from convattn.models.esc import ESC
from convattn.models.esc_lte import ESCLTE
from convattn.models.esc_real import ESCReal
from convattn.models.registry import build
from convattn.models.upsamplers import DySample, NearestConvUpsampler
from convattn.runtimes.pretrained import from_pretrained

SMALL = dict(dim=8, large_kernel_dim=4, blocks=2, layers=2, window_size=3, heads=2, ffn_ratio=1.25)
CONFIG_FIELDS = {field.name for field in fields(BodyConfig)}
LAYOUTS = [
    ("convattn", ".safetensors"),
    ("reference", ".safetensors"),
    ("reference", ".pth"),
    ("reference", ".pt"),
]


def randomised(network):
    """With every parameter drawn anew, so that none is zero and none can be taken for another."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def small(kind=ESC, **changes):
    hyper_parameters = SMALL | {name: changes.pop(name) for name in list(changes) if name in CONFIG_FIELDS}
    defaults = dict(scale=2) if kind is ESC else {}
    return randomised(kind(BodyConfig(**hyper_parameters), **(defaults | changes)))


def assert_same_network(actual, expected):
    assert type(actual) is type(expected)
    assert actual.scale == expected.scale
    assert not actual.training
    torch.testing.assert_close(actual.state_dict(), expected.state_dict(), rtol=0, atol=0)
    arguments = (torch.rand(1, 3, 5, 4), *([(7, 9)] if expected.scale is None else []))
    with torch.no_grad():
        torch.testing.assert_close(actual(*arguments), expected.eval()(*arguments), rtol=1e-4, atol=1e-4)


# The names of the reference code, written down from a description of its checkpoints, not from our tables.


def parameters_of(*parts):
    return {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}


def body(blocks, layers, *, norm=False, predictor="dwc_proj"):
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


def real(blocks, layers, *positions):
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
PARAMETERS = {
    "esc": {2: 946_728, 3: 955_383, 4: 967_500},
    "esc-light": {2: 603_600, 3: 612_255, 4: 624_372},
    "esc-fp": {2: 523_675, 3: 530_170, 4: 539_263},
    "esc-xl": {2: 12_455_916, 3: 12_481_851, 4: 12_518_160},
    "esc-real": {4: 2_265_307},
    "esc-lte": {None: 1_433_631},
}


@pytest.mark.parametrize("name", REFERENCE_NAMES)
def test_reference_names(name):
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
def test_published_networks_survive_the_reference_layout(name, scale, count, tmp_path):
    network = build(name, scale)
    save_network(network, tmp_path / "network.pth", layout="reference")
    loaded = load_network(tmp_path / "network.pth")
    assert sum(parameter.numel() for parameter in loaded.parameters()) == count
    assert loaded.scale == scale
    torch.testing.assert_close(loaded.state_dict(), network.state_dict(), rtol=0, atol=0)


class Reference:
    """What the reference code computes from tensors of these names, for one image of whole windows."""

    def __init__(self, state, window):
        self.state, self.window = state, window

    def conv(self, name, x, **options):
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **options)

    def norm(self, name, x):
        if f"{name}.weight" not in self.state:
            return x
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.layer_norm(x.movedim(1, -1), weight.shape, weight, bias, 1e-6).movedim(-1, 1)

    def ffn(self, name, x):
        x = F.gelu(self.conv(f"{name}.proj", x))
        return self.conv(
            f"{name}.aggr", x + F.gelu(self.conv(f"{name}.dwc", x, padding=1, groups=x.shape[1]))
        )

    def attention(self, name, x):
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

    def conv_attention(self, name, x):
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

    def features(self, x, blocks, layers):
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

    def classic(self, x, scale, mode="nearest"):
        residual = F.pixel_shuffle(self.conv("to_img", self.features(x, 2, 2), padding=1), scale)
        return residual + F.interpolate(x, scale_factor=scale, mode=mode)

    def real(self, x, doublings):
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


NEAREST = partial(partial, NearestConvUpsampler)


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
def test_reference_file_computes_what_the_reference_code_would(network, names, compute, tmp_path):
    state = to_reference(network.state_dict())
    assert set(state) == names
    torch.save({"params_ema": state}, tmp_path / "network.pth")
    loaded = load_network(tmp_path / "network.pth").double()
    reference = Reference({key: tensor.double() for key, tensor in state.items()}, window=3)
    x = torch.rand(1, 3, 6, 9, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), compute(reference, x))


def test_names_of_dysample():
    network = small(ESCReal, norm=True, upsampler=partial(DySample, scale=4))
    tail = {"to_img.init_pos", "to_img.scope.weight"} | parameters_of("to_img.offset", "to_img.end_conv")
    assert set(to_reference(network.state_dict())) == real(2, 2) | tail


@st.composite
def networks(draw):
    """Networks of any shape."""
    heads = draw(st.integers(1, 3))
    dim = heads * draw(st.integers(2, 5))
    hidden = st.integers(1, 2 * dim).map(lambda channels: (channels + 0.5) / dim)
    features = dict(
        dim=dim,
        heads=heads,
        large_kernel_dim=draw(st.integers(4, max(4, dim))),
        large_kernel_size=draw(st.sampled_from([3, 5, 13])),
        blocks=draw(st.integers(1, 2)),
        layers=draw(st.integers(1, 3)),
        window_size=draw(st.integers(1, 4)),
        ffn_ratio=draw(hidden),
        first_ffn_ratio=draw(hidden),
        norm=draw(st.booleans()),
        factored=draw(st.booleans()),
    )
    features["dim"] = dim = max(dim, features["large_kernel_dim"])
    features["heads"] = heads if dim % heads == 0 else 1
    kind = draw(st.sampled_from([ESC, ESCReal, ESCLTE]))
    if kind is ESCLTE:
        return small(ESCLTE, hidden=2 * draw(st.integers(1, 4)), **features)
    if kind is ESC:
        mode = "bicubic" if features["factored"] else "nearest"
        return small(ESC, scale=draw(st.integers(1, 5)), image_skip=mode, **features)
    if draw(st.booleans()):
        convs = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
        width = draw(st.integers(1, 6))
        upsampler = partial(NearestConvUpsampler, convs=convs, width=width)
        return small(ESCReal, upsampler=upsampler, **features)
    groups = draw(st.sampled_from([n for n in range(1, dim + 1) if dim % n == 0]))
    scale = draw(st.integers(1, 5))
    return small(ESCReal, upsampler=partial(DySample, scale=scale, groups=groups), **features)


@given(networks(), st.sampled_from(LAYOUTS))
@settings(max_examples=30, deadline=None)
def test_round_trip(network, target):
    layout, suffix = target
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"network{suffix}"
        save_network(network, path, layout=layout)
        state = torch.get_rng_state()
        loaded = load_network(path)
        assert torch.equal(torch.get_rng_state(), state)  # loading draws no random numbers
    assert_same_network(loaded, network)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def zeroed(state):
    return {key: 0 * tensor for key, tensor in state.items()}


def prefixed(state, prefix="module."):
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"params": state},
        lambda state: {"params_ema": state, "params": zeroed(state)},
        lambda state: {"params": prefixed(state), "iteration": 7, "optimizer": {"state": {}}},
        lambda state: {"model": {"name": "lte", "args": {"width": 256}, "sd": prefixed(state)}, "epoch": 3},
        lambda state: {key: tensor.bfloat16().float().bfloat16() for key, tensor in state.items()},
        lambda state: {"n_averaged": torch.tensor(3), **prefixed(state)},
        lambda state: {"state_dict": prefixed(state, "net_g.") | prefixed({"w": torch.ones(2)}, "net_d.")},
        lambda state: {"state_dict": prefixed(state, "model._orig_mod."), "pytorch-lightning_version": "2"},
        lambda state: prefixed(state, "generator.module."),
        lambda state: (
            prefixed({k: 0 * t for k, t in state.items()}, "net_g.") | prefixed(state, "net_g_ema.")
        ),
    ],
    ids=[
        "bare",
        "params",
        "params_ema",
        "module",
        "LTE",
        "half precision",
        "AveragedModel",
        "Lightning GAN",
        "Lightning compiled",
        "generator",
        "EMA beside the generator",
    ],
)
def test_what_training_code_puts_around_weights(wrap, tmp_path):
    network = small()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.bfloat16())
    torch.save(wrap(to_reference(network.state_dict())), tmp_path / "network.pth")
    assert_same_network(load_network(tmp_path / "network.pth"), network)


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("dump", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj, 2))])
def test_code_in_a_file_is_not_run(dump, tmp_path):
    target = tmp_path / "executed"
    dump({"params": to_reference(small().state_dict()), "extra": Malicious(target)}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="could run code"):
        load_network(tmp_path / "evil.pth")
    assert not target.exists()


def without(key):
    return lambda state: {name: tensor for name, tensor in state.items() if name != key}


def replaced(key, shape):
    return lambda state: state | {key: torch.zeros(shape)}


@pytest.mark.parametrize(
    "change",
    [
        lambda state: [*state.values()],
        lambda state: {"epoch": 3},
        lambda state: {},
        lambda state: {"conv.weight": torch.zeros(4, 3, 3, 3)},
        without("plk_filter"),
        without("blocks.1.pconvs.0.plk.dwc_proj.3.bias"),
        replaced("to_img.weight", (13, 8, 3, 3)),
        replaced("to_img.weight", (0, 8, 3, 3)),
        replaced("proj.weight", (0, 3, 3, 3)),
        replaced("plk_filter", ()),
        replaced("blocks.0.attn.relative_position_bias", (25,)),
        replaced("blocks.999999999999.ln_out.weight", (8,)),
        replaced("to_img.MetaUpsample", (7,)),
    ],
)
def test_other_tensors_are_refused(change, tmp_path):
    torch.save(change(to_reference(small().state_dict())), tmp_path / "other.pth")
    _assert_refused(tmp_path / "other.pth")


@pytest.mark.parametrize(
    "table",
    [
        torch.zeros(1).expand(2, 39_999**2),  # window 20,000 by a stride of 0
        torch.zeros(2, 2 * 10**6).as_strided((2, 2 * 10**9), (0, 0)),
    ],
)
def test_tensors_larger_than_their_file_are_refused(table, tmp_path):
    state = to_reference(small().state_dict()) | {"blocks.0.attn.relative_position_bias": table}
    torch.save({"params": state}, tmp_path / "huge.pth")
    _assert_refused(tmp_path / "huge.pth")


def test_a_compressed_archive_larger_than_its_file_is_refused(tmp_path):
    torch.save({"params": {"weight": torch.zeros(10**6)}}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
    _assert_refused(tmp_path / "bomb.pth")


@pytest.mark.parametrize(("convs", "window"), [((1,) * 6, 3), ((2,), 200)])
def test_unreasonable_sizes_are_refused(convs, window, tmp_path):
    network = small(ESCReal, upsampler=NEAREST(convs=convs), window_size=window)
    torch.save(network.state_dict(), tmp_path / "large.pth")
    _assert_refused(tmp_path / "large.pth")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    state = small().state_dict()
    state["to_image.bias"][0] = float("nan")
    torch.save(state, tmp_path / "diverged.pth")
    with pytest.raises(InputError, match="not finite"):
        load_network(tmp_path / "diverged.pth")


def test_torchscript_is_refused_without_a_warning_of_torch(tmp_path, recwarn):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), tmp_path / "script.pt")
    recwarn.clear()
    _assert_refused(tmp_path / "script.pt")
    assert not [str(warning.message) for warning in recwarn]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"<html>404</html>", bytes(64), b"\xff" * 64])
def test_other_files_are_refused(suffix, content, tmp_path):
    path = tmp_path / f"other{suffix}"
    path.write_bytes(content)
    _assert_refused(path)


def test_missing_file_and_folder_are_refused(tmp_path):
    _assert_refused(tmp_path / "missing.pth")
    _assert_refused(tmp_path)


def _assert_refused(path):
    with pytest.raises(InputError) as refusal:
        load_network(path)
    message = str(refusal.value)
    assert str(path) in message
    assert message.endswith(".")
    assert "\n" not in message


@pytest.fixture(scope="module", params=LAYOUTS[:3], ids="".join)
def written(request, tmp_path_factory):
    layout, suffix = request.param
    path = tmp_path_factory.mktemp("written") / f"network{suffix}"
    save_network(small(), path, layout=layout)
    return path


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_damaged_files_are_refused_or_still_whole(written, data):
    content = bytearray(written.read_bytes())
    last = len(content) - 1
    places = st.integers(0, last) | st.integers(0, 600) | st.integers(last - 600, last)
    if data.draw(st.booleans(), "truncated"):
        del content[data.draw(places) :]
    else:
        for place in data.draw(st.lists(places, min_size=1, max_size=4)):
            content[place] = data.draw(st.integers(0, 255))
    path = written.with_stem("damaged")
    path.write_bytes(content)
    with suppress(InputError):
        load_network(path)


@pytest.mark.parametrize(("layout", "suffix"), LAYOUTS[:2])
def test_header(layout, suffix, tmp_path):
    save_network(build("esc-nano", 3), tmp_path / f"n{suffix}", layout=layout, metadata={"seed": 5})
    with safe_open(tmp_path / f"n{suffix}", "pt") as file:
        header = file.metadata()
    assert header["format"] == {"convattn": "convattn", "reference": "pt"}[layout]
    assert (header["network"], header["scale"], header["seed"]) == ("esc-nano", "3", "5")
    assert header["version"]


@pytest.mark.parametrize("name", [*REFERENCE_NAMES, "esc-nano"])
def test_header_names_the_network(name, tmp_path):
    save_network(build(name, 4), tmp_path / "network.safetensors")
    with safe_open(tmp_path / "network.safetensors", "pt") as file:
        assert file.metadata()["network"] == name


def test_compiled_network_is_saved_under_its_own_names(tmp_path):
    network = small()
    save_network(torch.compile(network), tmp_path / "network.safetensors")
    assert_same_network(load_network(tmp_path / "network.safetensors"), network)


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "network.safetensors"
    save_network(small(), path)
    before = path.read_bytes()

    write = Path.write_bytes

    def full(file: Path, data: bytes) -> int:
        write(file, b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left on device"):
        save_network(small(), path)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    ("layout", "file"),
    [("convattn", "x.pth"), ("reference", "x.onnx"), ("convattn", "missing/x.safetensors")],
)
def test_unusable_target_is_refused(layout, file, tmp_path):
    with pytest.raises(InputError, match="x"):
        save_network(small(), tmp_path / file, layout=layout)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("old", "new"), [(2, 2), (2, 3), (2, 4), (3, 1)])
def test_transfer_scale_resizes_each_square(old, new):
    state = small(scale=old).state_dict()
    moved = transfer_scale(state, new)
    for key in ("to_image.weight", "to_image.bias"):
        before = state[key].reshape(3, old, old, -1)
        after = moved[key].reshape(3, new, new, -1)
        for color in range(3):
            for i in range(before.shape[-1]):
                square = before[None, None, color, ..., i]
                expected = F.interpolate(square, (new, new), mode="bilinear", align_corners=False)
                torch.testing.assert_close(after[color, ..., i], expected[0, 0])
    small(scale=new).load_state_dict(moved)


def test_transfer_scale_needs_a_classic_network():
    with pytest.raises(InputError, match="classic"):
        transfer_scale(small(ESCReal).state_dict(), 2)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    folder = tmp_path / "bundled"
    folder.mkdir()
    for scale in (2, 4):
        save_network(small(scale=scale), folder / f"esc-small-x{scale}.safetensors")
    monkeypatch.setattr(catalog, "_BUNDLED", folder)
    return folder


def test_bundled_weights(shipped):
    assert catalog.scales("esc-small") == [2, 4]
    assert from_pretrained("esc-small", scale=4).scale == 4
    for scale in (None, 3):
        with pytest.raises(InputError, match="scale ×2, ×4"):
            from_pretrained("esc-small", scale=scale)


def test_weights_of_a_file(shipped):
    file = shipped / "esc-small-x2.safetensors"
    assert from_pretrained(file).scale == 2
    assert from_pretrained(str(file), scale=2).scale == 2
    with pytest.raises(InputError, match="upscales ×2, not ×3"):
        from_pretrained(file, scale=3)


@pytest.mark.parametrize("name", ["esc-unknown", "runs/missing.pth", "/missing/x.pth", "./a/b", ""])
def test_unknown_weights(shipped, name, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    with pytest.raises(InputError, match=r"esc-small.*\.$"):
        from_pretrained(name)


def test_weights_from_the_hub(shipped, monkeypatch):
    files = ["README.md", "esc-small-x2.safetensors", "esc-small-x4.safetensors"]
    monkeypatch.setattr(huggingface_hub, "list_repo_files", {"user/repo": files}.__getitem__)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, file: str(shipped / file))
    assert from_pretrained("user/repo/esc-small-x4.safetensors").scale == 4
    assert from_pretrained("user/repo", scale=2).scale == 2
    with pytest.raises(InputError, match=r"esc-small-x2.safetensors, esc-small-x4.safetensors"):
        from_pretrained("user/repo")


def test_weights_from_a_folder_that_could_be_a_hub_id(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs/small"
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match=r"Of the files in runs/small, none could be meant"):
        from_pretrained("runs/small")
    for scale in (2, 4):
        (folder / f"my-x{scale}.safetensors").write_bytes(
            (shipped / f"esc-small-x{scale}.safetensors").read_bytes()
        )
        assert from_pretrained("runs/small", scale=scale).scale == scale
    with pytest.raises(InputError, match=r"my-x2.safetensors, my-x4.safetensors could be meant; name one"):
        from_pretrained("runs/small")


def test_unreachable_hub_is_one_sentence(monkeypatch):
    def unreachable(*_):
        raise ConnectionError("no route to host\nsecond line")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(InputError, match=r"user/repo/x\.pth .*no route to host\.$"):
        from_pretrained("user/repo/x.pth")


def test_everything_that_ships_loads():
    shipped = [
        model for model in catalog.models().values() if model.weights.keys() and not model.needs_spandrel
    ]
    for model in shipped:
        for scale, weights in model.weights.items():
            if weights.url is None:
                network = from_pretrained(model.name, scale)
                assert network.scale == scale
                assert sum(tensor.numel() for tensor in network.parameters()) == weights.parameters


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_saved_weights_are_as_readable_as_any_new_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    save_network(build("esc-nano", 2), tmp_path / name, layout="reference")
    assert (tmp_path / name).stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("container", ["generator", "g_ema", "ema_state_dict", "weights"])
def test_state_dicts_lie_in_containers_of_many_trainers(tmp_path, container):
    network = build("esc-nano", 2)
    torch.save({container: network.state_dict(), "step": 3}, tmp_path / "a.pth")
    loaded = load_network(tmp_path / "a.pth").state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    "change", [lambda x: x.to(torch.complex64), lambda x: x.to_sparse()], ids=["complex", "sparse"]
)
def test_tensors_of_other_kinds_are_refused(tmp_path, change):
    state = {key: change(tensor) for key, tensor in build("esc-nano", 2).state_dict().items()}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_network(tmp_path / "a.pth")


def test_numbers_as_keys_are_refused(tmp_path):
    torch.save({0: torch.zeros(2)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="no network"):
        load_network(tmp_path / "a.pth")
