"""What is wrong with a damaged file is said in words."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from convattn.errors import InputError
from convattn.images.io import Image, read_image, write_image


def header(width: int = 30, height: int = 20, depth: int = 8, color: int = 2) -> bytes:
    data = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return struct.pack(">I", 13) + data + struct.pack(">I", zlib.crc32(data))


@pytest.mark.parametrize(
    ("start", "fault"),
    [
        (b"", r"its header is missing or cut off"),
        (header()[:10], r"its header is missing or cut off"),
        (header()[:-4] + bytes(4), r"the checksum of its header is wrong"),
        (header(width=0), r"its header says 0×20 pixels"),
        (header(depth=7), r"color type 2 with 7 bits, which PNG does not have"),
        (header(color=9), r"color type 9 with 8 bits, which PNG does not have"),
        (header(color=3), r"its palette is missing"),
        (header(2**30, 2**30), r"its 1073741824×1073741824 pixels are missing or cannot be decoded"),
    ],
)
def test_png_headers(tmp_path: Path, start: bytes, fault: str) -> None:
    write_image(Image(np.zeros((20, 30, 3), np.uint8)), tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    rest = data[33:] if len(start) == len(header()) else b""
    (tmp_path / "a.png").write_bytes(data[:8] + start + rest)
    with pytest.raises(InputError, match=rf"a\.png is damaged.*whole copy of it: .*{fault}\.$"):
        read_image(tmp_path / "a.png")


def test_png_that_was_sent_as_text(tmp_path: Path) -> None:
    write_image(Image(np.zeros((20, 30, 3), np.uint8)), tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes().replace(b"\r\n", b"\n"))
    with pytest.raises(InputError, match="a transfer in text mode"):
        read_image(tmp_path / "a.png")
