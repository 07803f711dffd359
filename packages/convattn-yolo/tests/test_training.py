import copy
import csv
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.nn.tasks import torch_safe_load
from ultralytics.utils.torch_utils import ModelEMA

import convattn_yolo  # noqa: F401 - makes the names known
from convattn.ops import cpu

SMALL = {"imgsz": 64, "batch": 2, "workers": 0, "plots": False, "verbose": False, "device": "cpu", "seed": 0}


def detection_network(file: Path) -> Any:
    return YOLO(file).model


def kernels(model: nn.Module) -> list[str]:
    return [name for name in model.state_dict() if "large_kernel" in name]


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "MuSGD"])
def test_the_kernel_is_one_saved_once_trained_once_averaged_once(tiny: Path, optimizer: str) -> None:
    model = detection_network(tiny)
    kernel = model.model[2].large_kernel.weight
    assert kernels(model) == ["model.2.large_kernel.weight"]

    trainer = SimpleNamespace(args=SimpleNamespace(), data={})
    groups = BaseTrainer.build_optimizer(trainer, model, optimizer, lr=0.1, momentum=0.0).param_groups
    assert sum(parameter is kernel for group in groups for parameter in group["params"]) == 1

    average = ModelEMA(model, decay=0.5, tau=1e-9)
    before = kernel.detach().clone()
    with torch.no_grad():
        kernel += 1
    average.update(model)
    torch.testing.assert_close(average.ema.model[2].large_kernel.weight, before + 0.5)
    for layer in average.ema.modules():
        if hasattr(layer, "kernel_owner"):
            assert layer.kernel_owner is average.ema.model[2]


def test_a_step_moves_the_kernel_once(tiny: Path) -> None:
    model = detection_network(tiny)
    kernel = model.model[2].large_kernel.weight
    before = kernel.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, foreach=True)
    kernel.grad = torch.ones_like(kernel)
    optimizer.step()
    torch.testing.assert_close(kernel.detach(), before - 0.5)


