"""Every format that people have: pixels as Pillow decodes them, depth, color description and metadata."""

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageCms, PngImagePlugin

from convattn.errors import InputError
from convattn.images.io import Image, find_images, read_image, sniff, write_image
from convattn.images.io.png_chunks import add_chunks, color_chunks


def random_pixels(channels: int = 3, height: int = 20, width: int = 30, dtype: type = np.uint8) -> np.ndarray:
    largest = np.iinfo(dtype).max
    shape = height, width, channels
    return np.random.default_rng(0).integers(0, largest, shape, dtype, endpoint=True)


def smooth(height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([127 + 100 * np.sin((x + 2 * y) / (9 + k)) for k in range(3)], -1).astype(np.uint8)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
@pytest.mark.parametrize(
    "suffix", ["bmp", "tga", "dds", "ico", "jp2", "ppm", "qoi", "sgi", "pcx", "im", "tif"]
)
def test_what_pillow_writes_is_read_as_pillow_reads_it(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tmp_path / f"a.{suffix}"
    image = PIL.Image.fromarray(random_pixels(4, 32, 32)).convert(mode)
    try:
        image.save(path, **({"sizes": [(32, 32)]} if suffix == "ico" else {}))
    except (OSError, KeyError, ValueError):
        pytest.skip("a mode that the format does not have")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = read_image(path).pixels
    with PIL.Image.open(path) as expected:
        name = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[pixels.shape[2]]
        reference = np.asarray(expected.convert(name)).reshape(pixels.shape)
    np.testing.assert_array_equal(pixels, reference)


@settings(max_examples=20, deadline=None)
@given(
    largest=st.integers(256, 65535), height=st.integers(1, 9), width=st.integers(1, 9), comment=st.booleans()
)
def test_deep_ppm_keeps_16_bits(
    tmp_path_factory: pytest.TempPathFactory, largest: int, height: int, width: int, comment: bool
) -> None:
    values = np.random.default_rng(largest).integers(0, largest, (height, width, 3), endpoint=True)
    header = f"P6\n{'# by a camera' if comment else ''}\n{width} {height}\n{largest}\n"
    path = tmp_path_factory.mktemp("ppm") / "a.ppm"
    path.write_bytes(header.encode() + values.astype(">u2").tobytes())
    pixels = read_image(path).pixels
    assert pixels.dtype == np.uint16
    np.testing.assert_allclose(pixels / 65535, values / largest, atol=1e-5)


def test_a_cut_off_ppm_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6 9 9 65535\n" + bytes(100))
    with pytest.raises(InputError, match="cut off"):
        read_image(tmp_path / "a.ppm")


@pytest.mark.parametrize("suffix", ["bmp", "tga", "jp2", "qoi", "dds"])
def test_damaged_files_are_one_sentence(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    PIL.Image.fromarray(random_pixels()).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=rf"a\.{suffix} is damaged") as error:
        read_image(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS"),
        (b"%PDF-1.7\n", "PDF"),
        (b"v/1\x01\2\0\0\0", "OpenEXR"),
        (b"#?RADIANCE\n", "Radiance HDR"),
        (b"gimp xcf file", "GIMP"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=f"is {name}, which cannot be read"):
        read_image(tmp_path / "a.png")


def test_lab_and_cmyk_go_through_their_colors(tmp_path: Path) -> None:
    rgb = PIL.Image.fromarray(smooth())
    lab = ImageCms.profileToProfile(
        rgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    lab.save(tmp_path / "lab.tif")
    back = read_image(tmp_path / "lab.tif").pixels.astype(int)
    assert np.abs(back - smooth()).mean() < 2
    PIL.Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "cmyk.tif")
    assert read_image(tmp_path / "cmyk.tif").pixels.min() > 240


@pytest.mark.parametrize("suffix", ["heic", "jxl"])
def test_plugins_are_used_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    module = {"heic": "pillow_heif", "jxl": "pillow_jxl"}[suffix]
    plugin = pytest.importorskip(module)
    if suffix == "heic":
        plugin.register_heif_opener()
    path = tmp_path / "a.png"  # the contents decide, not the name
    PIL.Image.fromarray(smooth()).save(path, {"heic": "HEIF", "jxl": "JXL"}[suffix], quality=95)
    assert np.abs(read_image(path).pixels.astype(int) - smooth()).mean() < 4
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(InputError, match=r"needs a decoder: pip install 'convattn\[(heif|jxl)\]'"):
        read_image(path)


def test_heic_keeps_ten_bits_and_hdr(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    deep = (smooth().astype(np.uint16) * 257) & 0xFFC0
    heif = pillow_heif.from_bytes("RGB;16", (64, 48), deep.tobytes())
    heif.save(tmp_path / "a.heic", quality=-1, chroma=444)
    image = read_image(tmp_path / "a.heic")
    assert image.pixels.dtype == np.uint16
    assert np.abs(image.pixels.astype(int) - deep).mean() < 400


def test_avif_sequences_give_their_first_frame(tmp_path: Path) -> None:
    frames = [PIL.Image.fromarray(np.roll(smooth(), shift, 1)) for shift in (0, 9)]
    frames[0].save(tmp_path / "a.avif", save_all=True, append_images=frames[1:], quality=95)
    with pytest.warns(UserWarning, match="2 frames or pages; only the first"):
        pixels = read_image(tmp_path / "a.avif").pixels
    assert np.abs(pixels.astype(int) - smooth()).mean() < 4


# --- Colors ---

LINEAR = {"gAMA": struct.pack(">I", 100000)}
WIDE = {
    "gAMA": struct.pack(">I", 45455),
    "cHRM": struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000),
}
PQ = {"cICP": bytes([9, 16, 0, 1])}


@pytest.mark.parametrize("chunks", [LINEAR, WIDE, PQ], ids=["linear", "p3", "pq"])
def test_png_keeps_what_describes_its_colors(tmp_path: Path, chunks: dict[str, bytes]) -> None:
    write_image(Image(smooth()), tmp_path / "a.png")
    add_chunks(tmp_path / "a.png", chunks)
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.pixels, smooth())
    write_image(image, tmp_path / "b.png")
    assert color_chunks(tmp_path / "b.png") == chunks
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(tmp_path / "b.png")), smooth())
    with pytest.warns(UserWarning, match=r"b\.jpg: JPEG cannot hold the .* of the original"):
        write_image(image, tmp_path / "b.jpg")


