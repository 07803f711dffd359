"""What the reference code calls the tensors of a network, and what we do."""

import itertools
import re
from collections.abc import Iterable

from torch import Tensor

__all__ = ["StateDict", "from_reference", "to_reference"]

StateDict = dict[str, Tensor]

# Names of the reference code and ours; # stands for a number, * for "weight" or "bias".
_KEYS = (
    ("proj.*", "features.shallow.*"),
    ("plk_filter", "features.large_kernel.weight"),
    ("blocks.#.ln_proj.*", "features.blocks.#.norm_ffn.*"),
    ("blocks.#.proj.proj.*", "features.blocks.#.ffn.expand.*"),
    ("blocks.#.proj.dwc.*", "features.blocks.#.ffn.depthwise.*"),
    ("blocks.#.proj.aggr.*", "features.blocks.#.ffn.project.*"),
    ("blocks.#.ln_attn.*", "features.blocks.#.norm_attention.*"),
    ("blocks.#.attn.relative_position_bias", "features.blocks.#.attention.relative_position_bias"),
    ("blocks.#.attn.to_qkv.*", "features.blocks.#.attention.qkv.*"),
    ("blocks.#.attn.to_out.*", "features.blocks.#.attention.project.*"),
    ("blocks.#.lns.#.*", "features.blocks.#.layers.#.norm.*"),
    ("blocks.#.convffns.#.proj.*", "features.blocks.#.layers.#.ffn.expand.*"),
    ("blocks.#.convffns.#.dwc.*", "features.blocks.#.layers.#.ffn.depthwise.*"),
    ("blocks.#.convffns.#.aggr.*", "features.blocks.#.layers.#.ffn.project.*"),
    ("blocks.#.pconvs.#.plk.dwc_proj.1.*", "features.blocks.#.layers.#.attention.predictor.reduce.*"),
    ("blocks.#.pconvs.#.plk.dwc_proj.3.*", "features.blocks.#.layers.#.attention.predictor.expand.*"),
    ("blocks.#.pconvs.#.aggr.*", "features.blocks.#.layers.#.attention.project.*"),
    ("blocks.#.ln_out.*", "features.blocks.#.norm_out.*"),
    ("blocks.#.conv_out.*", "features.blocks.#.conv_out.*"),
    ("last.*", "features.deep.*"),
    ("to_img.*", "to_image.*"),
    # ESC-Real
    ("skip.0.*", "image_skip.expand.*"),
    ("skip.1.*", "image_skip.depthwise.*"),
    ("skip.3.*", "image_skip.project.*"),
    ("to_img.#.*", "upsampler.#.*"),
    ("to_img.init_pos", "upsampler.start"),
    ("to_img.offset.*", "upsampler.offset.*"),
    ("to_img.scope.*", "upsampler.scope.*"),
    ("to_img.end_conv.*", "upsampler.project.*"),
    # ESC+LTE, whose other names begin with "encoder."
    ("coef.*", "estimator.amplitude.*"),
    ("freq.*", "estimator.frequency.*"),
    ("phase.*", "estimator.phase.*"),
    ("imnet.layers.#.*", "estimator.mlp.#.*"),
)
# ESC-FP has other names for these.
_FACTORED_KEYS = (
    ("lk_channel", "features.large_kernel.pointwise"),
    ("lk_spatial", "features.large_kernel.depthwise"),
    ("blocks.#.pconvs.#.plk.proj.1.*", "features.blocks.#.layers.#.attention.predictor.reduce.*"),
    ("blocks.#.pconvs.#.plk.proj.3.*", "features.blocks.#.layers.#.attention.predictor.expand.*"),
    ("ln_last.*", "features.norm.*"),
)


def from_reference(state: StateDict) -> StateDict:
    """Our names for tensors that have the names of the reference code or of neosr.

    Raises:
        KeyError: No network has a tensor of that name.
    """
    return _rename(
        {key.removeprefix("encoder."): tensor for key, tensor in state.items()}, _KEYS + _FACTORED_KEYS
    )


def to_reference(state: StateDict) -> StateDict:
    """The reference code's names for tensors that have ours.

    Raises:
        KeyError: No network has a tensor of that name.
    """
    keys = _FACTORED_KEYS + _KEYS if "features.large_kernel.pointwise" in state else _KEYS
    backward = [(ours, reference) for reference, ours in keys]
    prefix = "encoder." if "estimator.phase.weight" in state else ""
    features = {key: tensor for key, tensor in state.items() if key.startswith("features.")}
    others = {key: tensor for key, tensor in state.items() if key not in features}
    renamed = _rename(features, backward)
    return {prefix + key: tensor for key, tensor in renamed.items()} | _rename(others, backward)


def _rename(state: StateDict, keys: Iterable[tuple[str, str]]) -> StateDict:
    """Give each tensor the name that the first fitting pair of patterns gives it."""
    rules = [_rule(source, target) for source, target in keys]
    return {_new_name(key, rules): tensor for key, tensor in state.items()}


def _rule(source: str, target: str) -> tuple[re.Pattern[str], str]:
    expression = re.escape(source).replace(r"\#", r"(\d+)").replace(r"\*", "(weight|bias)")
    count = itertools.count(1)
    return re.compile(expression), re.sub(r"[#*]", lambda _: rf"\g<{next(count)}>", target)


def _new_name(key: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    for expression, target in rules:
        if match := expression.fullmatch(key):
            return match.expand(target)
    raise KeyError(key)
