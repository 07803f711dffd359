"""Callbacks of a training run: validation, sample images, checkpoints and a progress bar."""

import signal
import threading
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from convattn.evaluation.protocol import Pair, evaluate, mean_scores, with_network
from convattn.files import replacing
from convattn.images.io import Image, write_image
from convattn.images.pixel_range import from_unit
from convattn.training.classic import Training
from convattn.training.config import Recipe

__all__ = ["CHECKPOINT", "Bar", "Checkpoints", "Samples", "Validation"]

CHECKPOINT = "last.ckpt"
"""Name of the checkpoint in an output folder."""


class Validation(L.Callback):
    """Measures the PSNR of the EMA weights on the validation images by the published protocol."""

    def __init__(self, pairs: Iterable[Pair], recipe: Recipe) -> None:
        self.recipe = recipe
        self.pairs = list(pairs)
        self.psnr: float | None = None

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Training, *_: Any) -> None:  # type: ignore[override]
        """Measure at the recipe's interval and after the last step."""
        if trainer.global_step % self.recipe.validate_every and trainer.global_step != self.recipe.max_steps:
            return
        method = with_network(pl_module.average.module, self.recipe.scale, pl_module.device)
        if trainer.is_global_zero:
            self.psnr = mean_scores(evaluate(method, self.pairs, self.recipe.scale))[0].psnr
            for logger in trainer.loggers:
                logger.log_metrics({"psnr": self.psnr}, trainer.global_step - 1)


class Samples(L.Callback):
    """Writes sample patches at intervals: bicubic, output of the EMA network, target."""

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
        """Write a sheet of samples at the recipe's interval."""
        step = trainer.global_step
        if step % self.recipe.samples_every or not trainer.is_global_zero:
            return
        with torch.no_grad():
            columns = torch.cat(pl_module.samples(batch, 4), dim=-1)
        sheet = from_unit(torch.cat(list(columns), dim=-2), torch.uint8).cpu()
        write_image(Image(sheet.permute(1, 2, 0).numpy()), self.recipe.folder / "samples" / f"{step}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("bicubic, network, target", sheet, step)


class Checkpoints(L.Callback):
    """Writes a checkpoint at intervals, after the last step and after an interruption."""

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
        """Handle signals: an interruption ends the training after its step."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._interrupt)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Training, *_: Any) -> None:  # type: ignore[override]
        """Write a checkpoint at the recipe's interval, after the last step or an interruption."""
        self.interrupted = trainer.strategy.reduce_boolean_decision(self.interrupted, all=False)
        trainer.should_stop |= self.interrupted
        last = trainer.global_step == self.recipe.max_steps
        if self.interrupted or last or trainer.global_step % self.recipe.checkpoint_every == 0:
            self.save(trainer, pl_module)

    def save(self, trainer: L.Trainer, training: Training) -> None:
        """Replace the checkpoint and the weights."""
        path = self.recipe.folder / CHECKPOINT
        with replacing(path) if trainer.is_global_zero else nullcontext(path) as unfinished:
            trainer.save_checkpoint(unfinished)  # every process takes part, one writes
        if trainer.is_global_zero:
            training.export(self.recipe.weights)
        trainer.strategy.barrier()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the previous signal handlers."""
        self._restore()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Restore the previous signal handlers."""
        self._restore()


class Bar(L.Callback):
    """A progress bar with the loss, the last validation PSNR and the remaining time.

    Args:
        recipe: The configuration.
        validation: The validation, if there is one.
        notes: Lines to print when training starts.
    """

    def __init__(self, recipe: Recipe, validation: Validation | None, notes: Sequence[str] = ()) -> None:
        self.recipe = recipe
        self.validation = validation
        self.notes = notes
        text = TextColumn("{task.fields[loss]} {task.fields[psnr]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), text)
        self.bar = Progress(*columns, TimeRemainingColumn(), speed_estimate_period=300)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the notes and show the bar."""
        self.task = self.bar.add_task(
            self.recipe.name,
            total=self.recipe.max_steps,
            completed=trainer.global_step,
            loss="",
            psnr="",
        )
        self.bar.disable = not trainer.is_global_zero
        self.bar.start()
        if trainer.is_global_zero:
            for note in self.notes:
                self.bar.console.print(note, highlight=False, soft_wrap=True)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar."""
        if trainer.global_step % self.recipe.log_every == 0:
            psnr = f"PSNR-Y {self.validation.psnr:.2f} dB" if self.validation and self.validation.psnr else ""
            loss = f"loss {float(outputs['loss']):.5f}"
            self.bar.update(self.task, completed=trainer.global_step, loss=loss, psnr=psnr)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the path of the weights."""
        self.bar.update(self.task, completed=trainer.global_step)
        if trainer.is_global_zero:
            self.bar.console.print(f"Weights: {self.recipe.weights}")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Stop the bar, even after an error."""
        self.bar.stop()
