import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st

from convattn.errors import InputError
from convattn.images.io import Image, find_images, read_image, write_image

SRGB = pyvips.Image.profile_load("srgb")


def grayscale_profile(gamma: float = 1.0) -> bytes:
    """The smallest ICC profile of a grayscale device: a white point and one curve."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))
    start = 128 + 4 + 2 * 12
    tags = struct.pack(">I4sII4sII", 2, b"wtpt", start, 20, b"kTRC", start + 20, 16)
    header = struct.pack(
        ">I4xI4s4s4s12x4s28x3i48x",
        start + 36,
        0x02100000,
        b"mntr",
        b"GRAY",
        b"XYZ ",
        b"acsp",
        63190,
        65536,
        54061,
    )
    return header + tags + white + curve


def random_pixels(
    seed: int = 0, *, height: int = 20, width: int = 30, channels: int = 3, dtype: type = np.uint8
) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top, (height, width, channels), dtype, endpoint=True)


def smooth_pixels(channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    """Something that lossy formats keep well."""
    ramp = np.linspace(0.1, 0.9, 64)[:, None, None] * np.linspace(0.5, 1, 48)[None, :, None]
    return (np.repeat(ramp, channels, 2) * np.iinfo(dtype).max).astype(dtype)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)) | st.just((1, 1)),
    channels=st.integers(1, 4),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    suffix=st.sampled_from([".png", ".tif", ".TIFF"]),
)
def test_lossless_formats_give_back_every_pixel(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    size: tuple[int, int],
    channels: int,
    dtype: type,
    suffix: str,
) -> None:
    pixels = random_pixels(seed, height=size[0], width=size[1], channels=channels, dtype=dtype)
    path = tmp_path_factory.mktemp("images") / f"a{suffix}"
    write_image(Image(pixels), path)
    back = read_image(path).pixels
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, pixels)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("suffix", [".webp", ".avif"])
def test_quality_100_is_lossless_in_webp_and_avif(tmp_path: Path, suffix: str, channels: int) -> None:
    pixels = random_pixels(channels=channels)
    pixels[..., 3:] |= 1  # WebP may drop the colors of what is fully transparent
    write_image(Image(pixels), tmp_path / f"a{suffix}", quality=100)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}").pixels, pixels)


@pytest.mark.parametrize(("quality", "largest"), [(95, 3), (20, 40)])
@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp", ".avif"])
def test_lossy_formats_lose_little(tmp_path: Path, suffix: str, quality: int, largest: int) -> None:
    pixels = smooth_pixels()
    write_image(Image(pixels), tmp_path / f"a{suffix}", quality=quality)
    error = read_image(tmp_path / f"a{suffix}").pixels.astype(int) - pixels
    assert np.abs(error).max() <= largest


def test_avif_keeps_12_of_16_bits(tmp_path: Path) -> None:
    pixels = smooth_pixels(dtype=np.uint16)
    write_image(Image(pixels), tmp_path / "a.avif", quality=100)
    back = read_image(tmp_path / "a.avif").pixels
    assert back.dtype == np.uint16
    assert np.abs(back.astype(int) - pixels).max() < 16


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_16_bits_are_rounded_where_there_are_but_8(tmp_path: Path, suffix: str) -> None:
    pixels = np.full((16, 16, 3), 100 * 257 + 200, np.uint16)  # 100.8 of 255
    write_image(Image(pixels), tmp_path / f"a{suffix}", quality=100)
    back = read_image(tmp_path / f"a{suffix}").pixels
    assert back.dtype == np.uint8
    assert set(np.unique(back)) == {101}


def test_jpeg_puts_transparent_images_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    write_image(Image(pixels), tmp_path / "a.jpg")
    back = read_image(tmp_path / "a.jpg").pixels
    assert back.shape == (16, 16, 3)
    assert back.min() == 255


def tagged(pixels: np.ndarray, path: Path, orientation: int = 6) -> None:
    """Write an image with everything that ought to be kept."""
    grayscale = pixels.shape[2] < 3
    vips_image = pyvips.Image.new_from_array(pixels, interpretation="b-w" if grayscale else "srgb")
    vips_image = vips_image.copy(xres=300 / 25.4, yres=300 / 25.4)
    vips_image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    for name, text in (("exif-ifd0-Make", "Acme"), ("exif-ifd3-GPSLatitudeRef", "N")):
        vips_image.set_type(pyvips.GValue.gstr_type, name, text)
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="{orientation}"/></x:xmpmeta>'
    vips_image.set_type(pyvips.GValue.blob_type, "xmp-data", xmp.encode())
    vips_image.set_type(pyvips.GValue.blob_type, "icc-profile-data", SRGB)
    vips_image.write_to_file(str(path), Q=100) if path.suffix != ".png" else vips_image.write_to_file(
        str(path)
    )


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_orientation_is_applied_exactly_once(tmp_path: Path, suffix: str, orientation: int) -> None:
    pixels = random_pixels()
    tagged(pixels, tmp_path / f"a{suffix}", orientation)
    image = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(image.pixels, UPRIGHT[orientation](pixels))
    write_image(image, tmp_path / f"b{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"b{suffix}").pixels, image.pixels)
    vips_image = pyvips.Image.new_from_file(str(tmp_path / f"b{suffix}"))
    assert vips_image.get("orientation") == 1
    if suffix == ".png":
        assert vips_image.get("exif-ifd0-Orientation").startswith("1 ")
        assert b'tiff:Orientation="1"' in vips_image.get("xmp-data")


@pytest.mark.parametrize("target", [".png", ".jpg", ".webp", ".avif"])
@pytest.mark.parametrize("source", [".png", ".jpg", ".webp"])
def test_profile_and_metadata_are_kept(tmp_path: Path, source: str, target: str) -> None:
    tagged(random_pixels(), tmp_path / f"a{source}")
    image = read_image(tmp_path / f"a{source}")
    larger = replace(image, pixels=np.repeat(np.repeat(image.pixels, 2, 0), 2, 1))
    write_image(larger, tmp_path / f"b{target}")
    vips_image = pyvips.Image.new_from_file(str(tmp_path / f"b{target}"))
    assert vips_image.get("icc-profile-data") == SRGB
    assert vips_image.get("exif-ifd0-Make").startswith("Acme")
    assert vips_image.get("exif-ifd3-GPSLatitudeRef").startswith("N")
    assert b"x:xmpmeta" in vips_image.get("xmp-data")
    assert vips_image.get("exif-ifd2-PixelXDimension").startswith("40 ")
    if {source, target} <= {".png", ".jpg"}:
        assert vips_image.xres * 25.4 == pytest.approx(300, abs=0.01)


def grayscale_image() -> Image:
    metadata = {"icc-profile-data": (pyvips.GValue.blob_type, grayscale_profile(gamma=1.0))}
    return Image(np.full((64, 48, 1), 128, np.uint8), metadata)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_grayscale_stays_grayscale_with_its_profile(tmp_path: Path, suffix: str) -> None:
    write_image(grayscale_image(), tmp_path / f"a{suffix}")
    back = read_image(tmp_path / f"a{suffix}")
    assert back.pixels.shape == (64, 48, 1)
    assert back.metadata["icc-profile-data"][1] == grayscale_profile()


@pytest.mark.parametrize("suffix", [".webp", ".avif"])
def test_grayscale_with_a_profile_becomes_srgb_where_there_is_no_grayscale(
    tmp_path: Path, suffix: str
) -> None:
    write_image(grayscale_image(), tmp_path / f"a{suffix}", quality=100)
    back = read_image(tmp_path / f"a{suffix}")
    assert set(np.unique(back.pixels)) <= {187, 188, 189}  # half the light, seen through sRGB
    assert back.metadata["icc-profile-data"][1][16:20] == b"RGB "


def test_cmyk_becomes_rgb_without_its_profile(tmp_path: Path) -> None:
    paper = np.zeros((16, 16, 4), np.uint8)
    pyvips.Image.new_from_array(paper, interpretation="cmyk").jpegsave(str(tmp_path / "a.jpg"), Q=100)
    image = read_image(tmp_path / "a.jpg")
    assert image.pixels.shape == (16, 16, 3)
    assert image.pixels.min() > 240
    write_image(image, tmp_path / "b.png")
    assert pyvips.Image.new_from_file(str(tmp_path / "b.png")).interpretation == "srgb"


def test_palettes_and_single_bits_become_whole_images(tmp_path: Path) -> None:
    pixels = (random_pixels(channels=1) > 127).astype(np.uint8) * 255
    vips_image = pyvips.Image.new_from_array(pixels, interpretation="b-w")
    vips_image.pngsave(str(tmp_path / "bit.png"), bitdepth=1)
    vips_image.bandjoin([vips_image, vips_image]).copy(interpretation="srgb").pngsave(
        str(tmp_path / "few.png"), palette=True
    )
    np.testing.assert_array_equal(read_image(tmp_path / "bit.png").pixels, pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "few.png").pixels, np.repeat(pixels, 3, 2))


def test_brackets_in_names_are_no_options(tmp_path: Path) -> None:
    pixels = random_pixels()
    write_image(Image(pixels), tmp_path / "a[Q=1].png")
    np.testing.assert_array_equal(read_image(tmp_path / "a[Q=1].png").pixels, pixels)


def test_changed_files_are_read_anew(tmp_path: Path) -> None:
    for seed in (0, 1):
        pixels = random_pixels(seed)
        write_image(Image(pixels), tmp_path / "a.png")
        np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, pixels)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    write_image(Image(random_pixels(height=64, width=64)), tmp_path / f"a{suffix}")
    whole = (tmp_path / f"a{suffix}").read_bytes()
    for part in (0.1, 0.6, 0.95):
        (tmp_path / f"b{suffix}").write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(InputError, match=rf"b\{suffix} is (damaged|not an image|no PNG)"):
            read_image(tmp_path / f"b{suffix}")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("empty.png", b"", "is empty"),
        ("text.png", b"not an image at all", "is not an image"),
        ("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "is SVG"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} {complaint}") as error:
        read_image(tmp_path / name)
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(InputError, match="is not a file"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("pixels", "complaint"),
    [(np.zeros((8, 8, 3), np.float32), "float values"), (np.zeros((8, 8, 6), np.uint8), "6 channels")],
)
def test_numbers_and_channels_without_a_meaning_are_refused(
    tmp_path: Path, pixels: np.ndarray, complaint: str
) -> None:
    pyvips.Image.new_from_array(pixels).tiffsave(str(tmp_path / "a.tif"))
    with pytest.raises(InputError, match=complaint):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tif"])
def test_the_first_frame_is_read_and_the_others_are_reported(tmp_path: Path, suffix: str) -> None:
    frames = np.concatenate([np.full((16, 16, 3), value, np.uint8) for value in (0, 255, 0)])
    vips_image = pyvips.Image.new_from_array(frames, interpretation="srgb")
    vips_image.set_type(pyvips.GValue.gint_type, "page-height", 16)
    vips_image.write_to_file(str(tmp_path / f"a{suffix}"))
    with pytest.warns(UserWarning, match="3 frames or pages; only the first"):
        image = read_image(tmp_path / f"a{suffix}")
    assert image.pixels.shape[:2] == (16, 16)
    assert image.pixels[..., :3].max() == 0


def test_animated_png_is_reported(tmp_path: Path) -> None:
    write_image(Image(random_pixels()), tmp_path / "a.png")
    still = (tmp_path / "a.png").read_bytes()
    control = b"\0\0\0\x08acTL" + b"\0\0\0\x02\0\0\0\0" + bytes.fromhex("f38d9370")
    (tmp_path / "a.png").write_bytes(still[:33] + control + still[33:])  # after the header chunk
    with pytest.warns(UserWarning, match="only the first"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(("suffix", "width"), [(".jpg", 65501), (".webp", 16384), (".avif", 16385)])
def test_images_too_large_for_a_format_are_refused(tmp_path: Path, suffix: str, width: int) -> None:
    image = Image(np.zeros((1, width, 3), np.uint8))
    with pytest.raises(InputError, match="choose PNG or TIFF"):
        write_image(image, tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())


def test_failed_writing_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"precious")

    def fail(vips_image: Any, path: Path, **options: Any) -> None:
        with open(path, "wb") as file:
            file.write(b"half")
        raise pyvips.Error("disk full", "no space left\n")

    monkeypatch.setattr(pyvips.Image, "pngsave", fail, raising=False)
    with pytest.raises(InputError, match="cannot be written: no space left"):
        write_image(Image(random_pixels()), tmp_path / "a.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"precious"]


def test_folders_are_searched_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/c.jpeg", ".hidden.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_images(tmp_path) == [tmp_path / "a/c.jpeg", tmp_path / "b.PNG"]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        find_images(tmp_path / "none")
