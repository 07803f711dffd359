"""What ``convattn upscale`` does with videos and animations."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from convattn.errors import InputError
    from convattn.inference.results import Job
    from convattn.inference.upscaler import Upscaler
    from convattn.progress import Progress

__all__ = ["upscale_videos"]


def upscale_videos(
    upscaler: "Upscaler", jobs: "Sequence[Job[Path]]", console: "Console", existing: str, **options: Any
) -> "list[InputError]":
    """Upscale videos and animations under a progress bar each.

    Args:
        upscaler: Upscales the frames.
        jobs: What to read and what to write.
        console: Where progress is shown.
        existing: One of :class:`~convattn.choices.Existing`.
        **options: Those of :func:`_upscale`.

    Returns:
        What failed, at most one error per video.

    Raises:
        InputError: The user interrupts, or ``existing`` is unknown.
    """
    from convattn.errors import InputError
    from convattn.inference.results import check_existing
    from convattn.progress.bar import progress_bar

    check_existing(existing)
    errors = []
    for job in jobs:
        try:
            with progress_bar(console, "Upscaling", "frames") as progress:
                _upscale(upscaler, job.source, job.target, existing, console, progress, **options)
        except InputError as error:
            errors.append(error)
        except KeyboardInterrupt:
            raise InputError(
                "Interrupted; finished parts of the video are kept, and the same command resumes from there."
            ) from None
    return errors


def _upscale(
    upscaler: "Upscaler",
    source: Path,
    target: Path,
    existing: str,
    console: "Console",
    progress: "Progress",
    *,
    label: str,
    codec: str | None,
    crf: int | None,
    fps: float | None,
    batch_size: int,
    quality: int,
    output_format: str | None,
) -> None:
    """Upscale a video or an animation; where the target is a folder, into images."""
    from convattn.inference.animations import becomes_animation
    from convattn.inference.results import is_wanted
    from convattn.video import upscale_video
    from convattn.video.animation import upscale_animation
    from convattn.video.frames import upscale_to_frames

    common: dict[str, Any] = dict(batch_size=batch_size, device=upscaler.device, progress=progress)
    if target.is_dir() or not target.suffix:
        rate = upscale_to_frames(
            source,
            target,
            upscaler,
            format=output_format or "png",
            quality=quality,
            existing=existing,
            label=label,
            **common,
        )
        console.print(f"{source} has {float(rate):.8g} frames per second.", soft_wrap=True)
        return
    if not is_wanted(target, existing):
        return
    if becomes_animation(source, target):
        upscale_animation(source, target, upscaler, quality=quality, **common)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    upscale_video(source, target, upscaler, codec=codec, crf=crf, fps=fps, label=label, **common)
