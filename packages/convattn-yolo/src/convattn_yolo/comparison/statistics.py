"""Paired differences between trainings and what a handful of seeds can tell about them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["CONFIDENCE", "PairedDifference", "paired_difference", "student_quantile"]

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
