"""What ``convattn upscale`` does with videos and animations."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convattn.inference.upscaler import Upscaler

__all__ = ["is_video", "upscale_moving"]

_VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp")
_ANIMATIONS = (".gif", ".webp", ".png", ".apng")


def is_video(inputs: Sequence[str], output: Path) -> bool:
    """Whether a video or an animation is asked for, and not images."""
    if any(Path(given).suffix.lower() in _VIDEOS for given in inputs) or output.suffix.lower() in _VIDEOS:
        return True
    return len(inputs) == 1 and _is_animation(Path(inputs[0]), output)


def _is_animation(source: Path, output: Path) -> bool:
    """Whether several frames go in and may come out; elsewhere an animation becomes one still image."""
    kinds = source.suffix.lower(), output.suffix.lower()
    if not source.is_file() or kinds[0] not in _ANIMATIONS or kinds[1] not in _ANIMATIONS:
        return False
    if kinds[1] == ".gif" or ".apng" in kinds:
        return True
    if kinds == (".png", ".png"):
        with source.open("rb") as file:
            return b"acTL" in file.read(2**16).partition(b"IDAT")[0]
    return kinds[1] == ".webp" and _has_frames(source)


def _has_frames(path: Path) -> bool:
    import pyvips

    try:
        return pyvips.Image.new_from_source(pyvips.Source.new_from_file(str(path)), "").get_n_pages() > 1
    except pyvips.Error:
        return False  # whoever reads it as an image says what is wrong


def upscale_moving(
    upscaler: "Upscaler",
    inputs: Sequence[str],
    output: Path,
    *,
    label: str,
    codec: str,
    crf: int | None,
    fps: float,
    batch: int,
    quality: int,
    existing: str,
    output_format: str | None,
) -> None:
    """Upscale a video or an animation and show how far it is; where the output is a folder, into images."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    from convattn.cli.warnings import notes
    from convattn.errors import InputError
    from convattn.inference.batch_jobs import check_existing, is_wanted
    from convattn.video import Progress, upscale_video
    from convattn.video.animation import upscale_animation
    from convattn.video.frames import upscale_to_frames

    if len(inputs) > 1:
        raise InputError("A video is upscaled by itself: give one input, and the name of the result.")
    check_existing(existing)
    source = Path(inputs[0])
    into_images = output.is_dir() or not output.suffix
    if output_format and not into_images:
        raise InputError(f"{output} is one file; leave the format out, or give a folder for images.")
    if not into_images and not is_wanted(output, existing):
        return
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
    )
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar, notes(console):
        task = bar.add_task("Upscaling", total=None, speed="")

        def show(now: Progress) -> None:
            hours, rest = divmod(round(now.seconds_left), 3600)
            left = f"{hours}:{rest // 60:02}:{rest % 60:02} left"
            bar.update(
                task, completed=now.done, total=now.total, speed=f"{now.per_second:.2f} frames/s, {left}"
            )

        try:
            if _is_animation(source, output):
                upscale_animation(
                    source,
                    output,
                    upscaler,
                    quality=quality,
                    batch=batch,
                    device=upscaler.device,
                    progress=lambda done, total: bar.update(task, completed=done, total=total),
                )
            elif into_images:
                rate = upscale_to_frames(
                    source,
                    output,
                    upscaler,
                    format=output_format or "png",
                    quality=quality,
                    existing=existing,
                    batch=batch,
                    device=upscaler.device,
                    label=label,
                    progress=show,
                )
                console.print(f"Note: {source} has {float(rate):.8g} frames a second.", soft_wrap=True)
            else:
                upscale_video(
                    source,
                    output,
                    upscaler,
                    codec=codec,
                    crf=crf,
                    fps=fps,
                    batch=batch,
                    device=upscaler.device,
                    label=label,
                    progress=show,
                )
        except KeyboardInterrupt:
            raise InputError(
                "Interrupted; what is finished of a video is kept, and the same command goes on from there."
            ) from None
