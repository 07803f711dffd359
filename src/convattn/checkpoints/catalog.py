"""The models that have a name: weights that ship with convattn, and weights that can be downloaded."""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path

from convattn.checkpoints import hub
from convattn.checkpoints.model_card import ModelCard, Task, read_card, read_parameters
from convattn.checkpoints.released import RELEASED, ReleasedModel
from convattn.errors import InputError
from convattn.images.sizes import ScaleRequest

__all__ = ["Availability", "Model", "Weights", "default_model", "find", "models", "scales", "suggestion"]

_BUNDLED = Path(__file__).parent / "bundled"


class Availability(str, Enum):
    """Where the weights of a model are."""

    bundled = "bundled"
    cached = "cached"
    download = "download"


@dataclass(frozen=True)
class Weights:
    """A weights file: one that ships, or one that can be downloaded.

    Attributes:
        parameters: Number of parameters; None where unknown.
        psnr: PSNR-Y on Set5 in dB, measured for bundled weights and published for others; None where unknown.
        path: Where the file is or will be.
        url: Where it can be downloaded; None for bundled weights.
        sha256: Its hash; None where the publisher gives none.
        size: In bytes; None where unknown.
    """

    parameters: int | None
    psnr: float | None
    path: Path
    url: str | None = None
    sha256: str | None = None
    size: int | None = None

    @property
    def availability(self) -> Availability:
        """Where the file is."""
        if self.url is None:
            return Availability.bundled
        return Availability.cached if self.path.is_file() else Availability.download

    @property
    def bytes_on_disk(self) -> int | None:
        """Size of the file in bytes, from the disk if it is there."""
        return self.path.stat().st_size if self.path.is_file() else self.size


@dataclass(frozen=True)
class Model:
    """A model of the catalog.

    Attributes:
        name: What ``--model`` takes.
        card: What it is for, its license and more.
        weights: By scale; the only key is None for a model of arbitrary scale.
        needs_spandrel: Whether spandrel loads it.
    """

    name: str
    card: ModelCard
    weights: Mapping[int | None, Weights]
    needs_spandrel: bool = False

    @property
    def scales(self) -> list[int]:
        """The scales of the weights; empty for a model of arbitrary scale."""
        return [scale for scale in self.weights if scale is not None]

    def select(self, scale: int | None) -> Weights:
        """Return the weights for a scale, which may be None where there is one choice.

        Raises:
            InputError: There are none for that scale, or several for None.
        """
        if len(self.weights) == 1 and (scale is None or None in self.weights):
            return next(iter(self.weights.values()))
        if scale not in self.weights:
            choices = ", ".join(f"×{known}" for known in self.scales)
            raise InputError(
                f"The model {self.name} exists at scale {choices}; choose one of these, or the model "
                "esc-nano-lte, which has an arbitrary scale."
            )
        return self.weights[scale]

    def file(self, scale: int | None, *, check: Callable[[Path], object] = lambda path: None) -> Path:
        """Return the weights file for a scale, downloading it if needed.

        Args:
            scale: See :meth:`select`.
            check: See :func:`convattn.checkpoints.hub.fetch`.

        Raises:
            InputError: There is no such scale, or the file cannot be downloaded.
        """
        weights = self.select(scale)
        if weights.url is None:
            return weights.path
        return hub.fetch(weights.url, sha256=weights.sha256, check=check)


def models() -> dict[str, Model]:
    """Return every model by name: first those that ship, then those that can be downloaded."""
    return _bundled(_BUNDLED) | {model.name: _downloadable(model) for model in RELEASED}


def find(name: str) -> Model | None:
    """Return the model of a name, or None."""
    return models().get(name)


def scales(name: str | None) -> list[int]:
    """Return the scales of a model, none if it has an arbitrary scale or is not in the catalog."""
    model = find(name or "")
    return model.scales if model else []


def suggestion(name: str) -> str:
    """Return " Did you mean …?" for a misspelt name of a model, or an empty string."""
    near = difflib.get_close_matches(name.lower().replace("_", "-"), models(), n=1)
    return f" Did you mean {near[0]}?" if near else ""


def default_model(request: ScaleRequest | None) -> str:
    """Return the name of the bundled model for a request: esc-nano at its scales, esc-nano-lte at others."""
    return "esc-nano" if request is None or request.whole_scale in scales("esc-nano") else "esc-nano-lte"


@cache
def _bundled(folder: Path) -> dict[str, Model]:
    found: dict[str, Model] = {}
    for file in sorted(folder.glob("*.safetensors")):
        name, scale = re.fullmatch(r"(.+?)(?:-x(\d+))?", file.stem).groups()  # type: ignore[union-attr]
        card = read_card(file) or _default_card(name)
        weights = {int(scale) if scale else None: Weights(read_parameters(file), card.psnr, file)}
        known = found.get(name, Model(name, card, {}))
        found[name] = replace(known, weights={**known.weights, **weights})
    return dict(sorted(found.items(), key=lambda item: (list(Task).index(item[1].card.task), item[0])))


def _default_card(name: str) -> ModelCard:
    """Return a card for weights whose header has none."""
    kinds = {"real": Task.real_world, "lte": Task.arbitrary_scale}
    task = next((kinds[part] for part in name.split("-") if part in kinds), Task.classic)
    good_for = {
        Task.classic: "clean images, fast",
        Task.real_world: "photos from phones and the web",
        Task.arbitrary_scale: "any scale from 1 to 30, exact sizes",
    }
    return ModelCard(task, good_for[task], "Apache-2.0")


def _downloadable(model: ReleasedModel) -> Model:
    weights: dict[int | None, Weights] = {
        scale: Weights(
            file.parameters, file.psnr, hub.cached(file.url(model)), file.url(model), file.sha256, file.size
        )
        for scale, file in model.files.items()
    }
    card = ModelCard(model.task, model.good_for, model.license)
    return Model(model.name, card, weights, model.needs_spandrel)
