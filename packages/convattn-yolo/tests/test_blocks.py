import copy
import io
import pickle

import pytest
import torch
from torch import nn
from ultralytics.nn.modules import C3k2

from convattn.errors import InputError
from convattn.layers import mean_over_symmetries
from convattn_yolo.blocks import C3k2_ESC, C3k2_ESCBranch, SharedLargeKernel

BLOCKS = [C3k2_ESC, C3k2_ESCBranch]


def trained(module: nn.Module) -> nn.Module:
    """As after some training: no parameter and no statistic where it started."""
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.1 * torch.rand_like(tensor))
    return module


def pair(block: type[nn.Module], **options: object) -> nn.ModuleList:
    """Two blocks of a network, the first of which owns the large kernel."""
    owner = block(32, 32, 1, **options)
    return nn.ModuleList([owner, block(32, 32, 2, kernel_owner=owner, **options)])


def run(blocks: nn.ModuleList, x: torch.Tensor) -> torch.Tensor:
    for block in blocks:
        x = block(x)
    return x


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("options", [{}, {"attn": True}, {"c3k": True}, {"window": 4}, {"shortcut": False}])
@pytest.mark.parametrize("size", [(1, 1), (7, 20)])
def test_images_do_not_influence_each_other(
    block: type[nn.Module], options: dict[str, object], size: tuple[int, int]
) -> None:
    blocks = trained(pair(block, **options)).double().eval()
    x = torch.randn(3, 32, *size, dtype=torch.float64)
    alone = torch.cat([run(blocks, image[None]) for image in x])
    torch.testing.assert_close(run(blocks, x), alone)
    assert alone.shape == x.shape


@pytest.mark.parametrize("block", BLOCKS)
def test_every_parameter_learns(block: type[nn.Module]) -> None:
    blocks = trained(pair(block, window=4))
    run(blocks, torch.randn(2, 32, 16, 16)).square().mean().backward()
    for name, parameter in blocks.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("block", BLOCKS)
def test_one_kernel_however_the_network_is_copied(block: type[nn.Module]) -> None:
    blocks = trained(pair(block)).eval()
    x = torch.randn(2, 32, 9, 9)
    file = io.BytesIO()
    torch.save(blocks, file)
    file.seek(0)
    copies = [
        copy.deepcopy(blocks),
        pickle.loads(pickle.dumps(blocks)),
        torch.load(file, weights_only=False),
    ]
    for copied in copies:
        torch.testing.assert_close(run(copied, x), run(blocks, x))
        kernels = [name for name in copied.state_dict() if "large_kernel" in name]
        assert kernels == ["0.large_kernel.weight"]
        nn.init.zeros_(copied[0].large_kernel.weight)  # the copy's own kernel reaches all of its layers …
        assert not torch.allclose(run(copied[1:], x), run(blocks[1:], x))
    assert blocks[0].large_kernel.weight.abs().max() > 0  # … and no layer of the original


def test_the_branch_starts_at_nothing() -> None:
    stock, branch = C3k2(32, 48, 2, True), C3k2_ESCBranch(32, 48, 2, c3k=True)
    missing, unexpected = branch.load_state_dict(trained(stock).state_dict(), strict=False)
    assert not unexpected
    assert all("branches" in name or "large_kernel" in name for name in missing)
    x = torch.randn(2, 32, 12, 12)
    for training in (True, False):
        stock.train(training)
        branch.train(training)
        assert torch.equal(branch(x), stock(x))
    branch.train()(x).square().sum().backward()
    assert branch.branches[0].attention.project.bn.weight.grad.abs().max() > 0  # … and training moves it


def test_folding_the_kernel_changes_nothing_and_twice_is_once() -> None:
    kernel = SharedLargeKernel(16)
    before = kernel().detach()
    torch.testing.assert_close(before, mean_over_symmetries(kernel.weight))
    for _ in range(2):
        kernel.fold()
        torch.testing.assert_close(kernel(), before)


def test_bias_table_is_no_matrix_to_be_orthogonalised() -> None:
    tables = [p for name, p in pair(C3k2_ESC, window=4).named_parameters() if "relative_position" in name]
    assert [table.ndim for table in tables] == [3, 3, 3]


@pytest.mark.parametrize("block", BLOCKS)
def test_what_the_kernel_cannot_do_is_said(block: type[nn.Module]) -> None:
    with pytest.raises(InputError, match="has 8 hidden channels here, but its large kernel needs 16"):
        block(16, 16)
    with pytest.raises(InputError, match="g=2 groups: set g to 1"):
        block(32, 32, g=2)
    with pytest.raises(InputError, match="multiple of 16 hidden channels, not 24"):
        block(32, 48, window=8)
