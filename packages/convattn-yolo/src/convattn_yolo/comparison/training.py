"""Train and evaluate one model with one seed."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convattn.errors import InputError
from convattn.files import replacing
from convattn_yolo.comparison.accuracy import METRICS, coco_metrics, image_key
from convattn_yolo.comparison.precision import train_in_bfloat16

__all__ = [
    "Budget",
    "Candidate",
    "Run",
    "digest",
    "digest_model",
    "evaluate",
    "find_candidate",
    "load_detector",
    "train",
    "write_json",
]

Example = dict[str, list[list[float]]]
"""Boxes by image file: left, top, right, bottom in pixels of the image, class, score."""


@dataclass(frozen=True)
class Budget:
    """The settings that all runs of a comparison share; only the model and the seed differ.

    Attributes:
        data: The data.yaml.
        weights: Weights that models built from a YAML start from, as far as they fit; None starts at random.
        epochs: Number of epochs; there is no early stopping.
        imgsz: Side of the training images in pixels.
        batch: Images per step.
        optimizer: Ultralytics' name of an optimizer. ``auto`` chooses by the sizes of the dataset and the
            number of epochs, so it chooses the same for every model.
        lr0: Initial learning rate; the optimizer ``auto`` chooses its own.
        workers: Processes that load images; Ultralytics uses none on a CPU.
        bf16: Whether networks train in bfloat16, which a CPU with instructions for it does faster.
    """

    data: str
    weights: str | None = None
    epochs: int = 100
    imgsz: int = 640
    batch: int = 16
    optimizer: str = "auto"
    lr0: float = 0.01
    workers: int = 0
    bf16: bool = False


@dataclass(frozen=True)
class Candidate:
    """A model in the comparison.

    Attributes:
        name: Its name in the report.
        source: The YAML name or weights file.
        imgsz: Side of its images in pixels.
        digest: SHA-256 of the source's contents, to detect changes between two calls.
    """

    name: str
    source: str
    imgsz: int
    digest: str


@dataclass(frozen=True)
class Run:
    """One finished training run.

    Attributes:
        model: Name of the candidate.
        seed: The seed, which pairs it with the runs of other models.
        metrics: A value in [0, 1] for each of ``accuracy.METRICS``; NaN where there is no such object.
        seconds: Duration since the start, or since it was last resumed.
        resumed: Whether it was interrupted and resumed.
        optimizer: The optimizer and its initial learning rate.
        end_to_end: Whether the NMS-free head made the predictions.
        examples: Detections of some images, with a score of at least 0.25.
        versions: Versions of the packages that determine the result.
    """

    model: str
    seed: int
    metrics: dict[str, float]
    seconds: float
    resumed: bool
    optimizer: str
    end_to_end: bool
    examples: Example
    versions: dict[str, str]

    def save(self, file: Path) -> None:
        """Write the run to a JSON file atomically."""
        write_json(file, dataclasses.asdict(self))

    @classmethod
    def load(cls, file: Path) -> "Run":
        """Read a run from a JSON file; metrics that earlier versions did not measure are NaN."""
        content = json.loads(file.read_text())
        return cls(**content | {"metrics": dict.fromkeys(METRICS, math.nan) | content["metrics"]})


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    with replacing(file, parents=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1))


def load_detector(source: str | Path) -> Any:
    """Load an Ultralytics detection model from a YAML name or a weights file.

    Raises:
        InputError: There is no such model, or it is not for detection.
    """
    from ultralytics import YOLO

    try:
        model = YOLO(str(source))
    except InputError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].replace(" ❌", "").rstrip(".")
        raise InputError(f"The model {source} cannot be loaded: {reason}.") from error
    if model.task != "detect":
        raise InputError(
            f"{source} is a model for the task {model.task}: only detection models can be compared."
        )
    return model


def find_candidate(specification: str, imgsz: int) -> Candidate:
    """Parse a model specification.

    Args:
        specification: A YAML name or a weights file; the suffix ``@416`` sets its image size in pixels.
        imgsz: The image size in pixels without such a suffix.

    Raises:
        InputError: As for :func:`load_detector`.
    """
    source, _, side = specification.rpartition("@")
    if not (source and side.isdecimal()):
        source, side = specification, str(imgsz)
    path = Path(source)
    # Ultralytics calls every result best.pt or last.pt: the folder name says more.
    training = f"{path.parents[1].name}-" if path.stem in {"best", "last"} and len(path.parents) > 2 else ""
    name = training + path.stem + (f"@{side}" if int(side) != imgsz else "")
    return Candidate(name, source, int(side), digest_model(source))


def digest_model(source: str) -> str:
    """Return the SHA-256 of a weights file, or of the layers of a model YAML.

    Raises:
        InputError: As for :func:`load_detector`.
    """
    model = load_detector(source)
    if model.ckpt_path:
        return hashlib.sha256(Path(model.ckpt_path).read_bytes()).hexdigest()
    return digest({key: value for key, value in model.model.yaml.items() if key != "yaml_file"})


def digest(content: Any) -> str:
    """Return the SHA-256 of plain Python values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def train(
    candidate: Candidate, seed: int, budget: Budget, data: Path, folder: Path, device: str | None
) -> None:
    """Train a candidate, or resume an interrupted run.

    The EMA weights of the last epoch are written to ``folder/weights/last.pt``. The validation images are not
    used during training, so nothing is selected by them.

    Args:
        candidate: The model.
        seed: Seed of the initialization and of the order and augmentation of the images.
        budget: The settings shared by all runs.
        data: A data.yaml with absolute paths.
        folder: Ultralytics' output folder.
        device: Ultralytics' name of a device; None lets it choose.
    """
    last = folder / "weights" / "last.pt"
    match _last_epoch(last):
        case None:
            _train_from_the_start(candidate, seed, budget, data, folder, device)
        case epoch if epoch >= 0:
            model = _with_precision(load_detector(last), budget)
            model.train(resume=True, data=str(data), device=device, save_dir=str(folder))


