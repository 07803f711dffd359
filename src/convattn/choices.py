"""Options that are one of a few words."""

from enum import Enum

__all__ = ["Existing", "ExportPrecision", "Precision"]


class Existing(str, Enum):
    """What to do where a result exists already."""

    refuse = "refuse"
    skip = "skip"
    overwrite = "overwrite"


class Precision(str, Enum):
    """What networks compute in; ``auto`` is fp16 on CUDA and fp32 elsewhere."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class ExportPrecision(str, Enum):
    """What exported networks are written in; ``int8`` needs images for calibration."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"
