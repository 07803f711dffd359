"""16-bit pixels of JPEG 2000 and SGI files, decoded by FFmpeg if PyAV is installed."""

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["bits_per_channel", "read_deep"]

_DECODERS = {"JPEG2000": "jpeg2000", "SGI": "sgi"}
"""FFmpeg's decoders, by Pillow's name of the format."""

_CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000; its precision is given at an offset of 42 bytes
_FORMATS = {(1, False): "gray16le", (3, False): "rgb48le", (3, True): "rgba64le"}


def bits_per_channel(path: Path, format: str | None) -> int:
    """Return the bits per channel of a JPEG 2000 or SGI file by its header; 8 for all other formats."""
    with path.open("rb") as file:
        head = file.read(2**16)
    if format == "SGI":
        return 8 * head[3]
    at = head.find(_CODESTREAM) + 42
    return (head[at] & 127) + 1 if format == "JPEG2000" and 42 <= at < len(head) else 8


def read_deep(path: Path, format: str | None) -> np.ndarray | None:
    """Return the pixels (H, W, channels) in uint16 of a file of more than 8 bits per channel.

    Args:
        path: The file.
        format: Pillow's name of its format.

    Returns:
        None where the file has 8 bits, PyAV is missing, or FFmpeg does not decode it to gray or RGB.
    """
    bits = bits_per_channel(path, format)
    if format not in _DECODERS or not 8 < bits <= 16:
        return None
    try:
        import av
    except ImportError:
        return None
    try:
        decoder: Any = av.CodecContext.create(_DECODERS[format], "r")
        frame = next(iter(decoder.decode(av.Packet(path.read_bytes())) + decoder.decode(None)))
    except (av.FFmpegError, StopIteration):
        return None
    name, channels = frame.format.name, len(frame.format.components)
    is_known = name.startswith("gray") or frame.format.is_rgb
    layout = _FORMATS.get((min(channels, 3), channels == 4))
    if not is_known or layout is None:  # such as chroma that is subsampled
        return None
    pixels = frame.reformat(format=layout).to_ndarray().reshape(frame.height, frame.width, -1)
    used = pixels >> (16 - bits)  # FFmpeg leaves the lowest bits of each value empty
    return (used * (65535 / (2**bits - 1))).round().astype(np.uint16)
