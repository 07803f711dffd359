"""The chunks of PNG files by which they describe their colors, which libvips neither reads nor writes."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["add_chunks", "color_chunks", "fault_of", "is_animated"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END_OF_HEADER = len(_SIGNATURE) + 25  # after IHDR
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits per channel, by the color type."""

_PALETTE = 3  # a color type
_SRGB: dict[str, bytes] = {
    "gAMA": struct.pack(">I", 45455),
    "cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
}


def color_chunks(path: Path) -> dict[str, bytes]:
    """Return the chunks cICP, gAMA and cHRM of a PNG file that decide how its pixels look.

    A cICP chunk overrides all others; gAMA and cHRM count where there is neither a profile nor an sRGB chunk,
    and are left out where they say the same as sRGB.
    """
    found = dict(_chunks_before_pixels(path))
    if "cICP" in found:
        return {"cICP": found["cICP"]}
    chunks = {name: data for name, data in found.items() if name in _SRGB}
    is_described = "iCCP" in found or "sRGB" in found
    return {} if is_described or all(_SRGB[name] == data for name, data in chunks.items()) else chunks


def is_animated(path: Path) -> bool:
    """Return whether a file is an animated PNG, of which libvips reads the first frame only."""
    return any(name == "acTL" for name, _ in _chunks_before_pixels(path))


def add_chunks(path: Path, chunks: dict[str, bytes]) -> None:
    """Add chunks to a PNG file, after its header."""
    if chunks:
        old = path.read_bytes()
        new = b"".join(_chunk(name.encode(), data) for name, data in chunks.items())
        path.write_bytes(old[:_END_OF_HEADER] + new + old[_END_OF_HEADER:])


def fault_of(path: Path) -> str:
    """Return what is wrong with a PNG file that cannot be decoded."""
    with path.open("rb") as file:
        head = file.read(_END_OF_HEADER)
    if not head.startswith(_SIGNATURE):
        return "its first bytes were changed, as by a transfer in text mode"
    if len(head) < _END_OF_HEADER or head[12:16] != b"IHDR":
        return "its header is missing or cut off"
    if zlib.crc32(head[12:29]) != int.from_bytes(head[29:], "big"):
        return "the checksum of its header is wrong"
    width, height, depth, color = struct.unpack(">IIBB", head[16:26])
    if not width or not height:
        return f"its header says {width}×{height} pixels"
    if depth not in _DEPTHS.get(color, ()):
        return f"its header says color type {color} with {depth} bits, which PNG does not have"
    if color == _PALETTE and "PLTE" not in dict(_chunks_before_pixels(path)):
        return "its palette is missing"
    return f"its {width}×{height} pixels are missing or cannot be decoded"


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _chunks_before_pixels(path: Path) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            return
        while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
            length = int.from_bytes(head[:4], "big")
            data = file.read(min(length, 2**16))
            file.seek(length - len(data), 1)
            yield head[4:].decode("latin1"), data
            file.seek(4, 1)  # the checksum
