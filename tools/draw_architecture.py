"""Draw docs/_static/architecture.svg: the parts of convattn, each above those it imports.

python tools/draw_architecture.py
"""

from pathlib import Path

ROOT = Path(__file__).parents[1]
ROWS = [
    ("What users call", [("cli", "commands"), ("serve", "page and API"), ("cluster", "many machines")]),
    (
        "What it does",
        [
            ("training", "recipes, losses"),
            ("evaluation", "PSNR, SSIM, LPIPS"),
            ("export", "ONNX, OpenVINO"),
            ("bench", "time and memory"),
        ],
    ),
    ("How it upscales", [("inference", "upscaler, strips, tiles"), ("video", "read, upscale, write")]),
    (
        "What it knows",
        [
            ("images", "files, alpha, sizes"),
            ("checkpoints", "weights, catalog"),
            ("runtimes", "exported networks"),
        ],
    ),
    (
        "The method",
        [("models", "ESC networks"), ("layers", "nn.Modules"), ("ops", "operators, CPU and GPU kernels")],
    ),
]
WIDTH, HEIGHT, LEFT, GAP = 840, 64, 140, 12


def main() -> None:
    """Write the drawing."""
    parts = []
    for number, (title, boxes) in enumerate(ROWS):
        top = 10 + number * (HEIGHT + GAP)
        parts.append(f'<text class="row" x="10" y="{top + HEIGHT / 2 + 5}">{title}</text>')
        width = (WIDTH - LEFT - GAP * len(boxes)) / len(boxes)
        for index, (name, what) in enumerate(boxes):
            left = LEFT + index * (width + GAP)
            middle = left + width / 2
            parts.append(
                f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{HEIGHT}" rx="8"/>'
                f'<text class="name" x="{middle:.0f}" y="{top + 28}">{name}</text>'
                f'<text class="what" x="{middle:.0f}" y="{top + 48}">{what}</text>'
            )
    height = 10 + len(ROWS) * (HEIGHT + GAP)
    style = (
        "rect{fill:#eef4ff;stroke:#4a72c4}text{font-family:sans-serif;fill:#1b2a49}"
        ".row{font-size:14px;fill:#6b7690}.name{font-size:16px;font-weight:600;text-anchor:middle}"
        ".what{font-size:12px;text-anchor:middle}"
    )
    (ROOT / "docs" / "_static" / "architecture.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="The parts of convattn"><style>{style}</style>{"".join(parts)}</svg>\n',
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
