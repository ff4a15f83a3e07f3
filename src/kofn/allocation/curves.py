"""One level for each item under a shared budget: loss-by-level curves, the multiple-choice knapsack.

`curves[i, l]` is the loss of item i at level l (`sense="min"`) or its value ("max"); level l of item i costs
`sizes[i] * levels[l]`. Curves may have any shape, levels any order. An item with fewer levels than the others repeats
one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn import checks
from kofn.allocation import _knapsack
from kofn.checks import InputError
from kofn.engines.control import Control
from kofn.plans import Allocation
from kofn.registry import method

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_DEFAULT_MEMORY = 2**30


@method(
    "allocate",
    traits=("sandwich", "duality", "concave"),
    cost="O(n L log L) and a dynamic program over the few items that the price leaves in doubt; O(n L) and its states",
    exact="the optimum, unless time_limit or max_memory stops it; integer costs held exactly",
    paper="Xu et al. 2023, Efficient Joint Optimization of Layer-Adaptive Weight Pruning (ICCV, arXiv 2308.10438); "
    "Pisinger 1995, A minimal algorithm for the multiple-choice knapsack problem (EJOR)",
)
def multiple_choice_knapsack(
    curves: Any,
    *,
    budget: float | None = None,
    sizes: Any = None,
    levels: Any = None,
    sense: str = "min",
    mean_budget: float | None = None,
    max_memory: int | None = None,
    time_limit: float | None = None,
) -> Allocation:
    """Give each item one of its levels so that the summed loss is the least that a shared budget allows, exactly.

    The LP over the curves' convex hulls gives a price; levels that its reduced costs rule out are dropped; a dynamic
    program over the remaining items, on Pareto-optimal (cost, loss) states pruned by bounds, closes the gap.

    Args:
        curves: (n, L) loss of each item at each level, or its value with `sense="max"`; finite, of any shape.
        budget: what all items together may cost.
        sizes: (n,) cost of one unit of level for each item, >= 0, default 1; for example a layer's number of weights.
        levels: (L,) or (n, L) amounts, >= 0, in any order, default 0..L-1; for example bits a weight.
        sense: "min" for losses, "max" for values.
        mean_budget: instead of `budget`, the total over the summed sizes; for example 4.0 bits a weight on average.
        max_memory: bytes for the dynamic program's states, default 1 GiB.
        time_limit: seconds.

    Returns:
        An `Allocation`: `amounts` (the chosen levels' own amounts), `values` (the curves there), `price` (loss that one
        more unit of budget would save, from the LP), `marginal_up` and `marginal_down` (what the next dearer level
        would gain and the next cheaper one lose, NaN where there is none), `info["level"]` (the chosen columns).
        `status` is "optimal" with `bound` equal to `value`, or "stopped" with a valid bound where a limit ended the
        search.

    Raises:
        InfeasibleError: even the cheapest level of every item costs more than the budget; says by how much.
        InputError: curves, sizes or levels of the wrong shape, negative or not finite.

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
    ask = _Ask.of(curves, budget, mean_budget, sizes, levels, sense)
    menu = ask.menu()
    lp = _knapsack.relax(menu)
    with Control(time_limit=time_limit) as control:
        solved = _knapsack.solve(menu, lp, max_memory=max_memory or _DEFAULT_MEMORY, stopped=control.stopped)
    info = {"states": solved.states, "widest": solved.widest}
    return ask.plan(menu, solved.choice, lp.price, lower=solved.lower, status="stopped", info=info)


