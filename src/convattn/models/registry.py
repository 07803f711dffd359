"""The networks by name: those of the ESC paper, and smaller ones of our own."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from convattn.errors import InputError
from convattn.layers import BodyConfig
from convattn.models.esc import ESC
from convattn.models.esc_lte import ESCLTE
from convattn.models.esc_real import ESCReal
from convattn.models.features import SuperResolutionNetwork
from convattn.models.upsamplers import NearestConvUpsampler

__all__ = ["ARBITRARY_SCALE_NETWORKS", "NAMES", "NETWORKS", "REAL_NETWORKS", "build"]

_ESC = BodyConfig(dim=64, large_kernel_dim=16, blocks=5, layers=5, window_size=32, heads=4, ffn_ratio=1.25)
_LIGHT = replace(_ESC, blocks=3)
_FP = replace(_ESC, dim=48, heads=3, first_ffn_ratio=1.5, norm=True, factored=True)
_XL = replace(_ESC, dim=192, large_kernel_dim=48, blocks=8, window_size=48, heads=12, norm=True)
_REAL = replace(_ESC, blocks=10, ffn_ratio=2, norm=True)
_SMALL = replace(_ESC, blocks=3, layers=4, window_size=16)
_NANO = BodyConfig(dim=32, large_kernel_dim=8, blocks=2, layers=3, window_size=8, heads=2, ffn_ratio=1.25)

NETWORKS: dict[str, Callable[[int], ESC]] = {
    "esc": lambda scale: ESC(_ESC, scale=scale),
    "esc-light": lambda scale: ESC(_LIGHT, scale=scale),
    "esc-fp": lambda scale: ESC(_FP, scale=scale, image_skip="bicubic"),
    "esc-xl": lambda scale: ESC(_XL, scale=scale),
    "esc-nano": lambda scale: ESC(_NANO, scale=scale),
}
"""Builders of the classic networks by name; each takes the scale."""

REAL_NETWORKS: dict[str, Callable[[], ESC | ESCReal]] = {
    "esc-real": lambda: ESCReal(_REAL),
    "esc-nano-real": lambda: ESCReal(_NANO, upsampler=partial(NearestConvUpsampler, width=16)),
    "esc-small-real": lambda: ESC(_SMALL, scale=4),
}
"""Builders of the networks for real-world images by name."""

ARBITRARY_SCALE_NETWORKS: dict[str, Callable[[], ESCLTE]] = {
    "esc-lte": lambda: ESCLTE(_ESC),
    "esc-nano-lte": lambda: ESCLTE(_NANO, hidden=64),
}
"""Builders of the networks for arbitrary scales by name."""

NAMES = (*NETWORKS, *REAL_NETWORKS, *ARBITRARY_SCALE_NETWORKS)
"""Every name that :func:`build` accepts."""


def build(name: str, scale: int | None = None) -> SuperResolutionNetwork:
    """Build an untrained network.

    Args:
        name: One of :data:`NAMES`.
        scale: How many times larger the result is; required by the classic networks, ignored by those for
            arbitrary scales.

    Raises:
        InputError: There is no such network, or it does not exist at that scale.
    """
    if name in ARBITRARY_SCALE_NETWORKS:
        return ARBITRARY_SCALE_NETWORKS[name]()
    if name in REAL_NETWORKS:
        network = REAL_NETWORKS[name]()
        if scale not in (None, network.scale):
            raise InputError(f"{name} upscales by {network.scale} only, not by {scale}.")
        return network
    if name not in NETWORKS:
        raise InputError(f"There is no network named {name!r}; choose from {', '.join(NAMES)}.")
    if scale is None or scale < 1:
        raise InputError(f"{name} needs a whole scale such as 2, 3 or 4, not {scale}.")
    return NETWORKS[name](scale)
