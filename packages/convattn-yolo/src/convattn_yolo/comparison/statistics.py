"""Paired differences between trainings and what a handful of seeds can tell about them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["CONFIDENCE", "PairedDifference", "SequentialTest", "paired_difference", "student_quantile"]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference of paired runs and its confidence interval.

    Attributes:
        mean: Mean of the differences.
        half_width: Half the width of the interval around it; NaN where one pair leaves it unknown. A true
            difference much smaller than this cannot be told from chance with so many pairs.
        pairs: Number of pairs.
    """

    mean: float
    half_width: float
    pairs: int

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.half_width

    @property
    def verdict(self) -> str:
        """``higher`` or ``lower`` only where the whole interval lies on one side of zero."""
        if math.isnan(self.mean):
            return "not measured"
        if math.isnan(self.half_width):
            return "no interval from one seed"
        if self.low > 0:
            return "higher"
        if self.high < 0:
            return "lower"
        return "no difference shown"


@dataclass(frozen=True)
class SequentialTest:
    """Ends the trainings of a model once further seeds can hardly change the verdict on it.

    The interval of the paired difference is looked at after every seed from the second on. Each is as wide as
    Bonferroni's correction for that many looks makes it, so that with probability :data:`CONFIDENCE` all of
    them hold the true difference, whenever the trainings end.

    Attributes:
        seeds: Number of trainings of each model if nothing ends them before.
        metric: What the verdict is about, one of ``accuracy.METRICS``.
        margin: Differences up to this are too small to matter.
    """

    seeds: int
    metric: str = "AP_small"
    margin: float = 0.005

    @property
    def confidence(self) -> float:
        """Confidence of the interval at each look."""
        return 1 - (1 - CONFIDENCE) / max(self.seeds - 1, 1)

    def is_decided(self, baseline: Sequence[float], other: Sequence[float]) -> bool:
        """Whether the interval leaves out zero, or holds nothing that matters.

        Args:
            baseline: The metric of the baseline, one value a seed.
            other: The values of the same seeds, in the same order.
        """
        if len(other) < 2:
            return False
        difference = paired_difference(baseline, other, self.confidence)
        negligible = -self.margin < difference.low and difference.high < self.margin
        return negligible or difference.low > 0 or difference.high < 0


def paired_difference(
    baseline: Sequence[float], other: Sequence[float], confidence: float = CONFIDENCE
) -> PairedDifference:
    """Student's interval for the mean of ``other - baseline``, pair by pair (Student, 1908).

    Args:
        baseline: One value a seed.
        other: The values of the same seeds, in the same order.
        confidence: Probability that such an interval holds the true mean difference.
    """
    differences = np.subtract(other, baseline)
    pairs = len(differences)
    half_width = math.nan
    if pairs > 1:
        standard_error = differences.std(ddof=1) / math.sqrt(pairs)
        half_width = student_quantile(confidence, pairs - 1) * float(standard_error)
    return PairedDifference(float(differences.mean()), half_width, pairs)


def student_quantile(probability: float, freedom: int) -> float:
    """The t that Student's distribution stays within, on both sides of zero, with a given probability.

    Args:
        probability: In (0, 1).
        freedom: Degrees of freedom, at least 1.
    """
    low, high = 0.0, math.pi / 2
    while (angle := (low + high) / 2) not in (low, high):
        low, high = (angle, high) if _probability_within(angle, freedom) < probability else (low, angle)
    return math.sqrt(freedom) * math.tan(angle)


def _probability_within(angle: float, freedom: int) -> float:
    """P(|T| < sqrt(freedom) tan(angle)), a finite sum (Abramowitz and Stegun, 1964, 26.7.3 and 26.7.4)."""
    odd = freedom % 2
    term, total = math.cos(angle) ** odd, 0.0
    for exponent in range(odd, freedom - 1, 2):
        total += term
        term *= (exponent + 1) / (exponent + 2) * math.cos(angle) ** 2
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
