"""``convattn export``."""

from pathlib import Path
from typing import Annotated

import typer

from convattn.choices import ExportPrecision

__all__ = ["export"]


def export(
    model: Annotated[
        str,
        typer.Argument(help="A model such as esc-nano, a weights file, or a Hugging Face Hub id."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="A file .onnx, .xml (OpenVINO), .pt2 or .engine (TensorRT)."),
    ],
    scale: Annotated[
        int | None,
        typer.Option("--scale", "-s", min=1, help="Scale; required if the model has several, or any."),
    ] = None,
    precision: Annotated[
        ExportPrecision,
        typer.Option(help="fp16 and int8 make smaller files; int8 is for .onnx and .xml."),
    ] = ExportPrecision.fp32,
    opset: Annotated[int, typer.Option(min=17, max=20, help="Version of the ONNX operators.")] = 18,
    calibration: Annotated[
        Path | None,
        typer.Option(help="For int8: a folder of about ten images like those to be upscaled."),
    ] = None,
) -> None:
    """Write a network for other runtimes: convattn export esc-nano --scale 2 -o net.onnx.

    Height, width and batch size stay dynamic. The file is compared with torch,
    and kept only if the results agree. convattn upscale --model net.onnx runs it.
    """
    from convattn.export import export as write_export
    from convattn.runtimes.pretrained import from_pretrained

    network = from_pretrained(model, scale)
    agreement = write_export(
        network, output, scale=scale, precision=precision.value, opset=opset, calibration=calibration
    )
    shapes = ["x".join(map(str, shape)) for shape in agreement.shapes]
    more = ["…"] if len(shapes) > 3 else []
    tolerance = f"{agreement.tolerance:.1e}{' of the latter' if precision is ExportPrecision.int8 else ''}"
    typer.echo(
        f"{output}: differs from torch by {agreement.largest:.1e} at most, {agreement.rms:.1e} in root mean "
        f"square (tolerance {tolerance}), on {len(shapes)} images: {', '.join(shapes[:3] + more)}"
    )
