"""Real-ESRGAN's two-stage degradation: training inputs with the artifacts of cameras, software and the web.

Each image is blurred, resized, made noisy and compressed twice, then resized to its final size (Wang et al.,
"Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", ICCVW 2021, section 3).
"""

from convattn.training.degradation.kernels import gaussian_kernel, plateau_kernel, sinc_kernel
from convattn.training.degradation.parameters import draw_kernel
from convattn.training.degradation.pipeline import degrade
from convattn.training.degradation.preview import contact_sheet
from convattn.training.degradation.settings import Degradation, Kernel, Stage
from convattn.training.degradation.steps import (
    add_gaussian_noise,
    add_poisson_noise,
    blur,
    compress,
    resize,
    sharpen,
)

__all__ = [
    "Degradation",
    "Kernel",
    "Stage",
    "add_gaussian_noise",
    "add_poisson_noise",
    "blur",
    "compress",
    "contact_sheet",
    "degrade",
    "draw_kernel",
    "gaussian_kernel",
    "plateau_kernel",
    "resize",
    "sharpen",
    "sinc_kernel",
]
