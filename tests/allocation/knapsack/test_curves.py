"""Allocation from curves, held against brute force, HiGHS, and the classical instance families."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.allocation import hull_greedy, multiple_choice_knapsack
from kofn.allocation.knapsack import _knapsack
from kofn.core.checks import InfeasibleError, InputError

EPS = Fraction(float(np.finfo(float).eps))


def brute(curves: Any, costs: Any, budget: float, whole: bool, sense: str = "min") -> float:
    """The optimum over all combinations, costs in exact arithmetic; NaN if nothing is feasible."""
    n, width = curves.shape
    limit = Fraction(budget) * (1 if whole else 1 + n * EPS)
    rows, picks = np.arange(n)[:, None], np.indices((width,) * n).reshape(n, -1)
    spent = costs[rows, picks].astype(float)
    feasible = spent.sum(axis=0) <= float(limit)
    if not whole:
        # Rounded sums decide away from the limit.
        for pick in np.flatnonzero(np.isclose(spent.sum(axis=0), float(limit), rtol=1e-9, atol=1e-9)):
            feasible[pick] = sum(map(Fraction, spent[:, pick].tolist())) <= limit
    values = curves[rows, picks].sum(axis=0)[feasible].tolist()
    return (min if sense == "min" else max)(values, default=math.nan)


def by_highs(curves: Any, costs: Any, budget: float) -> float:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import block_diag, csr_array, vstack

    n, width = curves.shape
    one_each = block_diag([np.ones((1, width))] * n, format="csr")
    rows = vstack([one_each, csr_array(costs.reshape(1, -1))])
    found = milp(
        curves.ravel(),
        constraints=LinearConstraint(rows, np.r_[np.ones(n), -np.inf], np.r_[np.ones(n), budget]),
        integrality=np.ones(n * width),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    return float(found.fun)


def random_case(rng: np.random.Generator, kind: int) -> tuple[Any, Any, Any, float, str]:
    """Curves of any shape, with ties; whole, decimal or real costs; unsorted levels; some budgets met exactly."""
    n, width = int(rng.integers(1, 7)), int(rng.integers(1, 5))
    sizes = rng.integers(0, 5, n) if kind % 2 else rng.integers(0, 9, n) * 0.1
    levels = rng.integers(0, 6, (n, width)) if kind % 3 else rng.random((n, width))
    curves = rng.integers(-6, 7, (n, width)).astype(float) if kind % 4 < 2 else rng.normal(size=(n, width))
    costs = sizes[:, None] * levels
    low, high = costs.min(axis=1).sum(), costs.max(axis=1).sum()
    budget = float(low + (high - low) * rng.random() * 1.2)
    if kind % 5 < 3:
        budget = float(round(budget, 1)) if kind % 5 else float(math.fsum(rng.permuted(costs, axis=1)[:, 0]))
    return curves, sizes, levels, budget, "min" if kind % 7 else "max"


def hold(plan: Any, curves: Any, costs: Any, budget: float) -> None:
    """What every allocation owes: the budget held exactly, values and value recounted, a bound on the right side."""
    level = plan.info["level"]
    rows = np.arange(len(curves))
    spent = sum(Fraction(float(c)) for c in costs[rows, level])
    whole = bool((costs == np.floor(costs)).all())
    assert spent <= Fraction(budget) * (1 if whole else 1 + len(curves) * EPS)
    assert plan.values.tolist() == curves[rows, level].tolist()
    assert plan.value == math.fsum(curves[rows, level])
    assert plan.bound <= plan.value if plan.sense == "min" else plan.bound >= plan.value


@pytest.mark.parametrize("block", range(5))
def test_exact_equals_brute_force(block: int) -> None:
    rng = np.random.default_rng(block)
    feasible = 0
    for kind in range(210):
        curves, sizes, levels, budget, sense = random_case(rng, kind)
        costs = sizes[:, None] * levels
        whole = bool((costs == np.floor(costs)).all())
        best = brute(curves, costs, budget, whole, sense)
        if math.isnan(best):
            with pytest.raises(InfeasibleError):
                multiple_choice_knapsack(curves, budget=budget, sizes=sizes, levels=levels, sense=sense)
            continue
        feasible += 1
        plan = multiple_choice_knapsack(curves, budget=budget, sizes=sizes, levels=levels, sense=sense)
        hold(plan, curves, costs, budget)
        assert plan.status == "optimal"
        assert plan.gap == 0.0
        assert plan.value == pytest.approx(best, rel=1e-12, abs=1e-12)
        greedy = hull_greedy(curves, budget=budget, sizes=sizes, levels=levels, sense=sense)
        hold(greedy, curves, costs, budget)
        for near in (plan, greedy):
            low, high = sorted([near.value, near.bound])
            assert low - 1e-12 <= best <= high + 1e-12
        if greedy.status == "optimal":
            assert greedy.value == pytest.approx(best, rel=1e-12, abs=1e-12)
    assert feasible > 100


def layers(rng: np.random.Generator, n: int, width: int) -> tuple[Any, Any, Any]:
    sizes = rng.integers(1_000_000, 60_000_000, n)
    bits = np.arange(1, width + 1)
    loss = (sizes * rng.lognormal(0, 1, n))[:, None] * 4.0**-bits * rng.lognormal(0, 0.2, (n, width))
    return loss / loss.max(), sizes, bits


@pytest.mark.parametrize("mean", [1.7, 4.0, 5.3])
def test_layers_equal_highs_and_the_price_is_tight(mean: float) -> None:
    loss, sizes, bits = layers(np.random.default_rng(3), 224, 8)
    plan = multiple_choice_knapsack(loss, mean_budget=mean, sizes=sizes, levels=bits)
    budget = math.floor(Fraction(repr(mean)) * int(sizes.sum()))
    costs = sizes[:, None] * bits
    assert plan.status == "optimal"
    assert plan.used["budget"] <= budget
    assert plan.used["budget"] == sum(int(s) * int(a) for s, a in zip(sizes, plan.amounts, strict=True))
    assert plan.value == pytest.approx(by_highs(loss, costs / 1e6, budget / 1e6), rel=1e-9)
    assert plan.info["states"] < 100_000  # most layers are settled by their reduced costs
    # The Lagrangian bound holds at every price, and at the plan's own price nearly meets the value.
    for factor in (0.0, 0.5, 1.0, 2.0):
        price = plan.price * factor
        bound = np.min(loss + price * costs, axis=1).sum() - price * budget
        assert bound <= plan.value * (1 + 1e-12)
    price = plan.price
    assert np.min(loss + price * costs, axis=1).sum() - price * budget > 0.99 * plan.value
    greedy = hull_greedy(loss, mean_budget=mean, sizes=sizes, levels=bits)
    assert plan.value <= greedy.value <= plan.value * 1.01
    assert greedy.bound <= plan.value


def classical(kind: str, rng: np.random.Generator, n: int, width: int, top: int) -> tuple[Any, Any]:
    """The instance families of the knapsack literature, as losses to minimise."""
    weight = rng.integers(1, top + 1, (n, width))
    if kind == "uncorrelated":
        return weight, -rng.integers(1, top + 1, (n, width)).astype(float)
    if kind == "weak":
        return weight, -np.maximum(1, weight + rng.integers(-top // 10, top // 10 + 1, (n, width))).astype(float)
    if kind == "subset_sum":
        return weight, -weight.astype(float)
    weight = np.sort(weight, axis=1)
    return np.cumsum(weight, axis=1), -np.cumsum(weight + 10, axis=1).astype(float)


@pytest.mark.parametrize("kind", ["uncorrelated", "weak", "subset_sum", "strong"])
def test_probing_and_forgetting_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look-aheads and the pruning of old decisions, forced onto small problems, lead to the same optimum."""
    rng = np.random.default_rng(2)
    probes = []
    probe = _knapsack._Search.probe
    monkeypatch.setattr(_knapsack._Search, "probe", lambda *given: (probes.append(1), probe(*given))[1])
    for case in range(30):
        costs, loss = classical(kind, rng, 7, 3, 50)
        loss = loss + rng.random(loss.shape) * (case % 2)
        budget = int(rng.integers(costs.min(axis=1).sum(), costs.max(axis=1).sum()))
        usual = multiple_choice_knapsack(loss, budget=budget, levels=costs)
        with monkeypatch.context() as forced:
            forced.setattr(_knapsack, "_PROBE_FROM", 1)
            forced.setattr(_knapsack, "_FORGET_FROM", 3)
            plan = multiple_choice_knapsack(loss, budget=budget, levels=costs)
        best = brute(loss, costs, budget, True)
        assert plan.status == usual.status == "optimal"
        assert plan.value == pytest.approx(best, rel=1e-12)
        assert usual.value == pytest.approx(best, rel=1e-12)
    assert probes or kind == "uncorrelated"


