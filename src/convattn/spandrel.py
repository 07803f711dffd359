"""ESC for programs that load networks with spandrel: importing this module registers it.

    >>> import convattn.spandrel
    >>> esc = spandrel.ModelLoader().load_from_file("ESC_X2.pth")

ESC, ESC-light, ESC-FP, ESC-XL, ESC-Real and the nano networks are detected with the key names of convattn and
of the reference code. ESC+LTE is not: networks in spandrel have one whole scale.
"""

from typing import Any

from spandrel import (
    MAIN_REGISTRY,
    Architecture,
    ArchSupport,
    ImageModelDescriptor,
    ModelTiling,
    StateDict,
)
from spandrel.util import KeyCondition
from torch import nn

from convattn.checkpoints.architecture import network_of

__all__ = ["ESCArch"]

_has_all, _has_any = KeyCondition.has_all, KeyCondition.has_any


class ESCArch(Architecture[nn.Module]):
    """The ESC networks of one scale, as spandrel describes them."""

    def __init__(self) -> None:
        ours = _has_all(
            "features.shallow.weight",
            "features.blocks.0.attention.relative_position_bias",
            _has_any("to_image.weight", "image_skip.project.weight"),
        )
        reference = _has_all(
            "blocks.0.pconvs.0.aggr.weight",
            "blocks.0.attn.relative_position_bias",
            _has_any("to_img.weight", "skip.0.weight"),
        )
        super().__init__(id="ESC", detect=_has_any(ours, reference))

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[nn.Module]:
        """Build the network from the names and shapes of its tensors."""
        network: Any = network_of(state_dict).float()
        return ImageModelDescriptor(
            network,
            network.state_dict(),
            architecture=self,
            purpose="SR",
            tags=[f"{network.features.dim}dim", f"{len(network.features.blocks)}blocks"],
            supports_half=True,
            supports_bfloat16=True,
            scale=network.scale,
            input_channels=3,
            output_channels=3,
            tiling=ModelTiling.DISCOURAGED,  # dynamic kernels depend on averages over the whole image
        )


MAIN_REGISTRY.add(ArchSupport.from_architecture(ESCArch()), ignore_duplicates=True)
