import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel, torch_safe_load

from convattn.errors import InputError
from convattn_yolo.variants import Variant, generate, parse_name

INSTALLED = Path(ultralytics.__file__).parent / "cfg" / "models"


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("yolo26n-p3.yaml", Variant("yolo26", "n", "", coarsest="p3")),
        ("yolo26m-p2-p4.yaml", Variant("yolo26-p2", "m", "", coarsest="p4")),
        ("YOLO26s_seg_P3.yaml", Variant("yolo26-seg", "s", "", coarsest="p3")),
        ("yolo26n-p3-C3k2_ESC-finest-zero.yaml", Variant("yolo26", "n", "finest", zero=True, coarsest="p3")),
    ],
)
def test_names(name: str, variant: Variant) -> None:
    assert parse_name(name) == variant


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("yolo26n-p3", [16]),
        ("yolo26n-p4", [16, 19]),
        ("yolo26n-p2-p3", [19, 22]),
        ("yolo26n-p2-p4", [19, 22, 25]),
        ("yolo26n-p6-p4", [21, 24]),
    ],
)
def test_nothing_lies_behind_the_levels_that_detect(name: str, levels: list[int]) -> None:
    family = name.rpartition("-")[0]
    stock, ours = generate(f"{family}-C3k2_ESC", INSTALLED), generate(name, INSTALLED)
    rows, stock_rows = ([*model["backbone"], *model["head"]] for model in (ours, stock))
    assert rows[-1] == [levels, *stock_rows[-1][1:]]
    assert [row[0] for row in rows[:-1]] == [row[0] for row in stock_rows[: levels[-1] + 1]]


@pytest.mark.parametrize("name", ["yolo26n-cls-p3", "yolo26n-cls-p4-C3k2_ESC"])
def test_models_without_levels_to_leave_out(name: str) -> None:
    with pytest.raises(InputError, match=r"no detection levels"):
        generate(name, INSTALLED)


def _one_to_many(model: YOLO, image: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        return model.model.eval()(image)[1]["one2many"]


@pytest.mark.parametrize(
    ("name", "cells"), [("yolo26n-p3.yaml", 12 * 8), ("yolo26n-p4.yaml", 12 * 8 + 6 * 4)]
)
def test_stock_weights_start_as_the_stock_network_at_its_levels(
    name: str, cells: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    stock, file = YOLO("yolo26n.yaml"), tmp_path / "stock.pt"
    for parameter in stock.model.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    stock.save(file)
    image = torch.rand(1, 3, 96, 64)
    ours, theirs = (_one_to_many(model, image) for model in (YOLO(name).load(file), YOLO(file)))
    assert ours["boxes"].shape[-1] == cells
    for part in ("boxes", "scores"):
        assert torch.equal(ours[part], theirs[part][..., :cells])


def test_the_class_branch_keeps_its_width_where_the_classes_change(tmp_path: Path) -> None:
    stock = YOLO("yolo26n.yaml").model
    ours = DetectionModel(YOLO("yolo26n-p3.yaml").model.yaml, nc=1, verbose=False)
    ours.load(stock)
    (theirs, *_), (branch,) = stock.model[-1].cv3, ours.model[-1].cv3
    assert branch[-1].out_channels == 1
    for name, tensor in theirs[:-1].state_dict().items():
        assert torch.equal(branch.state_dict()[name], tensor)
    assert len(stock.model) == 24  # the source stays as it is
    assert len(stock.model[-1].cv3) == 3


SMALL = {"imgsz": 64, "batch": 2, "workers": 0, "plots": False, "val": False, "device": "cpu"}


@pytest.fixture(scope="module", params=["yolo26n-p3-C3k2_ESC-finest-zero.yaml", "yolo26n-p4.yaml"])
def interrupted(
    request: pytest.FixtureRequest, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The checkpoint of a training that was stopped after the first of two epochs."""

    def stop(trainer: Any) -> None:
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    folder, model = tmp_path_factory.mktemp("levels"), YOLO(request.param)
    model.add_callback("on_train_epoch_start", stop)
    with pytest.raises(KeyboardInterrupt):
        model.train(data=dataset, epochs=2, project=folder, name="run", **SMALL)
    return folder / "run" / "weights" / "last.pt"


def test_training_resumes_with_the_same_levels(interrupted: Path, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(interrupted.parents[1], tmp_path / "run") / "weights" / "last.pt"
    model = YOLO(checkpoint)
    levels = model.model.stride.tolist()
    model.train(resume=True, save_dir=str(tmp_path / "run"))
    assert model.trainer is not None
    assert YOLO(model.trainer.last).model.stride.tolist() == levels
    assert levels in ([8], [8, 16])


def test_checkpoints_pass_safe_loading(interrupted: Path) -> None:
    checkpoint, _ = torch_safe_load(interrupted, safe_only=True)
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        output = checkpoint["ema"].float().eval()(image)[0]
        expected = YOLO(interrupted).model.eval()(image)[0]
    torch.testing.assert_close(output, expected)


def test_export_to_onnx_detects_the_same(interrupted: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    file = YOLO(shutil.copy(interrupted, tmp_path)).export(format="onnx", imgsz=64, verbose=False)
    image = torch.rand(1, 3, 64, 64)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.inference_mode():
        expected = YOLO(interrupted).model.eval()(image)[0]
    torch.testing.assert_close(torch.from_numpy(output), expected, rtol=1e-3, atol=1e-2)
