"""Networks as files for other runtimes: ONNX, OpenVINO, TensorRT and torch.export.

Height, width and batch stay free. A file gets its name only after what it computes was compared with torch at
sizes that were not traced.
"""

import copy
import io
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convattn.checkpoints.loading import describe
from convattn.errors import InputError
from convattn.files import replacing
from convattn.images.io import find_images, read_rgb
from convattn.models.esc_lte import ESCLTE
from convattn.runtimes.exported import METADATA, ExportedNetwork, load_exported, openvino_core, require

__all__ = ["FORMATS", "PRECISIONS", "Agreement", "export"]

PRECISIONS = {"fp32": 1e-4, "fp16": 1 / 255, "int8": 0.02}
"""How far from torch an export of each precision may be: for int8 in root mean square, else anywhere."""

FORMATS = {".onnx": "ONNX", ".xml": "OpenVINO", ".engine": "TensorRT", ".pt2": "torch.export"}
"""What a file's suffix stands for."""

_ENGINE_SHAPES = (1, 3, 1, 1), (1, 3, 256, 256), (4, 3, 1024, 1024)  # smallest, usual and largest
_CALIBRATION_SIDE = 128  # pixels of the middle of each image
_MOST_CALIBRATED = 100  # images


@dataclass(frozen=True)
class Agreement:
    """How an exported network compares with torch.

    Attributes:
        largest: Difference anywhere, for images in [0, 1].
        rms: Root mean square difference.
        tolerance: Of the precision, see :data:`PRECISIONS`.
        shapes: Of the images compared.
    """

    largest: float
    rms: float
    tolerance: float
    shapes: list[tuple[int, ...]]


def export(
    network: nn.Module,
    path: str | os.PathLike[str],
    *,
    scale: int | None = None,
    precision: str = "fp32",
    opset: int = 18,
    calibration: str | os.PathLike[str] | None = None,
) -> Agreement:
    """Write a network for another runtime and compare what it computes there with torch.

    Args:
        network: (N, 3, H, W) in [0, 1] to (N, 3, scale · H, scale · W), on the CPU in float32; or one of any
            scale, which is exported at one.
        path: Its suffix settles the format, see :data:`FORMATS`. OpenVINO's weights go into a .bin beside it.
        scale: Of the export, for a network of any scale.
        precision: "fp32"; "fp16", which computes in half precision and in OpenVINO stores half-precision
            weights; or for ONNX and OpenVINO "int8". Input and output are float32 always.
        opset: Version of the ONNX operators, 17 to 20. All formats but torch.export are made by way of ONNX.
        calibration: For int8, a folder of images as the network will get them, before they are upscaled.

    Returns:
        How near the file comes to torch.

    Raises:
        InputError: The network cannot be exported like that, a package is missing, the file cannot be written
            or does not compute what torch does. Whatever had the name before is untouched then.
    """
    path = Path(path)
    _check(network, path, scale, precision, calibration)
    if network.scale is None:
        network = _AtScale(cast(ESCLTE, network), cast(int, scale))
    images = _middles(calibration) if calibration else []
    job = _Job(network.eval(), path.suffix, precision, opset, images)
    with ExitStack() as files:
        temporary = files.enter_context(replacing(path))
        if path.suffix == ".xml":
            files.enter_context(replacing(path.with_suffix(".bin")))
        _WRITERS[path.suffix](job, temporary)
        return _compare(network, load_exported(temporary), precision, images or _noise(network))


