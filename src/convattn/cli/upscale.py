"""``convattn upscale``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convattn.choices import Existing, Precision
from convattn.cli.options import Device, Precisions, with_groups

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from convattn.errors import InputError
    from convattn.inference.results import Job
    from convattn.inference.upscaler import Upscaler

__all__ = ["upscale"]


@dataclass(frozen=True)
class Results:
    """Where results go, how large they are, and in what format."""

    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="A folder; for one input it may be the name of the result, or - for standard output. By "
            "default results lie beside their inputs, as photo_x2.jpg.",
        ),
    ] = None
    scale: Annotated[
        float | None,
        typer.Option("--scale", "-s", help="Scale, 1 to 30; by default the scale of the model, or 2."),
    ] = None
    width: Annotated[int | None, typer.Option(help="Largest width in pixels; replaces --scale.")] = None
    height: Annotated[int | None, typer.Option(help="Largest height in pixels; replaces --scale.")] = None
    size: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Largest width and height; replaces --scale.")
    ] = None
    exact: Annotated[bool, typer.Option("--exact", help="Stretch results to exactly this size.")] = False
    output_format: Annotated[
        str | None,
        typer.Option(
            metavar="png|jpg|webp|tif|avif|heic|jxl",
            help="Format; by default that of OUTPUT's name, or of the input.",
        ),
    ] = None
    quality: Annotated[
        int,
        typer.Option(min=1, max=100, help="Quality of lossy formats; 100 is lossless in all but JPEG."),
    ] = 95
    existing: Annotated[Existing, typer.Option(help="What to do if a result exists already.")] = (
        Existing.refuse
    )

    def sides(self) -> tuple[int | None, int | None] | None:
        """Return height and width that results fit in, or None for a scale."""
        from convattn.errors import InputError
        from convattn.images.sizes import parse_size

        given = self.height, self.width
        if self.size is not None and given != (None, None):
            raise InputError("Give --size, or --width and --height, not both.")
        if self.size is not None:
            return parse_size(self.size)
        return None if given == (None, None) else given


@dataclass(frozen=True)
class Computation:
    """Model, device and method."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A bundled model, a weights file, an export (.onnx, .xml, .engine, .pt2), or a Hugging Face "
            "Hub id; by default esc-nano at scale 2, 3 or 4, and esc-nano-lte at any other. Trust a .pt2 "
            "file as you would a program: it can run code.",
        ),
    ] = None
    device: Device = "auto"
    precision: Precisions = Precision.auto
    tile: Annotated[
        str,
        typer.Option(metavar="auto|PIXELS", help="Side of tiles, which are nearly exact; auto is exact."),
    ] = "auto"
    self_ensemble: Annotated[
        bool,
        typer.Option(
            "--self-ensemble", help="Average over 8 flips and rotations: a little better, 8 times slower."
        ),
    ] = False
    fidelity: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Blend two weights, if a model has both: 0 is sharpest, 1 most faithful.",
        ),
    ] = None

    def settings(self) -> dict[str, Any]:
        """Return arguments of an Upscaler."""
        from convattn.errors import InputError

        if self.tile != "auto" and not self.tile.isdecimal():
            raise InputError(f"The tile {self.tile} is neither auto nor a number of pixels.")
        return dict(
            device=self.device,
            precision=self.precision.value,
            tile=None if self.tile == "auto" else int(self.tile),
            self_ensemble=self.self_ensemble,
            fidelity=self.fidelity,
        )


@dataclass(frozen=True)
class Videos:
    """Options of videos."""

    codec: Annotated[
        str | None,
        typer.Option(
            metavar="h264|hevc|av1|vp9|prores|ffv1", help="Codec; by default h264, or vp9 for .webm."
        ),
    ] = None
    crf: Annotated[
        int | None,
        typer.Option(
            min=0, max=63, help="Constant rate factor: a lower one gives better quality and larger files."
        ),
    ] = None
    fps: Annotated[
        float | None,
        typer.Option(help="Frame rate of a folder of frames; by default from its timestamps.txt, or 25."),
    ] = None
    batch: Annotated[int, typer.Option(min=1, help="Frames that are upscaled at once.")] = 4


Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT", help="Images, videos, folders, patterns such as '*.png', or - for standard input."
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="auto|ADDRESS",
        help="Upscale with a Ray cluster; INPUT and OUTPUT may be s3://… and the like.",
    ),
]


