"""Training of the classic networks: L1 loss on bicubic pairs, AdamW, EMA of the weights.

The other kinds of training are subclasses with other samples, pairs or losses.
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
from convattn.models.discriminator import Discriminator
from convattn.training.adversarial import adversarial_losses
from convattn.training.config import Recipe
from convattn.training.data import ImageFolder, PatchStream, make_pair
from convattn.training.losses import (
    LPIPSLoss,
    PerceptualLoss,
    frequency_loss,
    laplacian_loss,
    lpips_heads,
    vgg_weights,
)

__all__ = ["Training"]


class Training(L.LightningModule):
    """The training of a network: its data, losses, optimizer and EMA.

    Args:
        recipe: The configuration.
        network: The network, (N, 3, H, W) to (N, 3, scale · H, scale · W).
        images: High-resolution images, at least :meth:`smallest_image` high and wide.

    Raises:
        InputError: A perceptual loss has a weight, but its VGG weights are not available.
    """

    stream_type: ClassVar[type[PatchStream]] = PatchStream
    """The class of the stream of batches."""

    def __init__(self, recipe: Recipe, network: nn.Module, images: ImageFolder) -> None:
        super().__init__()
        self.recipe = recipe
        self.images = images
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))
        self.average.requires_grad_(False)
        self.perceptual = PerceptualLoss(vgg_weights(recipe.vgg)) if recipe.perceptual else None
        self.lpips = LPIPSLoss(lpips_heads(recipe.vgg), vgg_weights(recipe.vgg)) if recipe.lpips else None
        self.discriminator = Discriminator(recipe.discriminator_channels) if recipe.adversarial else None
        if recipe.compile:
            self.network.compile()

    @classmethod
    def smallest_image(cls, recipe: Recipe) -> int:
        """Return the smallest height and width of an image that samples can be cut from."""
        return recipe.scale * recipe.patch_size

    @classmethod
    def open_images(cls, recipe: Recipe) -> ImageFolder:
        """Open the training images."""
        return ImageFolder(recipe.data, smallest=cls.smallest_image(recipe), cache_gib=recipe.cache_gib)

    @classmethod
    def validation(cls, recipe: Recipe) -> Iterator[Pair]:
        """Return the pairs that validation measures PSNR on."""
        return pairs(str(recipe.validation), recipe.scale, pipeline="uint8")

    def stream(self, **settings: int) -> PatchStream:
        """Return the endless stream of batches.

        Args:
            **settings: Arguments of :class:`~convattn.training.data.PatchStream` that differ from the recipe.
        """
        recipe = self.recipe
        defaults = {name: getattr(recipe, name) for name in ("scale", "patch_size", "batch_size", "seed")}
        return self.stream_type(self.images, **(defaults | settings))

    def make_pair(self, batch: Any) -> Any:
        """Convert a batch of the stream, on the device, to the input of :meth:`loss` and :meth:`samples`."""
        return make_pair(batch, self.recipe.scale)

    def trial_step(self) -> Tensor:
        """Return :meth:`trial_output` of a gray batch (N, 3, P, P), to measure the time of a step."""
        recipe = self.recipe
        side = recipe.patch_size
        batch = torch.full((recipe.batch_size // (recipe.devices * recipe.num_nodes), 3, side, side), 0.5)
        return self.trial_output(batch.contiguous(memory_format=torch.channels_last))

    def trial_output(self, low: Tensor) -> Tensor:
        """Return the most expensive output of the network for low-resolution patches (N, 3, H, W)."""
        output: Tensor = self.network(low)
        return output

    def loss(self, batch: Any) -> Tensor:
        """Return the sum of the weighted losses of a pair, a scalar."""
        low, high = batch
        return self.total(self.image_losses(self.network(low), high))

    def image_losses(self, made: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the weighted losses by name: the mean absolute error on RGB, and those of the recipe.

        Args:
            made: Output of the network, (N, 3, H, W).
            target: The images that it should be, of the same shape.
        """
        losses = {"pixel": F.l1_loss(made, target)}
        if self.recipe.frequency:
            losses["frequency"] = self.recipe.frequency * frequency_loss(made, target)
        if self.recipe.laplacian:
            losses["laplacian"] = self.recipe.laplacian * laplacian_loss(made, target)
        if self.perceptual:
            losses["perceptual"] = self.recipe.perceptual * self.perceptual(made, target)
        if self.lpips:
            losses["lpips"] = self.recipe.lpips * self.lpips(made, target)
        if self.discriminator:
            losses |= adversarial_losses(self.discriminator, made, target, weight=self.recipe.adversarial)
        return losses

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Return the sum of losses, a scalar, and log each of them if there are several."""
        if len(losses) > 1:
            self.log_dict(losses)
        return torch.stack(list(losses.values())).sum()

    def samples(self, batch: Any, count: int) -> list[Tensor]:
        """Return sample images, (count, 3, H, W) each: bicubic, output of the EMA network, target."""
        low, high = (patches[:count] for patches in batch)
        return [resize_bicubic(low, self.recipe.scale), self.average.module(low), high]

    def export(self, path: Path) -> None:
        """Write the EMA weights as safetensors."""
        metadata = {"steps": self.global_step, "seed": self.recipe.seed}
        save_network(self.average.module, path, metadata=metadata)

    def configure_optimizers(self) -> Any:
        """Return AdamW and its learning-rate schedule."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            [parameter for parameter in self.parameters() if parameter.requires_grad],
            lr=recipe.learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
            fused=self.device.type == "cpu",  # elsewhere it unscales gradients itself, and cannot be clipped
        )
        schedule = LambdaLR(optimizer, recipe.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> DataLoader:
        """Return the batches from the current step on."""
        place = dict(first_step=self.global_step, device=self.global_rank, devices=self.trainer.world_size)
        return DataLoader(
            self.stream(**place),
            batch_size=None,
            num_workers=self.recipe.num_workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_ignore_interrupts,
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Convert a batch to inputs and targets on the device."""
        return self.make_pair(batch)

    def training_step(self, batch: Any, index: int) -> Tensor:
        """Return and log the loss of a batch, a scalar."""
        loss = self.loss(batch)
        self.log("loss", loss)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Update the weights, then the EMA."""
        super().optimizer_step(*args, **kwargs)
        self.average.update_parameters(self.network)


def _ignore_interrupts(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