@pytest.mark.skipif(not cpu.is_available(), reason="the kernels are not built here")
def test_trains_by_the_compiled_kernels(
    tiny: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = set()
    run = cpu.gradients.run
    monkeypatch.setattr(cpu.gradients, "run", lambda kernel, *args: called.add(kernel) or run(kernel, *args))
    YOLO(tiny).train(data=dataset, epochs=1, optimizer="AdamW", project=tmp_path, name="run", **SMALL)
    assert "conv_attention_gradient" in called


def test_train_then_predict_in_a_process_that_never_imports_convattn(
    tiny: Path, dataset: Path, tmp_path: Path
) -> None:
    model = YOLO(tiny)
    seen: list[str] = []
    model.add_callback("on_train_epoch_end", lambda trainer: seen.append("callback"))
    model.train(data=dataset, epochs=2, optimizer="AdamW", project=tmp_path, name="run", **SMALL)
    assert seen == ["callback"] * 2
    assert kernels(model.model) == ["model.2.large_kernel.weight"]
    best, images = tmp_path / "run" / "weights" / "best.pt", dataset.parent / "images" / "val"

    code = (
        "import sys, torch\nfrom ultralytics import YOLO\n"
        "model = YOLO(sys.argv[1])\n"
        "torch.save(model.model(torch.full((1, 3, 64, 64), 0.5))[0], sys.argv[3])\n"
        "assert len(model.predict(sys.argv[2], imgsz=64)) == 3"
    )
    subprocess.run(
        [sys.executable, "-c", code, best, images, tmp_path / "output.pt"],
        env={**os.environ, "ULTRALYTICS_SAFE_LOAD": "1", "OMP_NUM_THREADS": "1"},
        check=True,
        cwd=tmp_path,
    )
    expected = detection_network(best)(torch.full((1, 3, 64, 64), 0.5))[0]
    torch.testing.assert_close(torch.load(tmp_path / "output.pt"), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("safe", [False, True])
def test_checkpoint_of_the_first_release_loads(safe: bool) -> None:
    """Later releases must read what earlier ones pickled: class and module names, attributes, numbers."""
    file = Path(__file__).parent / "data" / "c3k2_esc-0.1.pt"
    checkpoint, _ = torch_safe_load(file, safe_only=safe)
    output = checkpoint["model"].float().eval()(torch.full((1, 3, 64, 64), 0.5))[0]
    expected = torch.load(file.with_name("c3k2_esc-0.1-output.pt"))
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-3)


def test_resume_after_a_kill(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    def kill(trainer: Any) -> None:
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    model = YOLO(tiny)
    model.add_callback("on_train_epoch_start", kill)
    with pytest.raises(KeyboardInterrupt):
        model.train(data=dataset, epochs=3, project=tmp_path, name="run", **SMALL)
    last = tmp_path / "run" / "weights" / "last.pt"
    resumed = YOLO(last)
    resumed.train(resume=True)
    with (tmp_path / "run" / "results.csv").open() as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [1, 2, 3]
    assert kernels(resumed.model) == ["model.2.large_kernel.weight"]


@pytest.mark.parametrize(
    "options",
    [{"optimizer": "MuSGD", "multi_scale": 0.5}, {"freeze": 5, "optimizer": "SGD", "cos_lr": True}],
    ids=["MuSGD and several sizes", "frozen backbone"],
)
def test_training_options(tiny: Path, dataset: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    model = YOLO(tiny)
    before = copy.deepcopy(model.model.state_dict())
    model.train(
        data=dataset, epochs=1, project=tmp_path, warmup_epochs=0, pretrained=False, **options, **SMALL
    )
    assert model.trainer is not None
    after = model.trainer.model.state_dict()
    moved = not torch.equal(before["model.2.large_kernel.weight"], after["model.2.large_kernel.weight"])
    assert moved == ("freeze" not in options)
    assert all(tensor.isfinite().all() for tensor in after.values())


def test_zero_start_validates_as_the_stock_network(shared_data: Path, tmp_path: Path) -> None:
    weights = shared_data / "weights" / "yolo26n-dequantised.pt"
    if not weights.is_file():
        pytest.skip("needs the stand-in weights")
    stock, ours = YOLO(weights), YOLO("yolo26n-C3k2_ESC-zero.yaml").load(weights)
    images = shared_data / "detect" / "coco8" / "images" / "val"
    options = {"imgsz": 320, "device": "cpu", "verbose": False}
    found = [[r.boxes.data for r in m.predict(images, **options)] for m in (stock, ours)]
    assert sum(map(len, found[0])) > 0
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.fixture
def network(tiny: Path) -> nn.Module:
    """A network whose branches have left zero and whose statistics are not what they started as."""
    model = detection_network(tiny)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.02 * torch.rand_like(tensor))
    return model.eval().requires_grad_(False)


IMAGE = torch.rand(2, 3, 64, 96)


def test_fusing(network: nn.Module) -> None:
    fused = copy.deepcopy(network).fuse(verbose=False)
    assert not [m for m in fused.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(fused(IMAGE)[0], network(IMAGE)[0], rtol=1e-4, atol=1e-4)


def test_half_precision(network: nn.Module) -> None:
    expected = network(IMAGE)[0]
    half = copy.deepcopy(network).half()
    assert kernels(half) == kernels(network)
    torch.testing.assert_close(half(IMAGE.half())[0].float(), expected, rtol=0.05, atol=1.0)


def test_autocast(network: nn.Module) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = network.train()(IMAGE)["one2many"]["scores"].float().mean()
    assert loss.isfinite()


def test_channels_last(network: nn.Module) -> None:
    expected = network(IMAGE)[0]
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        last(IMAGE.to(memory_format=torch.channels_last))[0], expected, atol=1e-3, rtol=1e-4
    )


def test_compile(network: nn.Module) -> None:
    expected = network(IMAGE)[0]
    compiled = torch.compile(copy.deepcopy(network), backend="aot_eager")
    torch.testing.assert_close(compiled(IMAGE)[0], expected, atol=1e-3, rtol=1e-4)
    torch._dynamo.reset()
