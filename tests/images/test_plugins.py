"""HEIC and JPEG XL are written by plugins, with what they can hold."""

import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import pyvips

from convattn.errors import InputError
from convattn.images.io import Image, read_image, write_image
from convattn.images.io.metadata import CICP
from convattn.inference.results import suffix_of_images

MODULES = {"heic": "pillow_heif", "jxl": "pillow_jxl"}


def smooth(channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    y, x = np.mgrid[:48, :64]
    waves = np.stack([0.5 + 0.4 * np.sin((x + 2 * y) / (9 + k)) for k in range(channels)], -1)
    return (waves * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("suffix", MODULES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_come_back(tmp_path: Path, suffix: str, channels: int) -> None:
    pytest.importorskip(MODULES[suffix])
    path = tmp_path / f"a.{suffix}"
    write_image(Image(smooth(channels)), path)
    difference = np.abs(read_image(path).pixels.astype(int) - smooth(channels))
    assert difference.mean() < 5
    write_image(Image(smooth(channels)), path, quality=100)
    np.testing.assert_array_equal(read_image(path).pixels, smooth(channels))


def test_heic_keeps_depth_and_hdr(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    pq = bytes([9, 16, 0, 1])
    image = Image(smooth(dtype=np.uint16), {CICP: (pyvips.GValue.blob_type, pq)})
    write_image(image, tmp_path / "a.heic", quality=100)
    back = read_image(tmp_path / "a.heic")
    assert np.abs(back.pixels.astype(int) - image.pixels).max() <= 16  # 12 bits
    assert bytes(back.metadata[CICP][1]) == pq


@pytest.mark.parametrize("suffix", MODULES)
def test_metadata_stay_and_nothing_is_turned_twice(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip(MODULES[suffix])
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Hue"
    PIL.Image.fromarray(smooth()).save(tmp_path / "a.jpg", exif=exif, quality=95)
    write_image(read_image(tmp_path / "a.jpg"), tmp_path / f"b.{suffix}")
    back = read_image(tmp_path / f"b.{suffix}")
    assert back.pixels.shape[:2] == (64, 48)
    tags = PIL.Image.Exif()
    tags.load(bytes(back.metadata["exif-data"][1]))
    assert tags[0x010F] == "Hue"


@pytest.mark.parametrize("suffix", MODULES)
def test_profiles_are_kept_or_applied(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip(MODULES[suffix])
    profile = pyvips.Image.profile_load("p3")
    image = Image(smooth(), {"icc-profile-data": (pyvips.GValue.blob_type, profile)})
    write_image(image, tmp_path / f"a.{suffix}", quality=100)
    back = read_image(tmp_path / f"a.{suffix}")
    if suffix == "heic":
        assert bytes(back.metadata["icc-profile-data"][1]) == profile
    assert np.array_equal(back.pixels, smooth()) == (suffix == "heic")


@pytest.mark.parametrize("suffix", MODULES)
def test_without_an_encoder_the_format_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setitem(sys.modules, MODULES[suffix], None)
    with pytest.raises(InputError, match=r"needs an encoder: pip install 'convattn\[(heif|jxl)\]'"):
        suffix_of_images(suffix)
    with pytest.raises(InputError, match="needs an encoder"):
        write_image(Image(smooth()), tmp_path / f"a.{suffix}")
    assert not list(tmp_path.iterdir())