def _with_precision(model: Any, budget: Budget) -> Any:
    if budget.bf16:
        model.add_callback("on_pretrain_routine_end", train_in_bfloat16)
    return model


def _last_epoch(last: Path) -> int | None:
    """Return the epoch of a checkpoint, from 0; −1 after the end of training, None without a checkpoint."""
    try:
        return int(torch.load(last, map_location="cpu", weights_only=False)["epoch"])
    except Exception:  # no file, or a truncated one: start over
        return None


def _train_from_the_start(
    candidate: Candidate, seed: int, budget: Budget, data: Path, folder: Path, device: str | None
) -> None:
    torch.manual_seed(seed)  # weights are initialized here, before Ultralytics sets its seed
    model = _with_precision(load_detector(candidate.source), budget)
    if budget.weights and Path(candidate.source).suffix != ".pt":
        model.load(budget.weights)
    model.train(
        data=str(data),
        epochs=budget.epochs,
        imgsz=candidate.imgsz,
        batch=budget.batch,
        optimizer=budget.optimizer,
        lr0=budget.lr0,
        workers=budget.workers,
        seed=seed,
        deterministic=True,
        device=device,
        patience=0,
        val=False,
        plots=False,
        project=str(folder.parent),
        name=folder.name,
        exist_ok=True,
    )


def evaluate(
    candidate: Candidate,
    budget: Budget,
    data: Path,
    folder: Path,
    device: str | None,
    truth: Mapping[str, Any],
) -> dict[str, Any]:
    """Evaluate a trained candidate on the validation images.

    Args:
        candidate: The model.
        budget: The settings shared by all runs.
        data: A data.yaml with absolute paths.
        folder: As for :func:`train`.
        device: As for :func:`train`.
        truth: The labels as a COCO annotation dictionary.

    Returns:
        The fields of :class:`Run` that the evaluation determines.

    Raises:
        InputError: Ultralytics reduced the batch size for lack of memory.
    """
    model = load_detector(folder / "weights" / "last.pt")
    settings = model.ckpt["train_args"]
    if settings["batch"] != budget.batch:
        raise InputError(
            f"{candidate.name} did not fit into memory at batch size {budget.batch}, so the comparison would "
            f"not be fair: start again in another folder with --batch {settings['batch']}."
        )
    seen: dict[str, Any] = {}
    model.add_callback("on_val_end", lambda validator: seen.update(_read_predictions(validator, truth)))
    model.val(
        data=str(data),
        imgsz=candidate.imgsz,
        batch=1,  # Ultralytics' NMS has a time limit per batch and drops the rest
        workers=budget.workers,
        device=device,
        save_json=True,
        plots=False,
        verbose=False,
        project=str(folder),
        name="val",
        exist_ok=True,
    )
    return {
        "metrics": coco_metrics(truth, seen["detections"]),
        "resumed": bool(settings["resume"]),
        "optimizer": f"{settings['optimizer']}, initial learning rate {settings['lr0']:.3g}",
        "end_to_end": seen["end_to_end"],
        "examples": _examples(truth, seen["detections"]),
    }


def _read_predictions(validator: Any, truth: Mapping[str, Any]) -> dict[str, Any]:
    """Read the predictions from Ultralytics' validator as COCO results that match the ground truth."""
    validator.args.save_json = False  # so that it neither writes nor evaluates them itself
    image_ids = {image_key(image["file_name"]): image["id"] for image in truth["images"]}
    detections = [
        {
            "image_id": image_ids[image_key(f"{prediction['image_id']}.jpg")],
            "category_id": validator.class_map.index(prediction["category_id"]),
            "bbox": prediction["bbox"],
            "score": prediction["score"],
        }
        for prediction in validator.jdict
    ]
    return {"detections": detections, "end_to_end": bool(getattr(validator, "end2end", False))}


def _examples(truth: Mapping[str, Any], detections: list[dict[str, Any]], count: int = 3) -> Example:
    """Return the confident detections of images at equal distances in the list, whatever their results."""
    images = truth["images"]
    chosen = {
        images[index]["id"]: images[index] for index in {len(images) * i // count for i in range(count)}
    }
    boxes: Example = {image["file_name"]: [] for image in chosen.values()}
    for detection in detections:
        if detection["image_id"] in chosen and detection["score"] >= 0.25:
            left, top, width, height = detection["bbox"]
            box = [left, top, left + width, top + height, detection["category_id"], detection["score"]]
            boxes[chosen[detection["image_id"]]["file_name"]].append(box)
    return boxes
