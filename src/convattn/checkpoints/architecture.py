"""ESC networks from state dicts: names and shapes of the tensors give every hyper-parameter."""

import itertools
import math
import re
import warnings
from collections.abc import Iterable
from fractions import Fraction
from functools import partial

import torch
from torch import nn

from convattn.checkpoints.key_names import StateDict, from_reference
from convattn.layers import BodyConfig
from convattn.models.esc import ESC
from convattn.models.esc_lte import ESCLTE
from convattn.models.esc_real import ESCReal
from convattn.models.upsamplers import DySample, NearestConvUpsampler

__all__ = ["network_of"]

_LARGEST_SCALE = 32
_LARGEST_WINDOW = 128  # pixels; attention takes memory with its fourth power


def network_of(state: StateDict) -> nn.Module:
    """Build the ESC network that tensors belong to, from their names in any known format and their shapes.

    Args:
        state: The tensors, which become the network's parameters without a copy.

    Returns:
        The network in evaluation mode.

    Raises:
        LookupError: The tensors belong to no ESC network, or to one of unreasonable size. Odd shapes may also
            raise an ArithmeticError, a RuntimeError, a TypeError or a ValueError.
    """
    if not any(key.startswith("features.") for key in state):
        state = from_reference(state)
    # On the meta device, a network takes no memory and draws no random numbers.
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch comments on empty tensors, which are refused below
        network = _blank(state)
    if not 1 <= (network.scale or 1) <= _LARGEST_SCALE:
        raise LookupError(f"scale {network.scale}")
    network.load_state_dict(state, assign=True)
    return network.eval()


def _blank(state: StateDict) -> ESC | ESCLTE | ESCReal:
    """Return the network that tensors of these shapes belong to, without their values."""
    config = _hyper_parameters(state)
    if "estimator.phase.weight" in state:
        return ESCLTE(config, hidden=2 * len(state["estimator.phase.weight"]))
    if "image_skip.project.weight" in state:
        return ESCReal(config, upsampler=_upsampler(state))
    scale = math.isqrt(len(state["to_image.weight"]) // 3)
    return ESC(config, scale=scale, image_skip="bicubic" if config.factored else "nearest")


def _hyper_parameters(state: StateDict) -> BodyConfig:
    block = "features.blocks.0."
    factored = "features.large_kernel.pointwise" in state
    kernel = state["features.large_kernel.depthwise" if factored else "features.large_kernel.weight"]
    heads, biases = state[block + "attention.relative_position_bias"].shape
    dim = len(state["features.shallow.weight"])
    window_size = (math.isqrt(biases) + 1) // 2
    if not 1 <= window_size <= _LARGEST_WINDOW:
        raise LookupError(f"window size {window_size}")
    return BodyConfig(
        dim=dim,
        large_kernel_dim=kernel.shape[0],
        large_kernel_size=kernel.shape[-1],
        blocks=len(_numbers(state, r"features\.blocks\.(\d+)\.")),
        layers=len(_numbers(state, r"features\.blocks\.0\.layers\.(\d+)\.")),
        window_size=window_size,
        heads=heads,
        # Fractions reproduce the number of hidden channels exactly.
        ffn_ratio=Fraction(len(state[block + "layers.0.ffn.expand.weight"]), dim),
        first_ffn_ratio=Fraction(len(state[block + "ffn.expand.weight"]), dim),
        norm=block + "layers.0.norm.weight" in state,
        factored=factored,
    )


def _upsampler(state: StateDict) -> partial[NearestConvUpsampler] | partial[DySample]:
    if "upsampler.start" in state:
        start = state["upsampler.start"]
        scale = round(1 / (1 - 2 * start.max().item()))  # the largest offset is (scale - 1) / (2 · scale)
        return partial(DySample, scale=scale, groups=start.numel() // (2 * scale**2))
    *positions, _ = _numbers(state, r"upsampler\.(\d+)\.")
    # Convolutions are 2 positions apart, or 3 where an upsampling layer lies between them.
    first_convs = [position for position in positions if position - 2 not in positions]
    counts = [sum(first <= position for position in positions) for first in first_convs]
    return partial(
        NearestConvUpsampler,
        convs=[a - b for a, b in itertools.pairwise([*counts, 0])],
        width=len(state[f"upsampler.{positions[0]}.weight"]),
    )


def _numbers(state: Iterable[str], pattern: str) -> list[int]:
    """Return the distinct numbers that a pattern finds in names, sorted."""
    return sorted({int(match[1]) for key in state if (match := re.match(pattern, key))})
