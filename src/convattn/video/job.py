"""A video on its way from its source to its target: which segments are finished, and which are left."""

import itertools
import warnings
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import av
import torch
import torch.nn.functional as F
from torch import Tensor

from convattn.errors import InputError
from convattn.files import remove_litter, replacing
from convattn.inference.animations import ANIMATIONS
from convattn.progress import Progress, ignore
from convattn.video.animation import AnimationFile
from convattn.video.frame_folder import FrameFolder
from convattn.video.read import VideoFile
from convattn.video.segments import Segments, assemble, check_target
from convattn.video.settings import choose_settings
from convattn.video.source import Frame, Source
from convattn.video.stages import Upscale, upscale_frames, with_progress

__all__ = ["VideoJob"]

_SEGMENT = 120  # frames


class VideoJob:
    """The upscaling of one video; see :func:`convattn.video.upscale_video`.

    Args:
        source: A video, an animation, or a folder of images.
        target: The video to write.
        codec: As for :func:`convattn.video.upscale_video`.
        crf: As there.
        fps: As there.
        label: As there.
        origin: Identifies the source in place of its path, size and time, where it is a copy.

    Attributes:
        target: The video to write.
        segments: What is encoded already.

    Raises:
        InputError: The source cannot be read, or the target cannot be written.
    """

    def __init__(
        self,
        source: Path,
        target: Path,
        *,
        codec: str | None = None,
        crf: int | None = None,
        fps: float | None = None,
        label: str = "",
        origin: list[str] | None = None,
    ) -> None:
        self.target = target
        self._video = video = _open(source, fps)
        self._settings = settings = choose_settings(video, target, codec, crf)
        with self._explained():
            check_target(target, video, settings)
            remove_litter(target.parent)
            name = origin[0] if origin else str(source.resolve())
            identity = origin or video.identity
            self.segments = Segments(target, name, repr((av.__version__, identity, settings, label)))

    def upscale(
        self,
        upscale: Upscale,
        *,
        batch_size: int,
        device: torch.device | str,
        progress: Progress = ignore,
    ) -> None:
        """Upscale what is missing, and put the video together.

        Args:
            upscale: Upscales the frames.
            batch_size: Frames that are upscaled at once.
            device: Where ``upscale`` expects its frames.
            progress: Called after each frame with the fraction that is done, up to 1.

        Raises:
            InputError: The source is damaged, or the target cannot be written.
        """
        with self._explained():
            self.segments.take_over()
            finished = len(self.segments.times)
            new = self._upscaled(self._video.frames(finished), upscale, batch_size, device)
            with closing(with_progress(new, finished, self._video.count, progress)) as frames:
                for first in frames:
                    segment = itertools.chain([first], itertools.islice(frames, _SEGMENT - 1))
                    self.segments.add(segment, self._settings)
            with replacing(self.target) as temporary, self._explained(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # said already when the target was checked
                assemble(temporary, self._video, self.segments)
            self.segments.remove_all_of_source()

    def missing(self) -> list[int]:
        """Return the segments that can be made by themselves and are not finished."""
        if not (isinstance(self._video, VideoFile) and self._video.can_be_cut()):
            return []
        count = -(-self._video.count // _SEGMENT)
        return [number for number in range(count) if self.segments.finished(number) is None]

    def upscale_segment(
        self, number: int, upscale: Upscale, *, batch_size: int, device: torch.device | str
    ) -> bool:
        """Upscale one segment; return False where the video can only be decoded from its start.

        Raises:
            InputError: The source is damaged, or the segment cannot be written.
        """
        assert isinstance(self._video, VideoFile)
        start = number * _SEGMENT
        frames = self._video.cut(start, min(start + _SEGMENT, self._video.count))
        try:
            with self._explained(), closing(self._upscaled(frames, upscale, batch_size, device)) as new:
                self.segments.encode(number, new, self._settings)
        except LookupError:
            return False
        return True

    def _upscaled(
        self, frames: Generator[Frame, None, None], upscale: Upscale, batch_size: int, device: Any
    ) -> Generator[Frame, None, None]:
        encoding, granularity = self._settings.encoding, self._settings.granularity
        return upscale_frames(
            frames,
            self._video.encoding.decode,
            upscale,
            lambda rgb: encoding.encode(_padded(rgb, granularity)),
            batch_size=batch_size,
            device=device,
            segment=_SEGMENT,
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of FFmpeg and the disk into a sentence."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise InputError(
                f"{self.target} cannot be written: {error.strerror or error}; finished segments are "
                "kept, and the same command resumes from there."
            ) from error


def _open(source: Path, fps: float | None) -> Source:
    if source.is_dir():
        return FrameFolder(source, fps)
    return AnimationFile(source) if source.suffix.lower() in ANIMATIONS else VideoFile(source)


def _padded(rgb: Tensor, granularity: tuple[int, int]) -> Tensor:
    """Repeat the last pixels up to the next multiple."""
    down, across = (-side % step for side, step in zip(rgb.shape[2:], granularity, strict=True))
    return F.pad(rgb, (0, across, 0, down), mode="replicate") if down or across else rgb
