"""What programs that use the HTTP API rely on."""

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pyvips
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from convattn import Upscaler
from convattn.images.io import Image, read_image, write_image
from convattn.serve.problems import STATUSES

from .conftest import Server, eventually

GROUP = "a-group-of-the-tests"


def upscale(server: Server, body: bytes, **options: Any) -> httpx.Response:
    answer = server.client.post("/v1/upscale", params=options, content=body)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, np.uint8), (2, np.uint16), (3, np.uint8), (3, np.uint16), (4, np.uint16)]
)
def test_result_is_what_the_upscaler_gives(
    server: Server, png: Callable[..., bytes], tmp_path: Path, channels: int, dtype: type
) -> None:
    (tmp_path / "in.png").write_bytes(body := png(channels=channels, dtype=dtype))
    (tmp_path / "out.png").write_bytes(upscale(server, body, scale=3).content)
    expected, result = Upscaler(scale=3)(tmp_path / "in.png").pixels, read_image(tmp_path / "out.png").pixels
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    assert np.abs(result.astype(int) - expected).max() <= np.iinfo(dtype).max // 255


def test_profile_stays_and_orientation_is_applied(
    server: Server, png: Callable[..., bytes], tmp_path: Path
) -> None:
    profile = pyvips.Operation.call("profile_load", "p3")
    image = pyvips.Image.new_from_buffer(png(32, 48), "").copy()
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    image.set_type(pyvips.GValue.gint_type, "orientation", 6)
    body = image.jpegsave_buffer(Q=95)
    answer = upscale(server, body, scale=2, name="../holiday/beach.jpeg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert 'filename="beach_x2.jpg"' in answer.headers["content-disposition"]
    result = pyvips.Image.new_from_buffer(answer.content, "")
    assert (result.width, result.height) == (64, 96)
    assert bytes(result.get("icc-profile-data")) == bytes(profile)


def test_form_and_query_mean_the_same(server: Server, png: Callable[..., bytes]) -> None:
    options = {"scale": "2", "format": "webp", "quality": "100"}
    form = server.client.post("/v1/upscale", data=options, files={"image": ("a.png", png(), "text/plain")})
    assert form.content == upscale(server, png(), **options).content
    assert 'filename="a_x2.webp"' in form.headers["content-disposition"]


@pytest.mark.parametrize("format", ["BMP", "TGA", "ICO", "JPEG2000", "PPM", "QOI", "DDS", "HEIF", "JXL"])
def test_rarer_formats_become_png(server: Server, format: str) -> None:
    if format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if format == "JXL":
        pytest.importorskip("pillow_jxl")
    file, options = io.BytesIO(), {"sizes": [(48, 32)]} if format == "ICO" else {}
    colors = np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8)
    PILImage.fromarray(colors).save(file, format, **options)
    answer = upscale(server, file.getvalue(), scale=2, name="a.xyz")
    assert PILImage.open(io.BytesIO(answer.content)).size == (96, 64)
    assert (answer.headers["content-type"], "a_x2.png" in answer.headers["content-disposition"]) == (
        "image/png",
        True,
    )


def test_size_in_place_of_a_scale(server: Server, png: Callable[..., bytes]) -> None:
    result = PILImage.open(io.BytesIO(upscale(server, png(), width=100, height=71, exact=True).content))
    assert result.size == (100, 71)


def test_animation_stays_one_unless_a_format_is_asked_for(server: Server) -> None:
    frames = [PILImage.new("RGB", (16, 12), color) for color in ("red", "green", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=80)
    moving = PILImage.open(io.BytesIO(upscale(server, file.getvalue(), scale=2).content))
    assert (moving.format, moving.size) == ("GIF", (32, 24))
    assert moving.n_frames == 3  # type: ignore[attr-defined]
    still = PILImage.open(io.BytesIO(upscale(server, file.getvalue(), scale=2, format="png").content))
    assert (still.format, still.size) == ("PNG", (32, 24))


def test_video(server: Server, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, width=32, height=32, pix_fmt="yuv420p")
        for value in range(0, 250, 50):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), value, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    answer = upscale(server, (tmp_path / "clip.mp4").read_bytes(), scale=2)
    assert answer.headers["content-type"] == "video/mp4"
    with av.open(io.BytesIO(answer.content)) as container:
        sizes = [(frame.width, frame.height) for frame in container.decode(video=0)]
    assert sizes == [(64, 64)] * 5


