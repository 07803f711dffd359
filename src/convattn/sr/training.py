"""Training of the classic networks: L1 loss on bicubic pairs, AdamW, and an average of the weights."""

import logging
import os
import signal
import threading
import warnings
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from convattn.errors import InputError
from convattn.files import replacing
from convattn.sr.data import PatchStream, PictureFolder, make_pair
from convattn.sr.evaluation import evaluate, mean_scores, pairs, with_network
from convattn.sr.networks import NETWORKS, build
from convattn.sr.pictures import Picture, write_picture
from convattn.sr.recipe import Recipe
from convattn.sr.resize import resize_bicubic
from convattn.sr.weights import load_network, save_network, transfer_scale

try:
    import lightning as L
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
except ImportError as error:
    raise InputError(
        'Training needs more packages; install them with: pip install "convattn[train]".'
    ) from error

__all__ = ["Training", "train"]

_CHECKPOINT = "last.ckpt"


class Training(L.LightningModule):
    """A network in training, with its average, its data and its optimiser."""

    def __init__(self, recipe: Recipe, network: nn.Module, pictures: PictureFolder) -> None:
        super().__init__()
        self.recipe = recipe
        self.pictures = pictures
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.average))
        self.average.requires_grad_(False)
        if recipe.compile:
            self.network.compile()

    def train_dataloader(self) -> DataLoader:
        """Return the batches from the present step on."""
        recipe = self.recipe
        stream = PatchStream(
            self.pictures,
            scale=recipe.scale,
            patch=recipe.patch,
            batch=recipe.batch,
            seed=recipe.seed,
            first_step=self.global_step,
            device=self.global_rank,
            devices=self.trainer.world_size,
        )
        return DataLoader(
            stream,
            batch_size=None,
            num_workers=recipe.workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_leave_interrupts_to_the_main_process,
        )

    def on_after_batch_transfer(self, batch: Tensor, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Make low- and high-resolution patches of a batch, on the device."""
        return make_pair(batch, self.recipe.scale)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Return the mean absolute error on RGB."""
        low, high = batch
        loss = F.l1_loss(self.network(low), high)
        self.log("loss", loss)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, and its weights into the average."""
        super().optimizer_step(*args, **kwargs)
        self.average.update_parameters(self.network)

    def configure_optimizers(self) -> Any:
        """Return AdamW and the schedule of its rate."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=recipe.learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
        )
        schedule = LambdaLR(optimizer, recipe.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def export(self, path: Path) -> None:
        """Write the averaged weights as safetensors."""
        about = {"steps": self.global_step, "seed": self.recipe.seed}
        save_network(self.average.module, path, metadata=about)


def _leave_interrupts_to_the_main_process(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Validation(L.Callback):
    """Measures the average on the validation pictures every so often, by the published protocol."""

    def __init__(self, folder: str, recipe: Recipe) -> None:
        self.recipe = recipe
        self.pairs = list(pairs(folder, recipe.scale, pipeline="uint8"))
        self.psnr: float | None = None

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Training, *_: Any) -> None:  # type: ignore[override]
        if trainer.global_step % self.recipe.validate_every and trainer.global_step != self.recipe.steps:
            return
        method = with_network(pl_module.average.module, self.recipe.scale, pl_module.device)
        if trainer.is_global_zero:
            self.psnr = mean_scores(evaluate(method, self.pairs, self.recipe.scale))[0].psnr
            for logger in trainer.loggers:
                logger.log_metrics({"psnr": self.psnr}, trainer.global_step - 1)


class _Samples(L.Callback):
    """Shows some patches now and then: bicubic, as the network makes them, and as they should be."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: L.Trainer,
        pl_module: Training,
        outputs: Any,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        if step % self.recipe.samples_every or not trainer.is_global_zero:
            return
        low, high = (patches[:4] for patches in batch)
        with torch.no_grad():
            result = pl_module.average.module(low)
        columns = torch.cat([resize_bicubic(low, self.recipe.scale), result, high], dim=-1)
        sheet = torch.cat(list(columns), dim=-2).clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
        write_picture(Picture(sheet.permute(1, 2, 0).numpy()), self.recipe.folder / "samples" / f"{step}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("bicubic, network, truth", sheet, step)


class _Keeper(L.Callback):
    """Keeps a checkpoint every so often, and before the end that an interruption asks for."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.interrupted = False
        self._handlers: dict[int, Any] = {}

    def _interrupt(self, *_: Any) -> None:
        self.interrupted = True
        self._restore()  # a second Ctrl-C ends at once

    def _restore(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._interrupt)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Training, *_: Any) -> None:  # type: ignore[override]
        self.interrupted = trainer.strategy.reduce_boolean_decision(self.interrupted, all=False)
        trainer.should_stop |= self.interrupted
        last = trainer.global_step == self.recipe.steps
        if self.interrupted or last or trainer.global_step % self.recipe.checkpoint_every == 0:
            self.save(trainer, pl_module)

    def save(self, trainer: L.Trainer, training: Training) -> None:
        path = self.recipe.folder / _CHECKPOINT
        unfinished = path.with_suffix(".unfinished")
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            os.replace(unfinished, path)
            training.export(self.recipe.weights)
        trainer.strategy.barrier()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._restore()