@with_groups
def upscale(
    inputs: Inputs,
    results: Results,
    computation: Computation,
    videos: Videos,
    cluster: Cluster = None,
) -> None:
    """Upscale images and videos: convattn upscale photo.jpg writes photo_x2.jpg.

    Upscales by any scale (--scale 2.7) or to a size: --width 1920, --height 1080
    and --size 1920x1080 keep the aspect ratio, --exact stretches the image.

    Reads PNG, JPEG, WebP, TIFF, AVIF, HEIC, JPEG XL, GIF, BMP and many more;
    writes the first seven. Transparency, 16 bits, grayscale, color profiles and
    metadata are kept, and EXIF orientation is applied. JPEG has no transparency, so the
    image gets a white background.

    In an output folder, results have the names of their inputs; equal names
    are numbered. Inputs are never overwritten.

    A video (convattn upscale clip.mp4 -o big.mp4) keeps its timestamps, sound,
    subtitles and chapters. In a folder (-o frames/) it becomes numbered images.
    After an interruption, the same command resumes. Animated GIF, WebP and PNG
    stay animated, or become a video; in another format, only the first frame
    is upscaled.

    If an image cannot be upscaled, the others still are: the failures are
    listed at the end, and the exit status is 1.
    """
    from rich.console import Console

    from convattn.cli.pipes import with_pipes
    from convattn.cli.warnings import shown_warnings
    from convattn.errors import InputError
    from convattn.inference.upscaler import Upscaler
    from convattn.inference.video_jobs import record_label

    console, output, format = Console(stderr=True), results.output, results.output_format
    common = dict(size=results.sides(), exact=results.exact, **computation.settings())
    common |= dict(model=computation.model, scale=results.scale)
    if cluster:
        from convattn.cli.cluster import upscale_on_cluster

        if videos.fps:
            raise InputError("A folder of frames becomes a video on one machine; leave --cluster out.")
        settings = dict(quality=results.quality, existing=results.existing.value, **common)
        settings |= dict(codec=videos.codec, crf=videos.crf, batch_size=videos.batch)
        return upscale_on_cluster(inputs, output, cluster, format, console, settings)
    with with_pipes(inputs, output, format) as (inputs, output), shown_warnings(console):
        upscaler = Upscaler(**common)
        targets = [(inputs, output)] if output else _beside(inputs, upscaler, format)
        clips, images = _plan(targets, format)
        label = record_label(upscaler, **{name: common[name] for name in ("model", "precision", "tile")})
        errors = _upscale_videos(upscaler, clips, console, results, videos, label)
        errors += _upscale_images(upscaler, images, console, results)
        _list_failures(errors, len(clips) + len(images), "files" if clips else "images")


def _plan(
    targets: list[tuple[list[str], str]], format: str | None
) -> "tuple[list[Job[Path]], list[Job[Path]]]":
    """Return the videos and animations, and the images, of all inputs, each with its result."""
    from convattn.inference.animations import becomes_animation
    from convattn.inference.batch_jobs import plan
    from convattn.inference.video_jobs import split_inputs

    videos: list[Job[Path]] = []
    images: list[Job[Path]] = []
    for inputs, output in targets:
        moving, still = split_inputs(inputs, output, format)
        videos += moving
        for job in plan(still, output, format) if still else []:
            (videos if becomes_animation(job.source, job.target) else images).append(job)
    return videos, images


def _list_failures(errors: "list[InputError]", count: int, kinds: str) -> None:
    for error in errors:
        typer.echo(f"convattn: {error}", err=True)
    if errors and count > 1:
        typer.echo(f"convattn: {len(errors)} of {count} {kinds} failed.", err=True)
    if errors:
        raise typer.Exit(1)


def _beside(inputs: list[str], upscaler: "Upscaler", format: str | None) -> list[tuple[list[str], str]]:
    """Return each input with the name of a result beside it, and print the name."""
    from pathlib import Path

    from convattn.inference.result_names import beside

    results = beside(inputs, upscaler.request, format)
    for given, result in results:
        if Path(given).exists():  # what is missing fails later
            typer.echo(f"Writing {result}", err=True)
    return [([given], result) for given, result in results]


def _upscale_videos(
    upscaler: "Upscaler",
    jobs: "list[Job[Path]]",
    console: "Console",
    results: Results,
    videos: Videos,
    label: str,
) -> "list[InputError]":
    from convattn.cli.video import upscale_videos

    return upscale_videos(
        upscaler,
        jobs,
        console,
        results.existing.value,
        label=label,
        codec=videos.codec,
        crf=videos.crf,
        fps=videos.fps,
        batch_size=videos.batch,
        quality=results.quality,
        output_format=results.output_format,
    )


def _upscale_images(
    upscaler: "Upscaler", jobs: "list[Job[Path]]", console: "Console", results: Results
) -> "list[InputError]":
    """Upscale images under a progress bar."""
    from convattn.inference.batch_jobs import upscale_files
    from convattn.progress.bar import progress_bar

    if not jobs:
        return []
    with progress_bar(console, "Upscaling", "images", len(jobs)) as progress:
        return upscale_files(
            upscaler,
            jobs,
            quality=results.quality,
            existing=results.existing.value,
            progress=progress,
        )
