"""The networks to compare: convattn's, and others that spandrel builds, untrained."""

import importlib
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from convattn.bench.spec import Candidate
from convattn.bench.variants import DEFAULT, VARIANTS
from convattn.checkpoints.loading import load_network
from convattn.errors import InputError, unfit_torchvision
from convattn.images.resize import resize_bicubic
from convattn.models import registry
from convattn.models.registry import NETWORKS

__all__ = ["OTHERS", "network_candidate", "trained_candidate"]

OTHERS: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "swinir-light": (
        "SwinIR",
        lambda scale: dict(
            upscale=scale,
            embed_dim=60,
            depths=[6] * 4,
            num_heads=[6] * 4,
            window_size=8,
            mlp_ratio=2,
            upsampler="pixelshuffledirect",
        ),
    ),
    "dat-light": (
        "DAT",
        lambda scale: dict(
            upscale=scale,
            embed_dim=60,
            depth=[18],
            num_heads=[6],
            split_size=[8, 32],
            expansion_factor=2,
            resi_connection="3conv",
            upsampler="pixelshuffledirect",
        ),
    ),
    "atd-light": (
        "ATD",
        lambda scale: dict(
            upscale=scale,
            embed_dim=48,
            depths=[6] * 4,
            num_heads=[4] * 4,
            window_size=16,
            category_size=128,
            reducted_dim=8,
            convffn_kernel_size=7,
            mlp_ratio=1,
            upsampler="pixelshuffledirect",
        ),
    ),
    "omnisr": ("OmniSR", lambda scale: dict(up_scale=scale, num_feat=64, res_num=5, window_size=8)),
    "craft": ("CRAFT", lambda scale: dict(upscale=scale)),
    "plksr-tiny": (
        "PLKSR",
        lambda scale: dict(
            upscaling_factor=scale, dim=64, n_blocks=12, ccm_type="DCCM", kernel_size=13, use_ea=False
        ),
    ),
    "safmn": ("SAFMN", lambda scale: dict(upscaling_factor=scale, dim=36)),
    "span": ("SPAN", lambda scale: dict(upscale=scale, num_in_ch=3, num_out_ch=3)),
    "seemore-t": (
        "SeemoRe",
        lambda scale: dict(scale=scale, embedding_dim=36, num_experts=3, lr_space="exp"),
    ),
}
"""Name to spandrel's architecture and, for a scale, its hyper-parameters in the paper's lightweight form."""


def network_candidate(
    name: str, scale: int, width: int, height: int, *, device: str = "cpu", label: str | None = None
) -> Candidate:
    """Return a network with an image of the given size as a candidate.

    Args:
        name: A key of :data:`OTHERS`, or of :data:`NETWORKS` with or without a key of :data:`VARIANTS`, as
            ``esc@naive``.
        scale: How many times larger the result is.
        width: Of the image.
        height: Of the image.
        device: Where it runs.
        label: Its name in tables, if not its own.

    Raises:
        InputError: There is no such network here.
    """
    base, at, variant = name.partition("@")
    variants = [variant for variant in VARIANTS if VARIANTS[variant].is_available(device)]
    if base in OTHERS and not at:
        if not find_spec("spandrel"):
            raise InputError(
                f'{name} is built by spandrel, which is missing: pip install "convattn[bench]"; or choose '
                f"from {', '.join(NETWORKS)}."
            )
        build: Callable[[], nn.Module] = partial(_other, name, scale)
    elif base in NETWORKS and (variant in variants or not at):
        build = partial(registry.build, base, scale)
    else:
        raise InputError(
            f"There is no network named {name!r} to measure; there are {', '.join((*NETWORKS, *OTHERS))}, "
            f"and convattn's in the variants {', '.join(variants)}, as esc@naive."
        )
    pixels = scale**2 * width * height
    return Candidate(
        label or name, build, (1, 3, height, width), pixels, VARIANTS[variant] if at else DEFAULT
    )


def trained_candidate(name: str, file: Path | None, scale: int, width: int, height: int) -> Candidate:
    """Return trained weights, or bicubic interpolation, with an image of the given size as a candidate.

    Args:
        name: Its name in tables.
        file: The weights; None for bicubic interpolation.
        scale: How many times larger the result is.
        width: Of the image.
        height: Of the image.
    """
    build = partial(_trained, file, scale)
    return Candidate(name, build, (1, 3, height, width), scale**2 * width * height)


def _trained(file: Path | None, scale: int) -> nn.Module:
    network = load_network(file) if file else None
    return _AtScale(network, scale) if network is None or network.scale is None else network


class _AtScale(nn.Module):
    """A network of arbitrary scale, or bicubic interpolation, at one scale."""

    def __init__(self, network: nn.Module | None, scale: int) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, x: Tensor) -> Tensor:
        if self.network is None:
            return resize_bicubic(x, self.scale)
        return self.network(x, (self.scale * x.shape[2], self.scale * x.shape[3]))


def _other(name: str, scale: int) -> nn.Module:
    architecture, hyper_parameters = OTHERS[name]
    try:
        module = importlib.import_module(f"spandrel.architectures.{architecture}")
    except (ImportError, RuntimeError) as error:
        raise unfit_torchvision("spandrel", error) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # architectures warn of their own code
        return getattr(module, architecture)(**hyper_parameters(scale))
