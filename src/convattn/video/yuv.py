"""The colors of video, luma and two differences of color in whole numbers, to RGB and back."""

from dataclasses import dataclass

import av
import torch
from torch import Tensor

__all__ = ["Encoding", "with_chroma_as"]

BT709, BT601, BT2020, UNKNOWN = 1, 6, 9, 2
"""Numbers of color matrices as ITU-T H.273, table 4, has them."""

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
    """How whole numbers stand for colors (ITU-T H.273, section 8.3).

    Attributes:
        matrix: Number of the color matrix in H.273; None for numbers that are RGB.
        full: Whether the numbers use their full range; the limited one goes from 16 to 235 (luma) and from
            16 to 240 (differences) of 255. RGB is always full.
        depth: Bits.
    """

    matrix: int | None
    full: bool
    depth: int

    def decode(self, codes: Tensor) -> Tensor:
        """Turn numbers (N, 3, H, W), Y Cb Cr or RGB, into RGB in float32, clipped to [0, 1]."""
        codes = codes.float()
        if self.matrix is None:
            return codes / (2**self.depth - 1)
        offset, span = self._offsets_and_spans(codes)
        y, cb, cr = ((codes - offset) / span).unbind(1)
        kr, kb = self._weights()
        red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
        green = (y - kr * red - kb * blue) / (1 - kr - kb)
        return torch.stack((red, green, blue), 1).clamp(0, 1)

    def encode(self, rgb: Tensor) -> Tensor:
        """Turn RGB (N, 3, H, W) in [0, 1] into numbers; uint8, or int32 for more than 8 bits."""
        largest = 2**self.depth - 1
        rgb = rgb.float().clamp(0, 1)
        if self.matrix is None:
            codes = rgb * largest
        else:
            red, green, blue = rgb.unbind(1)
            kr, kb = self._weights()
            y = kr * red + (1 - kr - kb) * green + kb * blue
            differences = torch.stack((y, (blue - y) / (2 - 2 * kb), (red - y) / (2 - 2 * kr)), 1)
            offset, span = self._offsets_and_spans(rgb)
            codes = differences * span + offset
        return codes.round().clamp(0, largest).to(torch.uint8 if self.depth == 8 else torch.int32)

    def _offsets_and_spans(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The codes of black and of no difference, and how many codes a unit is, for Y, Cb and Cr."""
        step, largest = 2 ** (self.depth - 8), 2**self.depth - 1
        offsets = (0 if self.full else 16 * step, 128 * step, 128 * step)
        spans = (largest,) * 3 if self.full else (219 * step, 224 * step, 224 * step)
        offset, span = (torch.tensor(values, device=like.device).view(3, 1, 1) for values in (offsets, spans))
        return offset, span

    def _weights(self) -> tuple[float, float]:
        """How much red and blue count for luma; BT.709's where the matrix is not of this kind."""
        return _KR_KB[self.matrix if self.matrix in _KR_KB else BT709]


def with_chroma_as(frame: av.VideoFrame, pixel_format: str, *, full: bool) -> av.VideoFrame:
    """Bring a frame's differences of color to the resolution of another format, in the same range."""
    levels = 2 if full else 1  # the same on both sides, so that swscale leaves them alone
    return frame.reformat(
        format=pixel_format, src_color_range=levels, dst_color_range=levels, interpolation="BICUBIC"
    )