@dataclass(frozen=True)
class _Job:
    network: nn.Module
    suffix: str
    precision: str
    opset: int
    images: list[Tensor]

    @property
    def about(self) -> dict[str, str]:
        """What the file shall say of its network."""
        about = describe(getattr(self.network, "of_any_scale", self.network))
        about |= {"scale": str(self.network.scale), "precision": self.precision}
        if features := getattr(self.network, "features", None):
            about |= {
                "window": str(features.window_size),
                "bytes_per_pixel": str(self._bytes_per_pixel(features)),
            }
        return about

    def _bytes_per_pixel(self, features: Any) -> int:
        """Bounds the peaks that were measured: maps of features, attention scores, and what is upscaled."""
        heads = features.blocks[0].attention.relative_position_bias.shape[0]
        channels = features.dim if hasattr(self.network, "upsampler") else 3
        numbers = 2 * channels * cast(int, self.network.scale) ** 2
        if self.suffix in (".onnx", ".engine"):  # scores are written out
            numbers += 16 * features.dim + 2 * heads * features.window_size**2
        else:
            numbers += 26 * features.dim
        if isinstance(self.network, _AtScale):  # all points are there at once
            hidden = self.network.of_any_scale.estimator.amplitude.out_channels
            numbers += {".xml": 17, ".pt2": 80}.get(self.suffix, 8) * hidden * self.network.scale**2
        return 4 * numbers

    @property
    def example(self) -> Tensor:
        """What the network is traced with: more than two windows, for what holds of one may not of others."""
        side = 2 * _window(self.network)
        return torch.rand(2, 3, side + 3, side + 5)

    @property
    def traced(self) -> nn.Module:
        """The network as the graph shall compute it."""
        return _Half(self.network) if self.precision == "fp16" else self.network

    def onnx(self, network: nn.Module) -> bytes:
        """A traced network; going by torch.export would take some thirty times as long."""
        model = io.BytesIO()
        free = {0: "batch", 2: "height", 3: "width"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's age, and of Python's numbers in the graph
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

    def quantised_onnx(self, model: Any, file: Path) -> Any:
        """An ONNX model with its inner convolutions in 8 bits, made by way of a file."""
        onnx, quantisation = require("onnx"), require("onnxruntime.quantization")
        weights = {tensor.name for tensor in model.graph.initializer}
        convolutions = [
            node.name for node in model.graph.node if node.op_type == "Conv" and node.input[1] in weights
        ]
        images = iter({"input": image.numpy()} for image in self.images)
        # Keeps it from advising to simplify the graph first, which onnxruntime does as it loads one.
        onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
        quantisation.quantize_static(
            model,
            file,
            SimpleNamespace(get_next=lambda: next(images, None)),
            per_channel=True,
            reduce_range=True,  # without VNNI, sums of products of 8 bits overflow
            activation_type=quantisation.QuantType.QUInt8,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=convolutions[1:-1],  # the first and the last are the most sensitive
        )
        quantised = onnx.load(file)
        del quantised.graph.value_info[:]  # shapes inside the graph, which every runtime finds itself
        return quantised

    def quantised_openvino(self, model: Any) -> Any:
        """A model of OpenVINO with convolutions in 8 bits; sums and products of maps stay in float32."""
        nncf, ranges = require("nncf"), require("nncf.quantization.range_estimator")
        nncf.set_log_level(logging.ERROR)
        images = nncf.Dataset([image.numpy() for image in self.images], lambda x: {"input": x})
        return nncf.quantize(
            model,
            images,
            preset=nncf.QuantizationPreset.MIXED,  # what GELU gives is far from symmetric
            subset_size=len(self.images),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                # Nothing is cut off: by default, what goes beyond an average image is.
                activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX,
            ),
            ignored_scope=nncf.IgnoredScope(types=["Add", "Multiply", "MatMul"], validate=False),
        )


class _AtScale(nn.Module):
    """A network of any scale at one."""

    def __init__(self, network: ESCLTE, scale: int) -> None:
        super().__init__()
        self.of_any_scale, self.features, self.scale = network, network.features, scale

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        return self.of_any_scale(x, (self.scale * height, self.scale * width))


