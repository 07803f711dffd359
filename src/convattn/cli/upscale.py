"""``convattn upscale``."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["upscale"]


def upscale(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="Images, folders, patterns such as '*.png', or a video."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A folder; for one image it may be the name of the result. By default results lie beside "
            "their inputs, as photo_x2.jpg.",
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale", "-s", help="How many times larger, 1 to 30; by default that of the model, or 2."
        ),
    ] = None,
    width: Annotated[int | None, typer.Option(help="In place of a scale: most pixels across.")] = None,
    height: Annotated[int | None, typer.Option(help="In place of a scale: most pixels down.")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", help="In place of a scale: what results fit in.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Stretch results to the whole of the size.")] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A bundled model, a weights file, an export (.onnx, .xml, .engine, .pt2), or a Hugging Face "
            "Hub id; by default esc-nano at scale 2, 3 or 4, and esc-nano-lte at any other. Trust a .pt2 "
            "file as you would a program: it can run code.",
        ),
    ] = None,
    output_format: Annotated[
        str | None,
        typer.Option(
            metavar="png|jpg|webp|tif|avif", help="By default that of each input, or of OUTPUT's name."
        ),
    ] = None,
    quality: Annotated[
        int, typer.Option(min=1, max=100, help="Of JPEG, WebP and AVIF; 100 makes the last two lossless.")
    ] = 95,
    existing: Annotated[
        str, typer.Option(metavar="refuse|skip|overwrite", help="What to do where a result exists already.")
    ] = "refuse",
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda|mps", help="auto takes a GPU if there is one.")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(metavar="auto|fp32|bf16|fp16", help="auto is fp16 on CUDA and fp32 elsewhere.")
    ] = "auto",
    tile: Annotated[
        str,
        typer.Option(metavar="auto|PIXELS", help="Side of tiles, which are not quite exact; auto is exact."),
    ] = "auto",
    self_ensemble: Annotated[
        bool,
        typer.Option(
            "--self-ensemble", help="Average over 8 flips and rotations: a little better, 8 times slower."
        ),
    ] = False,
    fidelity: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="0 is sharpest, 1 most faithful, for models with weights of both kinds."
        ),
    ] = None,
    codec: Annotated[str, typer.Option(metavar="h264|hevc|av1|vp9|prores|ffv1", help="Of a video.")] = "h264",
    crf: Annotated[
        int | None,
        typer.Option(
            min=0, max=63, help="Of a video: less is better and larger; by default hardly any loss."
        ),
    ] = None,
    fps: Annotated[float, typer.Option(help="Frames a second of a video made of a folder of images.")] = 25,
    batch: Annotated[int, typer.Option(min=1, help="Frames of a video that are upscaled at once.")] = 4,
) -> None:
    """Upscale images and video: convattn upscale photo.jpg makes photo_x2.jpg.

    By any scale (--scale 2.7) or to a size: --width 1920, --height 1080 or
    --size 1920x1080 keep the aspect ratio, --exact stretches the image.

    Reads PNG, JPEG, WebP, TIFF, AVIF and GIF; writes all but GIF.
    Transparency, 16 bits, grayscale, color profiles and metadata are kept.
    EXIF orientation is applied. Of an animation only the first frame is
    upscaled. JPEG has no transparency: it puts the image on white.

    In a folder, results have the names of their inputs; two that would
    have the same name are numbered. Inputs are never overwritten.

    A video (convattn upscale clip.mp4 -o big.mp4) keeps its times, sound,
    subtitles and chapters; into a folder (-o frames/) it becomes numbered
    images. After an interruption the same command resumes. Animated GIF, WebP and
    PNG become the same, or a video.

    If an image cannot be upscaled, the others still are: the failures are
    listed at the end, and the exit status is 1.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from convattn.cli.video import is_video, upscale_moving
    from convattn.cli.warnings import notes
    from convattn.errors import InputError
    from convattn.images.sizes import parse_size
    from convattn.inference.batch_jobs import plan, upscale_files
    from convattn.inference.result_names import beside
    from convattn.inference.upscaler import Upscaler

    if size is not None and (height, width) != (None, None):
        raise InputError("Give --size, or --width and --height, not both.")
    if size is not None:
        height, width = parse_size(size)
    sides = None if (height, width) == (None, None) else (height, width)
    if tile != "auto" and not tile.isdecimal():
        raise InputError(f"The tile {tile} is neither auto nor a number of pixels.")
    console = Console(stderr=True)
    with notes(console):
        upscaler = Upscaler(
            model,
            scale,
            size=sides,
            exact=exact,
            device=device,
            precision=precision,
            tile=None if tile == "auto" else int(tile),
            self_ensemble=self_ensemble,
            fidelity=fidelity,
        )
    results: list[tuple[list[str], Path]] = (
        [(inputs, output)]
        if output
        else [([given], Path(name)) for given, name in beside(inputs, upscaler.request, output_format)]
    )
    for _, result in results if output is None else []:
        typer.echo(f"Writing {result}", err=True)
    videos = [(given, result) for given, result in results if is_video(given, result)]
    jobs = [
        job
        for given, result in results
        if (given, result) not in videos
        for job in plan(given, result, output_format)
    ]
    for given, result in videos:
        upscale_moving(
            upscaler,
            given,
            result,
            label=f"{model} {upscaler.request} {precision} {tile}",
            codec=codec,
            crf=crf,
            fps=fps,
            batch=batch,
            quality=quality,
            existing=existing,
            output_format=output_format,
        )
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
        notes(console),
    ):
        task = bar.add_task("Upscaling", total=len(jobs))
        errors = upscale_files(
            upscaler,
            jobs,
            quality=quality,
            existing=existing,
            progress=lambda done: bar.update(task, completed=done),
        )
    for error in errors:
        typer.echo(f"convattn: {error}", err=True)
    if errors:
        typer.echo(f"convattn: {len(errors)} of {len(jobs)} images failed.", err=True)
        raise typer.Exit(1)
