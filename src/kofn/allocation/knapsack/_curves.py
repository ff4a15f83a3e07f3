"""One level for each item under a shared budget: loss-by-level curves, the multiple-choice knapsack.

`curves[i, l]` is the loss of item i at level l (`sense="min"`) or its value ("max"); level l of item i costs
`sizes[i] * levels[l]`. Curves may have any shape, levels any order. A level of infinite loss (or value -inf) is one
that its item may not have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kofn.allocation._levels import sizes_and_levels
from kofn.allocation._uniform import uniform
from kofn.allocation.knapsack import _knapsack
from kofn.core import checks
from kofn.core.arrays import Array, Floats, Ints
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.plans import Allocation


@dataclass(frozen=True)
class Problem:
    """One checked call: curves, the cost of each level, and the budget.

    A level that its item may not have is replaced by the first that it may, in curves, levels and costs alike, so that
    whatever reads them sees finite numbers and the same choices; `forbidden` (n, levels) tells the two apart.
    """

    curves: NDArray[Any]
    levels: NDArray[Any]
    costs: NDArray[Any]
    budget: float | int
    sense: str
    forbidden: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        curves: NDArray[Any],
        budget: float | int | None,
        mean_budget: float | int | None,
        sizes: ArrayLike | None,
        levels: ArrayLike | None,
        sense: str,
        bounds: ArrayLike | None = None,
    ) -> Problem:
        """Check the words and options of the call."""
        scale, amounts = sizes_and_levels(curves, sizes, levels)
        forbidden = checks.forbidden_levels(curves, sense)
        if bounds is not None:
            forbidden = _outside(amounts, checks.spread_bounds(bounds, len(curves)), forbidden)
        if forbidden.any():
            column = np.where(forbidden, _first_allowed(forbidden)[:, None], np.arange(curves.shape[1]))
            curves, amounts = (np.take_along_axis(table, column, 1) for table in (curves, amounts))
        budget = checks.total_budget(budget, mean_budget, scale)
        if float(scale.max()) * float(amounts.max()) >= 2**62:
            raise InputError(
                f"sizes up to {scale.max():.3g} times levels up to {amounts.max():.3g} is beyond 2**62; "
                "divide sizes and budget by a common factor"
            )
        costs = scale[:, None] * amounts
        if mean_budget is not None:
            _refuse_short_mean(costs, scale, mean_budget, budget)
        return cls(curves, amounts, costs, budget, sense, forbidden)

    @property
    def losses(self) -> Floats:
        """(n, L) what is made small, finite also where a level is forbidden."""
        losses = self.curves.astype(np.float64)
        return losses if self.sense == "min" else -losses

    def menu(self, budget: float | int | None = None) -> _knapsack.Menu:
        """The levels of each item that are worth considering, within another budget where one is given."""
        return _knapsack.menu(self.costs, self.losses, self.budget if budget is None else budget)

    def price(self, menu: _knapsack.Menu, lp: _knapsack.Relaxed) -> float:
        """What more budget is worth a unit: the slope to the right of the budget of the hull of all plans."""
        return _knapsack.hull_price(self.costs, self.losses, self.budget, menu, lp)

    def plan(
        self,
        level: Ints,
        price: float,
        *,
        lower: float | None,
        status: str,
        info: dict[str, Any],
    ) -> Allocation:
        """The plan for these columns; `lower` is the bound on the loss, None where they are optimal."""
        rows = np.arange(len(level))
        values = self.curves[rows, level].astype(np.float64)
        value = math.fsum(values.tolist())
        spent = self.costs[rows, level]
        used = int(spent.astype(np.int64).sum()) if _knapsack.is_whole(self.costs) else math.fsum(spent.tolist())
        # Rounded sums must not push the bound past the value.
        bound = value if lower is None else min(lower, value) if self.sense == "min" else max(-lower, value)
        up, down = self._marginals(level)
        return Allocation(
            n=len(level),
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
            objective="curves",
            info={
                "level": np.where(self.forbidden[rows, level], _first_allowed(self.forbidden), level),
                "uniform": uniform(self.curves, self.levels, self.costs, self.budget),
                **self._remarks(),
                **info,
            },
        )

    def _remarks(self) -> dict[str, list[str]]:
        """What looks wrong in the question (warnings), and what is worth knowing (notes)."""
        worse = self._all_worse()
        remarks = {"warnings": worse, "notes": [*([] if worse else self._some_worse()), *self._more_than_enough()]}
        return {kind: lines for kind, lines in remarks.items() if lines}

    def _all_worse(self) -> list[str]:
        """That every curve gets worse with the amount, so that nothing is worth buying: mostly the wrong sense."""
        losses = self.losses
        rows = np.arange(len(losses))
        if (losses[rows, self.levels.argmax(axis=1)] < losses[rows, self.levels.argmin(axis=1)]).any():
            return []  # nearly always, and cheaper than to sort
        order = np.lexsort((losses, self.levels), axis=1)
        steps = np.diff(np.take_along_axis(losses, order, 1), axis=1)
        if not (steps >= 0).all() or not (steps > 0).any():
            return []
        words = ("rise", "gains", "max") if self.sense == "min" else ("fall", "losses", "min")
        return ["all curves {} with the amount: {}? then sense={!r}".format(*words)]

    def _some_worse(self) -> list[str]:
        """That some curves get worse with the amount somewhere, as measured ones may."""
        losses = self.losses
        if (self.levels[:, 1:] < self.levels[:, :-1]).any():
            losses = np.take_along_axis(losses, np.argsort(self.levels, axis=1, kind="stable"), 1)
        losses = np.where(np.isfinite(losses), losses, np.inf)
        worse = (losses[:, 1:] > np.minimum.accumulate(losses, axis=1)[:, :-1]) & (losses[:, 1:] < np.inf)
        items = np.flatnonzero(worse.any(axis=1))
        if not len(items):
            return []
        change = "fall" if self.sense == "max" else "rise"
        return [
            f"{len(items):,} of {len(losses):,} curves {change} somewhere with the amount, the first at "
            f"{checks.item_name(int(items[0]))}; there a smaller amount is better"
        ]

    def _more_than_enough(self) -> list[str]:
        """That the budget is more than all items can take."""
        dearest = float(self.costs.max(axis=1).astype(np.float64).sum())
        if self.budget <= dearest * (1 + 1e-9):
            return []
        return [
            f"budget={self.budget:.15g} is above {dearest:.15g}, what the dearest level of every item costs in total; "
            f"{self.budget - dearest:.6g} cannot be spent"
        ]

    def _marginals(self, level: Ints) -> tuple[Floats, Floats]:
        """The gain of the next dearer level, and the loss of the next cheaper one; NaN where there is none."""
        sign = 1.0 if self.sense == "max" else -1.0
        rows, last = np.arange(len(level)), self.curves.shape[1] - 1
        if (self.costs[:, 1:] > self.costs[:, :-1]).all():
            # Dearer levels are to the right, as in most curves.
            now, dearer, cheaper = (
                sign * self.curves[rows, column].astype(np.float64)
                for column in (level, np.minimum(level + 1, last), np.maximum(level - 1, 0))
            )
            return np.where(level < last, dearer - now, np.nan), np.where(level > 0, now - cheaper, np.nan)
        worth = sign * self.curves.astype(np.float64)
        now, cost = worth[rows, level], self.costs[rows, level][:, None]
        out = []
        for side, toward in ((self.costs > cost, 1), (self.costs < cost, -1)):
            key = np.where(side, toward * self.costs.astype(np.float64), np.inf)
            nearest = side & (key == key.min(axis=1, keepdims=True))
            best = np.where(nearest, worth, -np.inf).max(axis=1)
            out.append(np.where(side.any(axis=1), toward * (best - now), np.nan))
        return out[0], out[1]


def _refuse_short_mean(costs: Array, scale: Array, mean_budget: float, budget: float) -> None:
    """Refuse a mean that the cheapest levels are above, in the unit in which it was given."""
    cheapest, size = math.fsum(costs.min(axis=1).tolist()), math.fsum(scale.tolist())
    if size > 0 and cheapest > budget * (1 + 1e-9):
        raise InfeasibleError(
            f"budget={budget:.15g} is below {cheapest:.15g}, what the cheapest level of every item costs in total; "
            f"raise mean_budget={mean_budget:g} to {cheapest / size:.6g} at least"
        )


def _outside(amounts: NDArray[Any], ends: Floats, forbidden: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n, L) what was forbidden, and all levels outside the bounds.

    Raises:
        InfeasibleError: an item has no level within its bounds.
    """
    outside: NDArray[np.bool_] = forbidden | (amounts < ends[:, :1]) | (amounts > ends[:, 1:])
    nothing = outside.all(axis=1)
    if nothing.any():
        row = int(nothing.argmax())
        has = np.unique(amounts[row][~forbidden[row]])
        low, high = ends[row].tolist()
        nearest = float(has[np.maximum(low - has, has - high).argmin()])
        raise InfeasibleError(
            f"bounds at {checks.item_name(row)} are ({low:g}, {high:g}), and none of its {len(has)} levels lies "
            f"between; the nearest is {nearest:g}, {max(low - nearest, nearest - high):g} away"
        )
    return outside


def _first_allowed(forbidden: NDArray[np.bool_]) -> Ints:
    """(n,) the first level that each item may have."""
    return (~forbidden).argmax(axis=1)
