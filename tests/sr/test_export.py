"""An exported network computes what torch computes, at sizes and batches that were not traced."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from convattn.sr.networks import ESC, ESCReal

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SMALL = dict(dim=16, large_kernel_dim=4, blocks=1, layers=1, window_size=8, heads=2, ffn_ratio=1.25)


def disturb(network: nn.Module) -> nn.Module:
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.mark.parametrize("kind", ["esc", "fp", "real"])
def test_onnx_with_dynamic_sizes(kind: str, tmp_path: Path) -> None:
    network = disturb(
        {
            "esc": lambda: ESC(scale=2, **SMALL),
            "fp": lambda: ESC(scale=3, image_skip="bicubic", factored=True, norm=True, **SMALL),
            "real": lambda: ESCReal(**SMALL),
        }[kind]()
    )
    dims = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    file = tmp_path / "network.onnx"
    torch.onnx.export(
        network, (torch.rand(2, 3, 19, 21),), file, dynamo=True, dynamic_shapes=(dims,), verbose=False
    )
    session = ort.InferenceSession(file)
    for shape in [(2, 3, 19, 21), (1, 3, 16, 8), (3, 3, 5, 40), (1, 3, 33, 2)]:
        x = torch.rand(shape)
        with torch.inference_mode():
            expected = network(x).numpy()
        (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(out, expected, atol=1e-4 * np.abs(expected).max())
