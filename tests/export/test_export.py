"""An exported network computes what torch computes, at sizes and batches that were not traced."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convattn.checkpoints.loading import save_network
from convattn.cli import main
from convattn.errors import InputError
from convattn.export import PRECISIONS, export
from convattn.images.io import Image, read_image, write_image
from convattn.inference.upscaler import Upscaler
from convattn.layers import BodyConfig
from convattn.models.esc import ESC
from convattn.models.esc_lte import ESCLTE
from convattn.models.esc_real import ESCReal
from convattn.models.registry import build
from convattn.runtimes.exported import load_exported
from convattn.runtimes.pretrained import from_pretrained

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SMALL = BodyConfig(dim=8, large_kernel_dim=4, blocks=1, layers=1, window_size=8, heads=2, ffn_ratio=1.25)


def disturb(network: nn.Module) -> nn.Module:
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return disturb(ESC(SMALL, scale=2))


@pytest.fixture(scope="module")
def onnx_file(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("exported") / "network.onnx"
    export(network, file)
    return file


def assert_same_at_other_sizes(
    exported: nn.Module, network: Callable[[Tensor], Tensor], tolerance: float = 1e-4
) -> None:
    for shape in [(1, 3, 16, 8), (3, 3, 5, 40), (1, 3, 33, 2), (1, 3, 1, 1)]:
        x = torch.rand(shape)
        with torch.inference_mode():
            expected = network(x)
        torch.testing.assert_close(
            exported(x), expected, rtol=0, atol=tolerance * expected.abs().max().item()
        )


KINDS: dict[str, Callable[[], nn.Module]] = {
    "esc": lambda: ESC(SMALL, scale=2),
    "fp": lambda: ESC(replace(SMALL, factored=True, norm=True), scale=3, image_skip="bicubic"),
    "real": lambda: ESCReal(SMALL),
}


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_with_dynamic_sizes(kind: str, tmp_path: Path) -> None:
    network = disturb(KINDS[kind]())
    agreement = export(network, tmp_path / "network.onnx", opset=17)
    assert agreement.largest <= agreement.tolerance == 1e-4
    exported = load_exported(tmp_path / "network.onnx")
    assert (exported.scale, exported.window_size) == (network.scale, 8)
    assert_same_at_other_sizes(exported, network)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_half_precision(suffix: str, network: nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    export(network, tmp_path / f"half{suffix}", precision="fp16")
    assert_same_at_other_sizes(load_exported(tmp_path / f"half{suffix}"), network, 2e-3)


def test_openvino(network: nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    export(network, tmp_path / "network.xml")
    assert {path.name for path in tmp_path.iterdir()} == {"network.xml", "network.bin"}
    exported = from_pretrained(tmp_path / "network.xml", 2)
    assert (exported.scale, exported.window_size) == (2, 8)
    assert_same_at_other_sizes(exported, network)
    (tmp_path / "network.bin").unlink()
    with pytest.raises(InputError, match=r"put network\.bin beside it"):
        load_exported(tmp_path / "network.xml")


def test_ctrl_c_after_openvino_is_no_crash(network: nn.Module, tmp_path: Path) -> None:
    """Networks go in the order they came, and then a signal arrives."""
    pytest.importorskip("openvino")
    export(network, tmp_path / "network.xml")
    script = """if True:
        import gc, os, signal, sys, torch
        from convattn.runtimes.exported import load_exported
        first, second = (load_exported(sys.argv[1]) for _ in range(2))
        for exported in (first, second):
            exported(torch.rand(1, 3, 8, 8))
        del first, exported
        gc.collect()
        del second
        gc.collect()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            sys.exit(7)
    """
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "network.xml"], check=False)
    assert done.returncode == 7


def test_torch_export(tmp_path: Path) -> None:
    """Of a network whose windows are of the usual size, larger than some of the images."""
    network = disturb(ESC(replace(SMALL, window_size=32), scale=2))
    export(network, tmp_path / "network.pt2")
    exported = load_exported(tmp_path / "network.pt2")
    assert (exported.scale, exported.window_size) == (2, 32)
    assert_same_at_other_sizes(exported, network)


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2"])
def test_a_full_disk_leaves_nothing(
    suffix: str,
    network: nn.Module,
    full_disk: Callable[[int], AbstractContextManager[None]],
    tmp_path: Path,
) -> None:
    with full_disk(5_000), pytest.raises(InputError, match=r"cannot be written|could not write"):
        export(network, tmp_path / f"network{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("suffix", "sign"), [(".onnx", b"DequantizeLinear"), (".xml", b"FakeQuantize")])
def test_int8(
    suffix: str, sign: bytes, network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nncf")
    monkeypatch.setitem(PRECISIONS, "int8", 0.2)  # this network's weights are noise
    write_image(Image(np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8)), tmp_path / "a.png")
    file = tmp_path / f"network{suffix}"
    agreement = export(network, file, precision="int8", calibration=tmp_path)
    assert 0 < agreement.rms <= agreement.tolerance
    assert sign in file.read_bytes()
    assert load_exported(file)(torch.rand(2, 3, 9, 31)).shape == (2, 3, 18, 62)


@pytest.mark.parametrize("shape", [(9, 14, 4), (2, 3, 21, 8)], ids=["image", "batch"])
def test_images_come_out_the_same(shape: tuple[int, ...], network: nn.Module, onnx_file: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, shape, np.uint8, endpoint=True)
    image = pixels if pixels.ndim == 3 else torch.from_numpy(pixels)
    results = [Upscaler(model, device="cpu")(image) for model in (network, onnx_file)]
    native, exported = (np.asarray(result).astype(int) for result in results)
    assert np.abs(native - exported).max() <= 1


def test_a_file_that_differs_is_not_kept(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRECISIONS, "fp32", -1.0)
    (tmp_path / "network.onnx").write_text("as before")
    with pytest.raises(InputError, match="differs from torch"):
        export(network, tmp_path / "network.onnx")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["as before"]


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("network.bin", {}, "use one of the suffixes"),
        ("network.onnx", {"precision": "bf16"}, "There is no precision bf16"),
        ("network.xml", {"precision": "int8"}, "only int8 does"),
        ("network.pt2", {"precision": "int8", "calibration": "."}, "Only ONNX and OpenVINO are written in"),
        ("nowhere/network.onnx", {}, "cannot be written"),
    ],
)
def test_what_cannot_be_exported(
    name: str, options: dict[str, str], sentence: str, network: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=sentence):
        export(network, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_model_of_any_scale_at_one(suffix: str, tmp_path: Path) -> None:
    network, file = disturb(ESCLTE(SMALL, hidden=8)), tmp_path / f"network{suffix}"
    export(network, file, scale=3)
    exported = load_exported(file)
    assert (exported.scale, exported.window_size) == (3, 8)
    at_three = lambda x: network(x, (3 * x.shape[2], 3 * x.shape[3]))  # noqa: E731
    assert_same_at_other_sizes(exported, at_three)


def test_scales_that_cannot_be_exported(network: nn.Module, tmp_path: Path) -> None:
    for scale in (None, 0):
        with pytest.raises(InputError, match="arbitrary scale"):
            export(build("esc-lte"), tmp_path / "network.onnx", scale=scale)
    with pytest.raises(InputError, match="×2, not ×3"):
        export(network, tmp_path / "network.onnx", scale=3)


def test_exports_are_not_exported(onnx_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="already exported"):
        export(load_exported(onnx_file), tmp_path / "network.onnx")


@pytest.mark.skipif("tensorrt" in sys.modules, reason="TensorRT is here")
def test_tensorrt_says_what_is_missing(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tensorrt.*trtexec"):
        export(network, tmp_path / "network.engine")


def export_foreign(network: nn.Module, x: Tensor, file: Path, *, free: tuple[int, ...] = ()) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"image": {axis: f"axis{axis}" for axis in free}}
        torch.onnx.export(network, (x,), file, dynamo=False, input_names=["image"], dynamic_axes=axes)


def test_files_of_other_programs(tmp_path: Path) -> None:
    export_foreign(nn.Upsample(scale_factor=3), torch.rand(1, 3, 8, 8), tmp_path / "n.onnx", free=(0, 2, 3))
    x = torch.rand(2, 3, 7, 10)
    network = load_exported(tmp_path / "n.onnx")
    assert network.scale == 3
    torch.testing.assert_close(network(x), nn.Upsample(scale_factor=3)(x))


def test_networks_of_one_size_take_every_size(tmp_path: Path) -> None:
    """In half precision, one image at a time."""
    export_foreign(nn.Upsample(scale_factor=2), torch.rand(1, 3, 24, 32).half(), tmp_path / "n.onnx")
    network = load_exported(tmp_path / "n.onnx")
    for shape in [(2, 3, 50, 31), (1, 3, 5, 70), (1, 3, 1, 1)]:
        x = torch.rand(shape).half().float()
        torch.testing.assert_close(network(x), nn.Upsample(scale_factor=2)(x))


def test_networks_that_are_not_for_images(tmp_path: Path) -> None:
    export_foreign(nn.Conv2d(4, 3, 1), torch.rand(1, 4, 8, 8), tmp_path / "channels.onnx")
    export_foreign(nn.AvgPool2d(2), torch.rand(1, 3, 8, 8), tmp_path / "smaller.onnx")
    with pytest.raises(InputError, match="takes 1×4×8×8"):
        load_exported(tmp_path / "channels.onnx")
    with pytest.raises(InputError, match="makes 1×3×4×4 of 1×3×8×8"):
        load_exported(tmp_path / "smaller.onnx")


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2"])
def test_damaged_files(
    suffix: str, onnx_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"network{suffix}").write_bytes(onnx_file.read_bytes()[:1000])
    (tmp_path / "network.bin").touch()
    with pytest.raises(InputError, match=rf"network{suffix} cannot be read .*: (?!Exception).+\.$"):
        load_exported(tmp_path / f"network{suffix}")
    assert "Traceback" not in "".join(capfd.readouterr())


def test_missing_package(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"needs onnxruntime.*convattn\[export\]"):
        load_exported(onnx_file)


def test_command_line(
    network: nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["convattn", *arguments])
        with pytest.raises(SystemExit) as exit:
            main()
        assert not exit.value.code

    monkeypatch.chdir(tmp_path)
    save_network(network, "network.safetensors")
    write_image(Image(np.random.default_rng(0).integers(0, 255, (9, 11, 3), np.uint8)), "small.png")
    run("export", "network.safetensors", "-o", "network.onnx")
    assert "differs from torch by" in capsys.readouterr().out
    run("upscale", "small.png", "-o", "large.png", "--model", "network.onnx", "--device", "cpu")
    assert read_image("large.png").pixels.shape == (18, 22, 3)


def test_an_endless_loop_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper, kind = onnx.helper, onnx.TensorProto
    image = helper.make_tensor_value_info("input", kind.FLOAT, ["n", 3, "h", "w"])
    result = helper.make_tensor_value_info("output", kind.FLOAT, ["n", 3, "h", "w"])
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("number", kind.INT64, []),
            helper.make_tensor_value_info("go", kind.BOOL, []),
            helper.make_tensor_value_info("x", kind.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", kind.BOOL, []),
            helper.make_tensor_value_info("y", kind.FLOAT, None),
        ],
    )
    count = helper.make_tensor("count", kind.INT64, [], [2**62])
    start = helper.make_tensor("start", kind.BOOL, [], [True])
    loop = helper.make_node("Loop", ["count", "start", "input"], ["output"], body=body)
    graph = helper.make_graph([loop], "endless", [image], [result], [count, start])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "endless.onnx")
    monkeypatch.setattr("convattn.runtimes.onnx_file._SECONDS", 0.2)
    monkeypatch.setattr("convattn.runtimes.onnx_file._SECONDS_PER_PIXEL", 0)
    with pytest.raises(InputError, match=r"endless\.onnx cannot upscale .*more than 0 seconds"):
        load_exported(tmp_path / "endless.onnx")


@pytest.mark.parametrize("content", [b"<net", b'<?xml version="1.0"?><net><layers/></net>', b"\x00" * 99])
def test_openvino_says_nothing_before_the_sentence(
    content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "bad.xml").write_bytes(content)
    (tmp_path / "bad.bin").touch()
    with pytest.raises(InputError, match=r"bad\.xml"):
        load_exported(tmp_path / "bad.xml")
    assert capfd.readouterr() == ("", "")
