"""The page in a real browser."""

import io
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from convattn.images.io import Image, write_image

from .conftest import Server, eventually

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

if CHROMIUM is None and not (os.environ.get("CI") and sys.platform == "linux"):
    pytest.skip("needs Chromium; on Debian: apt-get install chromium", allow_module_level=True)

SLOW = 60_000  # milliseconds
DROP = """async ([zone, files]) => {
  const transfer = new DataTransfer();
  for (const [name, bytes] of files) transfer.items.add(new File([new Uint8Array(bytes)], name));
  const options = {dataTransfer: transfer, bubbles: true, cancelable: true};
  for (const type of ["dragover", "drop"]) zone.dispatchEvent(new DragEvent(type, options));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        # Containers run tests as root, for whom Chromium has no sandbox.
        arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = running.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Callable[..., Any]]:
    """Opens the page as some user; nothing may be asked of another host, and no script may fail."""
    contexts, troubles = [], []

    def watch(page: Any) -> None:
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request", lambda r: None if r.url.startswith((server.url, "blob:")) else troubles.append(r.url)
        )

    def open_(**user: Any) -> Any:
        context = browser.new_context(**{"locale": "en-US", "accept_downloads": True, **user})
        context.set_default_timeout(SLOW)
        contexts.append(context)
        page = context.new_page()
        watch(page)
        page.goto(server.url)
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Three images, one of which browsers do not show."""
    random = np.random.default_rng(0)
    paths = [tmp_path / name for name in ("a.png", "b.jpg", "c.tif")]
    for path in paths:
        write_image(Image(random.integers(0, 255, (20, 30, 3), np.uint8)), path)
    return paths


def drop(page: Any, *files: Path) -> None:
    named = [[file.name, list(file.read_bytes())] for file in files]
    page.locator("#drop").evaluate("(zone, files) => (" + DROP + ")([zone, files])", named)


def done(page: Any, count: int) -> None:
    page.wait_for_selector(f".item[data-state=done] >> nth={count - 1}")


def test_images_are_dropped_compared_and_downloaded(visit: Callable[..., Any], images: list[Path]) -> None:
    page = visit()
    drop(page, *images)
    done(page, 3)
    assert page.locator(".item .sizes").all_inner_texts() == ["30×20 → 60×40"] * 3
    with page.expect_download() as one:
        page.get_by_role("link", name="Download a.png", exact=True).click()
    assert one.value.suggested_filename == "a_x2.png"
    assert PILImage.open(one.value.path()).size == (60, 40)
    with page.expect_download() as all_:
        page.click("#zip")
    with zipfile.ZipFile(io.BytesIO(Path(all_.value.path()).read_bytes())) as archive:
        assert archive.namelist() == ["a_x2.png", "b_x2.jpg", "c_x2.tif"]

    page.get_by_role("button", name="Compare c.tif before and after").first.click()
    divider = page.get_by_role("slider", name="Where the upscaled image begins")
    page.wait_for_selector(".layer.after img")
    page.keyboard.press("ArrowRight")
    assert divider.get_attribute("aria-valuenow") == "52"
    page.keyboard.press("p")
    page.wait_for_selector("#compare-name:text('b.jpg')")
    page.keyboard.press("Escape")
    assert not page.locator("#compare").is_visible()


def test_result_that_is_there_before_its_upload_is_answered_is_shown(
    visit: Callable[..., Any], images: list[Path]
) -> None:
    page = visit()

    def answer_late(route: Any) -> None:
        answer = route.fetch()
        page.wait_for_timeout(1500)  # meanwhile the job is done, and its last event is sent
        route.fulfill(response=answer)

    page.route("**/v1/upscale*", answer_late)
    drop(page, images[0])
    done(page, 1)


def test_idle_pages_leave_the_connections_to_others(visit: Callable[..., Any], images: list[Path]) -> None:
    first = visit()
    pages = [first, *(first.context.new_page() for _ in range(7))]  # a browser has six for a server
    for page in pages:
        page.goto(first.url)
        page.wait_for_selector("body[data-ready]")
        page.set_input_files("#files", images[0])
        done(page, 1)