class _Progress(L.Callback):
    """A bar with the loss, the last validation PSNR and the time left."""

    def __init__(self, recipe: Recipe, validation: _Validation | None) -> None:
        self.recipe = recipe
        self.validation = validation
        text = TextColumn("loss {task.fields[loss]:.5f} {task.fields[psnr]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), text)
        self.bar = Progress(*columns, TimeRemainingColumn(), speed_estimate_period=300)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        name = f"{self.recipe.network} x{self.recipe.scale}"
        self.task = self.bar.add_task(
            name, total=self.recipe.steps, completed=trainer.global_step, loss=float("nan"), psnr=""
        )
        self.bar.disable = not trainer.is_global_zero
        self.bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.recipe.log_every == 0:
            psnr = f"PSNR-Y {self.validation.psnr:.2f} dB" if self.validation and self.validation.psnr else ""
            loss = float(outputs["loss"])
            self.bar.update(self.task, completed=trainer.global_step, loss=loss, psnr=psnr)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.bar.update(self.task, completed=trainer.global_step)
        if trainer.is_global_zero:
            self.bar.console.print(f"The weights are in {self.recipe.weights}.")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.bar.stop()


def train(recipe: Recipe) -> Path:
    """Train a network as the recipe says and return the path of its weights.

    A run folder that holds a checkpoint is gone on with, to the same end as if it had never stopped.

    Raises:
        InputError: if the data, weights or run folder cannot be used, or the training is interrupted.
    """
    if recipe.network not in NETWORKS:
        raise InputError(f"There is no classic network {recipe.network}; train one of {', '.join(NETWORKS)}.")
    checkpoint = _checkpoint_to_resume(recipe)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    network = build(recipe.network, recipe.scale)
    if recipe.start_from and not checkpoint:
        _start_from(network, recipe.start_from, recipe.scale)
    pictures = PictureFolder(recipe.data, smallest=recipe.scale * recipe.patch, memory=recipe.memory)
    validation = _Validation(recipe.validation, recipe) if recipe.validation else None
    _record(recipe)

    training, keeper = Training(recipe, network, pictures), _Keeper(recipe)
    callbacks = [validation, _Samples(recipe), keeper, _Progress(recipe, validation)]
    _trainer(recipe, [callback for callback in callbacks if callback]).fit(training, ckpt_path=checkpoint)
    if keeper.interrupted:
        raise InputError(
            f"The training was interrupted after {training.global_step} steps; "
            "the same command goes on from there."
        )
    return recipe.weights


def _start_from(network: nn.Module, path: str, scale: int) -> None:
    try:
        network.load_state_dict(transfer_scale(load_network(path).state_dict(), scale))
    except RuntimeError as error:
        raise InputError(f"The weights {path} are of another network and cannot start this one.") from error


def _record(recipe: Recipe) -> None:
    """Write the recipe into the run folder."""
    values = {
        key: list(value) if isinstance(value, tuple) else value for key, value in asdict(recipe).items()
    }
    try:
        recipe.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The run folder {recipe.folder} cannot be made: {error.strerror}.") from error
    with replacing(recipe.folder / "recipe.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def _checkpoint_to_resume(recipe: Recipe) -> Path | None:
    path, record = recipe.folder / _CHECKPOINT, recipe.folder / "recipe.yaml"
    if recipe.resume == "never" or not (path.is_file() and record.is_file()):
        return None
    before = yaml.safe_load(record.read_text(encoding="utf-8"))
    if (before["network"], before["scale"]) != (recipe.network, recipe.scale):
        raise InputError(
            f"{recipe.folder} holds a training of {before['network']} x{before['scale']}; "
            "give another run=FOLDER."
        )
    if not zipfile.is_zipfile(path):  # as it would not be if its end were missing
        raise InputError(f"The checkpoint {path} is damaged; delete it, or give resume=never, to start anew.")
    return path


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
