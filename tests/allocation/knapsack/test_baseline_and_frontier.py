"""What stands beside every allocation over levels: the same amount for all, and the whole trade-off curve."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.allocation import hull_greedy, multiple_choice_knapsack
from kofn.allocation.knapsack import _knapsack


@pytest.mark.parametrize("seed", range(4))
def test_uniform_is_the_largest_common_amount_within_the_budget(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, levels = 6, np.array([2, 3, 4, 8])
    sizes = rng.integers(1, 9, n)
    loss = np.sort(rng.random((n, 4)), axis=1)[:, ::-1]
    for mean in (2, 2.5, 3.0, 4.0, 5.5, 9.0):
        plan = kofn.allocate(loss, mean_budget=mean, sizes=sizes, levels=levels)
        uniform = plan.info["uniform"]
        amount = levels[levels <= mean][-1]
        assert uniform["amounts"].tolist() == [amount] * n
        assert uniform["value"] == pytest.approx(loss[:, list(levels).index(amount)].sum())
        assert uniform["used"] == sizes.sum() * amount <= plan.budget["budget"]
        assert plan.value <= uniform["value"] + 1e-12


def test_uniform_respects_what_items_may_have() -> None:
    loss = [[9.0, 4.0, np.inf], [5.0, 2.0, 0.0], [7.0, 6.0, 1.0]]
    plan = kofn.allocate(loss, budget=6, bounds=[(0, 2), (0, 2), (0, 1)])
    assert plan.info["uniform"]["amounts"].tolist() == [1, 2, 1]
    assert kofn.allocate(loss, budget=3).info["uniform"]["amounts"].tolist() == [1, 1, 1]
    unlike = kofn.allocate([[3.0, 1.0], [3.0, 2.0]], budget=9, levels=[[0, 4], [1, 7]])
    assert unlike.info["uniform"]["amounts"].tolist() == [4, 1]


@pytest.mark.parametrize("run", [multiple_choice_knapsack, hull_greedy])
@pytest.mark.parametrize("sense", ["min", "max"])
def test_every_point_of_the_frontier_is_the_optimum_of_its_budget(run: Any, sense: str) -> None:
    rng = np.random.default_rng(3)
    loss, levels = rng.random((7, 5)), np.array([0, 1, 3, 4, 9])
    curves = loss if sense == "min" else -loss
    sizes = rng.integers(1, 5, 7)
    words = {"levels": levels, "sizes": sizes, "sense": sense}
    frontier = run(curves, budget=20, **words, frontier=True).info["frontier"]
    assert (np.diff(frontier["price"]) <= 1e-12).all()
    assert (np.diff(frontier["budget"]) > 0).all()
    for budget, value in zip(frontier["budget"].tolist(), frontier["value"].tolist(), strict=True):
        best = multiple_choice_knapsack(curves, budget=budget, **words)
        assert best.value == pytest.approx(value, rel=1e-12)
    # Replaying the steps gives the amounts.
    last = dict(zip(frontier["item"][1:].tolist(), frontier["amount"][1:].tolist(), strict=True))
    most = multiple_choice_knapsack(curves, budget=int(frontier["budget"][-1]), **words)
    for item, amount in last.items():
        assert most.amounts[item] == amount


@pytest.mark.parametrize("run", [multiple_choice_knapsack, hull_greedy])
@pytest.mark.parametrize("step", [1, 0.7, 2.5, 1 / 3])
@pytest.mark.parametrize("least", [0, 2])
def test_the_price_is_what_a_next_step_brings(run: Any, step: float, least: int) -> None:
    rng = np.random.default_rng(8)
    falls = np.sort(rng.uniform(0.5, 9.0, (5, 3)), axis=1)[:, ::-1]
    loss = 40 - np.cumsum(np.c_[np.zeros(5), falls], axis=1)
    words: dict[str, Any] = {"levels": step * (least + np.arange(4)), "sizes": rng.integers(3, 12, 5)}
    frontier = run(loss, mean_budget=step * least, **words, frontier=True).info["frontier"]
    budgets, prices = frontier["budget"].tolist(), frontier["price"].tolist()
    for budget, price in zip(budgets, prices, strict=True):
        assert run(loss, budget=budget, **words).price == pytest.approx(price, rel=1e-9)
    # Between two points a part of the budget is left, and one more unit of it is worth something all the same.
    for low, high in itertools.pairwise(budgets):
        for share in (0.1, 0.5, 0.9):
            assert run(loss, budget=low + share * (high - low), **words).price > 0
    assert run(loss, budget=budgets[-1] * 1.01, **words).price == 0


def test_the_frontier_takes_one_more_climb_of_the_hulls(monkeypatch: pytest.MonkeyPatch) -> None:
    climbs = []
    climb = _knapsack.hull_steps
    monkeypatch.setattr(_knapsack, "hull_steps", lambda *given: (climbs.append(1), climb(*given))[1])
    loss = np.random.default_rng(0).random((50, 4))
    plain = kofn.allocate(loss, budget=60)
    assert (len(climbs), "frontier" in plain.info) == (1, False)
    whole = kofn.allocate(loss, budget=60, frontier=True)
    assert len(climbs) == 3
    assert whole.equals(kofn.allocate(loss, budget=60, frontier=True))
    assert whole.amounts.tolist() == plain.amounts.tolist()


def test_more_than_can_be_spent_is_noted() -> None:
    plan = kofn.allocate([[3.0, 1.0], [3.0, 2.0]], budget=5)
    assert plan.info["notes"] == [
        "budget=5 is above 2, what the dearest level of every item costs in total; 3 cannot be spent"
    ]
    assert "notes" not in kofn.allocate([[3.0, 1.0], [3.0, 2.0]], budget=2).info


def test_curves_that_get_worse_somewhere_are_told() -> None:
    rising = "1 of 2 curves rise somewhere with the amount, the first at item 1; there a smaller amount is better"
    assert kofn.allocate([[3.0, 1.0, 0.0], [3.0, 4.0, 2.0]], budget=2).info["notes"] == [rising]
    # Levels in any order, and levels that are forbidden, are no rise of their own.
    assert "notes" not in kofn.allocate([[1.0, 3.0], [2.0, 3.0]], budget=1, levels=[1, 0]).info
    assert "notes" not in kofn.allocate([[3.0, np.inf, 1.0], [np.inf, 2.0, 1.0]], budget=3).info
    named = kofn.allocate([[3.0, 2.0, 4.0], [3.0, 4.0, 5.0]], budget=2, sense="max", ids=["a", "b"])
    assert named.info["notes"][0].startswith("1 of 2 curves fall somewhere with the amount, the first at item 'a'")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("method", ["multiple_choice_knapsack", "hull_greedy", "constrained_knapsack"])
def test_the_price_is_the_slope_of_the_whole_hull_right_of_the_budget(method: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, 4) if seed % 2 else rng.random(4).round(2) + 0.1
    loss = rng.random((4, 4)) * 9
    whole = multiple_choice_knapsack(loss, budget=float(sizes.sum()) * 3, sizes=sizes, frontier=True).info["frontier"]
    budgets = np.concatenate([whole["budget"], (whole["budget"][1:] + whole["budget"][:-1]) / 2])
    more = {} if method != "constrained_knapsack" else {"tied": np.arange(4)}
    for budget in budgets.tolist():
        plan = kofn.allocate(loss, budget=budget, sizes=sizes, method=method, **more)
        at = int(np.searchsorted(whole["budget"], budget * (1 + 1e-12), side="right")) - 1
        assert plan.price == pytest.approx(whole["price"][at], abs=1e-12), budget


def test_levels_that_the_budget_cannot_pay_are_in_the_price() -> None:
    plan = kofn.allocate([[8.0, 8.0, 1.0], [3.0, 1.0, 1.0]], budget=1)
    assert (plan.value, plan.price) == (9.0, 3.5)
    # Wholly spent on one prompt, the budget is worth what its next rollout is.
    one, more = (kofn.allocate(scores=[0.5], budget=b, method="rollout_knapsack", gain="none") for b in (8, 9))
    assert one.price == pytest.approx(more.value - one.value)
    assert one.amounts.tolist() == [8]
