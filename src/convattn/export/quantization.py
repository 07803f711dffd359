"""8-bit quantization of ONNX and OpenVINO models."""

import logging
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from convattn.runtimes.runtime import require

__all__ = ["quantize_onnx", "quantize_openvino"]


def quantize_onnx(model: Any, images: Sequence[Tensor], file: Path) -> Any:
    """Return an ONNX model with its inner convolutions in 8 bits.

    Args:
        model: In float32.
        images: (1, 3, h, w) in [0, 1], by which ranges are calibrated.
        file: A temporary file.
    """
    onnx, quantization = require("onnx"), require("onnxruntime.quantization")
    weights = {tensor.name for tensor in model.graph.initializer}
    convolutions = [
        node.name for node in model.graph.node if node.op_type == "Conv" and node.input[1] in weights
    ]
    inputs = iter({"input": image.numpy()} for image in images)
    # Without this, onnxruntime advises to simplify the graph, which it does itself when it loads one.
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    quantization.quantize_static(
        model,
        file,
        SimpleNamespace(get_next=lambda: next(inputs, None)),
        per_channel=True,
        reduce_range=True,  # without VNNI, sums of 8-bit products overflow
        activation_type=quantization.QuantType.QUInt8,
        op_types_to_quantize=["Conv"],
        nodes_to_quantize=convolutions[1:-1],  # the first and the last are the most sensitive
    )
    quantized = onnx.load(file)
    del quantized.graph.value_info[:]  # shapes inside the graph, which runtimes infer themselves
    return quantized


def quantize_openvino(model: Any, images: Sequence[Tensor]) -> Any:
    """Return an OpenVINO model with convolutions in 8 bits; sums and products stay in float32.

    Args:
        model: In float32.
        images: (1, 3, h, w) in [0, 1], by which ranges are calibrated.
    """
    nncf, ranges = require("nncf"), require("nncf.quantization.range_estimator")
    nncf.set_log_level(logging.ERROR)
    dataset = nncf.Dataset([image.numpy() for image in images], lambda x: {"input": x})
    return nncf.quantize(
        model,
        dataset,
        preset=nncf.QuantizationPreset.MIXED,  # the output of GELU is not symmetric
        subset_size=len(images),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            # By default, values beyond those of an average image are clipped.
            activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX,
        ),
        ignored_scope=nncf.IgnoredScope(types=["Add", "Multiply", "MatMul"], validate=False),
    )