@method(
    "allocate",
    traits=("sandwich", "duality", "concave"),
    cost="O(n L log(n L)) time, O(n L) memory",
    exact="optimal where the hull's steps spend the budget exactly, else within one hull step of the optimum",
    paper="Shoham & Gersho 1988, Efficient bit allocation for an arbitrary set of quantizers (IEEE TASSP 36)",
)
def hull_greedy(
    curves: Any,
    *,
    budget: float | None = None,
    sizes: Any = None,
    levels: Any = None,
    sense: str = "min",
    mean_budget: float | None = None,
) -> Allocation:
    """Give each item one of its levels by climbing the curves' convex hulls, always where a unit of budget saves most.

    Args:
        curves: (n, L) loss of each item at each level, or its value with `sense="max"`; finite, of any shape.
        budget: what all items together may cost.
        sizes: (n,) cost of one unit of level for each item, >= 0, default 1.
        levels: (L,) or (n, L) amounts, >= 0, in any order, default 0..L-1.
        sense: "min" for losses, "max" for values.
        mean_budget: instead of `budget`, the total over the summed sizes.

    Returns:
        An `Allocation` as from `multiple_choice_knapsack`. `status` is "optimal" where the steps spend the budget
        exactly (always so for convex losses or concave values at unit cost), else "approximate": the bound is the LP's,
        and the gap at most what the first step that did not fit would have saved.

    Raises:
        InfeasibleError: even the cheapest level of every item costs more than the budget; says by how much.
        InputError: curves, sizes or levels of the wrong shape, negative or not finite.

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
    ask = _Ask.of(curves, budget, mean_budget, sizes, levels, sense)
    menu = ask.menu()
    lp = _knapsack.relax(menu)
    reached = math.fsum(menu.loss[np.arange(menu.n), lp.choice].tolist())
    lower = None if lp.integral else reached - lp.slack * menu.unit * lp.price
    return ask.plan(menu, lp.filled, lp.price, lower=lower, status="approximate", info={})


@dataclass(frozen=True)
class _Ask:
    """One checked call: curves with what each level costs, under one budget."""

    curves: NDArray[Any]
    levels: NDArray[Any]
    costs: NDArray[Any]
    budget: float | int
    sense: str

    @classmethod
    def of(
        cls,
        curves: NDArray[Any],
        budget: float | int | None,
        mean_budget: float | int | None,
        sizes: Any,
        levels: Any,
        sense: str,
    ) -> _Ask:
        checks.choice(sense, "sense", ("min", "max"))
        n, width = curves.shape
        scale = np.ones(n, np.int64) if sizes is None else checks.costs(sizes, "sizes")
        checks.same_length(n, "curves", "sizes", len(scale))
        amounts = np.arange(width) if levels is None else _levels(levels, n, width)
        amounts = np.broadcast_to(amounts, (n, width))
        if (budget is None) == (mean_budget is None):
            given = "neither" if budget is None else "both"
            raise InputError(f"give budget (the total) or mean_budget (the total over the summed sizes), not {given}")
        if mean_budget is not None:
            # As written in decimals: 0.29 of 100 is 29, not the 28.999999999999996 that binary rounding makes of it.
            mean = checks.number(mean_budget, "mean_budget")
            size: float | int = int(scale.sum()) if scale.dtype.kind == "i" else math.fsum(scale.tolist())
            total = Fraction(repr(mean)) * Fraction(size)
            budget = int(total) if total.denominator == 1 else float(total)
        assert budget is not None
        if float(scale.max()) * float(amounts.max()) >= 2**62:
            raise InputError(
                f"sizes up to {scale.max():.3g} times levels up to {amounts.max():.3g} is beyond 2**62; "
                "divide sizes and budget by a common factor"
            )
        return cls(curves, amounts, scale[:, None] * amounts, budget, sense)

    def menu(self) -> _knapsack.Menu:
        losses = self.curves.astype(np.float64)
        return _knapsack.menu(self.costs, losses if self.sense == "min" else -losses, self.budget)

    def plan(
        self,
        menu: _knapsack.Menu,
        choice: Ints,
        price: float,
        *,
        lower: float | None,
        status: str,
        info: dict[str, Any],
    ) -> Allocation:
        """The plan of this choice; `lower` is the bound on the loss, None where the choice is optimal."""
        rows = np.arange(menu.n)
        level = menu.level[rows, choice]
        values = self.curves[rows, level].astype(np.float64)
        value = math.fsum(values.tolist())
        spent = self.costs[rows, level]
        whole = _knapsack.is_whole(self.costs)
        used = int(spent.astype(np.int64).sum()) if whole else math.fsum(spent.tolist())
        # A bound may meet the value but, where sums are rounded, must not cross it.
        bound = value if lower is None else min(lower, value) if self.sense == "min" else max(-lower, value)
        up, down = self._marginals(level)
        return Allocation(
            n=menu.n,
            amounts=self.levels[rows, level],
            values=values,
            price=price,
            marginal_up=up,
            marginal_down=down,
            bounds=np.stack([self.levels.min(axis=1), self.levels.max(axis=1)], axis=1),
            value=value,
            sense=self.sense,
            bound=bound,
            status="optimal" if bound == value else status,
            used={"budget": used},
            budget={"budget": self.budget},
            prices={"budget": price},
            info={"level": level, "objective": "curves", **info},
        )

    def _marginals(self, level: Ints) -> tuple[Floats, Floats]:
        """What the next dearer level would gain, and the next cheaper one lose; NaN where there is none."""
        sign = 1.0 if self.sense == "max" else -1.0
        worth = sign * self.curves.astype(np.float64)
        rows = np.arange(len(level))
        now, cost = worth[rows, level], self.costs[rows, level][:, None]
        out = []
        for side, toward in ((self.costs > cost, 1), (self.costs < cost, -1)):
            key = np.where(side, toward * self.costs.astype(np.float64), np.inf)
            nearest = side & (key == key.min(axis=1, keepdims=True))
            best = np.where(nearest, worth, -np.inf).max(axis=1)
            out.append(np.where(side.any(axis=1), toward * (best - now), np.nan))
        return out[0], out[1]


def _levels(levels: Any, n: int, width: int) -> NDArray[Any]:
    array = np.asarray(levels)
    if array.shape not in ((width,), (n, width)):
        raise InputError(
            f"levels has shape {array.shape}; give ({width},) or ({n}, {width}), one for each column of curves"
        )
    rows = array.reshape(-1, width)
    if rows.dtype.kind not in "iu":
        rows = checks.matrix(rows, "levels")
    if rows.min() < 0:
        i, j = np.unravel_index(int(rows.argmin()), rows.shape)
        raise InputError(f"levels at row {i}, column {j} is {rows[i, j]:g}; levels must be >= 0")
    return rows.astype(np.int64 if rows.dtype.kind in "iu" else np.float64).reshape(array.shape)
