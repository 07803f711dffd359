"""A network prepared for export: traced, in the requested precision, with metadata."""

import copy
import io
import warnings
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from convattn.checkpoints.loading import describe
from convattn.export.checking import window_of
from convattn.models.esc_lte import ESCLTE

__all__ = ["AtScale", "HalfPrecision", "Job"]


@dataclass(frozen=True)
class Job:
    """A network to be written, and how.

    Attributes:
        network: In float32 on the CPU, of one scale.
        suffix: Of the file.
        precision: "fp32", "fp16" or "int8".
        opset: Version of the ONNX operators.
        images: For the calibration of int8.
    """

    network: nn.Module
    suffix: str
    precision: str
    opset: int
    images: list[Tensor]

    @property
    def about(self) -> dict[str, str]:
        """Return what the file says of its network."""
        about = describe(getattr(self.network, "of_any_scale", self.network))
        about |= {"scale": str(self.network.scale), "precision": self.precision}
        if features := getattr(self.network, "features", None):
            about |= {
                "window": str(features.window_size),
                "bytes_per_pixel": str(self._bytes_per_pixel(features)),
            }
        return about

    def _bytes_per_pixel(self, features: Any) -> int:
        """Bound the measured peaks from above: feature maps, attention scores and the upscaled image."""
        heads = features.blocks[0].attention.relative_position_bias.shape[0]
        channels = features.dim if hasattr(self.network, "upsampler") else 3
        numbers = 2 * channels * cast(int, self.network.scale) ** 2
        if self.suffix in (".onnx", ".engine"):  # attention scores are stored
            numbers += 16 * features.dim + 2 * heads * features.window_size**2
        else:
            numbers += 26 * features.dim
        if isinstance(self.network, AtScale):  # all points are computed at once
            hidden = self.network.of_any_scale.estimator.amplitude.out_channels
            numbers += {".xml": 17, ".pt2": 80}.get(self.suffix, 8) * hidden * self.network.scale**2
        return 4 * numbers

    @property
    def example(self) -> Tensor:
        """Return the traced input (2, 3, H, W), of several windows: no special case of one is traced."""
        side = 2 * window_of(self.network)
        return torch.rand(2, 3, side + 3, side + 5)

    @property
    def traced(self) -> nn.Module:
        """Return the network as the graph computes it."""
        return HalfPrecision(self.network) if self.precision == "fp16" else self.network

    def onnx(self, network: nn.Module) -> bytes:
        """Return a traced network as ONNX; tracing is about thirty times faster than torch.export."""
        model = io.BytesIO()
        free = {0: "batch", 2: "height", 3: "width"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter is deprecated, and Python numbers become constants
            torch.onnx.export(
                network,
                (self.example,),
                cast(Any, model),
                dynamo=False,
                opset_version=self.opset,
                input_names=["input"],
                output_names=["output"],
                dynamic_axes={"input": free, "output": {0: "batch", 2: "large_height", 3: "large_width"}},
            )
        return model.getvalue()


class AtScale(nn.Module):
    """A network of arbitrary scale at one scale."""

    def __init__(self, network: ESCLTE, scale: int) -> None:
        super().__init__()
        self.of_any_scale, self.features, self.scale = network, network.features, scale

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, scale · H, scale · W)."""
        height, width = x.shape[2:]
        return self.of_any_scale(x, (self.scale * height, self.scale * width))


class HalfPrecision(nn.Module):
    """A network in half precision whose input and output are float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, scale · H, scale · W), both in float32."""
        return self.network(x.half()).float()
