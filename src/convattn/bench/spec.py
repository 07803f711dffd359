"""What is measured: candidates, cases of several candidates, and the setting."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convattn.bench.variants import DEFAULT, Variant

__all__ = ["Candidate", "Case", "Setting"]


@dataclass(frozen=True)
class Setting:
    """Where and how candidates run.

    Attributes:
        device: As torch names it.
        dtype: Precision; below float32 torch's autocast decides where it applies, as in the upscaler.
        threads: On a CPU.
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    threads: int = 1

    @property
    def by_processor(self) -> bool:
        """Whether processor time is measured, which other load on the machine disturbs less."""
        return self.device == "cpu" and self.threads == 1

    @contextmanager
    def limited_threads(self) -> Iterator[None]:
        """Let torch compute with this number of threads while the context is open."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@dataclass(frozen=True)
class Candidate:
    """A module to be measured; can be pickled.

    Attributes:
        name: Its name in tables.
        build: Builds the module, which takes one tensor.
        shape: Of that tensor.
        pixels: Number of pixels of the result.
        variant: How it is computed.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    pixels: int
    variant: Variant = DEFAULT

    def load(self, setting: Setting) -> tuple[nn.Module, Tensor, torch.autocast]:
        """Return the module and an input of :attr:`shape` on the device, and the precision as a context."""
        place = dict(device=setting.device, memory_format=torch.channels_last)
        dtype = self.variant.dtype or setting.dtype
        autocast = torch.autocast(torch.device(setting.device).type, dtype, dtype != torch.float32)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            module, x = self.build(), torch.rand(self.shape)
        return module.to(**place), x.to(**place), autocast  # type: ignore[call-overload]

    def prepare(self, setting: Setting) -> Callable[[], None]:
        """Build the module and return its forward pass, which waits for the device."""
        module, x, autocast = self.load(setting)
        module.eval().requires_grad_(False)
        self.variant.apply(module)
        with self.variant.active(), torch.inference_mode():
            run = self.variant.runner(module, x)

        @torch.inference_mode()
        def forward() -> None:
            with self.variant.active(), autocast:
                run()
            if setting.device != "cpu":
                torch.accelerator.synchronize(setting.device)

        return forward


@dataclass(frozen=True)
class Case:
    """Candidates that are compared with the first of them."""

    title: str
    candidates: list[Candidate]
