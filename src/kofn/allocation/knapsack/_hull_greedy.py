"""Give each item one of its levels by climbing the curves' convex hulls, always where a unit of budget saves most."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation.knapsack import _knapsack
from kofn.allocation.knapsack._curves import Problem
from kofn.allocation.knapsack._frontier import frontier as trade_off
from kofn.core.plans import Allocation
from kofn.core.registry import method


@method(
    "allocate",
    traits=("sandwich", "duality", "concave"),
    cost="O(n L log(n L)) time, O(n L) memory",
    exact="optimal where the hull's steps spend the budget exactly, else within one hull step of the optimum",
    paper="shoham1988",
)
def hull_greedy(
    curves: Any,
    *,
    budget: float | None = None,
    sizes: ArrayLike | None = None,
    levels: ArrayLike | None = None,
    sense: Literal["min", "max"] = "min",
    mean_budget: float | None = None,
    bounds: ArrayLike | None = None,
    frontier: bool = False,
) -> Allocation:
    """Give each item one of its levels by climbing the curves' convex hulls, always where a unit of budget saves most.

    Args:
        curves: (n, L) loss of each item at each level, or its value with `sense="max"`; of any shape. `inf` (with
            `sense="max"` `-inf`), or an empty cell of a frame, is a level that the item may not have; NaN in an array
            is refused.
        budget: the total cost of all items, at most.
        sizes: (n,) cost of one unit of level for each item, >= 0, default 1.
        levels: (L,) or (n, L) amounts, >= 0, in any order, default 0..L-1.
        sense: "min" for losses, "max" for values.
        mean_budget: instead of `budget`, the total over the summed sizes.
        bounds: (least, most) amount for all items, or one such pair for each; levels outside are left out.
        frontier: the whole trade-off curve beside the plan, as of `multiple_choice_knapsack`.

    Returns:
        An `Allocation` as from `multiple_choice_knapsack`. `status` is "optimal" where the steps spend the budget
        exactly (always so for convex losses or concave values at unit cost), else "approximate": the bound is the LP's,
        and the gap is at most the saving of the first step that did not fit.

    Raises:
        InfeasibleError: even the cheapest level of every item costs more than the budget; says by how much.
        InputError: curves, sizes or levels of the wrong shape, negative or NaN, an item that may have no level.

    Cost: O(n L log(n L)) time, O(n L) memory.

    Guarantee: the budget as in `multiple_choice_knapsack`; for convex losses at unit cost the amounts only grow with
    the budget and `max(marginal_up) <= price <= min(marginal_down)`.

    References:
        Shoham & Gersho 1988, IEEE TASSP 36; Sinha & Zoltners 1979, Operations Research 27 (the LP by hull steps).

    Examples:
        >>> from kofn.allocation import hull_greedy
        >>> plan = hull_greedy([[9.0, 4.0, 1.0], [5.0, 4.5, 4.4]], budget=3)
        >>> plan.amounts.tolist(), plan.value, plan.status
        ([2, 1], 5.5, 'optimal')
        >>> plan = hull_greedy([[0.0, 1.0, 8.0], [0.0, 3.0, 4.0]], budget=3, sense="max")
        >>> plan.amounts.tolist(), plan.value, plan.bound
        ([2, 1], 11.0, 11.0)
    """
    problem = Problem.of(curves, budget, mean_budget, sizes, levels, sense, bounds)
    menu = problem.menu()
    lp = _knapsack.relax(menu)
    assert lp is not None  # nothing stops it
    reached = math.fsum(menu.loss[np.arange(menu.n), lp.choice].tolist())
    lower = None if lp.integral else reached - lp.slack * menu.unit * lp.price
    level = menu.level[np.arange(menu.n), lp.filled]
    info = {"frontier": trade_off(problem)} if frontier else {}
    return problem.plan(level, problem.price(menu, lp), lower=lower, status="approximate", info=info)
