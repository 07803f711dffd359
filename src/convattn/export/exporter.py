"""Exporting networks to other runtimes. Height, width and batch size stay dynamic."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import cast

from torch import nn

from convattn.errors import InputError
from convattn.export.checking import PRECISIONS, Agreement, calibration_images, compare, probe_images
from convattn.export.job import AtScale, Job
from convattn.export.writers import FORMATS, WRITERS
from convattn.files import replacing
from convattn.models.esc_lte import ESCLTE
from convattn.runtimes.exported import ExportedNetwork, load_exported

__all__ = ["export"]


def export(
    network: nn.Module,
    path: str | os.PathLike[str],
    *,
    scale: int | None = None,
    precision: str = "fp32",
    opset: int = 18,
    calibration: str | os.PathLike[str] | None = None,
) -> Agreement:
    """Write a network for another runtime and compare its results there with torch.

    Args:
        network: (N, 3, H, W) in [0, 1] to (N, 3, scale · H, scale · W), on the CPU in float32; or a network
            of arbitrary scale, which is exported at one scale.
        path: Its suffix selects the format, see :data:`FORMATS`. OpenVINO's weights go into a .bin beside it.
        scale: Of the export, for a network of arbitrary scale.
        precision: "fp32"; "fp16", which computes in half precision and in OpenVINO stores half-precision
            weights; or for ONNX and OpenVINO "int8". Input and output are float32 always.
        opset: Version of the ONNX operators, 17 to 20. All formats except torch.export are made from ONNX.
        calibration: For int8, a folder of images like those that will be upscaled.

    Returns:
        How close the file is to torch.

    Raises:
        InputError: The network cannot be exported like that, a package is missing, the file cannot be written
            or differs from torch. An existing file of that name is kept then.
    """
    path = Path(path)
    _check_request(network, path, scale, precision, calibration)
    if network.scale is None:
        network = AtScale(cast(ESCLTE, network), cast(int, scale))
    images = calibration_images(calibration) if calibration else []
    job = Job(network.eval(), path.suffix, precision, opset, images)
    with ExitStack() as files:
        temporary = files.enter_context(replacing(path))
        if path.suffix == ".xml":
            files.enter_context(replacing(path.with_suffix(".bin")))
        WRITERS[path.suffix](job, temporary)
        return compare(network, load_exported(temporary), precision, images or probe_images(network))


def _check_request(
    network: nn.Module, path: Path, scale: int | None, precision: str, calibration: object
) -> None:
    if path.suffix not in FORMATS:
        known = ", ".join(f"{suffix} ({name})" for suffix, name in FORMATS.items())
        raise InputError(f"The format of {path.name} is unknown; use one of the suffixes {known}.")
    if precision not in PRECISIONS:
        raise InputError(f"There is no precision {precision}; choose {', '.join(PRECISIONS)}.")
    if isinstance(network, ExportedNetwork):
        raise InputError("This model is already exported; use the weights that it was made from.")
    if network.scale is None and (scale is None or scale < 1):
        raise InputError("This model has an arbitrary scale; give the whole scale to export it at.")
    if network.scale is not None and scale not in (None, network.scale):
        raise InputError(f"This model upscales ×{network.scale}, not ×{scale}.")
    if precision == "int8" and path.suffix not in (".onnx", ".xml"):
        raise InputError("Only ONNX and OpenVINO are written in int8; give the suffix .onnx or .xml.")
    if (precision == "int8") != (calibration is not None):
        raise InputError(
            "The precision int8 needs images for calibration, and only int8 does; give both or neither."
        )
