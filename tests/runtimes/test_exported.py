"""Exported networks of other programs."""

import pickle
from pathlib import Path

import psutil
import pytest
import torch

from convattn.errors import InputError
from convattn.inference.upscaler import Upscaler
from convattn.runtimes.exported import load_exported

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT


def written(path: Path, nodes: list, initializers: list) -> Path:
    """An ONNX file from x (1, 3, H, W) to y."""
    x, y = (
        helper.make_tensor_value_info(name, FLOAT, [1, 3, f"{name}_h", f"{name}_w"]) for name in ("x", "y")
    )
    graph = helper.make_graph(nodes, "network", [x], [y], initializers)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def resized(path: Path, scale: float) -> Path:
    scales = helper.make_tensor("scales", FLOAT, [4], [1, 1, scale, scale])
    return written(path, [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest")], [scales])


def test_networks_of_other_programs_are_measured(tmp_path: Path) -> None:
    network = load_exported(resized(tmp_path / "a.onnx", 3))
    assert (network.scale, network.channels, network.by_layers) == (3, 3, None)
    x = torch.rand(2, 3, 5, 7)
    torch.testing.assert_close(network(x), x.repeat_interleave(3, 2).repeat_interleave(3, 3))


@pytest.mark.parametrize("scale", [0.01, 1.5])
def test_networks_that_do_not_upscale_by_a_whole_number(tmp_path: Path, scale: float) -> None:
    with pytest.raises(InputError, match="by a whole number"):
        load_exported(resized(tmp_path / "a.onnx", scale))


def test_upscalers_of_exported_networks_can_be_pickled(tmp_path: Path) -> None:
    upscale = Upscaler(load_exported(resized(tmp_path / "a.onnx", 2)), device="cpu")
    image = torch.rand(3, 5, 7)
    assert torch.equal(pickle.loads(pickle.dumps(upscale))(image), upscale(image))


def test_a_network_that_asks_for_more_than_the_memory_is_refused(tmp_path: Path) -> None:
    twice = (2 * psutil.virtual_memory().total / (3 * 4 * 64 * 64)) ** 0.5
    path = resized(tmp_path / "a.onnx", round(twice))
    with pytest.raises(InputError, match=r"a\.onnx cannot be read as a network"):
        load_exported(path)
