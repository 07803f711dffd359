"""How far the forms of a network are from its definition: torch's operations, attention in its naive form.

    python benchmarks/network.py [--network esc] [--scale 4] [--size 128] [--forms ours bf16 flex ...]

All have the same weights, those that start at zero moved from there, so that every layer takes part.
``convattn bench networks`` measures their time and memory.
"""

import argparse
import copy

import torch
from torch import Tensor, nn

from convattn.bench.candidates import FORMS, OURS, Form
from convattn.models.registry import build

NAMED = {"ours": OURS} | FORMS


def network_and_image(name: str, scale: int, size: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    network = build(name, scale).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    for parameter in network.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    return network, torch.rand(1, 3, size, size).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def result(network: nn.Module, x: Tensor, form: Form) -> Tensor:
    network = copy.deepcopy(network)
    form.apply(network)
    with form.active(), torch.autocast("cpu", form.dtype, enabled=form.dtype is not None):
        made = form.runner(network, x)()
    return made if isinstance(made, Tensor) else torch.from_numpy(made[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="esc")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--forms", nargs="+", choices=NAMED, default=["ours", "bf16"])
    options = parser.parse_args()
    network, x = network_and_image(options.network, options.scale, options.size)
    expected = result(network, x, FORMS["naive"])
    peak = expected.max() - expected.min()
    print(f"{options.network} ×{options.scale} on {options.size}×{options.size}, results {peak:.3g} wide:")
    for name in options.forms:
        difference = (result(network, x, NAMED[name]) - expected).abs()
        psnr = 20 * torch.log10(peak / difference.square().mean().sqrt())
        print(f"{name:14} differs by {difference.max():.1e} at most, PSNR {psnr:.1f} dB")


if __name__ == "__main__":
    main()
