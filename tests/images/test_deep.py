"""16 bits per channel of formats of which Pillow reads 8."""

import sys
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from convattn.errors import InputError
from convattn.images.io import read_image

av = pytest.importorskip("av")

LAYOUTS = {1: "gray16be", 3: "rgb48be", 4: "rgba64be"}


def write(path: Path, values: np.ndarray) -> None:
    """Write (H, W, channels) in uint16 by an encoder of FFmpeg."""
    encoder = av.CodecContext.create({".jp2": "jpeg2000", ".sgi": "sgi"}[path.suffix], "w")
    height, width, channels = values.shape
    layout = LAYOUTS[channels].replace("be", "le" if path.suffix == ".jp2" else "be")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, layout
    encoder.time_base = Fraction(1, 25)
    if path.suffix == ".jp2":
        encoder.options = {"pred": "1"}  # lossless
    frame = av.VideoFrame(width, height, layout)
    rows = np.zeros((height, frame.planes[0].line_size), np.uint8)
    data = values.astype(">u2" if layout.endswith("be") else "<u2").reshape(height, -1).view(np.uint8)
    rows[:, : data.shape[1]] = data
    frame.planes[0].update(rows.tobytes())
    frame.pts = 0
    path.write_bytes(b"".join(bytes(packet) for packet in encoder.encode(frame) + encoder.encode(None)))


@pytest.mark.parametrize("suffix", ["jp2", "sgi"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_all_bits_are_read(tmp_path: Path, suffix: str, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**16, (20, 31, channels), np.uint16)
    write(tmp_path / f"a.{suffix}", values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(image.pixels, values)


@pytest.mark.parametrize("suffix", ["jp2", "sgi"])
def test_without_pyav_nothing_is_lost_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    values = np.full((20, 31, 3), 65535, np.uint16)
    write(tmp_path / "a.jp2", values)
    head = bytes([1, 0xDA, 0, 2, 0, 3, 0, 31, 0, 20, 0, 3]).ljust(512, b"\0")  # not compressed
    (tmp_path / "a.sgi").write_bytes(head + values.tobytes())
    monkeypatch.setitem(sys.modules, "av", None)
    if suffix == "jp2":  # whose white Pillow reads as black
        with pytest.raises(InputError, match="has 16 bits, which need PyAV"):
            read_image(tmp_path / "a.jp2")
        return
    with pytest.warns(UserWarning, match="more than 8 bits per channel, of which 8 are read"):
        pixels = read_image(tmp_path / "a.sgi").pixels
    np.testing.assert_array_equal(pixels, 255)


def test_a_damaged_deep_file_is_one_sentence(tmp_path: Path) -> None:
    write(tmp_path / "a.sgi", np.zeros((20, 31, 3), np.uint16))
    (tmp_path / "a.sgi").write_bytes((tmp_path / "a.sgi").read_bytes()[:530])
    with pytest.raises(InputError, match=r"a\.sgi is damaged"):
        read_image(tmp_path / "a.sgi")
