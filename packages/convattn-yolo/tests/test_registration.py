import inspect
import logging
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.utils.torch_utils import get_flops

import convattn.layers
from convattn.errors import InputError
from convattn_yolo import registration

OUR_BLOCKS = {"C3k2_ESC", "C3k2_ESCBranch"}
BASES = [
    "yolo26",
    "yolo26-p2",
    "yolo26-p6",
    "yolo26-seg",
    "yolo26-pose",
    "yolo26-obb",
    "yolo26-cls",
    "yolo11",
]


def rows_of(model: Any) -> list[str]:
    return [type(layer).__name__ for layer in model.model]


@pytest.mark.parametrize("base", BASES)
def test_every_task_and_head_is_built_as_stock_but_for_the_blocks(base: str) -> None:
    """All that is not inside the blocks has the very same parameters, for one: channels, scales, heads."""
    name = base.replace("yolo26", "YOLO26n").replace("yolo11", "yolo11n")
    ours, stock = YOLO(f"{name}-C3k2_ESC.yaml"), YOLO(f"{name.lower()}.yaml")
    assert ours.task == stock.task
    assert [row.replace("C3k2_ESC", "C3k2") for row in rows_of(ours.model)] == rows_of(stock.model)
    assert "C3k2" not in rows_of(ours.model)
    for layer, other in zip(ours.model.model, stock.model.model, strict=True):
        if type(layer).__name__ not in OUR_BLOCKS:
            assert {n: p.shape for n, p in layer.named_parameters()} == {
                n: p.shape for n, p in other.named_parameters()
            }
    kernels = [name for name in ours.model.state_dict() if "large_kernel" in name]
    assert kernels == ["model.2.large_kernel.weight"]


@pytest.mark.parametrize("size", "nsmlx")
def test_sizes_scale_as_stock(size: str) -> None:
    description = tasks.yaml_model_load(f"YOLO26{size.upper()}_C3K2-ESC_zero.yaml")
    with torch.device("meta"):
        network, _ = tasks.parse_model(description, ch=3, verbose=False)
        stock, _ = tasks.parse_model(tasks.yaml_model_load(f"yolo26{size}.yaml"), ch=3, verbose=False)
    ours = network.state_dict()
    assert all(ours[name].shape == tensor.shape for name, tensor in stock.state_dict().items())


def test_own_files_mix_the_blocks(tiny: Path) -> None:
    model = YOLO(tiny).model
    assert [row for row in rows_of(model) if "C3k2" in row] == [
        "C3k2_ESC",
        "C3k2_ESC",
        "C3k2",
        "C3k2_ESCBranch",
    ]
    assert [layer.type for layer in model.model][2] == "convattn_yolo.blocks.C3k2_ESC"
    owners = {layer.kernel_owner for layer in model.modules() if hasattr(layer, "kernel_owner")}
    assert owners == {model.model[2]}


def test_stock_models_are_left_alone() -> None:
    before = tasks.C3k2
    assert rows_of(YOLO("yolo26n.yaml").model).count("C3k2") == 8
    assert tasks.C3k2 is before


def test_threads_build_at_once() -> None:
    built: dict[str, list[str]] = {}
    names = ["yolo26n-C3k2_ESC.yaml", "yolo26n.yaml", "yolo26n-C3k2_ESC-zero.yaml"]

    def build(name: str) -> None:
        built[name] = rows_of(tasks.DetectionModel(name, verbose=False))

    threads = [threading.Thread(target=build, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sorted({row for row in built[name] if "C3k2" in row}) for name in names] == [
        ["C3k2_ESC"],
        ["C3k2"],
        ["C3k2_ESCBranch"],
    ]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (["C3k2_ESC", []], r"Row 2 gives C3k2_ESC the arguments \[\]: it takes c2 \(int\), c3k \(bool\)"),
        (["C3k2_ESC", ["wide"]], r"the arguments \['wide'\]"),
        (["C3k2_ESC", [128, 3]], r"the arguments \[128, 3\]"),
        (["C3k2_ESC", [128, False, 0.5, False, 1, True, 0, 7]], "needs c2 at least"),
        (["C3k2_ESCBranch", [128, False, "half"]], "e \\(float\\)"),
        (
            ["C3k2_ESCs", [128]],
            "Row 2 names C3k2_ESCs, which does not exist: did you mean C3k2_ESC\\?",
        ),
        (["C3K2_ESC", [128]], "Row 2 names C3K2_ESC, which does not exist: did you mean C3k2_ESC\\?"),
        (["C3k2_ESCbranch", [128]], "did you mean C3k2_ESCBranch\\?"),
        (["C3k_ESC", [128]], "did you mean C3k2_ESC\\?"),
        (["c3k2", [128]], "did you mean C3k2\\?"),
        (["C3k2_ESC", [128, False, 0.1]], "hidden channels here"),
        (["C3k2_ESC", [128, False, 0.5, False, 2]], "g=2 groups"),
    ],
)
def test_wrong_rows_are_named(
    row: list[Any], complaint: str, description: dict[str, Any], tmp_path: Path
) -> None:
    description["backbone"][2][2:] = row
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(description))
    stock = tasks.C3k2
    with pytest.raises(InputError, match=complaint) as error:
        YOLO(file)
    assert "\n" not in str(error.value)
    assert tasks.C3k2 is stock