@pytest.mark.parametrize("ratio", [1, 2])
def test_comparison_is_sharp_at_100_percent(
    visit: Callable[..., Any], images: list[Path], ratio: int
) -> None:
    page = visit(device_scale_factor=ratio)
    page.set_input_files("#files", images[0])
    done(page, 1)
    page.click(".compare-button")
    page.wait_for_selector(".layer.after img")
    page.keyboard.press("1")
    page.keyboard.press("Home")
    with page.expect_download() as download:
        page.click("#compare-download")
    box = page.locator(".layer.after img").bounding_box()
    assert (box["width"] * ratio, box["height"] * ratio) == (60, 40)
    assert all(float(box[side] * ratio).is_integer() for side in "xy")
    result = np.asarray(PILImage.open(download.value.path()).convert("RGB")).astype(int)
    screen = PILImage.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")
    left = round(screen.width * 0.5)  # the line's handle lies at the left edge of the stage, far from here
    assert screen.size == (60, 40)
    assert np.abs(np.asarray(screen).astype(int) - result)[:, left:].max() <= 2


def test_waiting_and_running_images_are_cancelled(
    visit: Callable[..., Any], server: Server, tmp_path: Path
) -> None:
    write_image(
        Image(np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8)), tmp_path / "large.png"
    )
    page = visit()
    page.set_input_files("#files", [tmp_path / "large.png"] * 2)
    page.wait_for_selector(".item[data-state=running]")
    for _ in range(2):
        page.locator(".item:not([data-state=cancelled]) .remove").first.click()
    page.wait_for_selector(".item[data-state=cancelled] >> nth=1")
    eventually(lambda: server.client.get("/healthz").json()["running"] == 0)
    page.locator(".retry").first.click()
    page.wait_for_selector(".item[data-state=running]")
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".item").count() == 0


def test_settings_reach_the_result(visit: Callable[..., Any], images: list[Path]) -> None:
    page = visit()
    page.check("input[name=size][value=other]")
    page.fill("#scale", "2.5")
    page.select_option("#format", "webp")
    page.set_input_files("#files", images[0])
    done(page, 1)
    assert page.locator(".sizes").inner_text() == "30×20 → 75×50"
    with page.expect_download() as download:
        page.click(".download")
    assert PILImage.open(download.value.path()).format == "WEBP"
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.is_checked("input[name=size][value=other]")


@pytest.mark.parametrize(
    ("locale", "texts", "retry"),
    [
        ("en-US", ["no image or video", "at most 2 megapixels"], "Retry text.png"),
        ("zh-CN", ["不是可以读取的图像", "最多接受 2 百万像素"], "重试 text.png"),
    ],
)
def test_failures_say_why_in_the_users_language(
    visit: Callable[..., Any], tmp_path: Path, locale: str, texts: list[str], retry: str
) -> None:
    (tmp_path / "text.png").write_text("no image")
    PILImage.new("L", (2000, 2000)).save(tmp_path / "large.png")
    page = visit(locale=locale)
    page.set_input_files("#files", [tmp_path / "text.png", tmp_path / "large.png"])
    for text in texts:
        page.wait_for_selector(f".item[data-state=failed] .state:text('{text}')")
    assert page.get_by_role("button", name=retry).is_visible()


def test_page_speaks_the_users_language_and_fits_the_screen(visit: Callable[..., Any]) -> None:
    page = visit(locale="zh-CN", viewport={"width": 360, "height": 700}, color_scheme="dark")
    assert page.get_by_role("button", name="选择文件", exact=True).is_visible()
    page.click("#example")
    done(page, 1)
    assert page.locator("html").evaluate("page => page.scrollWidth <= page.clientWidth")
    dark = page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
    page.click("#theme")
    assert page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor") != dark
    page.get_by_role("button", name="English").click()
    assert page.get_by_role("button", name="Choose files").is_visible()
    assert page.get_by_role("button", name="Remove kitten.png").is_visible()


def test_everything_has_a_name_and_is_reached_by_keyboard(
    visit: Callable[..., Any], images: list[Path]
) -> None:
    page = visit()
    page.set_input_files("#files", images[0])
    done(page, 1)
    names = page.locator("button:visible, a:visible, input:visible, select:visible").evaluate_all(
        """all => all.filter(e => e.tabIndex >= 0).map(e =>
        (e.ariaLabel ?? e.innerText ?? "").trim() || [...e.labels ?? []].map(l => l.innerText).join())"""
    )
    assert all(names)
    reached = set()
    for _ in range(len(names) + 2):
        page.keyboard.press("Tab")
        reached.add(page.locator("body").evaluate("() => document.activeElement.id"))
    assert {"choose-files", "choose-folder", "language", "theme", "zip", "clear", "format"} <= reached


def test_api_page_shows_the_document(visit: Callable[..., Any], server: Server) -> None:
    page = visit()
    page.goto(f"{server.url}/docs")
    paths = server.client.get("/openapi.json").json()["paths"]
    page.wait_for_selector(f".operation >> nth={len(paths) - 1}")
    assert set(page.locator(".path").all_inner_texts()) == set(paths)
