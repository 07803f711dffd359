"""What a worker does: upscale an image, or its share of a video."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePath
from typing import Any

from convattn.cluster.settings import Settings
from convattn.cluster.storage import Address
from convattn.images.io import check_size, read_image, write_image
from convattn.inference.results import Job, is_wanted

__all__ = ["Worker"]


class Worker:
    """Upscales in a process of its own.

    Args:
        settings: How to upscale.
        threads: How many cores it may use.
    """

    def __init__(self, settings: Settings, threads: int = 1) -> None:
        import torch

        torch.set_num_threads(threads)
        self._settings = settings
        self._upscaler = settings.upscaler()
        self._copies = ExitStack()
        self._copied: tuple[Address, Path] | None = None

    def ready(self) -> None:
        """Return once the worker has started."""

    def upscale_image(self, job: Job[Address]) -> None:
        """Upscale an image.

        Raises:
            InputError: It cannot be read or written, or its result exists and that is to be refused.
        """
        if not is_wanted(job.target, self._settings.existing):
            return
        with job.source.local_copy() as source, job.target.replacing() as target:
            image = read_image(source)
            check_size(target, *self._upscaler.size_of(*image.pixels.shape[:2]))
            write_image(self._upscaler(image), target, quality=self._settings.quality)

    def plan_video(self, job: Job[Address]) -> list[int] | None:
        """Return the segments of a video that are missing, or None if the video is not wanted.

        Raises:
            InputError: The video cannot be read, or its result cannot be written.
        """
        from convattn.video import VideoJob

        if not is_wanted(job.target, self._settings.existing):
            return None
        with self._video_job(job) as (video, parts):
            missing: list[int] = VideoJob.missing(video)
            if parts:
                parts.claim(video.segments.record)
                missing = [number for number in missing if not parts.holds(number)]
            return missing

    def upscale_segment(self, job: Job[Address], number: int) -> bool:
        """Upscale a segment of a video; return whether the video could be cut there."""
        with self._video_job(job) as (video, parts):
            if not video.upscale_segment(number, self._upscaler, **self._batches):
                return False
            if parts:
                parts.upload(video.segments.folder, number)
            return True

    def finish_video(self, job: Job[Address]) -> None:
        """Put a video together of its segments; upscale here what is still missing."""
        with self._video_job(job) as (video, parts):
            if parts:
                parts.download(video.segments.folder)
            video.upscale(self._upscaler, **self._batches)
            if parts:
                with job.target.replacing() as target:
                    shutil.move(video.target, target)
                parts.remove()

    @property
    def _batches(self) -> dict[str, Any]:
        return dict(batch_size=self._settings.batch_size, device=self._upscaler.device)

    @contextmanager
    def _video_job(self, job: Job[Address]) -> Iterator[tuple[Any, "_Parts | None"]]:
        """Open a video; its segments lie beside the target, or are copied from and to there."""
        from convattn.video import VideoJob

        settings, source = self._settings, self._local_source(job.source)
        options: dict[str, Any] = dict(
            codec=settings.codec, crf=settings.crf, label=settings.label(self._upscaler)
        )
        if job.target.is_local:
            target = Path(str(job.target))
            target.parent.mkdir(parents=True, exist_ok=True)
            origin = None if job.source.is_local else job.source.identity()
            yield VideoJob(source, target, origin=origin, **options), None
            return
        with tempfile.TemporaryDirectory(prefix="convattn-") as folder:
            target = Path(folder) / job.target.place
            yield VideoJob(source, target, origin=job.source.identity(), **options), _Parts(job.target)

    def _local_source(self, source: Address) -> Path:
        """A local copy of a video, kept until another video is asked for."""
        if not self._copied or self._copied[0] != source:
            self._copies.close()
            self._copied = source, self._copies.enter_context(source.local_copy())
        return self._copied[1]


class _Parts:
    """The folder of a video's segments on a storage: a copy of that on one machine."""

    def __init__(self, target: Address) -> None:
        self._folder = target.parent / PurePath(f".{target.place}.parts")

    def _file(self, name: str) -> Address:
        return self._folder / PurePath(name)

    def claim(self, record: str) -> None:
        """Remove the segments of another job."""
        file = self._file("job")
        if file.exists():
            with file.local_copy() as path:
                if path.read_text() == record:
                    return
        self.remove()
        with file.replacing() as path:
            path.write_text(record)

    def holds(self, number: int) -> bool:
        """Return whether a segment is there, whose video comes after its record."""
        return self._file(f"{number:06}.mkv").exists()

    def upload(self, folder: Path, number: int) -> None:
        """Copy a segment from a local folder."""
        for suffix in (".json", ".mkv"):
            name = f"{number:06}{suffix}"
            with self._file(name).replacing() as path:
                shutil.copyfile(folder / name, path)

    def download(self, folder: Path) -> None:
        """Copy all segments to a local folder."""
        for place in self._folder.files():
            if place.name != "job":
                with (self._folder / place).local_copy() as path:
                    shutil.copyfile(path, folder / place.name)

    def remove(self) -> None:
        """Remove all segments."""
        self._folder.remove_folder()
