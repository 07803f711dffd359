"""Train YOLO26n-C3k2_ESC on the few blood smears in examples/bccd and draw what it finds.

    python examples/detect.py demo-output

Writes detect-curves.png (losses and accuracy by epoch) and detect-boxes.jpg (a validation image with boxes)
within some minutes. Forty images and a start from nothing make no good detector: this shows that all runs.
"""

import shutil
import sys
from pathlib import Path

import yaml
from ultralytics import YOLO

DATA = Path(__file__).parent / "bccd"
MODEL = "yolo26n-C3k2_ESC.yaml"
EPOCHS = 30


def main(output: Path) -> None:
    """Train, then write both files into ``output``."""
    run = output / "detect"
    run.mkdir(parents=True, exist_ok=True)
    data = run / "data.yaml"
    data.write_text(
        yaml.safe_dump(yaml.safe_load((DATA / "data.yaml").read_text()) | {"path": str(DATA.resolve())})
    )

    model = YOLO(MODEL)
    model.train(
        data=data.resolve(),
        epochs=EPOCHS,
        imgsz=320,
        batch=4,
        workers=0,
        optimizer="AdamW",
        lr0=0.002,
        warmup_epochs=1,
        project=run.resolve(),
        name="train",
        exist_ok=True,
    )
    shutil.copy(run / "train" / "results.png", output / "detect-curves.png")
    image = sorted((DATA / "images" / "val").iterdir())[0]
    model.predict(image, imgsz=320)[0].save(str(output / "detect-boxes.jpg"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
