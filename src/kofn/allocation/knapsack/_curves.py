"""One level for each item under a shared budget: loss-by-level curves, the multiple-choice knapsack.

`curves[i, l]` is the loss of item i at level l (`sense="min"`) or its value ("max"); level l of item i costs
`sizes[i] * levels[l]`. Curves may have any shape, levels any order. An item with fewer levels than the others repeats
one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.allocation.knapsack import _knapsack
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.plans import Allocation


@dataclass(frozen=True)
class Ask:
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
    ) -> Ask:
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
            objective="curves",
            info={"level": level, **info},
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
