"""Training of the classic networks: L1 loss on bicubic pairs, AdamW, an average of the weights that is kept."""

import logging
import os
import signal
import threading
import warnings
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
from convattn.sr.data import PatchStream, PictureFolder, make_pair
from convattn.sr.networks import build
from convattn.sr.recipe import Recipe

try:
    import lightning as L
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
except ImportError as error:
    raise InputError('Training needs more packages; install them with: pip install "convattn[train]".') from error

__all__ = ["Training", "train"]

_CHECKPOINT = "last.ckpt"


class Training(L.LightningModule):
    """A network in training, with its average, its data and its optimiser."""

    def __init__(self, recipe: Recipe, network: nn.Module, pictures: PictureFolder) -> None:
        super().__init__()
        self.recipe = recipe
        self.pictures = pictures
        self.network = network.to(memory_format=torch.channels_last)
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
        return DataLoader(stream, batch_size=None, num_workers=recipe.workers, pin_memory=self.on_gpu)

    @property
    def on_gpu(self) -> bool:
        """Whether the network lies on a CUDA device."""
        return self.device.type == "cuda"

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
        try:
            from convattn.sr.weights import save_network
        except ImportError:
            torch.save(self.average.module.state_dict(), path.with_suffix(".pt"))
            return

        about = {"steps": str(self.global_step), "seed": str(self.recipe.seed), "recipe": self.recipe.network}
        save_network(self.average.module, path, metadata=about)


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
            training.export(self.recipe.folder / f"{self.recipe.network}-x{self.recipe.scale}.safetensors")
        trainer.strategy.barrier()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._restore()


class _Progress(L.Callback):
    """A bar with the loss, the last validation PSNR and the time left."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        text = TextColumn("loss {task.fields[loss]:.5f}  {task.fields[psnr]}")
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
            self.bar.update(self.task, completed=trainer.global_step, loss=float(outputs["loss"]))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.bar.stop()


def train(recipe: Recipe) -> Path:
    """Train a network as the recipe says and return the path of its weights.

    A run folder that holds a checkpoint is gone on with, to the same end as if it had never stopped.

    Raises:
        InputError: if the recipe's data, weights or run folder cannot be used, or the training is interrupted.
    """
    folder = recipe.folder
    checkpoint = _checkpoint_to_resume(recipe)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    network = build(recipe.network, recipe.scale)
    if recipe.start_from and not checkpoint:
        from convattn.sr.weights import load_network, transfer_scale

        network.load_state_dict(transfer_scale(load_network(recipe.start_from).state_dict(), recipe.scale))
    pictures = PictureFolder(recipe.data, smallest=recipe.scale * recipe.patch, memory=recipe.memory)
    training = Training(recipe, network, pictures)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(_plain(recipe), sort_keys=False), encoding="utf-8")

    keeper = _Keeper(recipe)
    _trainer(recipe, [keeper, _Progress(recipe)], checkpoint).fit(training, ckpt_path=checkpoint)
    if keeper.interrupted:
        raise InputError(
            f"The training was interrupted after {training.global_step} steps; the same command goes on from there."
        )
    return folder / f"{recipe.network}-x{recipe.scale}.safetensors"


def _plain(recipe: Recipe) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(recipe).items()}


def _checkpoint_to_resume(recipe: Recipe) -> Path | None:
    path = recipe.folder / _CHECKPOINT
    if recipe.resume == "never" or not path.is_file():
        return None
    before = yaml.safe_load((recipe.folder / "recipe.yaml").read_text(encoding="utf-8"))
    if (before["network"], before["scale"]) != (recipe.network, recipe.scale):
        raise InputError(
            f"{recipe.folder} holds a training of {before['network']} x{before['scale']}; give another run=FOLDER."
        )
    return path


def _trainer(recipe: Recipe, callbacks: list[L.Callback], checkpoint: Path | None) -> L.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
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
        limit_val_batches=0,
    )
