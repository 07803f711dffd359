"""Settings of the degradation."""

from dataclasses import dataclass, field

__all__ = ["Degradation", "Kernel", "Range", "Stage"]

Range = tuple[float, float]


@dataclass(frozen=True)
class Kernel:
    """A kind of blur kernel.

    Attributes:
        profile: "gaussian" or "plateau".
        round: Whether its two standard deviations are equal.
        power: Smallest and largest exponent; values below and above 1 are equally likely.
        probability: Probability of this kind.
    """

    profile: str
    round: bool
    power: Range
    probability: float


@dataclass(frozen=True)
class Stage:
    """One round of blur, resizing, noise and compression; the defaults are those of the first round.

    Attributes:
        blur: Probability of a blur.
        sigma: Smallest and largest standard deviation of blur kernels, in pixels.
        resizing: Probabilities of upscaling, downscaling and neither.
        factor: Smallest and largest resizing factor.
        gaussian_noise: Smallest and largest standard deviation, in 1/255.
        poisson_noise: Smallest and largest factor of the shot noise.
        quality: Lowest and highest quality of the compression, 1 to 100.
    """

    blur: float = 1.0
    sigma: Range = (0.2, 3.0)
    resizing: tuple[float, float, float] = (0.2, 0.7, 0.1)
    factor: Range = (0.15, 1.5)
    gaussian_noise: Range = (1, 30)
    poisson_noise: Range = (0.05, 3)
    quality: tuple[int, int] = (30, 95)


@dataclass(frozen=True)
class Degradation:
    """All settings of the degradation. The defaults are the published ones, and WebP besides JPEG.

    Attributes:
        scale: Downscaling factor.
        first: The first round.
        second: The second round; its sizes are relative to the final size.
        kernel_sizes: Smallest and largest side of blur kernels, odd.
        sinc: Probability that a blur is a sinc filter.
        kernels: The kinds of the other blur kernels.
        final_sinc: Probability of a sinc filter at the end, or before the last compression.
        gaussian: Probability of Gaussian noise instead of Poisson noise.
        grayscale: Probability of equal noise in all channels.
        webp: Probability of WebP instead of JPEG.
    """

    scale: int = 4
    first: Stage = field(default_factory=Stage)
    second: Stage = field(
        default_factory=lambda: Stage(
            blur=0.8,
            sigma=(0.2, 1.5),
            resizing=(0.3, 0.4, 0.3),
            factor=(0.3, 1.2),
            gaussian_noise=(1, 25),
            poisson_noise=(0.05, 2.5),
        )
    )
    kernel_sizes: tuple[int, int] = (7, 21)
    sinc: float = 0.1
    kernels: tuple[Kernel, ...] = (
        Kernel("gaussian", True, (1, 1), 0.45),
        Kernel("gaussian", False, (1, 1), 0.25),
        Kernel("gaussian", True, (0.5, 4), 0.12),
        Kernel("gaussian", False, (0.5, 4), 0.03),
        Kernel("plateau", True, (1, 2), 0.12),
        Kernel("plateau", False, (1, 2), 0.03),
    )
    final_sinc: float = 0.8
    gaussian: float = 0.5
    grayscale: float = 0.4
    webp: float = 0.2
