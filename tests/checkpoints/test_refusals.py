"""Files that hold no network are refused in one sentence, and never run code."""

import pickle
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from convattn.checkpoints.key_names import to_reference
from convattn.checkpoints.loading import load_network, save_network
from convattn.errors import InputError
from convattn.models.esc_real import ESCReal
from convattn.models.registry import build

from .conftest import LAYOUTS, NEAREST, assert_refused, small


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("dump", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj, 2))])
def test_code_in_a_file_is_not_run(dump: Callable[..., Any], tmp_path: Path) -> None:
    target = tmp_path / "executed"
    dump({"params": to_reference(small().state_dict()), "extra": Malicious(target)}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="could run code"):
        load_network(tmp_path / "evil.pth")
    assert not target.exists()


def without(key: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {name: tensor for name, tensor in state.items() if name != key}


def replaced(key: str, shape: tuple[int, ...]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
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
def test_other_tensors_are_refused(change: Callable[..., Any], tmp_path: Path) -> None:
    torch.save(change(to_reference(small().state_dict())), tmp_path / "other.pth")
    assert_refused(tmp_path / "other.pth")


@pytest.mark.parametrize(
    "change", [lambda x: x.to(torch.complex64), lambda x: x.to_sparse()], ids=["complex", "sparse"]
)
def test_tensors_of_other_kinds_are_refused(tmp_path: Path, change: Callable[..., Any]) -> None:
    state = {key: change(tensor) for key, tensor in build("esc-nano", 2).state_dict().items()}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_network(tmp_path / "a.pth")


def test_numbers_as_keys_are_refused(tmp_path: Path) -> None:
    torch.save({0: torch.zeros(2)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="no network"):
        load_network(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "table",
    [
        torch.zeros(1).expand(2, 39_999**2),  # window 20,000 by a stride of 0
        torch.zeros(2, 2 * 10**6).as_strided((2, 2 * 10**9), (0, 0)),
    ],
)
def test_tensors_larger_than_their_file_are_refused(table: Tensor, tmp_path: Path) -> None:
    state = to_reference(small().state_dict()) | {"blocks.0.attn.relative_position_bias": table}
    torch.save({"params": state}, tmp_path / "huge.pth")
    assert_refused(tmp_path / "huge.pth")


def test_a_compressed_archive_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    torch.save({"params": {"weight": torch.zeros(10**6)}}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
    assert_refused(tmp_path / "bomb.pth")


@pytest.mark.parametrize(("convs", "window"), [((1,) * 6, 3), ((2,), 200)])
def test_unreasonable_sizes_are_refused(
    convs: tuple[int, int, int, int, int, int] | tuple[int], window: int, tmp_path: Path
) -> None:
    network = small(ESCReal, upsampler=NEAREST(convs=convs), window_size=window)
    torch.save(network.state_dict(), tmp_path / "large.pth")
    assert_refused(tmp_path / "large.pth")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = small().state_dict()
    state["to_image.bias"][0] = float("nan")
    torch.save(state, tmp_path / "diverged.pth")
    with pytest.raises(InputError, match="not finite"):
        load_network(tmp_path / "diverged.pth")


def test_torchscript_is_refused_without_a_warning_of_torch(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), tmp_path / "script.pt")
    recwarn.clear()
    assert_refused(tmp_path / "script.pt")
    assert not [str(warning.message) for warning in recwarn]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"<html>404</html>", bytes(64), b"\xff" * 64])
def test_other_files_are_refused(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"other{suffix}"
    path.write_bytes(content)
    assert_refused(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "missing.pth")
    assert_refused(tmp_path)


@pytest.fixture(scope="module", params=LAYOUTS[:3], ids="".join)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    layout, suffix = request.param
    path = tmp_path_factory.mktemp("written") / f"network{suffix}"
    save_network(small(), path, layout=layout)
    return path


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_damaged_files_are_refused_or_still_whole(written: Path, data: Any) -> None:
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
