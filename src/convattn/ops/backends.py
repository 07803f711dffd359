"""The backends of an operator: what computes it, by name, and which one a call takes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from convattn.ops.exporting import is_exporting

__all__ = ["Backend", "Backends", "Compute"]

Compute = Callable[..., Tensor]
"""Takes the arguments of an operator, the feature map first, and returns a feature map."""


def _never(*args: Any) -> bool:
    return False


@dataclass(frozen=True)
class Backend:
    """One way to compute an operator.

    Attributes:
        name: What a caller asks for it by.
        compute: Takes the operator's arguments.
        is_best: Whether it is the choice for these arguments where the caller names none.
    """

    name: str
    compute: Compute
    is_best: Callable[..., bool] = _never


class Backends(Mapping[str, Compute]):
    """The backends of one operator, in the order in which they are considered.

    Args:
        *backends: A new backend is one more of these.
        default: Computes what no backend is best for.
        channels: Of the result, from the operator's arguments.
    """

    def __init__(
        self,
        *backends: Backend,
        default: Compute,
        channels: Callable[..., int] = lambda x, *_: x.shape[1],
    ) -> None:
        self._backends = {backend.name: backend for backend in backends}
        self._default, self._channels = default, channels

    def __getitem__(self, name: str) -> Compute:
        return self._backends[name].compute

    def __iter__(self) -> Iterator[str]:
        return iter(self._backends)

    def __len__(self) -> int:
        return len(self._backends)

    def run(self, name: str | None, *args: Any) -> Tensor:
        """Compute the operator by a backend, or by the best for its arguments where the name is None.

        Args:
            name: A backend.
            *args: The operator's arguments; the first is a feature map (N, C, H, W).

        Returns:
            A feature map (N, channels, H, W).

        Raises:
            ValueError: There is no backend of this name.
        """
        if name is not None and name not in self:
            raise ValueError(f"unknown backend {name!r}; choose from {', '.join(self)}")
        if not is_exporting() and args[0].numel() == 0:
            return _empty(self._channels(*args), args)
        return (self._choose(args) if name is None else self[name])(*args)

    def after(self, prepare: Callable[..., tuple[Any, ...]], *own: Backend) -> "Backends":
        """The backends of an operator that is this one, on arguments that are prepared first.

        Args:
            prepare: From the arguments of the new operator to those of this one.
            *own: Backends that compute the whole at once.
        """

        def prepared(name: str | None) -> Compute:
            return lambda *args: self.run(name, *prepare(*args))

        names = {backend.name for backend in own}
        others = (Backend(name, prepared(name)) for name in self if name not in names)
        return Backends(*own, *others, default=prepared(None))

    def _choose(self, args: tuple[Any, ...]) -> Compute:
        best = (backend.compute for backend in self._backends.values() if backend.is_best(*args))
        return next(best, self._default)


def _empty(channels: int, args: tuple[Any, ...]) -> Tensor:
    """The result for a feature map without pixels, with gradients of zero for every argument."""
    x = args[0]
    out = x.reshape(x.shape[0], channels, *x.shape[2:])
    for other in args[1:]:
        if isinstance(other, Tensor):
            out = out + other.flatten()[:0].sum()
    return out
