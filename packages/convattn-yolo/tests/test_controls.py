import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import ultralytics
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel, torch_safe_load
from ultralytics.utils.torch_utils import get_flops

from convattn.errors import InputError
from convattn_yolo.blocks import ESCBottleneck, StaticAttention
from convattn_yolo.variants import Variant, generate, parse_name

INSTALLED = Path(ultralytics.__file__).parent / "cfg" / "models"


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("yolo26n-C3k2_ESC-k3.yaml", Variant("yolo26", "n", controls=("k3",))),
        (
            "yolo26s-p3-C3k2_ESC-finest-zero-STATIC.yaml",
            Variant("yolo26", "s", "finest", zero=True, coarsest="p3", controls=("static",)),
        ),
        (
            "yolo26-C3k2_ESC-static_k3-neck.yaml",
            Variant("yolo26", "", "neck", controls=("k3", "static")),
        ),
    ],
)
def test_names(name: str, variant: Variant) -> None:
    assert parse_name(name) == variant


def bottlenecks(model: YOLO) -> list[ESCBottleneck]:
    return [module for module in model.model.modules() if isinstance(module, ESCBottleneck)]


@pytest.mark.parametrize(
    ("controls", "size", "static"), [("k3", 3, False), ("static", 13, True), ("k3-static", 3, True)]
)
def test_controls_change_all_blocks(controls: str, size: int, static: bool) -> None:
    model = YOLO(f"yolo26n-C3k2_ESC-neck-{controls}.yaml")
    blocks = bottlenecks(model)
    assert len(blocks) == 4
    for block in blocks:
        assert block.kernel_owner.large_kernel().shape == (16, 16, size, size)
        assert isinstance(block.attention, StaticAttention) == static


def test_without_a_kernel_per_image_attention_is_a_plain_convolution() -> None:
    x, kernel = torch.randn(2, 24, 9, 7), torch.randn(16, 16, 5, 5)
    layer = StaticAttention(24, 16)
    mixed = F.conv2d(x[:, :16], kernel, padding=2)
    weight, bias = layer.project.weight[:, :, 0, 0], layer.project.bias
    expected = torch.einsum("oc,nchw->nohw", weight, torch.cat([mixed, x[:, 16:]], 1)) + bias[:, None, None]
    torch.testing.assert_close(layer(x, kernel), expected, rtol=1e-4, atol=1e-4)


def test_controls_start_from_stock_weights_and_count_fewer_operations() -> None:
    stock, image = YOLO("yolo26n.yaml").model, torch.rand(1, 3, 64, 64)
    flops = {}
    for control in ("", "-k3", "-static"):
        model = YOLO(f"yolo26n-C3k2_ESC-finest-zero{control}.yaml").model
        model.load(stock)
        with torch.inference_mode():
            assert torch.equal(model.eval()(image)[0], stock.eval()(image)[0])
        flops[control] = get_flops(model, 64)
    assert flops["-k3"] < flops["-static"] < flops[""]


def test_controls_train_and_load_again(dataset: Path, tmp_path: Path) -> None:
    model = YOLO("yolo26n-C3k2_ESC-finest-zero-static-k3.yaml")
    settings: dict[str, Any] = {"imgsz": 64, "batch": 2, "workers": 0, "plots": False, "val": False}
    model.train(data=dataset, epochs=1, project=tmp_path, name="run", device="cpu", **settings)
    file = tmp_path / "run" / "weights" / "last.pt"
    trained = YOLO(file)
    assert [type(block.attention) for block in bottlenecks(trained)] == [StaticAttention]
    checkpoint, _ = torch_safe_load(file, safe_only=True)  # the trainer has stripped it of its EMA
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = trained.model.eval()(image)[0]
        torch.testing.assert_close(checkpoint["model"].float().eval()(image)[0], expected)
        fused = trained.model.fuse(verbose=False)(image)[0]
    torch.testing.assert_close(fused, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    "options",
    [{"kernel": 3}, {"kernel_size": 4}, {"kernel_size": 3.0}, {"kernel_size": -1}, {"dynamic": 0}, [3], None],
)
def test_other_options_are_refused(options: Any) -> None:
    description = generate("yolo26n-C3k2_ESC.yaml", INSTALLED)
    with pytest.raises(InputError, match=re.escape(f"key esc is {options}; ")):
        DetectionModel(description | {"esc": options}, verbose=False)
