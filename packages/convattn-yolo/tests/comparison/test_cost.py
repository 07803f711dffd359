"""Costs of networks, relative to the first."""

from torch import nn

from convattn_yolo.comparison.cost import measure_costs


def test_costs_are_relative_to_the_first_network() -> None:
    small = nn.Conv2d(3, 8, 3, padding=1)
    large = nn.Sequential(small, *(nn.Conv2d(8, 8, 3, padding=1) for _ in range(20)))
    costs = measure_costs({"small": (small, 64), "large": (large, 64)}, rounds=5)
    assert costs["small"].latency_ratio == 1
    assert costs["large"].latency_ratio > 1
    assert costs["small"].parameters == 8 * 3 * 9 + 8
