"""Training steps as candidates: networks on patches, detectors on images."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convattn.bench.detectors import load_detector
from convattn.bench.networks import network_candidate
from convattn.bench.spec import Candidate, Setting
from convattn.bench.variants import VARIANTS
from convattn.errors import InputError

__all__ = ["BATCH_SIZE", "TrainingStep", "detector_step", "network_step"]

BATCH_SIZE = 8

Loss = Callable[[nn.Module, Tensor], Tensor]
"""Returns the loss of a module on its input."""


def distance(module: nn.Module, x: Tensor) -> Tensor:
    """Return the mean absolute error, a scalar, of a network's images of (N, 3, H, W) against black ones."""
    made = module(x).float()
    return F.l1_loss(made, torch.zeros_like(made))


def detection_loss(module: nn.Module, x: Tensor) -> Tensor:
    """Return Ultralytics' loss, a scalar, of a detector where each image of (N, 3, H, W) shows one object."""
    count = len(x)
    boxes = torch.tensor([0.5, 0.5, 0.25, 0.25]).expand(count, 4)
    batch = {"img": x, "batch_idx": torch.arange(count), "cls": torch.zeros(count, 1), "bboxes": boxes}
    loss: Tensor = module(batch)[0].sum()
    return loss


@dataclass(frozen=True)
class TrainingStep(Candidate):
    """A training step: forward and backward pass, and AdamW.

    Attributes:
        loss: Its loss.
    """

    loss: Loss = distance

    def prepare(self, setting: Setting) -> Callable[[], None]:
        """Build the module and return a step, which waits for the device."""
        module, x, autocast = self.load(setting)
        optimizer = torch.optim.AdamW(module.train().parameters(), fused=True)
        self.variant.apply(module)

        def step() -> None:
            with self.variant.active():
                with autocast:
                    loss = self.loss(module, x)
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if setting.device != "cpu":
                torch.accelerator.synchronize(setting.device)

        return step


def network_step(name: str, scale: int, width: int, height: int, *, device: str = "cpu") -> TrainingStep:
    """Return a step of a network on a batch of low-resolution patches.

    Args:
        name: As :func:`~convattn.bench.networks.network_candidate` takes it.
        scale: How many times larger the result is.
        width: Of the patches.
        height: Of the patches.
        device: As torch names it.

    Raises:
        InputError: There is no such network.
    """
    network = network_candidate(name, scale, width, height, device=device)
    shape = (BATCH_SIZE, *network.shape[1:])
    return TrainingStep(name, network.build, shape, BATCH_SIZE * network.pixels, network.variant)


def detector_step(name: str, width: int, height: int) -> TrainingStep:
    """Return a step of a detector on a batch of images.

    Args:
        name: Of a YAML file without its suffix, with or without a key of
            :data:`~convattn.bench.variants.VARIANTS`, as ``yolo26n-C3k2_ESC@torch``.
        width: Of the images.
        height: Of the images.

    Raises:
        InputError: There is no such detector.
    """
    base, at, variant = name.partition("@")
    if at and variant not in VARIANTS:
        raise InputError(f"There is no variant {variant!r} to measure; there are {', '.join(VARIANTS)}.")
    build = partial(_detector, base)
    build()
    pixels = BATCH_SIZE * width * height
    step = TrainingStep(name, build, (BATCH_SIZE, 3, height, width), pixels, loss=detection_loss)
    return replace(step, variant=VARIANTS[variant]) if at else step


def _detector(name: str) -> nn.Module:
    from ultralytics.cfg import get_cfg

    module = load_detector(name)
    module.args = get_cfg()  # weights of the loss
    detector: nn.Module = module.requires_grad_()
    return detector
