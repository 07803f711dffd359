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

import numpy as np
import yaml
from PIL import Image
from ultralytics import YOLO
from ultralytics.utils.plotting import Annotator, colors

HERE = Path(__file__).parent
DATA = HERE / "bccd"
WEIGHTS = HERE / "bccd-yolo26n-C3k2_ESC-finest.pt"
HISTORY = HERE / "bccd-training.csv"
SIZE = 320
SCORE = 0.3
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem 1rem .25rem 0; text-align: left; }
figure { margin: 1.5rem 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; }
img { width: 100%; border-radius: 4px; }
figcaption { font-size: .85rem; color: #666; }
"""


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
    with Image.open(image) as opened:
        annotator = Annotator(np.array(opened.convert("RGB"))[..., ::-1].copy(), line_width=2)
        width, height = opened.size
    for line in (DATA / "labels" / "val" / f"{image.stem}.txt").read_text().splitlines():
        index, x, y, w, h = map(float, line.split())
        box = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
        annotator.box_label(box, names[int(index)], color=colors(int(index), bgr=True))
    return Image.fromarray(annotator.result()[..., ::-1])


def detections(model: Any, image: Path) -> Image.Image:
    """Draw the detected boxes of an image."""
    result = model.predict(image, imgsz=SIZE, conf=SCORE, verbose=False, device="cpu")[0]
    return Image.fromarray(result.plot(line_width=2)[..., ::-1])


def encode(image: Image.Image) -> str:
    """Return an image as a data URL."""
    stream = BytesIO()
    image.convert("RGB").save(stream, "WebP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def curves() -> Image.Image:
    """Plot the losses of the training on the whole dataset, from scratch."""
    import matplotlib.pyplot as plt

    rows = np.genfromtxt(HISTORY, delimiter=",", names=True)
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    for name, label in (("box_loss", "box loss"), ("cls_loss", "class loss")):
        axes.plot(rows["epoch"], rows[name], label=label)
    axes.set(xlabel="epoch", ylabel="loss")
    axes.legend(frameon=False)
    stream = BytesIO()
    figure.savefig(stream, dpi=110)
    return Image.open(stream)


def figure(caption: str, *images: Image.Image) -> str:
    """Return the HTML of images side by side."""
    drawn = "".join(f'<img alt="" src="{encode(image)}">' for image in images)
    kind = "pair" if len(images) > 1 else "single"
    return f'<figure><div class="{kind}">{drawn}</div><figcaption>{caption}</figcaption></figure>'


def page(model: Any, before: tuple[float, float], after: tuple[float, float]) -> str:
    """Return the page: AP before and after, labels beside detections, and the curves of the training."""
    images = sorted((DATA / "images" / "val").iterdir())
    rows = "".join(
        f"<tr><th>{name}</th><td>{ap50:.3f}</td><td>{ap:.3f}</td></tr>"
        for name, (ap50, ap) in {"as shipped": before, "after one epoch of fine-tuning": after}.items()
    )
    pairs = "".join(
        figure(image.name, labels(image, model.names), detections(model, image)) for image in images
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Blood cells</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}</style><h1>Blood cells, detected by YOLO26n-C3k2_ESC</h1>"
        f"<table><tr><th>{len(images)} validation images</th><th>AP50</th><th>AP50-95</th></tr>{rows}</table>"
        f"<p>Left: the labels. Right: what the detector finds with a score of at least {SCORE}.</p>"
        f"{pairs}{figure('Losses of the shipped detector on its whole training set', curves())}"
    )


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
    file = output / "detect.html"
    file.write_text(page(model, before, after), encoding="utf-8")
    print(f"AP50 {before[0]:.3f} -> {after[0]:.3f}, AP50-95 {before[1]:.3f} -> {after[1]:.3f}: {file}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
