"""Graphs of torch.export."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from inspect import signature
from pathlib import Path
from zipfile import BadZipFile

import torch
from torch import Tensor, nn

from convattn.runtimes.runtime import METADATA, Runtime

__all__ = ["TorchExportFile"]


class TorchExportFile(Runtime):
    """A graph of torch.export, computed by torch."""

    def __init__(self, path: Path) -> None:
        about = {METADATA: ""}
        try:
            with _quiet(logging.getLogger("torch.export")):
                self._program = torch.export.load(path, extra_files=about)
        except (RuntimeError, BadZipFile) as error:
            raise ValueError("it is no complete archive of torch.export") from error
        (name,) = self._program.graph_signature.user_inputs
        (source,) = (node for node in self._program.graph.nodes if node.name == name)
        sides = source.meta["val"].shape
        self.shape = [side if isinstance(side, int) else None for side in sides]
        self.dtype = source.meta["val"].dtype
        self.metadata = dict(line.split("=", 1) for line in about[METADATA].splitlines())
        self._module = cache(self._on)

    def _on(self, device: torch.device) -> nn.Module:
        from torch.export.passes import move_to_device_pass

        program = self._program if device.type == "cpu" else move_to_device_pass(self._program, device)
        # Its guards would refuse images as wide or high as one window, which it computes correctly.
        settings = {"check_guards": False} if "check_guards" in signature(program.module).parameters else {}
        return program.module(**settings)

    def __call__(self, x: Tensor) -> Tensor:
        """As :class:`~convattn.runtimes.runtime.Runtime`: (N, 3, H, W) to (N, 3, scale · H, scale · W)."""
        return self._module(x.device)(x)


@contextmanager
def _quiet(log: logging.Logger) -> Iterator[None]:
    """Drop the messages of a logger in this context: for a damaged file torch logs a traceback."""

    def drop(record: logging.LogRecord) -> bool:
        return False

    log.addFilter(drop)
    try:
        yield
    finally:
        log.removeFilter(drop)
