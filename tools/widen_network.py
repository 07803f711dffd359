"""Start esc-small-real from esc-nano-real: the same function in a wider and deeper network.

    python tools/widen_network.py esc-nano-real-x4.safetensors widened.safetensors --pairs PAIRS

Each channel comes twice, what reads it is halved, and new layers begin as the identity (Chen, Goodfellow and
Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer", ICLR 2016). Noise lets the copies part in
training. The last convolution, which esc-nano-real has not, is fitted to pairs by least squares.
"""

import argparse
import re
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from convattn.checkpoints.loading import load_network, save_network
from convattn.models.esc import ESC
from convattn.models.registry import build
from convattn.training.data import to_input
from convattn.training.pairs import PairFolder

HEAD_DIM = 16
OUTSIDE = -3.0  # relative position bias where the smaller windows did not reach
NOISE = 0.08  # standard deviations of a kernel
RIDGE = 1e-3


def twice(x: Tensor, dim: int, group: int = 1) -> Tensor:
    """Repeat each group of neighboring channels along a dimension."""
    return x.unflatten(dim, (-1, group)).repeat_interleave(2, dim).flatten(dim, dim + 1)


def widened(name: str, x: Tensor) -> Tensor:
    """Return a tensor of the body of esc-nano with twice the channels and twice the window size."""
    if name.endswith("relative_position_bias"):
        side = round(x.shape[1] ** 0.5)
        margin = (side + 1) // 2
        return twice(F.pad(x.unflatten(1, (side, side)), (margin,) * 4, value=OUTSIDE).flatten(1), 0)
    in_window_attention = ".attention." in name and ".layers." not in name
    rows = HEAD_DIM if ".qkv." in name else 9 if ".predictor.expand." in name else 1
    if x.ndim == 4 and x.shape[1] > 3:  # dense, and not the first, which reads colors
        x = twice(x, 1, HEAD_DIM if in_window_attention and ".project." in name else 1) / 2
        x = x + NOISE * x.std() * torch.randn_like(x)
    return twice(x, 0, rows)


def deepened(state: dict[str, Tensor], body: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put a body into the state of a deeper network, whose other layers and blocks become the identity."""
    last = re.compile(r"layers\.\d+\.attention\.project|conv_out")
    new = state.keys() - body.keys()
    return state | {name: torch.zeros_like(state[name]) for name in new if last.search(name)} | body


@torch.inference_mode()
def fit(network: ESC, pairs: PairFolder, count: int) -> None:
    """Fit the last convolution to pairs; both copies of a channel get the same weights."""
    squares, products = torch.zeros((), dtype=torch.double), torch.zeros((), dtype=torch.double)
    for low, high in islice(map(pairs.pair, range(len(pairs))), count):
        low, high = to_input(low[None]), to_input(high[None])
        features = network.features(low)
        seen = F.unfold((features[:, ::2] + features[:, 1::2]) / 2, 3, padding=1)[0].double()
        seen = torch.cat((seen, torch.ones_like(seen[:1])))
        residual = high - F.interpolate(low, scale_factor=network.scale)
        squares = squares + seen @ seen.T
        products = products + seen @ F.pixel_unshuffle(residual, network.scale)[0].flatten(1).double().T
    ridge = RIDGE * squares.diagonal().mean() * torch.eye(len(squares), dtype=torch.double)
    *weight, bias = torch.linalg.solve(squares + ridge, products).float()
    kernels = torch.stack(weight, 1).unflatten(1, (-1, 3, 3))
    network.to_image.weight.copy_(twice(kernels, 1) / 2)
    network.to_image.bias.copy_(bias)


def main() -> None:
    """Widen the network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="weights of esc-nano-real")
    parser.add_argument("target", help="file to write")
    parser.add_argument("--pairs", required=True, help="folder with LR and HR")
    parser.add_argument(
        "--count", type=int, default=30, help="of the pairs that the last convolution is fitted to"
    )
    options = parser.parse_args()
    torch.manual_seed(0)
    network = build("esc-small-real").eval()
    nano = load_network(options.source).state_dict()
    body = {name: widened(name, x) for name, x in nano.items() if name.startswith("features.")}
    network.load_state_dict(deepened(network.state_dict(), body))
    fit(network, PairFolder(options.pairs, scale=network.scale, smallest=1), options.count)
    save_network(network, options.target)


if __name__ == "__main__":
    main()