@pytest.mark.parametrize("kind", ["uncorrelated", "weak", "subset_sum", "strong"])
@pytest.mark.parametrize("top", [100, 100_000])
def test_hard_instances_equal_highs(kind: str, top: int) -> None:
    n = 6 if kind == "strong" else 30  # HiGHS takes minutes on larger ones of this family
    costs, loss = classical(kind, np.random.default_rng(11), n, 6, top)
    budget = int(costs.min(axis=1).sum() + costs.max(axis=1).sum()) // 2
    plan = multiple_choice_knapsack(loss, budget=budget, levels=costs)
    assert plan.status == "optimal"
    assert plan.value == round(by_highs(loss, costs, budget))


@pytest.mark.parametrize("kind", ["uncorrelated", "weak", "subset_sum"])
@pytest.mark.parametrize("top", [1000, 10_000_000])
def test_large_hard_instances_do_not_blow_up(kind: str, top: int) -> None:
    costs, loss = classical(kind, np.random.default_rng(1), 1000, 16, top)
    budget = int(costs.min(axis=1).sum() + costs.max(axis=1).sum()) // 2
    plan = multiple_choice_knapsack(loss, budget=budget, levels=costs)
    assert plan.status == "optimal"
    assert plan.used["budget"] <= budget
    assert plan.info["states"] < 5_000_000
    if kind == "subset_sum":
        assert plan.value == -budget


