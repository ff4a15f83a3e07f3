"""Allocation over levels with more than one limit: against HiGHS on the whole program, and against every choice."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.optimize as opt
import scipy.sparse as sp

import kofn
from kofn.allocation import constrained_knapsack, multiple_choice_knapsack
from kofn.core.checks import FailureError, InfeasibleError, InputError

LOSS = [[9.0, 4.0, 1.0], [5.0, 2.0, 0.0], [7.0, 6.0, 1.0]]


def by_highs(loss: Any, rows: list[tuple[Any, float, float]]) -> float:
    n, width = loss.shape
    one_each = sp.kron(sp.eye_array(n), np.ones((1, width)))
    sums = sp.csr_array(np.stack([np.ravel(table) for table, _, _ in rows]).astype(float))
    ends = [np.concatenate([np.ones(n), [row[side] for row in rows]]) for side in (1, 2)]
    done = opt.milp(
        loss.ravel(),
        integrality=np.ones(loss.size),
        bounds=opt.Bounds(0, 1),
        constraints=opt.LinearConstraint(sp.vstack([one_each, sums]).tocsc(), *ends),
        options={"mip_rel_gap": 0},
    )
    return float(done.fun)


def question(n: int, seed: int) -> tuple[Any, Any, Any, int]:
    """Losses, sizes, levels and the budget of layers of unlike sizes."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 100, n)
    loss = np.sort(rng.random((n, 6)), axis=1)[:, ::-1] * rng.lognormal(0, 1, (n, 1)) * sizes[:, None]
    return loss, sizes, np.arange(2, 8), 4 * int(sizes.sum())


@pytest.mark.parametrize("seed", range(2))
def test_two_resources_equal_highs_on_few_columns(seed: int) -> None:
    loss, sizes, levels, budget = question(400, seed)
    ms = np.random.default_rng(seed).integers(1, 50, 400)[:, None] * levels + levels % 3
    words = {"budget": budget, "sizes": sizes, "levels": levels}
    alone = multiple_choice_knapsack(loss, **words)
    limit = int(ms[np.arange(400), alone.info["level"]].sum() * 0.99)
    plan = kofn.allocate(loss, **words, resources={"ms": ms}, limits={"ms": limit})
    assert plan.method == "constrained_knapsack"
    best = by_highs(loss, [(sizes[:, None] * levels, -np.inf, budget), (ms, -np.inf, limit)])
    assert plan.value == pytest.approx(best, rel=1e-9)
    assert (plan.status, plan.gap) == ("optimal", 0.0)
    assert plan.used["ms"] <= limit == plan.budget["ms"]
    assert plan.prices["ms"] > 0
    assert plan.price == plan.prices["budget"]
    # What is handed to HiGHS is a few times the number of items, not all levels again and again.
    assert plan.info["columns"] < 4 * loss.size
    assert plan.value > alone.value


