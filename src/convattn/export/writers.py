"""Writing networks in each format."""

import io
from collections.abc import Callable
from pathlib import Path

import torch

from convattn.errors import InputError
from convattn.export.job import Job
from convattn.export.quantization import quantize_onnx, quantize_openvino
from convattn.runtimes.openvino_file import openvino_core
from convattn.runtimes.runtime import METADATA, require

__all__ = ["FORMATS", "WRITERS"]

FORMATS = {".onnx": "ONNX", ".xml": "OpenVINO", ".engine": "TensorRT", ".pt2": "torch.export"}
"""The format that each suffix stands for."""

_ENGINE_SHAPES = (1, 3, 1, 1), (1, 3, 256, 256), (4, 3, 1024, 1024)  # smallest, usual and largest


def _write_onnx(job: Job, file: Path) -> None:
    onnx = require("onnx")
    model = onnx.load_from_string(job.onnx(job.traced))
    if job.precision == "int8":
        model = quantize_onnx(model, job.images, file)
    onnx.helper.set_model_props(model, job.about)
    onnx.save(model, file)


def _write_openvino(job: Job, file: Path) -> None:
    openvino = require("openvino")
    model = openvino_core().read_model(job.onnx(job.network))
    if job.precision == "int8":
        model = quantize_openvino(model, job.images)
    model.set_rt_info(job.about, [METADATA])
    try:
        openvino.save_model(model, file, compress_to_fp16=job.precision == "fp16")
    except RuntimeError as error:
        raise InputError("OpenVINO could not write the network; is the disk full?") from error


def _write_torch(job: Job, file: Path) -> None:
    free = torch.export.Dim.DYNAMIC
    with torch.no_grad():
        program = torch.export.export(
            job.traced, (job.example,), dynamic_shapes=({0: free, 2: free, 3: free},)
        )
    about = "\n".join(f"{key}={value}" for key, value in job.about.items())
    made = io.BytesIO()  # torch ends the process where it cannot write to a file
    torch.export.save(program, made, extra_files={METADATA: about})
    file.write_bytes(made.getbuffer())


def _write_tensorrt(job: Job, file: Path) -> None:
    """Build an engine for the GPU of this machine, for images up to :data:`_ENGINE_SHAPES`."""
    tensorrt = require(
        "tensorrt",
        "install it on the machine with the GPU, or export to .onnx, from which trtexec builds engines",
    )
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    typed = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)  # precision is that of the ONNX
    network = builder.create_network(typed)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(job.onnx(job.traced)):
        raise InputError(
            f"TensorRT does not support this model: {parser.get_error(0).desc()}; export to .onnx."
        )
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("input", *_ENGINE_SHAPES)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise InputError("TensorRT could not build an engine of this model; export to .onnx.")
    file.write_bytes(engine)


WRITERS: dict[str, Callable[[Job, Path], None]] = {
    ".onnx": _write_onnx,
    ".xml": _write_openvino,
    ".engine": _write_tensorrt,
    ".pt2": _write_torch,
}
"""Suffix to the function that writes a job to a file."""
