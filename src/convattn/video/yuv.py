"""YUV samples of video to RGB and back, in float32 (measured against swscale by tools/measure_yuv.py)."""

from dataclasses import dataclass

import av
import torch
from torch import Tensor

__all__ = ["Encoding", "with_chroma_as"]

BT709, BT601, BT2020, UNKNOWN = 1, 6, 9, 2
"""Numbers of color matrices in ITU-T H.273, table 4."""

_KR_KB = {
    BT709: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    BT601: (0.299, 0.114),
    7: (0.212, 0.087),
    BT2020: (0.2627, 0.0593),
}


@dataclass(frozen=True)
class Encoding:
    """How whole numbers encode colors (ITU-T H.273, section 8.3).

    Attributes:
        matrix: Number of the color matrix in H.273; None for RGB samples.
        full: Whether the samples use the full range; the limited one is 16 to 235 (luma) and 16 to 240
            (chroma) of 255. RGB is always full.
        depth: Bits per sample.
    """

    matrix: int | None
    full: bool
    depth: int

    def decode(self, samples: Tensor) -> Tensor:
        """Convert samples (N, 3, H, W), Y Cb Cr or RGB, to RGB in float32, clipped to [0, 1]."""
        samples = samples.float()
        if self.matrix is None:
            return samples / (2**self.depth - 1)
        offset, span = self._offsets_and_spans(samples)
        y, cb, cr = ((samples - offset) / span).unbind(1)
        kr, kb = self._weights()
        red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
        green = (y - kr * red - kb * blue) / (1 - kr - kb)
        return torch.stack((red, green, blue), 1).clamp(0, 1)

    def encode(self, rgb: Tensor) -> Tensor:
        """Convert RGB (N, 3, H, W) in [0, 1] to samples: uint8, or int32 for more than 8 bits."""
        largest = 2**self.depth - 1
        rgb = rgb.float().clamp(0, 1)
        if self.matrix is None:
            samples = rgb * largest
        else:
            red, green, blue = rgb.unbind(1)
            kr, kb = self._weights()
            y = kr * red + (1 - kr - kb) * green + kb * blue
            differences = torch.stack((y, (blue - y) / (2 - 2 * kb), (red - y) / (2 - 2 * kr)), 1)
            offset, span = self._offsets_and_spans(rgb)
            samples = differences * span + offset
        return samples.round().clamp(0, largest).to(torch.uint8 if self.depth == 8 else torch.int32)

    def _offsets_and_spans(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the samples of black and of no chroma, and the samples per unit, for Y, Cb and Cr."""
        step, largest = 2 ** (self.depth - 8), 2**self.depth - 1
        offsets = (0 if self.full else 16 * step, 128 * step, 128 * step)
        spans = (largest,) * 3 if self.full else (219 * step, 224 * step, 224 * step)
        offset, span = (torch.tensor(values, device=like.device).view(3, 1, 1) for values in (offsets, spans))
        return offset, span

    def _weights(self) -> tuple[float, float]:
        """Return the weights of red and blue in luma; BT.709's where the matrix is of another kind."""
        return _KR_KB[self.matrix if self.matrix in _KR_KB else BT709]


def with_chroma_as(frame: av.VideoFrame, pixel_format: str, *, full: bool) -> av.VideoFrame:
    """Resample the chroma of a frame to the resolution of another format, in the same range."""
    levels = 2 if full else 1  # the same on both sides, so that swscale leaves them alone
    return frame.reformat(
        format=pixel_format, src_color_range=levels, dst_color_range=levels, interpolation="BICUBIC"
    )