@pytest.mark.parametrize(
    ("description", "complaint"),
    [
        (None, "needs the lists backbone and head"),
        ({"backbone": []}, "needs the lists backbone and head"),
        ({"backbone": [[-1, 1, "C3k2_ESC"]], "head": []}, "Row 0"),
        ({"backbone": [], "head": [[-1, 1, 7, []]]}, "Row 0"),
    ],
)
def test_files_that_are_no_models_are_refused(description: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        tasks.parse_model(description, ch=3)


def test_window_attention_by_argument(description: dict[str, Any], tmp_path: Path) -> None:
    description["backbone"][2][3] = [128, False, 0.5, False, 1, True, 8]
    file = tmp_path / "window.yaml"
    file.write_text(yaml.safe_dump(description))
    model = YOLO(file).model
    assert model.model[2].m[0].window_attention is not None
    assert model.model[4].m[0][0].window_attention is None


def test_a_release_that_builds_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse_model(d: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        network, save = original(d, *args, **kwargs)
        network[4] = torch.nn.Identity()
        return network, save

    original: Any = inspect.unwrap(tasks.parse_model)
    monkeypatch.setattr(tasks, "parse_model", parse_model)
    monkeypatch.setattr(parse_model, "knows_c3k2_esc", False, raising=False)
    registration._wrap(tasks, "parse_model", registration.parsing.parse_model)
    with pytest.raises(InputError, match=r"does not support ultralytics .* built row 4 as Identity"):
        YOLO("yolo26n-C3k2_ESC.yaml")


def test_loading_reports_the_share_in_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("ultralytics"), "propagate", True)
    stock = YOLO("yolo26n.yaml").model
    with caplog.at_level(logging.INFO):
        YOLO("yolo26n-C3k2_ESC-zero.yaml").model.load(stock)
        YOLO("yolo26s.yaml").model.load(YOLO("yolo26s.yaml").model)
    lines = [message for message in dict.fromkeys(caplog.messages) if message.startswith("C3k2_ESC:")]
    assert lines[0].startswith("C3k2_ESC: 2,572,280 of 2,778,056 parameters (92.6%) carried over")
    assert len(lines) == 1
    with pytest.raises(InputError, match="Only 240 of 2,289,080 parameters fit this model"):
        YOLO("yolo26n-C3k2_ESC.yaml").model.load(YOLO("yolo11x.yaml").model)
    with pytest.raises(InputError, match="for the task detect, but the model is for the task segment: load"):
        YOLO("yolo26n-seg-C3k2_ESC-neck.yaml").model.load(stock)


def test_operations_are_counted_by_hand() -> None:
    """The profiler's figure, with the two convolutions whose kernels belong to no module added by hand."""
    model = YOLO("yolo26n-C3k2_ESC.yaml").model
    large = sum(16 * 16 * 169 * (640 // s) ** 2 for s in (4, 8, 16, 32, 16, 8, 16, 32))
    dynamic = sum(16 * 9 * (640 // s) ** 2 for s in (4, 8, 16, 32, 16, 8, 16, 32))
    with pytest.MonkeyPatch.context() as patch:
        rules = sys.modules["thop.profile"].register_hooks
        patch.delitem(rules, convattn.layers.ConvAttention)
        rest = get_flops(model, 640)
    assert get_flops(model, 640) == pytest.approx(rest + 2 * (large + dynamic) / 1e9, rel=1e-3)
    assert get_flops(model, 1280) == pytest.approx(4 * get_flops(model, 640), rel=0.2)


def test_ddp_workers_import_us() -> None:
    trainer = SimpleNamespace(args=SimpleNamespace(model="yolo26n-C3k2_ESC.yaml"), model=None, callbacks={})
    from ultralytics.utils.dist import ddp_cleanup, generate_ddp_file

    file = generate_ddp_file(trainer)
    code = Path(file).read_text()
    assert code.count('if __name__ == "__main__":\n    import convattn_yolo; convattn_yolo.install()\n') == 1
    compile(code, file, "exec")
    ddp_cleanup(trainer, file)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("yolo26n-C3k2ESC.yaml", "yolo26n-C3k2_ESC"), ("yolo26s-C3k2_EESC-neck.yaml", "yolo26s-C3k2_ESC-neck")],
)
def test_misspelt_names_of_models_get_a_suggestion(name: str, nearest: str) -> None:
    with pytest.raises(InputError, match=rf"no model {name} \(did you mean {nearest}.yaml\?\)"):
        YOLO(name)


@pytest.mark.parametrize("model", ["yolo26n-C3k2_ESC-finest.yaml", "yolo26n.yaml"])
def test_a_missing_dataset_ends_the_yolo_command_in_a_sentence(model: str, tmp_path: Path) -> None:
    command = "from ultralytics.cfg import entrypoint; import sys; sys.argv[0] = 'yolo'; entrypoint()"
    words = ["train", f"model={model}", "data=nowhere.yaml", "device=cpu"]
    done = subprocess.run(
        [sys.executable, "-c", f"import convattn_yolo; {command}", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("yolo: The dataset nowhere.yaml cannot be used: ")


def test_a_missing_dataset_still_raises_the_error_of_ultralytics(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"The dataset nowhere\.yaml cannot be used: .*nowhere"):
        YOLO("yolo26n.yaml").train(data="nowhere.yaml", device="cpu", project=tmp_path)
