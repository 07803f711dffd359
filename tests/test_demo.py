"""The page that make demo writes."""

import re
import runpy
from pathlib import Path

import numpy as np
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_page_of_the_demo_needs_no_other_file(tmp_path: Path) -> None:
    for folder, name, side in (("inputs", "a.png", 8), ("results", "a.png", 32), ("results", "b.png", 32)):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(tmp_path / folder / name)
    page = tmp_path / "page.html"
    runpy.run_path(str(EXAMPLES / "before_after.py"))["main"](tmp_path / "inputs", tmp_path / "results", page)
    html = page.read_text(encoding="utf-8")
    assert html.count('<div class="compare"><img') == 1
    assert all(address.startswith("data:image/webp") for address in re.findall('src="([^"]+)', html))
    assert '<link rel="stylesheet"' not in html
    assert "a.png, convattn" in html
