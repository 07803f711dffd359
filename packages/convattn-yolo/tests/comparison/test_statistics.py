"""Paired differences, their intervals, and when a comparison may end early."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convattn_yolo.comparison import (
    SequentialTest,
)
from convattn_yolo.comparison.statistics import paired_difference


@given(st.floats(0.01, 0.999), st.lists(st.floats(-1, 1), min_size=2, max_size=2))
def test_interval_of_two_pairs_in_closed_form(confidence: float, values: list[float]) -> None:
    """With one degree of freedom, Student's quantile is a tangent."""
    quantile = math.tan(math.pi / 2 * confidence)
    expected = quantile * abs(values[0] - values[1]) / 2
    assert paired_difference([0, 0], values, confidence).half_width == pytest.approx(expected)


@pytest.mark.parametrize(("pairs", "t"), [(4, 3.18245), (5, 2.77645), (10, 2.26216), (31, 2.04227)])
def test_intervals_agree_with_the_table_of_students_t(pairs: int, t: float) -> None:
    values = np.random.default_rng(pairs).normal(size=pairs)
    half_width = paired_difference(np.zeros(pairs).tolist(), values.tolist()).half_width
    assert half_width == pytest.approx(t * values.std(ddof=1) / math.sqrt(pairs), rel=5e-6)


def test_paired_difference_by_hand() -> None:
    difference = paired_difference([0.5, 0.1, 0.3], [0.51, 0.12, 0.33])
    assert difference.mean == pytest.approx(0.02)
    assert difference.half_width == pytest.approx(4.302653 * 0.01 / math.sqrt(3), rel=1e-6)
    assert difference.verdict == "no difference shown"
    assert paired_difference([0.5, 0.1, 0.3], [0.61, 0.22, 0.43]).verdict == "higher"
    assert paired_difference([0.61, 0.22, 0.43], [0.5, 0.1, 0.3]).verdict == "lower"


def test_intervals_hold_the_true_difference_as_often_as_they_say() -> None:
    draws = np.random.default_rng(0).normal(0.1, 1, (4000, 3))
    intervals = [paired_difference(np.zeros(3), draw) for draw in draws]
    held = np.mean([interval.low <= 0.1 <= interval.high for interval in intervals])
    assert held == pytest.approx(0.95, abs=0.01)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6))
def test_nothing_is_higher_or_lower_where_the_interval_holds_zero(pairs: list[tuple[float, float]]) -> None:
    difference = paired_difference(*zip(*pairs, strict=True))
    if len(pairs) == 1 or difference.low <= 0 <= difference.high:
        assert difference.verdict not in {"higher", "lower"}
    else:
        assert difference.verdict == ("higher" if difference.mean > 0 else "lower")


SEEDS = 5


@pytest.mark.parametrize(
    ("differences", "decided"),
    [
        ([0.02], False),  # one pair leaves everything open
        ([0.02, 0.021, 0.019, 0.0205], True),
        ([-0.02, -0.021, -0.019, -0.0205], True),
        ([0.0001, -0.0001, 0.0002, 0.0], True),  # nothing that matters
        ([0.02, 0.05, -0.01, 0.03], False),
    ],
)
def test_a_sequential_test_ends_what_is_decided(differences: list[float], decided: bool) -> None:
    baseline = [0.3, 0.31, 0.29, 0.3][: len(differences)]
    assert SequentialTest(SEEDS).is_decided(baseline, np.add(baseline, differences).tolist()) is decided


def test_looking_after_every_seed_does_not_raise_false_alarms() -> None:
    test, draws = SequentialTest(SEEDS, margin=0), np.random.default_rng(1).normal(0, 1, (2000, SEEDS))
    alarms = [
        any(test.is_decided([0.0] * n, draw[:n].tolist()) for n in range(2, SEEDS + 1)) for draw in draws
    ]
    assert np.mean(alarms) < 0.06
