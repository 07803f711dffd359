"""Run a training from its recipe to its weights, resuming where an earlier run stopped."""

import logging
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn

from convattn.checkpoints.loading import load_network, transfer_scale
from convattn.errors import InputError
from convattn.files import replacing
from convattn.models.esc import ESC
from convattn.models.registry import ARBITRARY_SCALE_NETWORKS, REAL_NETWORKS, build
from convattn.training import hardware
from convattn.training.arbitrary_scale import ArbitraryScaleTraining
from convattn.training.callbacks import CHECKPOINT, Bar, Checkpoints, Samples, Validation
from convattn.training.classic import Training
from convattn.training.config import Recipe
from convattn.training.pairs import PairTraining, holds_pairs
from convattn.training.real_world import RealTraining

__all__ = ["start_from", "train"]


def train(recipe: Recipe) -> Path:
    """Train a network and return the path of its weights.

    Resumes if the output folder holds a checkpoint; the result equals that of an uninterrupted run.

    Args:
        recipe: The configuration.

    Raises:
        InputError: The data, weights or output folder cannot be used, or the training is interrupted.
    """
    with _restored_state(), _quiet_lightning():
        return _train(recipe)


def _train(recipe: Recipe) -> Path:
    checkpoint = _checkpoint_to_resume(recipe)
    torch.set_num_threads(recipe.num_threads)
    torch.manual_seed(recipe.seed)
    network = build(recipe.network, recipe.scale)
    kind = _training_of(recipe)
    if recipe.start_from and not checkpoint:
        start_from(network, recipe.start_from)
    images = kind.open_images(recipe)
    validation = Validation(kind.validation(recipe), recipe) if recipe.validation else None
    training = kind(recipe, network, images)
    precision, reason = _choose_precision(recipe, training, resumed=checkpoint is not None)
    _record(recipe, precision)

    checkpoints = Checkpoints(recipe)
    notes = [
        f"Precision {precision}: {reason}.",
        f"Threads: {recipe.num_threads}. Batch size: {recipe.batch_size}.",
    ]
    callbacks = [validation, Samples(recipe), checkpoints, Bar(recipe, validation, notes)]
    trainer = _trainer(recipe, precision, [callback for callback in callbacks if callback])
    try:
        trainer.fit(training, ckpt_path=checkpoint)
    except OSError as error:  # of a logger; checkpoints and images say for themselves what is wrong
        raise InputError(
            f"The training ended after {training.global_step} steps: {recipe.folder} cannot be written "
            f"({error.strerror or error}); the same command resumes it from its last checkpoint."
        ) from error
    if checkpoints.interrupted:
        raise InputError(
            f"The training was interrupted after {training.global_step} steps; the same command resumes it."
        )
    return recipe.weights


def _choose_precision(recipe: Recipe, training: Training, *, resumed: bool) -> tuple[str, str]:
    """Return Lightning's precision and the reason for it; a resumed run keeps that of its record."""
    if recipe.precision != "auto":
        return recipe.precision, "as in the recipe"
    if resumed:
        return _read_record(recipe)["precision"], "as before the interruption"
    chosen = hardware.precision(recipe.accelerator, training.trial_step)
    training.network.zero_grad(set_to_none=True)
    return chosen


def _training_of(recipe: Recipe) -> type[Training]:
    """Return the kind of training for the recipe's network and data."""
    if holds_pairs(recipe.data):
        if recipe.network in ARBITRARY_SCALE_NETWORKS:
            raise InputError(
                f"{recipe.data} holds pairs, which train networks of one scale; choose one of them, or "
                "a folder of high-resolution images."
            )
        return PairTraining
    if recipe.network in ARBITRARY_SCALE_NETWORKS:
        return ArbitraryScaleTraining
    return RealTraining if recipe.network in REAL_NETWORKS else Training


def start_from(network: nn.Module, path: str) -> None:
    """Load start weights of any scale into a network; from another kind of network, its features only.

    Args:
        network: The network.
        path: File of the weights.

    Raises:
        InputError: The file cannot be read, or its weights do not fit.
    """
    other = load_network(path)
    given, own = other.state_dict(), network.state_dict()
    if type(other) is not type(network):
        given, own = (
            {key: x for key, x in state.items() if key.startswith("features.")} for state in (given, own)
        )
    elif isinstance(network, ESC):
        given = transfer_scale(given, network.scale)
    for key in own | given:
        shapes = [list(state[key].shape) if key in state else "missing" for state in (given, own)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"The weights {path} are of another network and cannot start this one: "
                f"{key} is {shapes[0]} there, but {shapes[1]} here."
            )
    network.load_state_dict(given, strict=False)


def _record(recipe: Recipe, precision: str) -> None:
    """Write the recipe to the output folder, with the precision in place of ``auto``."""
    values = recipe.model_dump(mode="json") | {"precision": precision}
    with replacing(_record_file(recipe), parents=True) as temporary:
        temporary.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def _record_file(recipe: Recipe) -> Path:
    return recipe.folder / "recipe.yaml"


def _read_record(recipe: Recipe) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(_record_file(recipe).read_text(encoding="utf-8"))
    return values


def _checkpoint_to_resume(recipe: Recipe) -> Path | None:
    path = recipe.folder / CHECKPOINT
    if recipe.resume == "never" or not (path.is_file() and _record_file(recipe).is_file()):
        return None
    recorded = _describe(_read_record(recipe))
    if recorded != _describe(recipe.model_dump()):
        raise InputError(f"{recipe.folder} holds a {recorded}; choose another output_dir=FOLDER.")
    if not zipfile.is_zipfile(path):  # a truncated file is not
        raise InputError(f"The checkpoint {path} is damaged; delete it or restart by resume=never.")
    return path


def _describe(values: dict[str, Any]) -> str:
    adversarial = "second, adversarial stage of the " if values.get("adversarial") else ""
    return f"{adversarial}training of {values['network']} x{values['scale']}"


@contextmanager
def _restored_state() -> Iterator[None]:
    """Restore torch's number of threads and random state afterwards."""
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning's advice and banners for the time of a training."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            warnings.filterwarnings("ignore", ".*LeafSpec.*")
            yield
    finally:
        logger.setLevel(level)


def _trainer(recipe: Recipe, precision: Any, callbacks: list[L.Callback]) -> L.Trainer:
    return L.Trainer(
        accelerator=recipe.accelerator,
        devices=recipe.devices,
        num_nodes=recipe.num_nodes,
        precision=precision,
        gradient_clip_val=recipe.gradient_clip,
        max_steps=recipe.max_steps,
        callbacks=callbacks,
        logger=[
            TensorBoardLogger(recipe.folder, name="", version="tensorboard"),
            CSVLogger(recipe.folder, name="csv"),
        ],
        log_every_n_steps=recipe.log_every,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