class _Half(nn.Module):
    """A network in half precision between an image and a result in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.half()).float()


def _write_onnx(job: _Job, file: Path) -> None:
    onnx = require("onnx")
    model = onnx.load_from_string(job.onnx(job.traced))
    if job.precision == "int8":
        model = job.quantised_onnx(model, file)
    onnx.helper.set_model_props(model, job.about)
    onnx.save(model, file)


def _write_openvino(job: _Job, file: Path) -> None:
    openvino = require("openvino")
    model = openvino_core().read_model(job.onnx(job.network))
    if job.precision == "int8":
        model = job.quantised_openvino(model)
    model.set_rt_info(job.about, [METADATA])
    openvino.save_model(model, file, compress_to_fp16=job.precision == "fp16")


def _write_torch(job: _Job, file: Path) -> None:
    free = torch.export.Dim.DYNAMIC
    with torch.no_grad():
        program = torch.export.export(
            job.traced, (job.example,), dynamic_shapes=({0: free, 2: free, 3: free},)
        )
    about = "\n".join(f"{key}={value}" for key, value in job.about.items())
    torch.export.save(program, file, extra_files={METADATA: about})


def _write_tensorrt(job: _Job, file: Path) -> None:
    """An engine for the GPU that is here, and for images up to :data:`_ENGINE_SHAPES`."""
    tensorrt = require(
        "tensorrt",
        "install it where the NVIDIA GPU is, or export to .onnx, which its trtexec makes engines of",
    )
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    typed = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)  # precision is that of the ONNX
    network = builder.create_network(typed)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(job.onnx(job.traced)):
        raise InputError(f"TensorRT does not take this model: {parser.get_error(0).desc()}; export to .onnx.")
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("input", *_ENGINE_SHAPES)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise InputError("TensorRT could not build an engine of this model; export to .onnx.")
    file.write_bytes(engine)


_WRITERS: dict[str, Callable[[_Job, Path], None]] = {
    ".onnx": _write_onnx,
    ".xml": _write_openvino,
    ".engine": _write_tensorrt,
    ".pt2": _write_torch,
}


def _check(network: nn.Module, path: Path, scale: int | None, precision: str, calibration: object) -> None:
    if path.suffix not in FORMATS:
        known = ", ".join(f"{suffix} ({name})" for suffix, name in FORMATS.items())
        raise InputError(f"The format of {path.name} is not known; give it one of the suffixes {known}.")
    if precision not in PRECISIONS:
        raise InputError(f"There is no precision {precision}; choose {', '.join(PRECISIONS)}.")
    if isinstance(network, ExportedNetwork):
        raise InputError("This model is an export already; give the weights that it was made from.")
    if network.scale is None and (scale is None or scale < 1):
        raise InputError("This model upscales by any scale; give the whole scale to export it at.")
    if network.scale is not None and scale not in (None, network.scale):
        raise InputError(f"This model upscales {network.scale} times, not {scale} times.")
    if precision == "int8" and path.suffix not in (".onnx", ".xml"):
        raise InputError("Only ONNX and OpenVINO are written in int8; give the suffix .onnx or .xml.")
    if (precision == "int8") != (calibration is not None):
        raise InputError("Images for calibration and the precision int8 go together; give both or neither.")


def _middles(folder: str | os.PathLike[str]) -> list[Tensor]:
    """The middles of the first images of a folder, (1, 3, h, w) in [0, 1]."""
    images = (read_rgb(path) / 255 for path in find_images(folder)[:_MOST_CALIBRATED])
    return [_middle(image)[None] for image in images]


def _middle(image: Tensor) -> Tensor:
    top, left = (max(side - _CALIBRATION_SIDE, 0) // 2 for side in image.shape[1:])
    return image[:, top : top + _CALIBRATION_SIDE, left : left + _CALIBRATION_SIDE]


def _window(network: nn.Module) -> int:
    return getattr(getattr(network, "features", network), "window_size", 16)


def _noise(network: nn.Module) -> list[Tensor]:
    """Coarse noise of odd sizes, of a batch, smaller than a window and of whole windows."""
    window = _window(network)
    random = torch.Generator().manual_seed(0)
    return [
        F.interpolate(torch.rand(batch, 3, 4, 4, generator=random), (height, width), mode="bilinear")
        for batch, height, width in [(2, window + 5, 2 * window - 3), (1, 5, 3), (1, window, window)]
    ]


@torch.inference_mode()
def _compare(
    network: nn.Module, exported: ExportedNetwork, precision: str, images: Sequence[Tensor]
) -> Agreement:
    differences = [(exported(x) - network(x)).flatten() for x in images]
    all_of_them = torch.cat(differences).double()
    agreement = Agreement(
        largest=all_of_them.abs().max().item(),
        rms=all_of_them.square().mean().sqrt().item(),
        tolerance=PRECISIONS[precision],
        shapes=[tuple(x.shape) for x in images],
    )
    reached = agreement.rms if precision == "int8" else agreement.largest
    if not reached <= agreement.tolerance:  # nor if it is no number
        raise InputError(
            f"The export differs from torch by {reached:.1e}, more than {agreement.tolerance:.1e}, and was "
            "not kept; try another format or precision."
        )
    return agreement
