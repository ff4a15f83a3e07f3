"""Levels that an item may not have, and curves of the other sense: brute force, frames, refusals."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import kofn
from kofn.allocation import fit_utility, hull_greedy, multiple_choice_knapsack
from kofn.core.checks import InfeasibleError, InputError

BOTH = (multiple_choice_knapsack, hull_greedy)


def forbidding_case(rng: np.random.Generator, kind: int) -> tuple[Any, dict[str, Any]]:
    """Whole curves with ties, some of them infinite, whole sizes and levels, of which some are alike or 0."""
    n, width = int(rng.integers(1, 6)), int(rng.integers(2, 5))
    sense = "max" if kind % 3 == 0 else "min"
    curves = rng.integers(-6, 7, (n, width)).astype(float)
    forbidden = rng.random((n, width)) < 0.4
    forbidden[np.arange(n), rng.integers(0, width, n)] = False
    curves[forbidden] = -np.inf if sense == "max" else np.inf
    sizes, levels = rng.integers(0, 5, n), rng.integers(0, 6, (n, width))
    budget = int(rng.integers(0, max(2, (sizes[:, None] * levels).sum())))
    return curves, {"sizes": sizes, "levels": levels, "budget": budget, "sense": sense}


def by_hand(curves: Any, options: dict[str, Any]) -> float:
    """The best value over every combination of levels that are allowed; NaN if none is within the budget."""
    costs = options["sizes"][:, None] * options["levels"]
    allowed = [np.flatnonzero(np.isfinite(row)).tolist() for row in curves]
    values = [
        sum(curves[i, level] for i, level in enumerate(choice))
        for choice in itertools.product(*allowed)
        if sum(int(costs[i, level]) for i, level in enumerate(choice)) <= options["budget"]
    ]
    return float((max if options["sense"] == "max" else min)(values, default=math.nan))


def neighbours(curves: Any, costs: Any, item: int, level: int, sense: str) -> tuple[float, float]:
    """What the next dearer of the allowed levels gains and the next cheaper one loses, NaN where there is none."""
    worth = {
        other: (1 if sense == "max" else -1) * curves[item, other]
        for other in np.flatnonzero(np.isfinite(curves[item])).tolist()
    }
    out = []
    for toward in (1, -1):
        side = [other for other in worth if toward * (costs[item, other] - costs[item, level]) > 0]
        nearest = min((toward * costs[item, other] for other in side), default=None)
        best = max((worth[other] for other in side if toward * costs[item, other] == nearest), default=math.nan)
        out.append(toward * (best - worth[level]))
    return out[0], out[1]


@pytest.mark.parametrize("block", range(4))
def test_forbidden_levels_equal_brute_force(block: int) -> None:
    rng = np.random.default_rng(block)
    feasible = 0
    for kind in range(100):
        curves, options = forbidding_case(rng, kind)
        best = by_hand(curves, options)
        if math.isnan(best):
            for run in BOTH:
                with pytest.raises(InfeasibleError):
                    run(curves, **options)
            continue
        feasible += 1
        costs = options["sizes"][:, None] * options["levels"]
        for run in BOTH:
            plan = run(curves, **options)
            level, rows = plan.info["level"], np.arange(len(curves))
            assert np.isfinite(curves[rows, level]).all()
            assert plan.values.tolist() == curves[rows, level].tolist()
            assert plan.amounts.tolist() == options["levels"][rows, level].tolist()
            assert plan.used["budget"] == costs[rows, level].sum() <= options["budget"]
            low, high = sorted([plan.value, plan.bound])
            assert low - 1e-9 <= best <= high + 1e-9
            assert plan.value == best or plan.status != "optimal"
            # A price is a rate between levels that are allowed, never of a large number in place of infinity.
            assert 0 <= plan.price <= 12
            for item in range(len(curves)):
                up, down = neighbours(curves, costs, item, int(level[item]), options["sense"])
                assert plan.marginal_up[item] == pytest.approx(up, nan_ok=True)
                assert plan.marginal_down[item] == pytest.approx(down, nan_ok=True)
                own = options["levels"][item][np.isfinite(curves[item])]
                assert plan.bounds[item].tolist() == [own.min(), own.max()]
        assert multiple_choice_knapsack(curves, **options).value == best
    assert feasible > 50


def test_many_items_equal_the_same_items_with_fewer_levels() -> None:
    """A forbidden level and one that is repeated in its place are the same problem, at any size and in fractions."""
    rng = np.random.default_rng(7)
    n, bits = 3000, np.arange(2, 10)
    sizes = rng.integers(1_000, 60_000, n)
    loss = sizes[:, None] * rng.lognormal(0, 1, (n, 1)) * 4.0**-bits
    forbidden = rng.random(loss.shape) < 0.3
    forbidden[:, 3] = False
    levels = np.where(forbidden, bits[3], bits)
    repeated = np.where(forbidden, loss[:, 3:4], loss)
    for run in BOTH:
        plan = run(np.where(forbidden, np.inf, loss), sizes=sizes, levels=bits, mean_budget=4.3)
        other = run(repeated, sizes=sizes, levels=levels, mean_budget=4.3)
        assert plan.amounts.tolist() == other.amounts.tolist()
        assert (plan.value, plan.bound, plan.price) == (other.value, other.bound, other.price)
        assert not forbidden[np.arange(n), plan.info["level"]].any()


def test_the_cheapest_level_that_is_allowed_is_what_a_budget_must_pay() -> None:
    curves = [[np.inf, 4.0, 1.0], [5.0, 4.5, 4.4]]
    with pytest.raises(InfeasibleError, match=r"budget=0 is below 1, .*raise it by 1"):
        kofn.allocate(curves, budget=0)
    assert kofn.allocate(curves, budget=1).amounts.tolist() == [1, 0]


@pytest.mark.parametrize("sense", ["min", "max"])
@pytest.mark.parametrize("run", BOTH)
def test_infinities_that_are_refused(run: Any, sense: str) -> None:
    worst = np.inf if sense == "min" else -np.inf
    with pytest.raises(
        InputError, match=rf"row 1, column 0 is infinite, {-worst:g}, .*sense='{sense}'; .*give {worst:g}"
    ):
        run([[1.0, 2.0], [-worst, 1.0]], budget=1, sense=sense)
    with pytest.raises(InputError, match="curves at row 1 allows no level"):
        run([[1.0, 2.0], [worst, worst]], budget=1, sense=sense)
    with pytest.raises(InputError, match=r"row 1, column 0 is NaN; fill it, or .* give inf for a loss"):
        run([[1.0, 2.0], [np.nan, 1.0]], budget=1, sense=sense)
    with pytest.raises(InputError, match="sum overflows"):
        run([[1.7e308, worst], [1.7e308, worst]], budget=1, sense=sense)


def test_measured_losses_of_pools_stay_finite() -> None:
    losses = [[2.0, np.inf, 1.0], [2.0, 1.5, 1.2]]
    with pytest.raises(InputError, match="curves at row 0, column 1 is infinite"):
        fit_utility(losses, levels=[1, 2, 3])
    with pytest.raises(InputError, match="curves at row 0, column 1 is infinite"):
        kofn.allocate(losses, budget=3, levels=[1, 2, 3], method="quality_quantity")


@pytest.mark.parametrize("sense", ["min", "max"])
@pytest.mark.parametrize("kind", ["polars", "pandas"])
def test_an_empty_cell_of_a_frame_is_a_level_that_is_not_allowed(kind: str, sense: str) -> None:
    sign = 1 if sense == "min" else -1
    columns = {"2": [9 * sign, 50 * sign], "3": [4 * sign, 22 * sign], "4": [sign, None], "8": [0.1 * sign, 1.5 * sign]}
    frame = pl.DataFrame(columns)
    given: Any = frame if kind == "polars" else pd.DataFrame(columns)
    for run in (kofn.allocate, *BOTH):
        plan = run(given, budget=8, levels=[2, 3, 4, 8], sense=sense)
        assert plan.amounts.tolist() == [4, 3]
        assert plan.value == 23 * sign
    named = frame.with_columns(layer=pl.Series(["q_proj", "lm_head"]))
    assert kofn.allocate(named, ids="layer", budget=8, levels=[2, 3, 4, 8], sense=sense).amounts.tolist() == [4, 3]


def test_not_a_number_is_no_empty_cell_where_the_frame_tells_them_apart() -> None:
    with pytest.raises(InputError, match="row 1, column 1 is NaN"):
        kofn.allocate(pl.DataFrame({"a": [1.0, 2.0], "b": [1.0, math.nan]}), budget=1)
    assert kofn.allocate(pd.DataFrame({"a": [1.0, 2.0], "b": [0.5, math.nan]}), budget=1).amounts.tolist() == [1, 0]


@pytest.mark.parametrize("run", BOTH)
@pytest.mark.parametrize(
    ("curves", "options", "says"),
    [
        ([[0, 50, 90], [0, 30, 80]], {}, "all curves rise with the amount: gains? then sense='max'"),
        ([[0, 50, 90], [7, 7, 7]], {}, "all curves rise with the amount: gains? then sense='max'"),
        ([[90, 50, 0], [80, 0, np.inf]], {"levels": [2, 1, 0]}, "all curves rise with the amount"),
        ([[9, 4, 1], [5, 4, 4]], {"sense": "max"}, "all curves fall with the amount: losses? then sense='min'"),
        ([[0, 50, 90], [3, 2, 1]], {}, None),
        ([[0, 50, 40], [0, 30, 80]], {}, None),
        ([[9, 4, 1], [5, 4, 4]], {}, None),
        ([[3, 3, 3]], {}, None),
        ([[3], [4]], {}, None),
        ([[0, 50, 90], [0, 30, 80]], {"sense": "max"}, None),
    ],
)
def test_curves_that_all_get_worse_with_the_amount_are_noted(
    run: Any, curves: Any, options: dict[str, Any], says: str | None
) -> None:
    notes = run(curves, budget=3, **options).info.get("warnings", [])
    assert (len(notes) == 1 and says in notes[0]) if says else notes == []


def test_budgets_in_fractions_are_held_where_levels_are_forbidden() -> None:
    curves = np.array([[3.0, 1.0, np.inf], [4.0, np.inf, 0.5]])
    plan = multiple_choice_knapsack(curves, budget=0.7, sizes=[0.1, 0.3], levels=[0, 1, 2])
    assert plan.amounts.tolist() == [1, 2]
    assert sum(map(Fraction, (0.1 * 1, 0.3 * 2))) <= Fraction(0.7) * (1 + 2 * Fraction(float(np.finfo(float).eps)))
