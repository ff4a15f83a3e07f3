"""Give each item one of its levels so that the summed loss is the least that a shared budget allows, exactly."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation.knapsack import _knapsack
from kofn.allocation.knapsack._curves import Problem
from kofn.allocation.knapsack._frontier import frontier as trade_off
from kofn.core.checks import InputError
from kofn.core.plans import Allocation
from kofn.core.registry import method
from kofn.core.runtime import Control

_DEFAULT_MEMORY = 2**30
# What the tables of costs, losses and hulls hold for each entry of the curves where they hold most.
_BYTES_PER_ENTRY = 100


@method(
    "allocate",
    traits=("sandwich", "duality", "concave"),
    cost="O(n L log L) and a dynamic program over the few items that the price leaves in doubt; O(n L) and its states",
    exact="the optimum, unless time_limit or max_memory stops it; integer costs held exactly",
    paper=(27, "pisinger1995"),
)
def multiple_choice_knapsack(
    curves: Any,
    *,
    budget: float | None = None,
    sizes: ArrayLike | None = None,
    levels: ArrayLike | None = None,
    sense: Literal["min", "max"] = "min",
    mean_budget: float | None = None,
    bounds: ArrayLike | None = None,
    frontier: bool = False,
    max_memory: int | None = None,
    time_limit: float | None = None,
) -> Allocation:
    """Give each item one of its levels so that the summed loss is the least that a shared budget allows, exactly.

    The LP over the curves' convex hulls gives a price; levels ruled out by its reduced costs are dropped; a dynamic
    program over the remaining items, on Pareto-optimal (cost, loss) states pruned by bounds, closes the gap.

    Args:
        curves: (n, L) loss of each item at each level, or its value with `sense="max"`; of any shape. `inf` (with
            `sense="max"` `-inf`), or an empty cell of a frame, is a level that the item may not have; NaN in an array
            is refused.
        budget: the total cost of all items, at most.
        sizes: (n,) cost of one unit of level for each item, >= 0, default 1; for example a layer's number of weights.
        levels: (L,) or (n, L) amounts, >= 0, in any order, default 0..L-1; for example bits a weight.
        sense: "min" for losses, "max" for values.
        mean_budget: instead of `budget`, the total over the summed sizes; for example 4.0 bits a weight on average.
        bounds: (least, most) amount for all items, or one such pair for each; levels outside are left out.
        frontier: also the whole trade-off curve, `info["frontier"]`: `budget`, `value` and `price` of every point on
            its convex hull, all optimal plans, and the step (`item`, `amount`) by which each differs from the one
            before. At most the time of one more solve.
        max_memory: bytes for the tables of the curves, about 100 an entry, and the dynamic program's states; default
            1 GiB for the states alone.

    Returns:
        An `Allocation`: `amounts` (the chosen levels' own amounts), `values` (the curves there), `price` (the loss that
        more budget saves a unit: the slope, to the right of the budget, of the convex hull of all plans; what a next
        plan on it brings, `frontier` says), `marginal_up` and `marginal_down` (the gain of the next dearer level and
        the loss of the next cheaper one, NaN where there is none), `at_bounds`, `info["level"]` (the chosen
        columns) and `info["uniform"]` (what the same budget brings where every item gets the same: `amounts`, `value`,
        `used`).
        `status` is "optimal" with `bound` equal to `value`, or "stopped" with a valid bound where a limit ended the
        search (by `time_limit` before there is an LP: the cheapest levels, and the bound at price 0).

    Raises:
        InfeasibleError: even the cheapest level of every item costs more than the budget; says by how much.
        InputError: curves, sizes or levels of the wrong shape, negative or NaN, an item that may have no level, or
            curves too large for `max_memory`.

    Cost: a millisecond or two at n=224, L=8; about a second at n=100,000, L=16. Worst-case states are bounded by
    `max_memory`: curves whose every step has nearly the same exchange rate can reach it.

    Guarantee: optimal. Whole costs (products of sizes and levels) are compared as integers against the floored budget,
    with no tolerance; other costs satisfy fsum(costs) <= budget * (1 + n * eps). Losses are compared in float64: the
    value is within rounding (1e-12 of the LP's gap) of the optimum, and exactly optimal where all losses are whole
    numbers.

    References:
        Xu et al. 2023, arXiv 2308.10438: rate-distortion curves of layers, and dynamic programming over them under a
        global ratio. Pisinger 1995, EJOR 83: the core of the multiple-choice knapsack.

    Examples:
        >>> from kofn.allocation import multiple_choice_knapsack
        >>> loss = [[9.0, 4.0, 1.0], [5.0, 4.5, 4.4]]
        >>> plan = multiple_choice_knapsack(loss, budget=2)
        >>> plan.amounts.tolist(), plan.value, plan.price
        ([2, 0], 6.0, 0.5)
        >>> plan = multiple_choice_knapsack(loss, mean_budget=4.0, sizes=[100, 50], levels=[2, 4, 8])
        >>> plan.amounts.tolist(), plan.used, plan.budget
        ([4, 4], {'budget': 600}, {'budget': 600})
    """
    room = _DEFAULT_MEMORY if max_memory is None else _room_for_states(curves.shape, max_memory)
    with Control(time_limit=time_limit) as control:
        problem = Problem.of(curves, budget, mean_budget, sizes, levels, sense, bounds)
        menu = problem.menu()
        lp = _knapsack.relax(menu, control.stopped)
        if lp is None:
            solved, price = _knapsack.cheapest(menu), 0.0
        else:
            solved = _knapsack.solve(menu, lp, max_memory=room, stopped=control.stopped)
            price = problem.price(menu, lp)
        info: dict[str, Any] = {"states": solved.states, "widest": solved.widest}
        if frontier:
            info["frontier"] = trade_off(problem)
    return problem.plan(
        menu.level[np.arange(menu.n), solved.choice], price, lower=solved.lower, status="stopped", info=info
    )


def _room_for_states(shape: tuple[int, int], max_memory: int) -> int:
    """The bytes of the limit that the tables of curves and costs leave to the states."""
    n, width = shape
    needed = _BYTES_PER_ENTRY * n * width
    if needed > max_memory:
        raise InputError(
            f"curves of {n:,} items at {width} levels need about {needed:,} bytes, max_memory={max_memory}; raise "
            "max_memory, or give fewer levels"
        )
    return max_memory - needed
