"""What a request may ask for."""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from convattn.images.sizes import LARGEST_SCALE, ScaleRequest

__all__ = ["Options", "clean_name"]

Format = Literal["png", "jpg", "webp", "tif", "avif"]

_LONGEST_NAME = 255
_NO_NAME = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"|?*\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]')


class Options(BaseModel):
    """How to upscale an image; the same as the options of ``convattn upscale``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(
        default=None,
        max_length=100,
        description="A name of `GET /v1/models`; by default for clean images.",
    )
    scale: float | None = Field(
        default=None,
        ge=1,
        le=LARGEST_SCALE,
        allow_inf_nan=False,
        description="How many times larger; by default the model's own scale, or 2.",
    )
    width: int | None = Field(
        default=None, ge=1, le=100_000, description="Instead of a scale: most pixels across."
    )
    height: int | None = Field(
        default=None, ge=1, le=100_000, description="Instead of a scale: most pixels down."
    )
    exact: bool = Field(default=False, description="Stretch the result to exactly that width and height.")
    fidelity: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="0 (sharpest) to 1 (most faithful), for a model with weights of both kinds.",
    )
    self_ensemble: bool = Field(
        default=False,
        description="Average over the eight flips and rotations: a little better, 8 times slower.",
    )
    format: Format | None = Field(default=None, description="By default that of the input, or PNG.")
    quality: int = Field(
        default=95, ge=1, le=100, description="Of JPEG, WebP and AVIF; 100 makes the last two lossless."
    )
    name: str = Field(
        default="",
        max_length=_LONGEST_NAME,
        description="Of the image; the result's is made of it.",
    )
    group: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_-]{16,64}$",
        description="A random name that joins jobs, to follow or download them together.",
    )

    @model_validator(mode="after")
    def _check_scale(self) -> "Options":
        _ = self.request  # raises a ValueError
        return self

    @property
    def request(self) -> ScaleRequest | None:
        """The scale or the size that is asked for."""
        size = None if (self.height, self.width) == (None, None) else (self.height, self.width)
        return ScaleRequest.parse(self.scale, size, self.exact)


def clean_name(name: str) -> str:
    """Return a relative name that is safe to show and to unpack: no drive, no "..", no control characters.

    Example:
        >>> clean_name("../holiday/./beach.png")
        'holiday/beach.png'
    """
    parts = (_NO_NAME.sub("_", part).strip(" ") for part in re.split(r"[/\\]", name[:_LONGEST_NAME]))
    return "/".join(part for part in parts if part.strip(".")) or "image"
