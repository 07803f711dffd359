"""Training of the super-resolution networks by recipes."""

from convattn.errors import InputError, unfit_torchvision

try:
    import lightning  # noqa: F401
    import rich.progress  # noqa: F401
except ImportError as error:
    raise InputError(
        'Training needs further packages; install them with: pip install "convattn[train]".'
    ) from error
except RuntimeError as error:
    raise unfit_torchvision("Lightning", error) from error

from convattn.training.classic import Training
from convattn.training.run import train

__all__ = ["Training", "train"]
