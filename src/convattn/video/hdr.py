"""HDR10 metadata of a video as its encoders take it."""

import struct
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import av

__all__ = ["HLG", "PQ", "HdrMetadata", "encoder_option", "hdr_metadata_of"]

PQ, HLG = 16, 18
"""Transfer characteristics of HDR in ITU-T H.273."""

_DYNAMIC = ("DYNAMIC_HDR_PLUS", "DOVI_METADATA")
_PARAMETERS = {
    "libx264": ("x264-params", "mastering-display", "cll"),
    "libx265": ("x265-params", "master-display", "max-cll"),
    "libsvtav1": ("svtav1-params", "mastering-display", "content-light"),
}
_CHROMA, _LUMINANCE = 50000, 10000  # units of SMPTE ST 2086: 0.00002, and 0.0001 cd/m²


class HdrMetadata(NamedTuple):
    """Static HDR metadata (SMPTE ST 2086, CTA-861.3).

    Attributes:
        display: Of the mastering display: x and y of red, green, blue and white, and the least and the
            greatest luminance in cd/m².
        light: The greatest light level of a pixel and of a frame on average, in cd/m².
    """

    display: tuple[float, ...] | None = None
    light: tuple[int, int] | None = None


def hdr_metadata_of(frame: av.VideoFrame, path: Path) -> HdrMetadata:
    """Return the HDR10 metadata of a frame; warn where there is dynamic metadata, which is not kept."""
    if any(frame.side_data.get(kind) for kind in _DYNAMIC):
        warnings.warn(f"The dynamic HDR metadata of {path} (HDR10+, Dolby Vision) is not kept.", stacklevel=4)
    display: Any = frame.side_data.get("MASTERING_DISPLAY_METADATA")
    light: Any = frame.side_data.get("CONTENT_LIGHT_LEVEL")
    return HdrMetadata(
        display=_display(bytes(display)) if display else None,
        light=struct.unpack_from("<2I", bytes(light)) if light else None,
    )


def _display(data: bytes) -> tuple[float, ...] | None:
    """Read FFmpeg's AVMasteringDisplayMetadata: ten fractions and two flags."""
    numbers = struct.unpack_from("<22i", data)
    has_primaries, has_luminance = numbers[20:]
    fractions = [numbers[n] / numbers[n + 1] if numbers[n + 1] else 0.0 for n in range(0, 20, 2)]
    return tuple(fractions) if has_primaries and has_luminance else None


def encoder_option(codec: str, hdr: HdrMetadata) -> tuple[str, str] | None:
    """Return the option by which an encoder writes HDR metadata; None if it has none, or nothing to write."""
    if codec not in _PARAMETERS or hdr == HdrMetadata():
        return None
    name, display, light = _PARAMETERS[codec]
    parameters = []
    if hdr.display:
        chroma, luminance = (1, 1) if codec == "libsvtav1" else (_CHROMA, _LUMINANCE)
        red, green, blue, white = (_pair(hdr.display[n : n + 2], chroma) for n in (0, 2, 4, 6))
        levels = _pair(hdr.display[:7:-1], luminance)
        parameters.append(f"{display}=G{green}B{blue}R{red}WP{white}L{levels}")
    if hdr.light:
        parameters.append(f"{light}={hdr.light[0]},{hdr.light[1]}")
    return name, ":".join(parameters)


def _pair(values: tuple[float, ...], unit: int) -> str:
    first, second = (f"{value:.4f}" if unit == 1 else str(round(value * unit)) for value in values)
    return f"({first},{second})"
