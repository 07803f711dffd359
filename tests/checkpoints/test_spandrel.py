"""ESC in spandrel: found in every layout, and only where it is."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from convattn.checkpoints.key_names import to_reference
from convattn.checkpoints.loading import load_network, save_network
from convattn.models.registry import build

spandrel = pytest.importorskip("spandrel")

from spandrel.architectures.PLKSR import PLKSR, RealPLKSR  # noqa: E402

import convattn.spandrel  # noqa: E402, F401

NETWORKS = [("esc-nano", 2), ("esc-light", 3), ("esc", 4), ("esc-fp", 2), ("esc-xl", 2), ("esc-real", 4)]


def claimed_by(state_dict: dict[str, Tensor]) -> list[str]:
    return [known.architecture.id for known in spandrel.MAIN_REGISTRY if known.detect(state_dict)]


@pytest.mark.parametrize("layout", ["convattn", "reference"])
@pytest.mark.parametrize(("name", "scale"), NETWORKS)
def test_no_other_architecture_claims_esc(name: str, scale: int, layout: str) -> None:
    with torch.device("meta"):
        state_dict = build(name, scale).state_dict()
    assert claimed_by(state_dict if layout == "convattn" else to_reference(state_dict)) == ["ESC"]


@pytest.mark.parametrize("network", [PLKSR(dim=8, n_blocks=2), RealPLKSR(dim=8, n_blocks=2, dysample=True)])
def test_esc_does_not_claim_its_relatives(network: nn.Module) -> None:
    assert claimed_by(network.state_dict()) == ["PLKSR"]


def test_a_network_of_any_scale_is_left_alone() -> None:
    with torch.device("meta"):
        state_dict = build("esc-lte").state_dict()
    assert claimed_by(state_dict) == claimed_by(to_reference(state_dict)) == []


@pytest.mark.parametrize(("layout", "suffix"), [("convattn", "safetensors"), ("reference", "pth")])
@pytest.mark.parametrize(("name", "scale"), [("esc-nano", 3), ("esc-nano-real", 4)])
def test_spandrel_loads_what_convattn_loads(
    tmp_path: Path, layout: str, suffix: str, name: str, scale: int
) -> None:
    path = tmp_path / f"network.{suffix}"
    save_network(build(name, scale), path, layout=layout)
    descriptor = spandrel.ModelLoader().load_from_file(path)
    assert (descriptor.scale, descriptor.architecture.id, descriptor.purpose) == (scale, "ESC", "SR")
    x = torch.rand(1, 3, 7, 10)
    with torch.no_grad():
        expected = load_network(path)(x).clamp(0, 1)
    torch.testing.assert_close(descriptor(x), expected)
    half = descriptor.to(torch.bfloat16)(x.bfloat16())
    torch.testing.assert_close(half.float(), expected, atol=0.05, rtol=0)


def test_half_precision_is_loaded_as_single(tmp_path: Path) -> None:
    state_dict = {key: tensor.half() for key, tensor in build("esc-nano", 2).state_dict().items()}
    assert spandrel.MAIN_REGISTRY.load(state_dict).dtype == torch.float32