def test_job_tells_how_far_it_is(server: Server, png: Callable[..., bytes]) -> None:
    id = server.start_job(png(), scale=2, name="a.png")
    with server.client.stream("GET", f"/v1/jobs/{id}/events") as events:
        *_, last = (json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: "))
    assert last["state"] == "done"
    assert last == server.client.get(f"/v1/jobs/{id}").json()
    assert (last["name"], last["result_width"], last["bytes"] > 0) == ("a_x2.png", 96, True)
    result = server.client.get(f"/v1/jobs/{id}/result")
    assert result.content == upscale(server, png(), scale=2).content
    assert server.client.delete(f"/v1/jobs/{id}").status_code == 204
    assert server.client.get(f"/v1/jobs/{id}").status_code == 404


def test_result_that_is_not_there_yet(server: Server, png: Callable[..., bytes]) -> None:
    id = server.start_job(png(700, 700), scale=4)
    answer = server.client.get(f"/v1/jobs/{id}/result")
    assert (answer.status_code, answer.headers["retry-after"]) == (409, "1")
    server.client.delete(f"/v1/jobs/{id}")


@pytest.mark.parametrize("how", ["delete", "disconnect"])
def test_cancelled_job_ends_and_leaves_nothing(server: Server, png: Callable[..., bytes], how: str) -> None:
    health = lambda: server.client.get("/healthz").json()  # noqa: E731
    eventually(lambda: health()["running"] == 0)
    before = server.uploads
    if how == "delete":
        id = server.start_job(png(1000, 1000), scale=4)
        server.wait_for(id, "running")
        server.client.delete(f"/v1/jobs/{id}")
    else:
        with pytest.raises(httpx.ReadTimeout):
            server.client.post("/v1/upscale?scale=4", content=png(1000, 1000), timeout=0.7)
    eventually(lambda: health()["running"] + health()["waiting"] == 0)
    assert upscale(server, png(), scale=2)
    eventually(lambda: server.uploads <= before)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has very many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def bmp(width: int, height: int) -> bytes:
    """A BMP file without pixels."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
M3U8 = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("body", "options", "status", "reason"),
    [
        (b"", {}, 415, "no image"),
        (b"hello", {}, 415, "no image"),
        (SVG, {}, 415, "no image"),
        (M3U8, {"name": "a.mp4"}, 415, "no image"),
        (b"P6 1 1 255\n", {}, 422, "damaged"),
        (bytes(9 * 2**20), {}, 413, "at most 8 MiB"),
        (bomb(60_000, 60_000), {}, 413, "at most 2 megapixels"),
        (bmp(30_000, 30_000), {}, 413, "at most 2 megapixels"),
        (bmp(1700, 1700), {}, 413, "at most 2 megapixels"),
        (b"\xff\x0a" + bytes([0xFE]) + bytes([0xFF] * 20), {}, 413, "at most 2 megapixels"),
        (bomb(1000, 1000), {"scale": 30}, 413, "Choose a smaller scale"),
        (bomb(10, 10), {}, 422, "damaged"),
        (b"\x00\x00\x00\x18ftypisom" + bytes(80), {}, 422, "The file"),
        (bomb(10, 10), {"scale": 2, "width": 20}, 422, "one of the two"),
        (bomb(10, 10), {"scale": 0.5}, 422, "scale"),
        (bomb(10, 10), {"scale": "nan"}, 422, "scale"),
        (bomb(10, 10), {"exact": True}, 422, None),
        (bomb(10, 10), {"sharpen": 1}, 422, "sharpen"),
        (bomb(10, 10), {"model": "/etc/passwd"}, 422, "There is no model"),
        (bomb(10, 10), {"fidelity": 2}, 422, "fidelity"),
        (bomb(10, 10), {"group": "../../etc"}, 422, "group"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(
    server: Server, body: bytes, options: dict[str, Any], status: int, reason: str | None
) -> None:
    answer = server.client.post("/v1/upscale", params=options, content=body)
    assert (answer.status_code, str(server.folder) in answer.text) == (status, False), answer.text
    assert re.search(reason or "", answer.json()["detail"])
    assert STATUSES[answer.json()["code"]] == status


@pytest.mark.parametrize(
    "request_",
    [{"data": {"scale": "2"}, "files": {}}, {"files": {"photo": b"x"}}, {"data": {"image": "text"}}],
)
def test_form_without_an_image_is_refused(server: Server, request_: dict[str, Any]) -> None:
    answer = server.client.post("/v1/upscale", **{"files": {"other": b""}, **request_})
    assert 400 <= answer.status_code < 500
    assert answer.json()["detail"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([".png", ".jpg", ".webp", ".tif", ".gif", ".avif"]), st.data())
def test_damaged_files_end_nothing(server: Server, tmp_path: Path, suffix: str, data: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    image = pyvips.Image.new_from_array(pixels)
    body = bytearray(image.write_to_buffer(suffix))
    for place in data.draw(st.lists(st.integers(0, len(body) - 1), max_size=4)):
        body[place] = data.draw(st.integers(0, 255))
    answer = server.client.post("/v1/upscale", content=bytes(body[: data.draw(st.integers(1, len(body)))]))
    assert answer.status_code in (200, 413, 415, 422)


def test_archive_has_all_results_of_a_group(server: Server, png: Callable[..., bytes]) -> None:
    names = ["a.png", "trip/a.png", "trip/b.png", "TRIP/b.png"]
    ids = [server.start_job(png(seed=i), scale=2, group=GROUP, name=name) for i, name in enumerate(names)]
    results = []
    for id in ids:
        server.wait_for(id, "done")
        results.append(server.client.get(f"/v1/jobs/{id}/result").content)
    answer = server.client.get(f"/v1/groups/{GROUP}/results.zip")
    assert "content-length" not in answer.headers
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a_x2.png", "trip/a_x2.png", "trip/b_x2.png", "TRIP/b_x2-2.png"]
        assert [archive.read(name) for name in archive.namelist()] == results


def test_group_is_followed_through_one_connection(server: Server, png: Callable[..., bytes]) -> None:
    with server.client.stream("GET", "/v1/groups/another-group-of-tests/events") as events:
        lines = events.iter_lines()
        next(lines)
        ids = {server.start_job(png(), scale=2, group="another-group-of-tests") for _ in range(3)}
        done: set[str] = set()
        while done != ids:
            line = next(lines)
            status = json.loads(line[6:]) if line.startswith("data: ") else {}
            done |= {status["id"]} if status.get("state") == "done" else set()


def test_preview_is_shown_by_browsers(server: Server, tmp_path: Path) -> None:
    write_image(Image(np.zeros((8, 9, 3), np.uint16)), tmp_path / "a.tif")
    id = server.start_job((tmp_path / "a.tif").read_bytes(), scale=2)
    server.wait_for(id, "done")
    for side, size in {"before": (9, 8), "after": (18, 16)}.items():
        preview = server.client.get(f"/v1/jobs/{id}/preview/{side}")
        assert (preview.headers["content-type"], PILImage.open(io.BytesIO(preview.content)).size) == (
            "image/png",
            size,
        )
    assert server.client.get(f"/v1/jobs/{id}/result").headers["content-type"] == "image/tiff"


def test_models_health_and_metrics(server: Server, png: Callable[..., bytes]) -> None:
    models = {model["name"]: model for model in server.client.get("/v1/models").json()}
    assert models["esc-nano"]["scales"] == [2, 3, 4]
    assert models["esc-nano-lte"]["scales"] == []
    upscale(server, png(), model="esc-nano-real")
    assert server.client.get("/healthz").json()["status"] == "ok"
    figures = server.client.get("/metrics").text
    assert float(re.search(r'convattn_jobs_total{state="done"} (\S+)', figures)[1]) >= 1
    assert "convattn_waiting_jobs 0.0" in figures
