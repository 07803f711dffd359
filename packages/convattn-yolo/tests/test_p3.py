from pathlib import Path

import pytest
import torch
import ultralytics
from ultralytics import YOLO

from convattn.errors import InputError
from convattn_yolo.variants import Variant, generate, parse_name

INSTALLED = Path(ultralytics.__file__).parent / "cfg" / "models"


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("yolo26n-p3.yaml", Variant("yolo26", "n", "", p3=True)),
        ("YOLO26s_seg_P3.yaml", Variant("yolo26-seg", "s", "", p3=True)),
        ("yolo26n-p3-C3k2_ESC-finest-zero.yaml", Variant("yolo26", "n", "finest", zero=True, p3=True)),
    ],
)
def test_names(name: str, variant: Variant) -> None:
    assert parse_name(name) == variant


def test_nothing_lies_behind_the_level_that_detects() -> None:
    stock = generate("yolo26n-C3k2_ESC", INSTALLED)
    p3 = generate("yolo26n-p3", INSTALLED)
    rows = [*p3["backbone"], *p3["head"]]
    assert len(rows) == 18
    assert rows[-1] == [[16], *stock["head"][-1][1:]]
    assert [row[0] for row in rows[:-1]] == [row[0] for row in [*stock["backbone"], *stock["head"]][:17]]


@pytest.mark.parametrize("name", ["yolo26n-p2-C3k2_ESC-p3", "yolo26n-cls-p3", "yolo26n-p6-p4-p3"])
def test_models_without_a_level_at_stride_8_to_keep(name: str) -> None:
    with pytest.raises(InputError, match=r"leave p3 out|is no model"):
        generate(name, INSTALLED)


def _one_to_many(model: YOLO, image: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        return model.model.eval()(image)[1]["one2many"]


def test_stock_weights_start_as_the_stock_network_at_stride_8(tmp_path: Path) -> None:
    torch.manual_seed(0)
    stock, file = YOLO("yolo26n.yaml"), tmp_path / "stock.pt"
    for parameter in stock.model.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    stock.save(file)
    image = torch.rand(1, 3, 96, 64)
    ours = _one_to_many(YOLO("yolo26n-p3.yaml").load(file), image)
    theirs = _one_to_many(YOLO(file), image)
    assert ours["boxes"].shape[-1] == 12 * 8
    for part in ("boxes", "scores"):
        assert torch.equal(ours[part], theirs[part][..., : 12 * 8])


def test_it_trains_and_comes_back(dataset: Path, tmp_path: Path) -> None:
    model = YOLO("yolo26n-p3-C3k2_ESC-finest-zero.yaml")
    model.train(
        data=dataset, epochs=1, imgsz=64, batch=2, device="cpu", plots=False, val=False, project=tmp_path
    )
    again = YOLO(model.trainer.last)
    assert again.model.stride.tolist() == [8]