def test_limits_stop_with_the_best_plan_and_a_valid_bound() -> None:
    costs, loss = classical("strong", np.random.default_rng(1), 300, 16, 10_000_000)
    budget = int(costs.min(axis=1).sum() + costs.max(axis=1).sum()) // 2
    loss = loss + np.random.default_rng(0).random(loss.shape)  # no bound on the grain to lean on
    tables = 100 * loss.size
    with pytest.raises(InputError, match=r"need about 480,000 bytes, max_memory=479999; raise max_memory"):
        multiple_choice_knapsack(loss, budget=budget, levels=costs, max_memory=tables - 1)
    tight = multiple_choice_knapsack(loss, budget=budget, levels=costs, max_memory=tables + 200_000)
    assert tight.status == "stopped"
    assert tight.bound < tight.value
    assert tight.gap < 1e-6
    assert tight.used["budget"] <= budget
    wide = multiple_choice_knapsack(loss, budget=budget, levels=costs, max_memory=tables + 20_000_000)
    assert tight.bound <= wide.bound <= wide.value <= tight.value
    late = multiple_choice_knapsack(loss, budget=budget, levels=costs, time_limit=1e-9)
    assert late.status == "stopped"
    assert late.value <= hull_greedy(loss, budget=budget, levels=costs).value
    assert late.bound <= wide.value


def test_time_that_ends_before_there_is_a_price_leaves_the_cheapest_levels_and_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(2)
    loss, costs = rng.random((40, 5)), rng.integers(0, 9, (40, 5))
    budget = int(costs.min(axis=1).sum()) + 20
    best = multiple_choice_knapsack(loss, budget=budget, levels=costs)
    monkeypatch.setattr(_knapsack, "_ITEMS_AT_ONCE", 7)
    # Hulls made a few items at a time are those of all.
    parted = multiple_choice_knapsack(loss, budget=budget, levels=costs)
    assert parted.amounts.tolist() == best.amounts.tolist()
    assert (parted.value, parted.price, parted.info["states"]) == (best.value, best.price, best.info["states"])
    for sense, curves in (("min", loss), ("max", -loss)):
        late = multiple_choice_knapsack(curves, budget=budget, levels=costs, sense=sense, time_limit=1e-9)
        assert late.status == "stopped"
        assert late.used["budget"] == int(costs.min(axis=1).sum())
        sign = 1 if sense == "min" else -1
        assert sign * late.bound <= best.value <= sign * late.value


def test_convex_losses_at_unit_cost() -> None:
    """Gap 0, nested in the budget, and the price between the marginals; for the greedy and for the exact method."""
    rng = np.random.default_rng(5)
    for case in range(40):
        steps = -np.sort(-rng.integers(0, 5, (6, 5)) if case % 2 else -rng.random((6, 5)) * 0.1, axis=1)
        loss = np.concatenate([np.zeros((6, 1)), -np.cumsum(steps, axis=1)], axis=1) + rng.normal(size=(6, 1)).round(1)
        for run in (hull_greedy, multiple_choice_knapsack):
            before = np.zeros(6, np.int64)
            for budget in range(31):
                plan = run(loss, budget=budget)
                assert plan.status == "optimal"
                assert plan.gap == 0
                assert (plan.amounts >= before).all()
                before = plan.amounts
                assert np.nanmax(plan.marginal_up, initial=-np.inf) <= plan.price + 1e-12
                assert np.nanmin(plan.marginal_down, initial=np.inf) >= plan.price - 1e-12


