"""Recipes: everything that a training depends on, as a plain YAML file and as a checked dataclass."""

import difflib
import math
import typing
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from convattn.errors import InputError
from convattn.models.registry import ARBITRARY_SCALE_NETWORKS, REAL_NETWORKS

__all__ = ["Recipe", "load_recipe"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that the training of a network depends on.

    Attributes:
        network: name of the network, one of ``convattn.models.registry.NAMES``.
        scale: how many times larger the output is; of a network of any scale, the largest that it learns.
        data: folder of training images of any size, or of pairs: with the folders ``LR`` and ``HR`` of images
            and of what the network is to make of them, under the same names.
        validation: folder of high-resolution images to measure PSNR on, if any; of pairs, if ``data`` is.
        run: folder for checkpoints, logs and weights; by default ``runs/`` and the name.
        resume: ``auto`` goes on where the run folder's checkpoint ends, ``never`` starts anew.
        start_from: weights to begin with, of any scale; x3 and x4 start from x2 by custom.
        steps: length of the training in optimizer steps.
        batch: samples of a step, over all devices together.
        patch: side of the low-resolution patches in pixels.
        queries: points of a patch that a network of any scale is asked for.
        learning_rate: of AdamW, at its highest.
        betas: of AdamW.
        weight_decay: of AdamW.
        laplacian: weight of the loss of second derivatives, which makes edges crisp.
        perceptual: weight of the perceptual loss.
        vgg: file of the VGG16 or VGG19 weights that the perceptual loss needs, if not those of torchvision.
        crop: side in low-resolution pixels of the images that are degraded whole (networks for real-world
            images only, as are the next four).
        patches: how many patches are cut from each of them.
        pool: about how many pairs are shuffled, so that a batch holds several ways of degradation.
        adversarial: weight of the adversarial loss; 0 trains without a discriminator.
        discriminator: channels of the discriminator at full size.
        schedule: ``multistep`` multiplies the rate by ``decay`` at each of the ``milestones``; ``cosine``
            lets it fall to zero along half a cosine over all steps.
        milestones: steps at which the rate falls.
        decay: what it is multiplied with there.
        warmup: steps over which the rate rises linearly from zero at the start.
        average: decay of the exponential moving average of the weights, which is what is kept in the end; 0
            keeps the last weights.
        gradient_clip: largest norm of the gradient, if it is clipped.
        seed: of the first weights, crops and orientations.
        precision: as Lightning names it: ``32-true``, ``bf16-mixed``, ``16-mixed``.
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        devices: how many a machine uses.
        nodes: how many machines take part.
        threads: of the CPU, if not as many as it has cores.
        workers: processes that cut patches; 0 does it between steps.
        memory: GiB of decoded training images to keep.
        compile: whether to compile the network.
        checkpoint_every: steps from checkpoint to checkpoint.
        validate_every: steps from validation to validation.
        samples_every: steps from sample images to sample images.
        log_every: steps from log entry to log entry.
    """

    network: str
    scale: int
    data: str
    validation: str | None = None
    run: str | None = None
    resume: Literal["auto", "never"] = "auto"
    start_from: str | None = None

    steps: int
    batch: int = 64
    patch: int = 64
    queries: int = 2304
    learning_rate: float = 5e-4
    betas: tuple[float, float] = (0.9, 0.9)
    weight_decay: float = 0.0
    laplacian: float = 0.0
    perceptual: float = 0.0
    vgg: str | None = None
    crop: int = 100
    patches: int = 1
    pool: int = 180
    adversarial: float = 0.0
    discriminator: int = 64
    schedule: Literal["multistep", "cosine"] = "multistep"
    milestones: tuple[int, ...] = ()
    decay: float = 0.5
    warmup: int = 0
    average: float = 0.999
    gradient_clip: float | None = None
    seed: int = 0

    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    nodes: int = 1
    threads: int | None = None
    workers: int = 0
    memory: float = 8.0
    compile: bool = False

    checkpoint_every: int = 1000
    validate_every: int = 5000
    samples_every: int = 5000
    log_every: int = 50

    def __post_init__(self) -> None:
        may_be_zero = {"weight_decay", "warmup", "average", "seed", "workers", "memory", "milestones"}
        may_be_zero |= {"laplacian", "perceptual", "adversarial"}
        for name, value in vars(self).items():
            for number in value if isinstance(value, tuple) else [value]:
                if not isinstance(number, (int, float)) or isinstance(number, bool):
                    continue
                if number < 0 or (number == 0 and name not in may_be_zero):
                    raise InputError(f"The recipe's {name} cannot be {number}; give a positive number.")
        if not self.average < 1:
            raise InputError(f"The recipe's average is {self.average}, but must be below 1.")
        if self.batch % (self.devices * self.nodes):
            raise InputError(
                f"A batch of {self.batch} cannot be shared equally by {self.devices * self.nodes} devices; "
                "make it a multiple of them."
            )

        if self.batch // (self.devices * self.nodes) % self.patches:
            raise InputError(
                f"The recipe's patches is {self.patches}, but a device's share of a batch, "
                f"{self.batch // (self.devices * self.nodes)}, must be a multiple of it."
            )
        if self.adversarial and self.network not in REAL_NETWORKS:
            raise InputError(
                f"The recipe trains {self.network} against a discriminator, which is for networks for "
                f"real-world images only; choose {' or '.join(REAL_NETWORKS)}, or set adversarial to 0."
            )
        if self.network in ARBITRARY_SCALE_NETWORKS and (self.laplacian or self.perceptual):
            raise InputError(
                f"The recipe trains {self.network} on single points, but the Laplacian and the perceptual "
                "loss need whole patches; leave them out."
            )
        if self.network in REAL_NETWORKS and self.patch > self.crop:
            raise InputError(
                f"The recipe's patch is {self.patch}, but cannot be larger than its crop of {self.crop}."
            )

    @property
    def pooled_steps(self) -> int:
        """How many steps share a pool."""
        return math.ceil(self.pool / self.batch)

    @property
    def name(self) -> str:
        """Of the weights: the network and, where it has but one, its scale."""
        return self.network if self.network in ARBITRARY_SCALE_NETWORKS else f"{self.network}-x{self.scale}"

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.run or f"runs/{self.name}")

    @property
    def weights(self) -> Path:
        """The file in the run folder that the averaged weights are written to."""
        return self.folder / f"{self.name}.safetensors"

    def rate(self, step: int) -> float:
        """Return the share of the full learning rate that the step after ``step`` steps takes."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.schedule == "cosine":
            return warm * 0.5 * (1 + math.cos(math.pi * min(step / self.steps, 1)))
        return warm * self.decay ** sum(step >= milestone for milestone in self.milestones)


def load_recipe(source: str | Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a YAML file, or take a bundled one by its name, and change some of its values.

    Args:
        source: path of a YAML file, or name of a bundled recipe such as ``esc-nano``.
        settings: changes, each as ``key=value``.

    Raises:
        InputError: if the recipe is not to be found, or has an unknown key or an unfit value.
    """
    values = _parse(_read(source), f"The recipe {source}")
    if not isinstance(values, dict):
        raise InputError(f"The recipe {source} is not a list of `key: value` lines.")
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"The setting {setting!r} is not of the form key=value.")
        values[key.strip()] = _parse(value, f"The setting {setting!r}")
    types = typing.get_type_hints(Recipe)
    for key in values:
        if key not in types:
            near = difflib.get_close_matches(str(key), types, n=1, cutoff=0)[0]
            raise InputError(f"A recipe has no key {key!r}; the nearest one is {near!r}.")
    for field in fields(Recipe):
        if field.name not in values and field.default is field.default_factory:
            raise InputError(f"The recipe lacks {field.name!r}; add it, or give {field.name}=VALUE.")
    return Recipe(**{key: _convert(key, value, types[key]) for key, value in values.items()})


def _read(source: str | Path) -> str:
    if Path(source).is_file():
        return Path(source).read_text(encoding="utf-8")
    bundled = resources.files("convattn.training") / "recipes"
    if (bundled / f"{source}.yaml").is_file():
        return (bundled / f"{source}.yaml").read_text(encoding="utf-8")
    names = ", ".join(sorted(Path(entry.name).stem for entry in bundled.iterdir()))
    raise InputError(f"There is no recipe {source}; give a YAML file or one of {names}.")


def _parse(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{what} is not valid YAML: {' '.join(str(error).split())}.") from error


def _convert(key: str, value: Any, kind: Any) -> Any:
    """Return the value as the type that the recipe's key has."""
    try:
        return _as_type(value, kind)
    except (TypeError, ValueError):
        name = getattr(kind, "__name__", str(kind)) if typing.get_origin(kind) is None else str(kind)
        wanted = name.replace("typing.", "")
        raise InputError(f"The recipe's {key} is {value!r}, but must be of type {wanted}.") from None


def _as_type(value: Any, kind: Any) -> Any:
    options = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        if value not in options:
            raise ValueError
        return value
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list) or (options[-1] is not ... and len(value) != len(options)):
            raise TypeError
        return tuple(_as_type(item, options[0]) for item in value)
    if type(None) in options:
        return None if value is None else _as_type(value, options[0])
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        return float(value)  # YAML 1.1 takes 5e-4 for a string
    if kind is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if type(value) is not kind:
        raise TypeError
    return value
