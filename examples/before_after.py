"""Write a self-contained web page that compares images with their upscaled versions by sliders.

python examples/before_after.py examples/images demo-output demo-output/images.html
"""

import base64
import html
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
figure { margin: 2rem 0; }
.pair { display: grid; max-width: 100%; --at: 50%; width: fit-content; }
.pair > * { grid-area: 1 / 1; width: 40rem; max-width: 100%; }
.pair img:last-of-type { clip-path: inset(0 0 0 var(--at)); }
.pair input { opacity: 0; width: 100%; height: 100%; margin: 0; cursor: ew-resize; }
.pair::after { content: ""; grid-area: 1 / 1; width: 2px; background: white; margin-left: var(--at);
  box-shadow: 0 0 3px black; pointer-events: none; }
"""


def encode(image: Image.Image) -> str:
    """Return an image as a data URL."""
    stream = BytesIO()
    image.convert("RGB").save(stream, "WebP", quality=92)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def figure(before: Path, after: Path) -> str:
    """Return the HTML of one comparison: the input, upscaled by bicubic interpolation, and the result."""
    result = Image.open(after)
    bicubic = Image.open(before).convert("RGB").resize(result.size, Image.Resampling.BICUBIC)
    images = "".join(f'<img alt="" src="{encode(image)}">' for image in (bicubic, result))
    slider = '<input type="range" value="50" aria-label="position" oninput="move(this)">'
    caption = f"{html.escape(before.name)}: bicubic on the left, convattn on the right"
    return f'<figure><div class="pair">{images}{slider}</div><figcaption>{caption}</figcaption></figure>'


def main(inputs: Path, results: Path, page: Path) -> None:
    """Compare each image of one folder with the result of the same stem in another."""
    found = {path.stem.rpartition("_x")[0] or path.stem: path for path in sorted(results.glob("*.*"))}
    pairs = [(path, found[path.stem]) for path in sorted(inputs.iterdir()) if path.stem in found]
    figures = "".join(figure(*pair) for pair in pairs if pair[0].suffix != ".md")
    page.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>convattn</title>'
        f"<style>{STYLE}</style><h1>Before and after</h1>{figures}"
        "<script>const move = s => s.parentNode.style.setProperty('--at', s.value + '%')</script>",
        encoding="utf-8",
    )
    print(page)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
