"""convattn: Emulating Self-attention with Convolution (ESC, ICCV 2025), made usable."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convattn.inference.upscaler import Upscaler
    from convattn.runtimes.pretrained import from_pretrained

__all__ = ["Upscaler", "__version__", "from_pretrained"]

__version__ = "0.1.0"

_HOMES = {"Upscaler": "convattn.inference.upscaler", "from_pretrained": "convattn.runtimes.pretrained"}


def __getattr__(name: str) -> Any:
    """Import what is public only once it is asked for, so that importing the package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
