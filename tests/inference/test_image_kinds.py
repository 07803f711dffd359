"""Images of every kind in Python."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convattn.images.io import read_image
from convattn.inference.image_kinds import unpack

Image = pytest.importorskip("PIL.Image")
ImageCms = pytest.importorskip("PIL.ImageCms")


def smooth(height: int = 24, width: int = 32) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(columns / 5 + k) * np.cos(rows / (4 + k)) for k in range(3)]
    return np.stack([127 + 100 * wave for wave in waves], -1).astype(np.uint8)


def rgb_of(image: Any) -> np.ndarray:
    return unpack(image).pixels[0].movedim(0, -1).numpy().astype(int)


def test_cmyk_goes_through_its_profile(tmp_path: Path) -> None:
    """As the same file does when it is read by its path."""
    import pyvips

    path = tmp_path / "a.jpg"
    source = pyvips.Image.new_from_array(smooth(), interpretation="srgb")
    source.icc_transform("cmyk").jpegsave(str(path), Q=98)
    image = Image.open(path)
    assert image.mode == "CMYK"
    assert np.abs(rgb_of(image) - read_image(path).pixels).mean() < 2
    assert np.abs(rgb_of(image) - smooth()).mean() < 12  # not all colors exist in CMYK


def test_lab_becomes_srgb() -> None:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(*profiles, "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.fromarray(smooth()), transform)
    assert lab.mode == "LAB"
    assert np.abs(rgb_of(lab) - smooth()).mean() < 4


@pytest.mark.parametrize("array", [smooth()[::-1, ::2], smooth().astype(">u2"), np.asfortranarray(smooth())])
def test_arrays_of_every_memory_layout(array: np.ndarray) -> None:
    unpacked = unpack(array)
    assert np.array_equal(unpacked.pack(unpacked.pixels), array)
    assert np.array_equal(rgb_of(array), array)
