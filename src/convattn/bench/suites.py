"""The suites: what is measured, and the candidates of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from convattn.bench.detectors import check_detectors, load_detector
from convattn.bench.networks import OTHERS, network_candidate
from convattn.bench.spec import Candidate, Case
from convattn.bench.training import BATCH_SIZE, TrainingStep, detector_step, network_step
from convattn.bench.variants import DEFAULT, VARIANTS, Variant
from convattn.errors import InputError
from convattn.layers import ConvAttention, LargeKernel, WindowAttention

__all__ = ["SUITES", "Plan"]


@dataclass(frozen=True)
class Plan:
    """What the user requested; None leaves the choice to the suite.

    Attributes:
        size: Width and height in pixels: of the feature map for a layer, of the result for a network, of
            the image for a detector.
        candidates: Names of variants, networks or detectors; the first is the baseline.
        scale: Of the networks.
        largest: Side of the largest image of the suite scaling.
        device: As torch names it.
        quick: Whether sizes are small where none is given.
    """

    size: tuple[int, int] | None = None
    candidates: Sequence[str] | None = None
    scale: int = 4
    largest: int | None = None
    device: str = "cpu"
    quick: bool = False


def attention(plan: Plan) -> list[Case]:
    """One window attention layer of ESC in each variant."""
    layer = partial(WindowAttention, 64, 32, 4)
    variants = {name: variant for name, variant in VARIANTS.items() if variant.is_available(plan.device)}
    candidates = [_layer(name, layer, plan, variant) for name, variant in variants.items()]
    names = plan.candidates or [name for name, variant in variants.items() if variant.backend]
    return [Case("window attention, 32×32 pixels, 4 heads, 64 channels", _choose(candidates, names))]


def conv_attention(plan: Plan) -> list[Case]:
    """One convolutional attention layer of ESC by torch and by convattn, and the attention it emulates."""
    candidates = [
        _layer("torch", _ConvAttention, plan, VARIANTS["naive"]),
        _layer("ours", _ConvAttention, plan),
        _layer("attention", partial(WindowAttention, 64, 32, 4), plan),
    ]
    names = plan.candidates or [candidate.name for candidate in candidates]
    return [Case("convolutional attention, 13×13 pixels, 16 of 64 channels", _choose(candidates, names))]


def networks(plan: Plan) -> list[Case]:
    """Whole networks at one size of the result."""
    width, height = plan.size or ((320, 180) if plan.quick else (1280, 720))
    if width % plan.scale or height % plan.scale:
        raise InputError(f"{width}x{height} pixels cannot be the result of a network of scale {plan.scale}.")
    own = ("esc", "esc@naive", "esc-light", "esc-fp", "esc-nano")
    names = plan.candidates or ("swinir-light", *own, *(name for name in OTHERS if name != "swinir-light"))
    of_image = plan.scale, width // plan.scale, height // plan.scale
    candidates = [network_candidate(name, *of_image, device=plan.device) for name in names]
    return [Case(f"networks ×{plan.scale} to {width}×{height} pixels", candidates)]


def scaling(plan: Plan) -> list[Case]:
    """How the cost per pixel depends on the size of the image."""
    sizes, largest = [64], plan.largest or (128 if plan.quick else 1024)
    while 2 * sizes[-1] <= largest:
        sizes.append(2 * sizes[-1])
    return [
        Case(
            f"{name} ×{plan.scale}",
            [
                network_candidate(name, plan.scale, size, size, device=plan.device, label=f"{size}×{size}")
                for size in sizes
            ],
        )
        for name in plan.candidates or ("esc",)
    ]


def detector(plan: Plan) -> list[Case]:
    """YOLO26n with C3k2_ESC blocks against the stock network, fused."""
    width, height = plan.size or ((160, 160) if plan.quick else (640, 640))
    check_detectors(width, height)
    variants = ("", "-stride8", "-neck", "-neck-zero", "-finest-zero")
    names = plan.candidates or ("yolo26n", *(f"yolo26n-C3k2_ESC{variant}" for variant in variants))
    for name in names:
        _detector(name)
    candidates = [
        Candidate(name, partial(_detector, name), (1, 3, height, width), height * width) for name in names
    ]
    return [Case(f"detectors on {width}×{height} pixels", candidates)]


def training(plan: Plan) -> list[Case]:
    """Training steps of networks and detectors, each compared with its first variant."""
    variants = "@torch", "@torch-bf16", "", "@bf16"
    bases = ["esc-nano"] if plan.quick else ["esc-nano", "esc-light"]
    cases: dict[str, list[TrainingStep]] = {}
    for name in plan.candidates or [base + variant for base in bases for variant in variants]:
        is_detector = name.startswith("yolo")
        width, height = plan.size or ((160, 160) if is_detector else (16, 16) if plan.quick else (48, 48))
        if is_detector:
            check_detectors(width, height)
            step, kind = detector_step(name, width, height), "detectors"
        else:
            step = network_step(name, plan.scale, width, height, device=plan.device)
            kind = f"{name.partition('@')[0]} ×{plan.scale}"
        cases.setdefault(f"training {kind}, {BATCH_SIZE} of {width}×{height} pixels", []).append(step)
    return [Case(title, list(steps)) for title, steps in cases.items()]


SUITES: dict[str, Callable[[Plan], list[Case]]] = {
    "attention": attention,
    "conv-attention": conv_attention,
    "networks": networks,
    "detector": detector,
    "scaling": scaling,
    "training": training,
}
"""Name to the function that makes the cases of a plan."""


class _ConvAttention(nn.Module):
    """The layer with its own large kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.large_kernel = LargeKernel(16)
        self.attention = ConvAttention(64, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, self.large_kernel())


def _layer(name: str, build: Callable[[], nn.Module], plan: Plan, variant: Variant = DEFAULT) -> Candidate:
    width, height = plan.size or ((96, 96) if plan.quick else (288, 288))
    return Candidate(name, build, (1, 64, height, width), height * width, variant)


def _choose(candidates: list[Candidate], names: Sequence[str]) -> list[Candidate]:
    """Return the candidates of these names, in this order."""
    known = {candidate.name: candidate for candidate in candidates}
    for name in names:
        if name not in known:
            raise InputError(f"There is no candidate {name!r} here to measure; there are {', '.join(known)}.")
    return [known[name] for name in names]


def _detector(name: str) -> nn.Module:
    detector: nn.Module = load_detector(name).fuse(verbose=False)
    return detector
