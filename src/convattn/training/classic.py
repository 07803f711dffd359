"""Training of the classic networks: L1 loss on bicubic pairs, AdamW, and an average of the weights.

The other kinds of training are subclasses, which change where samples come from, how a batch becomes inputs
and targets, or what the loss is.
"""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from convattn.checkpoints.loading import save_network
from convattn.evaluation.protocol import Pair, pairs
from convattn.images.resize import resize_bicubic
from convattn.training.config import Recipe
from convattn.training.data import ImageFolder, PatchStream, make_pair
from convattn.training.losses import PerceptualLoss, laplacian_loss, vgg_weights

__all__ = ["Training"]


class Training(L.LightningModule):
    """A network in training, with its average, its data and its optimizer.

    Args:
        recipe: Everything that the training depends on.
        network: What is trained.
        images: High-resolution images, each at least :meth:`smallest_image` high and wide.
    """

    stream_type: ClassVar[type[PatchStream]] = PatchStream
    """What samples come from."""

    def __init__(self, recipe: Recipe, network: nn.Module, images: ImageFolder) -> None:
        super().__init__()
        self.recipe = recipe
        self.images = images
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.average))
        self.average.requires_grad_(False)
        self.perceptual = PerceptualLoss(vgg_weights(recipe.vgg)) if recipe.perceptual else None
        if recipe.compile:
            self.network.compile()

    @classmethod
    def smallest_image(cls, recipe: Recipe) -> int:
        """The least height and width of an image that samples can be cut from."""
        return recipe.scale * recipe.patch

    @classmethod
    def open_images(cls, recipe: Recipe) -> ImageFolder:
        """Read what samples are cut from."""
        return ImageFolder(recipe.data, smallest=cls.smallest_image(recipe), memory=recipe.memory)

    @classmethod
    def validation(cls, recipe: Recipe) -> Iterator[Pair]:
        """What to measure the network on."""
        return pairs(str(recipe.validation), recipe.scale, pipeline="uint8")

    def stream(self, **settings: int) -> PatchStream:
        """The endless stream of batches.

        Args:
            **settings: ``first_step``, ``device`` and ``devices``, as
            :class:`~convattn.training.data.PatchStream`
                takes them, and what differs from the recipe.
        """
        recipe = self.recipe
        usual = dict(scale=recipe.scale, patch=recipe.patch, batch=recipe.batch, seed=recipe.seed)
        return self.stream_type(self.images, **(usual | settings))

    def make_pair(self, batch: Any) -> Any:
        """Make of a batch, on the device, what :meth:`loss` and :meth:`samples` take."""
        return make_pair(batch, self.recipe.scale)

    def loss(self, batch: Any) -> Tensor:
        """Return the sum of the losses that the recipe gives a weight."""
        low, high = batch
        return self.total(self.image_losses(self.network(low), high))

    def image_losses(self, made: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the mean absolute error on RGB, and what else the recipe gives a weight, weighted."""
        losses = {"pixel": F.l1_loss(made, target)}
        if self.recipe.laplacian:
            losses["laplacian"] = self.recipe.laplacian * laplacian_loss(made, target)
        if self.perceptual:
            losses["perceptual"] = self.recipe.perceptual * self.perceptual(made, target)
        return losses

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Return the sum of losses, and log each if there are several."""
        if len(losses) > 1:
            self.log_dict(losses)
        return torch.stack(list(losses.values())).sum()

    def samples(self, batch: Any, count: int) -> list[Tensor]:
        """Images to look at, (count, 3, H, W) each: bicubic, as the average makes them, the truth."""
        low, high = (patches[:count] for patches in batch)
        return [resize_bicubic(low, self.recipe.scale), self.average.module(low), high]

    def export(self, path: Path) -> None:
        """Write the averaged weights as safetensors."""
        about = {"steps": self.global_step, "seed": self.recipe.seed}
        save_network(self.average.module, path, metadata=about)

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """Return what the optimizer trains."""
        return self.network.parameters()

    def configure_optimizers(self) -> Any:
        """Return AdamW and the schedule of its rate."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.trainable_parameters(),
            lr=recipe.learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
        )
        schedule = LambdaLR(optimizer, recipe.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> DataLoader:
        """Return the batches from the present step on."""
        place = dict(first_step=self.global_step, device=self.global_rank, devices=self.trainer.world_size)
        return DataLoader(
            self.stream(**place),
            batch_size=None,
            num_workers=self.recipe.workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_leave_interrupts_to_the_main_process,
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make inputs and targets of a batch, on the device."""
        return self.make_pair(batch)

    def training_step(self, batch: Any, index: int) -> Tensor:
        """Return the loss."""
        loss = self.loss(batch)
        self.log("loss", loss)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, and its weights into the average."""
        super().optimizer_step(*args, **kwargs)
        self.average.update_parameters(self.network)


def _leave_interrupts_to_the_main_process(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