def test_png_of_srgb_needs_no_warning(tmp_path: Path) -> None:
    write_image(Image(smooth()), tmp_path / "a.png")
    add_chunks(tmp_path / "a.png", {"gAMA": struct.pack(">I", 45455)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_image(read_image(tmp_path / "a.png"), tmp_path / "b.webp")


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_avif_becomes_hdr_png(tmp_path: Path, transfer: int, name: str) -> None:
    PIL.Image.fromarray(smooth()).save(tmp_path / "a.avif", quality=95)
    data = (tmp_path / "a.avif").read_bytes()
    start = data.index(b"colrnclx") + 8
    (tmp_path / "a.avif").write_bytes(data[:start] + bytes([0, 9, 0, transfer]) + data[start + 4 :])
    image = read_image(tmp_path / "a.avif")
    write_image(image, tmp_path / "b.png")
    assert color_chunks(tmp_path / "b.png") == {"cICP": bytes([9, transfer, 0, 1])}
    for suffix in ("avif", "tif", "webp"):
        with pytest.warns(UserWarning, match=f"cannot hold the color description {name}"):
            write_image(image, tmp_path / f"b.{suffix}")


@pytest.mark.parametrize("orientation", [1, 6])
def test_ultra_hdr_keeps_its_gain_map_upright(tmp_path: Path, orientation: int) -> None:
    ramp = np.linspace(0, 4, 64, dtype=np.float32)[None, :, None].repeat(48, 0).repeat(3, 2)
    vips_image = pyvips.Image.new_from_array(ramp, interpretation="scrgb")
    vips_image.uhdrsave(str(tmp_path / "a.jpg"))
    loaded = pyvips.Image.new_from_file(str(tmp_path / "a.jpg")).copy()
    loaded.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    loaded.jpegsave(str(tmp_path / "a2.jpg"), Q=95)
    image = read_image(tmp_path / "a2.jpg")
    write_image(image, tmp_path / "b.jpg")
    result = pyvips.Image.new_from_file(str(tmp_path / "b.jpg"))
    gain_map = pyvips.Image.new_from_buffer(result.get("gainmap-data"), "")
    assert (gain_map.width > gain_map.height) == (result.width > result.height) == (orientation == 1)
    with pytest.warns(UserWarning, match="the HDR gain map"):
        write_image(image, tmp_path / "b.png")


# --- Metadata ---


def photo_with_thumbnail(path: Path, orientation: int = 6) -> None:
    thumbnail = io.BytesIO()
    PIL.Image.fromarray(smooth(24, 32)).save(thumbnail, "JPEG")
    data = thumbnail.getvalue()
    ifd0 = struct.pack("<H", 2) + struct.pack("<HHIHxx", 0x0112, 3, 1, orientation)
    ifd0 += struct.pack("<HHI4s", 0x010F, 2, 4, b"Hue\0") + struct.pack("<I", 8 + 2 + 24 + 4)
    start = 8 + 2 + 24 + 4 + 2 + 36 + 4
    ifd1 = struct.pack("<H", 3) + struct.pack("<HHII", 0x0103, 3, 1, 6)
    ifd1 += struct.pack("<HHII", 0x0201, 4, 1, start) + struct.pack("<HHIII", 0x0202, 4, 1, len(data), 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + ifd0 + ifd1 + data
    PIL.Image.fromarray(smooth()).save(path, exif=exif)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "png"])
def test_old_thumbnails_are_dropped_and_the_rest_stays(tmp_path: Path, suffix: str) -> None:
    photo_with_thumbnail(tmp_path / "a.jpg")
    image = read_image(tmp_path / "a.jpg")
    assert image.pixels.shape[:2] == (64, 48)
    write_image(image, tmp_path / f"b.{suffix}")
    data = (tmp_path / f"b.{suffix}").read_bytes()
    assert data.count(b"\xff\xd8\xff") == (suffix == "jpg")
    with PIL.Image.open(tmp_path / f"b.{suffix}") as result:
        exif = result.getexif()
        assert (exif[0x010F], exif.get(0x0112, 1), result.size) == ("Hue", 1, (48, 64))


@pytest.mark.parametrize("source", ["jpg", "tif"])
def test_tiff_keeps_exif_gps_and_xmp(tmp_path: Path, source: str) -> None:
    exif = PIL.Image.Exif()
    exif[0x010F], exif[0x0132] = "Acme", "2025:01:02 03:04:05"
    exif[0x8769] = {0x829A: 0.01, 0x9003: "2025:01:02 03:04:05"}
    exif[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    write_image(Image(smooth()), tmp_path / "plain.jpg")
    with PIL.Image.open(tmp_path / "plain.jpg") as plain:
        plain.save(tmp_path / "a.jpg", exif=exif, xmp=b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
    write_image(read_image(tmp_path / "a.jpg"), tmp_path / "a.tif")
    image = read_image(tmp_path / f"a.{source}")
    write_image(image, tmp_path / "b.tif")
    with PIL.Image.open(tmp_path / "b.tif") as result:
        tags = result.getexif()
        assert (tags[0x010F], tags[0x0132]) == ("Acme", "2025:01:02 03:04:05")
        assert float(tags.get_ifd(0x8769)[0x829A]) == pytest.approx(0.01)
        assert tags.get_ifd(0x8825)[1] == "N"
        np.testing.assert_array_equal(np.asarray(result), image.pixels)
    vips_image = pyvips.Image.new_from_file(str(tmp_path / "b.tif"))
    assert b"xmpmeta" in vips_image.get("xmp-data")
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif").pixels, image.pixels)


def png_with_text(path: Path, keyword: bytes, text: bytes) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text(keyword, text)
    PIL.Image.fromarray(smooth()).save(path, pnginfo=info)


@pytest.mark.parametrize("kind", ["exif of ImageMagick", "xmp"])
def test_png_is_turned_upright_by_text_once(tmp_path: Path, kind: bytes) -> None:
    if kind == "xmp":
        png_with_text(tmp_path / "a.png", "XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    else:
        exif = PIL.Image.Exif()
        exif[0x0112], exif[0x010F] = 6, "Hue"
        data = exif.tobytes()
        png_with_text(tmp_path / "a.png", "Raw profile type exif", f"\nexif\n    {len(data)}\n{data.hex()}\n")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.pixels, np.rot90(smooth(), 3))
    write_image(image, tmp_path / "b.png")
    with PIL.Image.open(tmp_path / "b.png") as result:
        assert (result.getexif().get(0x0112, 1), result.size) == (1, (48, 64))
        assert kind == "xmp" or result.getexif()[0x010F] == "Hue"


@pytest.mark.parametrize("values", [np.ones((4, 4), np.float32), np.full((4, 4), 70000, np.int32)])
def test_values_without_a_range_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    PIL.Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif holds .* convert it to PNG or TIFF of 8 or 16 bits\."):
        read_image(tmp_path / "a.tif")


# --- Folders ---


def test_folders_give_every_readable_kind_in_natural_order_and_report_the_rest(tmp_path: Path) -> None:
    names = ["frame10.png", "frame2.bmp", "frame1.jfif", "x.heic", "notes.txt", "raw.cr2", "drawing.svg"]
    for name in (*names, ".thumbnails/a.png", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match=r"passed over drawing\.svg, raw\.cr2; this format"):
        found = find_images(tmp_path)
    assert [path.name for path in found] == ["frame1.jfif", "frame2.bmp", "frame10.png", "x.heic"]


@given(head=st.binary(max_size=40))
def test_sniffing_never_fails(tmp_path_factory: pytest.TempPathFactory, head: bytes) -> None:
    path = tmp_path_factory.mktemp("sniff") / "a"
    path.write_bytes(head)
    assert sniff(path) is None or sniff(path)


def test_names_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    name = tmp_path / "\udcff.png"
    try:
        name.write_bytes(b"not empty")
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such names")
    for use in (lambda: read_image(name), lambda: write_image(Image(np.zeros((2, 2, 3), np.uint8)), name)):
        with pytest.raises(InputError, match="not in UTF-8") as error:
            use()
        str(error.value).encode()
