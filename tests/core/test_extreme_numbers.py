"""Numbers that arithmetic on floats cannot hold: an answer that is right, or a refusal in words."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.combination import GaussianDensity
from kofn.core.checks import InputError
from kofn.core.checks.extremes import _is_extreme

HOLDERS: dict[str, Any] = {
    "a number": 1e160,
    "an array": np.array([1.0, 1e-160]),
    "a list of arrays": [np.ones(2), np.array([1e160])],
    "a mapping of arrays": {"w": np.array([1e160])},
    "mappings in a list": [{"w": np.ones(2)}, {"w": np.array([-1e160])}],
    "an object with fields": GaussianDensity([0.0], [[1e160]]),
}


@pytest.mark.parametrize("value", HOLDERS.values(), ids=HOLDERS)
def test_extreme_numbers_are_seen_whatever_holds_them(value: Any) -> None:
    assert _is_extreme(value)


def test_usual_numbers_are_not_extreme() -> None:
    assert not _is_extreme([{"w": np.array([0.0, 1e99, np.inf])}, GaussianDensity([0.0], [[1.0]]), "1e160"])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_models_beyond_squares_are_refused() -> None:
    rng = np.random.default_rng(0)
    shapes = {"layers.0.weight": (4, 3), "layers.0.bias": (4,), "layers.1.weight": (2, 4)}
    members = [{name: 1e160 * rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(2)]
    with pytest.raises(InputError, match="members holds numbers that arithmetic on floats cannot hold"):
        kofn.combine(members, method="ot_fusion")


@pytest.mark.parametrize("gain", ["learning", "none"])
@pytest.mark.parametrize("unit", [Fraction(1, 10**3), Fraction(1, 2**60), Fraction(1, 2**300)])
def test_rollouts_of_rates_near_0_are_the_best_ones(unit: Fraction, gain: str) -> None:
    rates, budget = [unit, 2 * unit, 3 * unit], 12

    def worth(rate: Fraction, count: int) -> Fraction:
        weight = rate * (1 - rate) ** 2 if gain == "learning" else Fraction(1)
        return weight * (1 - rate**count - (1 - rate) ** count)

    choices = [c for c in itertools.product(range(2, 9), repeat=3) if sum(c) <= budget]
    best = max(sum(worth(rate, count) for rate, count in zip(rates, choice, strict=True)) for choice in choices)
    words: dict[str, Any] = {"budget": budget, "bounds": (2, 8), "gain": gain, "method": "rollout_knapsack"}
    plan = kofn.allocate(scores=[float(rate) for rate in rates], **words)
    got = sum(worth(rate, int(count)) for rate, count in zip(rates, plan.amounts.tolist(), strict=True))
    assert float(got / best) == pytest.approx(1, abs=1e-12)
    assert plan.value == pytest.approx(float(best), rel=1e-9)


def test_errors_of_experts_that_vanish_when_squared_are_refused() -> None:
    curves = np.array([[4.0, 1.0], [9.0, 2.0]])
    assert kofn.allocate(curves * 2.0**-100, budget=3, method="expert_bits").amounts.tolist() == [1, 2]
    with pytest.raises(InputError, match="below what numbers hold; divide them by the largest"):
        kofn.allocate(curves * 2.0**-600, budget=3, method="expert_bits")


def test_tasks_that_say_little_beside_the_scale_still_have_their_parts() -> None:
    tasks = [GaussianDensity([0.0], [[variance * 2.0**200]]) for variance in (1.0, 3.0)]
    plan = kofn.combine(tasks, method="hierarchical_normal", scale=[1.0], seed=0, draws=4)
    np.testing.assert_allclose(plan.weights, [0.75, 0.25], rtol=1e-9)
