"""Paired differences between training runs, and their confidence intervals from a few seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats takes a second to import

__all__ = ["CONFIDENCE", "PairedDifference", "SequentialTest", "paired_difference"]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference of paired runs and its confidence interval.

    Attributes:
        mean: Mean of the differences.
        half_width: Half the width of the interval; NaN for a single pair. True differences much smaller than
            this cannot be distinguished from chance with so many pairs.
        pairs: Number of pairs.
    """

    mean: float
    half_width: float
    pairs: int

    @property
    def low(self) -> float:
        """Return the lower end of the interval."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Return the upper end of the interval."""
        return self.mean + self.half_width

    @property
    def verdict(self) -> str:
        """Return ``higher`` or ``lower`` only if the whole interval lies on one side of zero."""
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
    """Ends the runs of a model once further seeds can hardly change its verdict.

    The interval of the paired difference is tested after every seed from the second on. Bonferroni's
    correction for the number of tests widens each interval, so that with probability :data:`CONFIDENCE` all
    of them contain the true difference, whenever the runs end.

    Attributes:
        seeds: Number of runs of each model unless they end early.
        metric: The metric of the verdict, one of ``accuracy.METRICS``.
        margin: Differences up to this are negligible.
    """

    seeds: int
    metric: str = "AP_small"
    margin: float = 0.005

    @property
    def confidence(self) -> float:
        """Return the confidence of the interval at each test."""
        return 1 - (1 - CONFIDENCE) / max(self.seeds - 1, 1)

    def is_decided(self, baseline: Sequence[float], other: Sequence[float]) -> bool:
        """Return whether the interval excludes zero, or contains only negligible differences.

        Args:
            baseline: The metric of the baseline, one value per seed.
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
    """Compute Student's t interval for the mean of the pairwise ``other - baseline`` (Student, 1908).

    Args:
        baseline: One value per seed.
        other: The values of the same seeds, in the same order.
        confidence: Probability that such an interval contains the true mean difference.
    """
    differences = np.subtract(other, baseline)
    pairs = len(differences)
    half_width = math.nan
    if pairs > 1:
        standard_error = differences.std(ddof=1) / math.sqrt(pairs)
        half_width = float(stdtrit(pairs - 1, (1 + confidence) / 2) * standard_error)
    return PairedDifference(float(differences.mean()), half_width, pairs)
