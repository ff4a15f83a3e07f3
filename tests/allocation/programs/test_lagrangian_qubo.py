"""Limits priced outside of a binary quadratic: the bound and the bits against enumeration and HiGHS."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from refusals import refused
from scipy.optimize import Bounds, LinearConstraint, milp

from kofn.allocation import anneal_qubo, lagrangian_qubo
from kofn.core.checks import FailureError, InputError

UPDATES = ("dual_ascent", "bundle", "augmented")


def enumerated(c: Any, Q: Any, A: Any, high: Any) -> float:
    bits = np.array(list(itertools.product((0, 1), repeat=len(c))))
    cost = bits @ c + np.einsum("bi,ij,bj->b", bits, Q, bits)
    return float(cost[(bits @ np.asarray(A).T <= high).all(axis=1)].min())


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("seed", [0, 1])
def test_value_and_bounds_enclose_the_optimum_with_pairs_and_both_sides(update: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    c, Q, A = rng.normal(size=9), rng.normal(size=(9, 9)) / 3, rng.integers(-3, 6, (3, 9))
    high = np.array([6, 5, 8])
    plan = lagrangian_qubo(c, A, Q=Q, high=high, update=update, iterations=12, seed=seed)
    best = enumerated(c, Q, A, high)
    assert (A @ plan.amounts <= high).all()
    assert max(plan.info["bounds"]) <= best + 1e-9 <= plan.value + 2e-9
    x = plan.amounts
    assert plan.value == pytest.approx(c @ x + x @ Q @ x)
    assert plan.value == pytest.approx(plan.values.sum())
    both = lagrangian_qubo(c, A, low=-2, high=high, update=update, seed=seed)
    assert ((A @ both.amounts >= -2) & (A @ both.amounts <= high)).all()


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("of_costs", [1e-100, 1e-10, 1e9, 1e13])
@pytest.mark.parametrize("of_rows", [1e-100, 1e-9, 1.0, 1e8])
@pytest.mark.filterwarnings("error")
def test_programs_in_any_unit_against_enumeration(update: Any, of_costs: float, of_rows: float) -> None:
    rng = np.random.default_rng(int(of_costs > 1) + 2)
    c, Q, A = rng.normal(size=6), rng.normal(size=(6, 6)) / 3, rng.integers(-3, 6, (2, 6)).astype(float)
    high = np.array([4.0, 5.0])
    asked: dict[str, Any] = {"update": update, "iterations": 6, "reads": 2, "sweeps": 20}
    for pairs in (Q, 0 * Q):
        plan = lagrangian_qubo(of_costs * c, of_rows * A, Q=of_costs * pairs, high=of_rows * high, **asked)
        best = enumerated(c, pairs, A, high)
        assert (A @ plan.amounts <= high).all()
        assert plan.bound is not None
        assert max(plan.info["bounds"]) / of_costs <= best + 1e-9 <= plan.value / of_costs + 2e-9
        assert plan.value == pytest.approx(plan.values.sum())
        if plan.status == "optimal":
            assert plan.value / of_costs == pytest.approx(best, rel=1e-9)


@pytest.mark.filterwarnings("error")
def test_limits_that_rounding_alone_puts_out_of_reach_are_kept() -> None:
    weight = np.array([9.1, 5.0, 6.1, 9.7, 7.3])
    assert weight.sum() < 37.2
    for update in UPDATES:
        plan = lagrangian_qubo(np.ones(5), weight, low=37.2, update=update)
        assert (plan.value, plan.amounts.tolist()) == (5, [1] * 5)
        # No price of that limit proves more than the bits cost.
        assert max(plan.info["bounds"]) <= 5 + 1e-9
    refused(lambda: lagrangian_qubo(np.ones(5), weight, low=37.201), "a limit of 37.201 cannot be kept")
    apart = lagrangian_qubo([-5e9, -1e9, 6e9, -5e9, -2e9], [[1.0, 6, -1, 2, -1]], high=3.0, iterations=5, reads=1)
    assert apart.value == -12e9


@pytest.mark.parametrize("update", UPDATES)
def test_a_knapsack_against_highs(update: Any) -> None:
    rng = np.random.default_rng(2)
    weight = rng.integers(5, 60, (3, 30))
    worth, high = weight.mean(axis=0) + rng.integers(0, 30, 30), weight.sum(axis=1) // 2
    limits = LinearConstraint(weight, -np.inf, high)
    best = milp(-worth, integrality=np.ones(30), bounds=Bounds(0, 1), constraints=limits).fun
    relaxed = milp(-worth, bounds=Bounds(0, 1), constraints=limits).fun
    plan = lagrangian_qubo(-worth, weight, high=high, update=update, iterations=40, seed=0)
    assert plan.info["variables"] == 30
    assert max(plan.info["bounds"]) <= relaxed + 1e-6
    assert best <= plan.value + 1e-9
    assert plan.value <= 0.97 * best
    if update == "bundle":
        # The dual of a separable quadratic reaches the LP's bound.
        assert plan.bound == pytest.approx(relaxed, rel=0.005)
    again = lagrangian_qubo(-worth, weight, high=high, update=update, iterations=40, seed=0)
    assert again.amounts.tolist() == plan.amounts.tolist()


def test_annealing_reaches_the_least_of_small_quadratics() -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        c, Q = rng.normal(size=10), rng.normal(size=(10, 10))
        plan = anneal_qubo(c, Q, sweeps=100, reads=10, seed=seed)
        assert plan.value == pytest.approx(enumerated(c, Q, np.zeros((1, 10)), 0))
        x = plan.amounts
        assert plan.value == pytest.approx(c @ x + x @ Q @ x)
        assert plan.info["samples"].shape == (10, 10)
    assert anneal_qubo([0.0, 0.0], start=[1, 0]).value == 0


def test_refusals() -> None:
    c = [1.0, -1.0]
    refused(lambda: anneal_qubo(c, [[1.0]]), "Q has shape (1, 1), c has 2 values")
    refused(lambda: anneal_qubo(c, start=[0, 2]), "start at row 1 is no bit")
    refused(lambda: lagrangian_qubo(c, [[1, 1]]), "low and high limit no row")
    refused(lambda: lagrangian_qubo(c, [[1, 1]], high=-1), "cannot be kept")
    refused(lambda: lagrangian_qubo(c, [[1, 1]], high=1, update="newton"), "update")  # type: ignore[arg-type]
    with pytest.raises(FailureError, match="no bits that keep all of the 2 limits"):
        lagrangian_qubo(c, [[2, 2]], low=1, high=1, iterations=2)
    assert issubclass(FailureError, Exception)
    assert not issubclass(FailureError, InputError)


@pytest.mark.parametrize("update", UPDATES)
def test_prices_alone_lead_to_bits_that_keep_the_limits(update: Any) -> None:
    rng = np.random.default_rng(6)
    weight, worth = rng.integers(5, 60, (2, 20)), rng.integers(20, 60, 20)
    plan = lagrangian_qubo(-worth, weight, high=weight.sum(axis=1) // 2, update=update, repair=False, seed=1)
    # At prices of nothing all bits are ones, and over both limits.
    assert len(plan.info["bounds"]) > 1
    assert plan.info["values"][0] == np.inf > plan.value
    assert 0 < plan.info["feasible_share"] < 1