def test_marginals_are_the_neighbouring_levels() -> None:
    loss = np.array([[9.0, 1.0, 4.0], [5.0, 5.0, 2.0]])
    levels = np.array([[0, 8, 4], [3, 1, 1]])
    plan = multiple_choice_knapsack(loss, budget=6, levels=levels)
    assert plan.amounts.tolist() == [4, 1]
    assert plan.info["level"].tolist() == [2, 2]
    assert plan.marginal_up.tolist() == [3.0, -3.0]
    assert plan.marginal_down[0] == 5.0
    assert np.isnan(plan.marginal_down[1])
    assert plan.bounds.tolist() == [[0, 8], [1, 3]]
    value = multiple_choice_knapsack(-loss, budget=6, levels=levels, sense="max")
    assert value.amounts.tolist() == [4, 1]
    assert value.value == -plan.value
    assert value.marginal_up.tolist() == plan.marginal_up.tolist()


def test_corner_cases() -> None:
    single = multiple_choice_knapsack([[3.0], [4.0]], budget=0)
    assert (single.value, single.status, single.price) == (7.0, "optimal", 0.0)
    free = multiple_choice_knapsack([[3.0, 1.0], [4.0, 0.0]], budget=0, sizes=[0, 1])
    assert free.amounts.tolist() == [1, 0]
    ample = multiple_choice_knapsack([[3.0, 1.0], [4.0, 0.0]], budget=10**30)
    assert ample.amounts.tolist() == [1, 1]
    assert ample.price == 0.0
    exact = multiple_choice_knapsack([[3.0, 1.0]] * 3, budget=0.3, levels=[0.0, 0.1])
    assert exact.amounts.tolist() == [0.1, 0.1, 0.1]
    one = multiple_choice_knapsack([[2.0, 1.0]], budget=0.6, sizes=[6], levels=[0.0, 0.1])
    assert one.amounts.tolist() == [0.1]
    mean = multiple_choice_knapsack([[1.0, 0.0]] * 100, mean_budget=0.29)
    assert (mean.used, mean.budget) == ({"budget": 29}, {"budget": 29})
    fine = multiple_choice_knapsack([[3.0, 1.0], [3.0, 2.0]], budget=2**60 - 1, sizes=[2**59, 2**59], levels=[0, 1])
    assert fine.amounts.tolist() == [1, 0]
    tiny = multiple_choice_knapsack([[3.0, 1.0], [3.0, 2.0]], budget=1e-300, levels=[0.0, 1e-300])
    assert tiny.amounts.tolist() == [1e-300, 0.0]


def test_the_verb_and_its_default_are_the_exact_method() -> None:
    plan = kofn.allocate([[9.0, 4.0, 1.0], [5.0, 4.5, 4.4]], budget=2, ids=["a", "b"])
    assert plan.method == "multiple_choice_knapsack"
    assert plan.to_frame()["id"].to_list() == ["a", "b"]


def test_one_number_an_item_is_no_curve() -> None:
    for votes in ([100, 50, 20], np.array([100.0, 50.0])):
        with pytest.raises(InputError, match=r"one number an item, .* scores=... and method='sainte_lague'"):
            kofn.allocate(votes, budget=10)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"budget": 1, "levels": [1, 2, 3]}, r"budget=1 is below 2, .*raise it by 1"),
        ({"mean_budget": 0.5, "levels": [1, 2, 3]}, r"budget=1 is below 2"),
        ({"budget": 0.5, "levels": [0.5, 2, 3]}, r"budget=0.5 is below 1, .*raise it by 0.5"),
        ({}, "give budget .* or mean_budget .*, not neither"),
        ({"mean_budget": 0.5, "levels": [1, 2, 3]}, r"raise mean_budget=0.5 to 1 at least"),
        ({"budget": 1, "mean_budget": 1}, "not both"),
        ({"budget": 1, "sizes": [1]}, "sizes has 1 values, curves has 2 rows"),
        ({"budget": 1, "sizes": [1, -1]}, "sizes at row 1 is -1"),
        ({"budget": 1, "levels": [0, 1]}, r"levels has shape \(2,\); give \(3,\) or \(2, 3\)"),
        ({"budget": 1, "levels": [0, -1, 2]}, "levels at row 0, column 1 is -1"),
        ({"budget": 1, "levels": [0, np.nan, 2]}, "levels at row 0, column 1 is NaN"),
        ({"budget": 1, "sense": "least"}, "sense='least': choose one of min, max"),
        ({"budget": 1, "sizes": [2**61, 2**61]}, r"beyond 2\*\*62; divide"),
        ({"budget": 2**62, "sizes": [2**60, 2**60]}, r"beyond 2\*\*60; divide"),
    ],
)
@pytest.mark.parametrize("run", [multiple_choice_knapsack, hull_greedy])
def test_bad_input_is_named(run: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        run([[3.0, 2.0, 1.0], [3.0, 1.0, 0.0]], **arguments)
