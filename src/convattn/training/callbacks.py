"""What happens between the steps of a training: measuring, showing, keeping, and a bar."""

import os
import signal
import threading
from collections.abc import Iterable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from convattn.evaluation.protocol import Pair, evaluate, mean_scores, with_network
from convattn.images.io import Image, write_image
from convattn.images.pixel_range import from_unit
from convattn.training.classic import Training
from convattn.training.config import Recipe

__all__ = ["CHECKPOINT", "Bar", "Keeper", "Samples", "Validation"]

CHECKPOINT = "last.ckpt"
"""Name of a run folder's checkpoint."""


class Validation(L.Callback):
    """Measures the average on the validation images every so often, by the published protocol."""

    def __init__(self, pairs: Iterable[Pair], recipe: Recipe) -> None:
        self.recipe = recipe
        self.pairs = list(pairs)
        self.psnr: float | None = None

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Training, *_: Any) -> None:  # type: ignore[override]
        """Measure after every so many steps, and after the last."""
        if trainer.global_step % self.recipe.validate_every and trainer.global_step != self.recipe.steps:
            return
        method = with_network(pl_module.average.module, self.recipe.scale, pl_module.device)
        if trainer.is_global_zero:
            self.psnr = mean_scores(evaluate(method, self.pairs, self.recipe.scale))[0].psnr
            for logger in trainer.loggers:
                logger.log_metrics({"psnr": self.psnr}, trainer.global_step - 1)


class Samples(L.Callback):
    """Shows some patches now and then: bicubic, as the network makes them, and as they should be."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: L.Trainer,
        pl_module: Training,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write a sheet after every so many steps."""
        step = trainer.global_step
        if step % self.recipe.samples_every or not trainer.is_global_zero:
            return
        with torch.no_grad():
            columns = torch.cat(pl_module.samples(batch, 4), dim=-1)
        sheet = from_unit(torch.cat(list(columns), dim=-2), torch.uint8).cpu()
        write_image(Image(sheet.permute(1, 2, 0).numpy()), self.recipe.folder / "samples" / f"{step}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("bicubic, network, truth", sheet, step)


class Keeper(L.Callback):
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
        """From now on an interruption ends the training after its step."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._interrupt)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Training, *_: Any) -> None:  # type: ignore[override]
        """Keep a checkpoint if it is time for one, or for the end."""
        self.interrupted = trainer.strategy.reduce_boolean_decision(self.interrupted, all=False)
        trainer.should_stop |= self.interrupted
        last = trainer.global_step == self.recipe.steps
        if self.interrupted or last or trainer.global_step % self.recipe.checkpoint_every == 0:
            self.save(trainer, pl_module)

    def save(self, trainer: L.Trainer, training: Training) -> None:
        """Replace the checkpoint and the weights."""
        path = self.recipe.folder / CHECKPOINT
        unfinished = path.with_suffix(".unfinished")
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            os.replace(unfinished, path)
            training.export(self.recipe.weights)
        trainer.strategy.barrier()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave interruptions to whom they belonged before."""
        self._restore()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Leave interruptions to whom they belonged before."""
        self._restore()


class Bar(L.Callback):
    """A bar with the loss, the last validation PSNR and the time left."""

    def __init__(self, recipe: Recipe, validation: Validation | None) -> None:
        self.recipe = recipe
        self.validation = validation
        text = TextColumn("loss {task.fields[loss]:.5f} {task.fields[psnr]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), text)
        self.bar = Progress(*columns, TimeRemainingColumn(), speed_estimate_period=300)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar."""
        self.task = self.bar.add_task(
            self.recipe.name,
            total=self.recipe.steps,
            completed=trainer.global_step,
            loss=float("nan"),
            psnr="",
        )
        self.bar.disable = not trainer.is_global_zero
        self.bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move it."""
        if trainer.global_step % self.recipe.log_every == 0:
            psnr = f"PSNR-Y {self.validation.psnr:.2f} dB" if self.validation and self.validation.psnr else ""
            loss = float(outputs["loss"])
            self.bar.update(self.task, completed=trainer.global_step, loss=loss, psnr=psnr)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say where the weights are."""
        self.bar.update(self.task, completed=trainer.global_step)
        if trainer.is_global_zero:
            self.bar.console.print(f"The weights are in {self.recipe.weights}.")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Stop it, however the training ends."""
        self.bar.stop()
