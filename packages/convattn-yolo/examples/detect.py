"""Fine-tune the blood-cell detector for an epoch and show what it detects.

    python packages/convattn-yolo/examples/detect.py demo-output

Writes detect.html, a self-contained page with the AP before and after, the validation images with labels and
detections side by side, and the training curves.
"""

import base64
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from ultralytics import YOLO
from ultralytics.utils.plotting import Annotator, colors

HERE = Path(__file__).parent
DATA = HERE / "bccd"
WEIGHTS = HERE / "bccd-yolo26n-C3k2_ESC-finest.pt"
HISTORY = HERE / "bccd-training.csv"
SIZE = 320


def write_data(folder: Path) -> Path:
    """Write a data.yaml with the absolute path that Ultralytics needs."""
    folder.mkdir(parents=True, exist_ok=True)
    description = yaml.safe_load((DATA / "data.yaml").read_text()) | {"path": str(DATA.resolve())}
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump(description))
    return file.resolve()


def measure(model: Any, data: Path, folder: Path) -> tuple[float, float]:
    """Return AP50 and AP50-95 on the validation images."""
    box = model.val(
        data=data, imgsz=SIZE, batch=1, plots=False, verbose=False, project=folder.resolve(), name="val",
        exist_ok=True, device="cpu",
    ).box  # fmt: skip
    return float(box.map50), float(box.map)


def labels(image: Path, names: dict[int, str]) -> Image.Image:
    """Draw the labeled boxes of an image."""
    annotator = Annotator(Image.open(image).convert("RGB"), line_width=2)
    width, height = annotator.im.size
    for line in (DATA / "labels" / "val" / f"{image.stem}.txt").read_text().splitlines():
        index, x, y, w, h = map(float, line.split())
        box = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
        annotator.box_label(box, names[int(index)], color=colors(int(index)))
    return annotator.im


def detections(model: Any, image: Path) -> Image.Image:
    """Draw the detected boxes of an image."""
    result = model.predict(image, imgsz=SIZE, conf=0.3, verbose=False, device="cpu")[0]
    return Image.fromarray(result.plot(line_width=2)[..., ::-1])


def encode(image: Image.Image) -> str:
    """Return an image as a data URL."""
    stream = BytesIO()
    image.convert("RGB").save(stream, "WebP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def curves() -> Image.Image:
    """Plot the losses of the training on the whole dataset, from scratch."""
    import matplotlib.pyplot as plt
    import numpy as np

    rows = np.genfromtxt(HISTORY, delimiter=",", names=True)
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    for name, label in (("box_loss", "box loss"), ("cls_loss", "class loss")):
        axes.plot(rows["epoch"], rows[name], label=label)
    axes.set(xlabel="epoch", title="Training from scratch on the whole dataset")
    axes.legend(frameon=False)
    stream = BytesIO()
    figure.savefig(stream, dpi=110)
    return Image.open(stream)


def main(output: Path) -> None:
    """Measure, fine-tune, measure again and write the page."""
    run = output / "detect"
    data = write_data(run)
    before = measure(YOLO(WEIGHTS), data, run)
    model = YOLO(WEIGHTS)
    model.train(
        data=data, epochs=1, imgsz=SIZE, batch=4, workers=0, optimizer="AdamW", lr0=1e-4, warmup_epochs=0,
        mosaic=0, plots=False, val=False, project=run.resolve(), name="train", exist_ok=True, device="cpu",
    )  # fmt: skip
    model = YOLO(run / "train" / "weights" / "last.pt")
    after = measure(model, data, run)
    images = sorted((DATA / "images" / "val").iterdir())
    rows = "".join(
        f"<tr><td>{image.name}</td>"
        + "".join(
            f'<td><img src="{encode(drawn)}"></td>'
            for drawn in (labels(image, model.names), detections(model, image))
        )
        + "</tr>"
        for image in images
    )
    page = output / "detect.html"
    page.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Blood cells</title>'
        "<style>body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem } img { max-width: 40vw }</style>"
        "<h1>Blood cells by YOLO26n-C3k2_ESC</h1>"
        f"<p>On {len(images)} validation images: AP50 {before[0]:.3f}, AP50-95 {before[1]:.3f} before; "
        f"AP50 {after[0]:.3f}, AP50-95 {after[1]:.3f} after one epoch of fine-tuning.</p>"
        f"<table><tr><th></th><th>labels</th><th>detections</th></tr>{rows}</table>"
        f'<img src="{encode(curves())}">',
        encoding="utf-8",
    )
    print(f"AP50 {before[0]:.3f} -> {after[0]:.3f}, AP50-95 {before[1]:.3f} -> {after[1]:.3f}: {page}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
