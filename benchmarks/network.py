"""How far the variants of a network are from its definition in torch's operations with naive attention.

    python benchmarks/network.py [--network esc] [--scale 4] [--size 128] [--variants ours bf16 flex ...]

All have the same weights, those that start at zero moved from there, so that every layer takes part.
``convattn bench networks`` measures their time and memory.
"""

import argparse
import copy

import torch
from torch import Tensor, nn

from convattn.bench.variants import DEFAULT, VARIANTS, Variant
from convattn.models.registry import build

NAMED = {"ours": DEFAULT} | VARIANTS


def network_and_image(name: str, scale: int, size: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    network = build(name, scale).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    for parameter in network.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    return network, torch.rand(1, 3, size, size).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def result(network: nn.Module, x: Tensor, variant: Variant) -> Tensor:
    network = copy.deepcopy(network)
    variant.apply(network)
    with variant.active(), torch.autocast("cpu", variant.dtype, enabled=variant.dtype is not None):
        made = variant.runner(network, x)()
    return made if isinstance(made, Tensor) else torch.from_numpy(made[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="esc")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--variants", nargs="+", choices=NAMED, default=["ours", "bf16"])
    options = parser.parse_args()
    network, x = network_and_image(options.network, options.scale, options.size)
    expected = result(network, x, VARIANTS["naive"])
    peak = expected.max() - expected.min()
    print(f"{options.network} ×{options.scale} on {options.size}×{options.size}, results {peak:.3g} wide:")
    for name in options.variants:
        difference = (result(network, x, NAMED[name]) - expected).abs()
        psnr = 20 * torch.log10(peak / difference.square().mean().sqrt())
        print(f"{name:14} differs by {difference.max():.1e} at most, PSNR {psnr:.1f} dB")


if __name__ == "__main__":
    main()
