"""A training from its recipe to its weights, gone on with where an earlier run stopped."""

import logging
import warnings
import zipfile
from dataclasses import asdict
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
from convattn.training.adversarial import AdversarialTraining
from convattn.training.arbitrary_scale import AnyScaleTraining
from convattn.training.callbacks import CHECKPOINT, Bar, Keeper, Samples, Validation
from convattn.training.classic import Training
from convattn.training.config import Recipe
from convattn.training.pairs import PairTraining, holds_pairs
from convattn.training.real_world import RealTraining

__all__ = ["start_from", "train"]


def train(recipe: Recipe) -> Path:
    """Train a network as the recipe says and return the path of its weights.

    A run folder that holds a checkpoint is gone on with, to the same end as if it had never stopped.

    Raises:
        InputError: if the data, weights or run folder cannot be used, or the training is interrupted.
    """
    checkpoint = _checkpoint_to_resume(recipe)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    network = build(recipe.network, recipe.scale)
    kind = _training_of(recipe)
    if recipe.start_from and not checkpoint:
        start_from(network, recipe.start_from)
    images = kind.open_images(recipe)
    validation = Validation(kind.validation(recipe), recipe) if recipe.validation else None
    _record(recipe)

    training, keeper = kind(recipe, network, images), Keeper(recipe)
    callbacks = [validation, Samples(recipe), keeper, Bar(recipe, validation)]
    _trainer(recipe, [callback for callback in callbacks if callback]).fit(training, ckpt_path=checkpoint)
    if keeper.interrupted:
        raise InputError(
            f"The training was interrupted after {training.global_step} steps; "
            "the same command goes on from there."
        )
    return recipe.weights


def _training_of(recipe: Recipe) -> type[Training]:
    """Return the training of the recipe's network, data and losses."""
    if holds_pairs(recipe.data):
        if recipe.adversarial or recipe.network in ARBITRARY_SCALE_NETWORKS:
            raise InputError(
                f"{recipe.data} holds pairs, which train networks of one scale without a discriminator; set "
                "adversarial=0, or give a folder of high-resolution images."
            )
        return PairTraining
    if recipe.adversarial:
        return AdversarialTraining
    if recipe.network in ARBITRARY_SCALE_NETWORKS:
        return AnyScaleTraining
    return RealTraining if recipe.network in REAL_NETWORKS else Training


def start_from(network: nn.Module, path: str) -> None:
    """Let a network begin with the weights in a file, of any scale; of another kind of network, the features.

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


def _record(recipe: Recipe) -> None:
    """Write the recipe into the run folder."""
    values = {
        key: list(value) if isinstance(value, tuple) else value for key, value in asdict(recipe).items()
    }
    with replacing(recipe.folder / "recipe.yaml", parents=True) as temporary:
        temporary.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def _checkpoint_to_resume(recipe: Recipe) -> Path | None:
    path, record = recipe.folder / CHECKPOINT, recipe.folder / "recipe.yaml"
    if recipe.resume == "never" or not (path.is_file() and record.is_file()):
        return None
    before = yaml.safe_load(record.read_text(encoding="utf-8"))
    if _kind(before) != _kind(asdict(recipe)):
        raise InputError(f"{recipe.folder} holds a {_kind(before)}; give another run=FOLDER.")
    if not zipfile.is_zipfile(path):  # as it would not be if its end were missing
        raise InputError(f"The checkpoint {path} is damaged; delete it, or give resume=never, to start anew.")
    return path


def _kind(values: dict[str, Any]) -> str:
    adversarial = "second, adversarial stage of the " if values.get("adversarial") else ""
    return f"{adversarial}training of {values['network']} x{values['scale']}"


def _trainer(recipe: Recipe, callbacks: list[L.Callback]) -> L.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    return L.Trainer(
        accelerator=recipe.accelerator,
        devices=recipe.devices,
        num_nodes=recipe.nodes,
        precision=recipe.precision,
        gradient_clip_val=recipe.gradient_clip,
        max_steps=recipe.steps,
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
