"""What a budget does to a greedy search: nothing where it does not bind, and else the best of three runs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.core.constraints import Constraints, Tracker
from kofn.laws.brute import feasible_sets
from kofn.objectives import base

PROBLEMS = 200


def _problem(seed: int) -> dict[str, Any]:
    """A small pool under a budget, half of the time with a count, and an objective that suits it."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 9))
    costs = rng.integers(0, 9, n) if seed % 3 else rng.random(n).round(3) + 0.01
    total = costs.sum().item()
    call: dict[str, Any] = {"costs": costs, "budget": total * float(rng.choice((0.3, 0.5, 0.7)))}
    call["budget"] = max(call["budget"], float(costs.min()))
    if seed % 2:
        call["k"] = int(rng.integers(1, n))
    if seed % 4 < 2:
        call |= {"scores": rng.random(n) * rng.choice((1.0, 0.05, 5.0), n), "objective": "modular"}
    else:
        call |= {"similarity": rng.random((n, n)), "objective": "facility_location"}
    return call


def _plain(call: dict[str, Any], *, per_cost: bool) -> float:
    """Greedy by gain or by gain per cost of what the budget still pays for, step by step."""
    where = {word: call[word] for word in ("k", "budget", "costs") if word in call}
    n = len(call["costs"])
    tracker = Tracker(Constraints.of(n, **where))
    objective = base.build(call["objective"], {word: call.get(word) for word in ("scores", "similarity", "X")})
    value = 0.0
    while (mask := tracker.eligible()).any():
        items = np.flatnonzero(mask)
        gains = objective.gains(items)
        with np.errstate(divide="ignore", invalid="ignore"):
            ranks = np.where(call["costs"][items] > 0, gains / call["costs"][items], np.inf) if per_cost else gains
        item = int(items[np.argmax(ranks)])
        tracker.add(item)
        value += objective.add(item)
    return value


@pytest.mark.parametrize("method", ["lazy_greedy", "naive_greedy"])
def test_never_worse_than_either_greedy_and_within_the_proven_share(method: str) -> None:
    bound_by_budget = 0
    for seed in range(PROBLEMS):
        call = _problem(seed)
        plan = kofn.select(method=method, **call)
        slack = 1e-9 * abs(plan.value)
        for per_cost in (False, True):
            assert plan.value >= _plain(call, per_cost=per_cost) - slack, (seed, per_cost)
        objective = base.build(call["objective"], {word: call.get(word) for word in ("scores", "similarity", "X")})
        sets = feasible_sets(len(call["costs"]), call)
        best = max(objective.value(np.flatnonzero(mask)) for mask in sets if mask.any())
        assert plan.guarantee is not None
        assert plan.value >= plan.guarantee * best - slack, seed
        assert plan.bound >= best - slack, seed
        shares = {"k": (1 - math.exp(-0.5)) / 2, "": (1 - 1 / math.e) / 2}
        assert plan.guarantee in (1 - 1 / math.e, shares["k" if "k" in call else ""])
        bound_by_budget += plan.guarantee < 0.5
    assert bound_by_budget > PROBLEMS / 4


@pytest.mark.parametrize("method", ["lazy_greedy", "naive_greedy", "stochastic_greedy", "threshold_greedy"])
def test_a_budget_that_does_not_bind_never_changes_the_answer(method: str) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        X, costs = rng.normal(size=(40, 3)), rng.integers(1, 20, 40)
        call: dict[str, Any] = {"k": 6, "method": method, "seed": seed}
        if method in ("lazy_greedy", "naive_greedy"):
            del call["seed"]
        free = kofn.select(X, **call)
        # Down to the very cost of the answer, which items that it does not want exceed.
        for budget in (1e9, int(costs.sum()), int(costs[free.indices].sum())):
            plan = kofn.select(X, costs=costs, budget=budget, **call)
            assert plan.indices.tolist() == free.indices.tolist(), (seed, budget)
            if method.endswith("y_greedy"):
                assert plan.guarantee == free.guarantee


def test_a_binding_budget_is_at_least_as_good_as_any_run_alone() -> None:
    # The cheap rows are near each other: gain per cost alone spends the count on them.
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 4))
    costs = rng.integers(1, 21, 120)
    free = kofn.select(X, k=10)
    before = -math.inf
    for budget in (20, 40, 80, int(costs[free.indices].sum())):
        plan = kofn.select(X, k=10, costs=costs, budget=budget)
        assert plan.value >= before
        before = plan.value
    assert before == free.value


def test_nothing_but_free_items_under_a_budget_of_nothing() -> None:
    plan = kofn.select(scores=[3.0, 2.0, 1.0], costs=[1, 0, 0], budget=0, k=2, method="lazy_greedy")
    assert plan.indices.tolist() == [1, 2]


@pytest.mark.parametrize("cost", [0.0, 5e-324])
@pytest.mark.parametrize(
    "method", ["lazy_greedy", "naive_greedy", "stochastic_greedy", "threshold_greedy", "order_threshold"]
)
def test_costs_of_nothing_fill_no_budget(method: str, cost: float) -> None:
    X = np.random.default_rng(0).normal(size=(12, 2))
    plan = kofn.select(X, costs=np.full(12, cost), budget=1e10, method=method, objective="facility_location")
    assert len(plan.indices) == 12


def test_the_bound_holds_where_gains_over_costs_overflow() -> None:
    # Equal infinite quotients put the first item before the two that are worth more.
    plan = kofn.select(scores=[3.0, 2.0, 2.0], costs=[2e-320, 1e-320, 1e-320], budget=2e-320, method="lazy_greedy")
    assert plan.bound >= 4
    assert plan.value == 4 or plan.status != "optimal"