@pytest.mark.parametrize("seed", range(2))
def test_shares_of_groups_equal_highs(seed: int) -> None:
    loss, sizes, levels, budget = question(120, seed)
    groups = np.array(["embed", "mlp", "attention"])[np.random.default_rng(seed).integers(0, 3, 120)]
    quotas = {"embed": (None, 0.25), "mlp": (0.4, None)}
    plan = kofn.allocate(loss, budget=budget, sizes=sizes, levels=levels, groups=groups, quotas=quotas)
    costs = sizes[:, None] * levels
    mine = {name: np.where((groups == name)[:, None], costs, 0) for name in quotas}
    rows = [(costs, -np.inf, budget), (mine["embed"], -np.inf, budget // 4), (mine["mlp"], -(-2 * budget // 5), np.inf)]
    assert plan.value == pytest.approx(by_highs(loss, rows), rel=1e-9)
    assert plan.used["embed"] <= budget / 4
    assert plan.used["mlp"] >= 0.4 * budget
    assert plan.status == "optimal"


def test_tied_items_get_one_level_by_the_dynamic_program() -> None:
    loss, sizes, levels, budget = question(60, 0)
    tied = np.arange(60) // 3
    plan = kofn.allocate(loss, budget=budget, sizes=sizes, levels=levels, tied=tied)
    assert "programs" not in plan.info
    assert (plan.amounts.reshape(20, 3) == plan.amounts.reshape(20, 3)[:, :1]).all()
    groups = loss.reshape(20, 3, 6).sum(axis=1), (sizes[:, None] * levels).reshape(20, 3, 6).sum(axis=1)
    assert plan.value == pytest.approx(by_highs(groups[0], [(groups[1], -np.inf, budget)]), rel=1e-9)
    assert plan.used["budget"] <= budget


def test_pairs_and_counts_equal_every_choice() -> None:
    rng = np.random.default_rng(4)
    for _ in range(15):
        loss, k, budget = np.sort(rng.random((5, 3)), axis=1)[:, ::-1], int(rng.integers(1, 5)), int(rng.integers(2, 9))
        best = min(
            loss[np.arange(5), choice].sum()
            for choice in map(list, itertools.product(range(3), repeat=5))
            if sum(choice) <= budget
            and np.count_nonzero(choice) <= k
            and (not choice[1] or choice[0])
            and not (choice[2] and choice[3])
        )
        plan = kofn.allocate(loss, budget=budget, k=k, precedence=[(0, 1)], exclusions=[(2, 3)])
        assert plan.value == pytest.approx(best, rel=1e-12)
        assert plan.status == "optimal"
    named = kofn.allocate(LOSS, budget=4, ids=["a", "b", "c"], precedence=[("b", "a")], exclusions=[("b", "c")])
    assert named.amounts.tolist() == [2, 2, 0]


def test_bounds_leave_levels_out() -> None:
    for run in (multiple_choice_knapsack, constrained_knapsack):
        assert run(LOSS, budget=4, bounds=[(1, 1), (None, None), (0, 1)]).amounts.tolist() == [1, 2, 1]
        plan = run(LOSS, budget=6, bounds=(1, 1))
        assert plan.amounts.tolist() == [1, 1, 1]
        assert plan.at_bounds.tolist() == [2, 2, 2]
        with pytest.raises(InfeasibleError, match=r"bounds at item 2 are \(1.5, 1.8\), and none of its 3 levels"):
            run(LOSS, budget=6, bounds=[(0, 2), (0, 2), (1.5, 1.8)])
        with pytest.raises(InfeasibleError, match=r"budget=2 is below 3, .*raise it by 1"):
            run(LOSS, budget=2, bounds=(1, None))
    plan = kofn.allocate(LOSS, budget=3)
    assert plan.at_bounds.tolist() == [{0: -1, 1: 0, 2: 1}[amount] for amount in plan.amounts.tolist()]


def test_limits_are_held_exactly_where_highs_rounds() -> None:
    # A unit more than the limit is a ten-millionth of it: within the solver's tolerance, and not within ours.
    sizes = np.array([3_000_001, 2_000_000, 5_000_003, 4_000_000])
    loss = np.array([[9.0, 0.0]] * 4)
    for over in (0, 1, 2):
        table = sizes[:, None] * np.arange(2)
        limit = int(sizes[[0, 1, 3]].sum()) - over
        plan = kofn.allocate(loss, budget=10**9, sizes=sizes, resources={"ms": table}, limits={"ms": limit})
        assert plan.used["ms"] <= limit
        assert int((plan.amounts > 0).sum()) == (2 if over else 3), over


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"k": 1, "bounds": (1, 2)}, "k=1 items may be above zero, and 3 have no level of 0; raise k by 2"),
        (
            {"groups": ["a", "a", "b"], "quotas": {"b": (3, None)}},
            "group 'b' must cost at least 3, .* cost 2; lower it by 1",
        ),
        (
            {"groups": ["a", "a", "b"], "quotas": {"a": (None, 1)}, "bounds": (1, 2)},
            "group 'a' may cost at most 1, .* cost 2; raise it by 1",
        ),
        ({"resources": {"ms": [[2, 3, 4]] * 3}, "limits": {"ms": 5}}, r"limits\['ms'\]=5 is below 6, .*raise it by 1"),
        (
            {"tied": [0, 0, 1], "bounds": [(0, 0), (1, 2), (0, 2)]},
            "tied: the items of group 0 .* have no level in common",
        ),
        (
            {"exclusions": [(0, 1)], "bounds": [(1, 2), (0, 2), (0, 2)], "precedence": [(0, 1), (1, 0)]},
            "no amounts keep all of budget, bounds and limits together",
        ),
    ],
)
def test_what_cannot_be_kept_is_said(words: dict[str, Any], says: str) -> None:
    with pytest.raises(InfeasibleError, match=says):
        kofn.allocate(LOSS, budget=4, **words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"k": 4}, "k=4 of 3 items"),
        ({"groups": ["a"] * 3}, "groups says nothing without quotas"),
        ({"quotas": {"a": (1, 2)}}, "quotas need groups"),
        ({"limits": {"ms": 3}}, "limits names 'ms', which resources lacks"),
        ({"resources": {"ms": [1, 1, 1]}}, "resources names 'ms', which limits lacks"),
        (
            {"resources": {"budget": [1, 1, 1]}, "limits": {"budget": 3}},
            "resources names 'budget', .*call it otherwise",
        ),
        (
            {"resources": {"ms": [[1, 1]] * 3}, "limits": {"ms": 3}},
            r"resources\['ms'\] has shape \(3, 2\); give \(3,\)",
        ),
        ({"resources": {"ms": [[1, -1, 1]] * 3}, "limits": {"ms": 3}}, r"resources\['ms'\] at row 0, column 1 is -1"),
        ({"resources": {"ms": [1, 1]}, "limits": {"ms": 3}}, r"resources\['ms'\] has 2 values"),
        ({"tied": [0, 1]}, "tied has 2 values"),
        ({"precedence": [(0, 3)]}, r"precedence names row 3; the rows are 0\.\.2"),
        ({"exclusions": [(1, 1)]}, "exclusions names row 1 twice in one pair"),
        ({"exclusions": [1, 2]}, r"exclusions has shape \(2,\); give pairs"),
    ],
)
def test_bad_input_is_named(words: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        kofn.allocate(LOSS, budget=4, **words)


def test_time_that_ends_before_any_plan_is_no_empty_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from kofn.allocation.knapsack import _core_search

    monkeypatch.setattr(_core_search, "_kept", lambda *_: (None, np.inf, -np.inf))
    with pytest.raises(FailureError, match="time_limit=1e-09: no plan that keeps budget, k was found"):
        kofn.allocate(LOSS, budget=4, k=2, time_limit=1e-9)


@pytest.mark.parametrize("of_losses", [1e-100, 1e-9, 1e13])
@pytest.mark.parametrize("of_costs", [1e-100, 1e-9, 1e8])
def test_programs_in_any_unit_against_enumeration(of_losses: float, of_costs: float) -> None:
    rng = np.random.default_rng(3)
    loss = np.sort(rng.integers(1, 60, (4, 3)), axis=1)[:, ::-1].astype(float)
    sizes, took = rng.integers(1, 5, 4).astype(float), rng.integers(0, 6, (4, 3)).astype(float)
    budget, limit = float(sizes.sum()), float(took.max(axis=1).sum() // 2)
    rows = np.arange(4)
    kept = [
        level
        for level in itertools.product(range(3), repeat=4)
        if sizes @ level <= budget and took[rows, level].sum() <= limit and np.count_nonzero(level) <= 3
    ]
    best = min(float(loss[rows, level].sum()) for level in kept)
    plan = constrained_knapsack(
        loss * of_losses, budget=budget * of_costs, sizes=sizes * of_costs, resources={"ms": took * of_costs},
        limits={"ms": limit * of_costs}, k=3,
    )  # fmt: skip
    assert tuple(plan.amounts.tolist()) in kept
    assert plan.value / of_losses == pytest.approx(best, rel=1e-9)
    assert plan.bound is not None
    assert plan.bound / of_losses <= best * (1 + 1e-9)
