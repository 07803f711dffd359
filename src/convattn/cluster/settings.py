"""What a worker needs in order to upscale as the user asked."""

from dataclasses import dataclass

from convattn.inference.upscaler import Upscaler
from convattn.inference.video_jobs import record_label

__all__ = ["Settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The arguments of an :class:`~convattn.inference.upscaler.Upscaler`, and how results are written.

    Attributes:
        model: Name or file of a model. A file must lie where every machine can read it.
        scale: As the upscaler takes it.
        size: As the upscaler takes it.
        exact: As the upscaler takes it.
        device: "auto", "cpu" or "cuda"; "auto" is a GPU where a worker was given one.
        precision: As the upscaler takes it.
        tile: As the upscaler takes it.
        self_ensemble: As the upscaler takes it.
        fidelity: As the upscaler takes it.
        quality: 1 to 100, of JPEG, WebP and AVIF.
        codec: Of videos, as :func:`convattn.video.upscale_video` takes it.
        crf: Of videos, as :func:`convattn.video.upscale_video` takes it.
        batch_size: Frames of a video that are upscaled at once.
        existing: "refuse", "skip" or "overwrite" a result that exists already.
    """

    model: str | None = None
    scale: float | tuple[float, float] | None = None
    size: tuple[int | None, int | None] | None = None
    exact: bool = False
    device: str = "auto"
    precision: str = "auto"
    tile: int | None = None
    self_ensemble: bool = False
    fidelity: float | None = None
    quality: int = 95
    codec: str | None = None
    crf: int | None = None
    batch_size: int = 4
    existing: str = "refuse"

    def upscaler(self) -> Upscaler:
        """Build the upscaler.

        Raises:
            InputError: There is no such model or device, or the model cannot upscale by that scale.
        """
        return Upscaler(
            self.model,
            self.scale,
            size=self.size,
            exact=self.exact,
            device=self.device,
            precision=self.precision,
            tile=self.tile,
            self_ensemble=self.self_ensemble,
            fidelity=self.fidelity,
        )

    def label(self, upscaler: Upscaler) -> str:
        """Return what names the model and its settings in the record of a video's segments."""
        return record_label(upscaler, model=self.model, precision=self.precision, tile=self.tile)
