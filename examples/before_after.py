"""Write a self-contained web page that compares images with their upscaled versions by sliders.

python examples/before_after.py examples/images demo-output demo-output/images.html
"""

import base64
import html
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image

STATIC = Path(__file__).parents[1] / "docs" / "_static"  # whose sliders the page uses
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem; }
figcaption { color: #666; }
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
    names = f"{html.escape(before.name)}, bicubic", f"{html.escape(before.name)}, convattn"
    images = "".join(
        f'<img class="{kind}" alt="{name}" src="{encode(image)}">'
        for kind, name, image in zip(("before", "after"), names, (bicubic, result), strict=True)
    )
    captions = "".join(f"<span>{name}</span>" for name in names)
    return (
        f'<figure class="compare-figure"><div class="compare">{images}</div>'
        f"<figcaption>{captions}</figcaption></figure>"
    )


def main(inputs: Path, results: Path, page: Path) -> None:
    """Compare each image of one folder with the result of the same stem in another."""
    found = {path.stem.rpartition("_x")[0] or path.stem: path for path in sorted(results.glob("*.*"))}
    pairs = [(path, found[path.stem]) for path in sorted(inputs.iterdir()) if path.stem in found]
    figures = "".join(figure(*pair) for pair in pairs if pair[0].suffix != ".md")
    page.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>convattn</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}{(STATIC / 'compare.css').read_text()}</style>"
        f"<h1>Before and after</h1><p>Drag the dividers.</p>{figures}"
        f"<script>{(STATIC / 'compare.js').read_text()}</script>",
        encoding="utf-8",
    )
    print(page)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
