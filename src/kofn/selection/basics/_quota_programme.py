"""The most valuable picks under quotas over several columns: a flow for two, an integer programme beyond."""

from __future__ import annotations

from typing import Any

import numpy as np

from kofn.core.arrays import Floats, Ints
from kofn.core.constraints import Constraints
from kofn.core.highs import linprog
from kofn.core.quotas import best_of_cells, whole_numbers

# Scores are scaled to this, so that what HiGHS takes for equal (1e-7) is equal to 13 digits.
_TOP = 1e6
# Below this share of the largest score, what whole picks lose to fractions is rounding.
_ROUNDING = 1e-11


def best_picks(scores: Floats, constraints: Constraints) -> tuple[Ints, Floats | None]:
    """The rows beside those preselected that exactly k picks of the highest sum hold; beyond two columns also what each
    group's quota is worth at the most, by the relaxation.

    Of each cell only the best items count, as many as its fullest group may hold. For two columns the linear programme
    has whole solutions. Beyond, items whose reduced cost alone exceeds what the whole numbers lose are left out.
    """
    cells, preselected = constraints.cells, constraints.preselected
    taken = cells.margins(np.bincount(cells.of[preselected], minlength=cells.count))
    left = constraints.k - len(preselected)
    room = [most - counts for most, counts in zip(cells.most, taken, strict=True)]
    most = np.min([counts[group] for group, counts in zip(cells.group, room, strict=True)], axis=0)
    open_items = ~constraints.banned
    open_items[preselected] = False
    order = np.argsort(-scores, kind="stable")
    # One more than that, so that what a looser quota would let in is there to be priced.
    items = best_of_cells(order[open_items[order]], cells.of, np.minimum(most + 1, left))
    if not len(items):
        return items, None
    unit = float(np.abs(scores[items]).max() or 1.0) / _TOP
    cost = -scores[items].astype(np.float64) / unit
    sums = cells.matrix(cells.of[items])
    low = np.concatenate([*(least - counts for least, counts in zip(cells.least, taken, strict=True)), [left]])
    high = np.concatenate([*room, [left]])
    if len(cells.columns) == 2:
        picks = _whole(cost, sums, low, high)
        assert picks is not None
        return items[picks], None
    lowest, reduced, duals = _relaxed(cost, sums, low, high)
    # Whole numbers mostly lose little; where they lose more than was allowed for, all that may matter is looked at.
    allowed = 1e-3 * _TOP
    while True:
        kept = np.abs(reduced) <= allowed
        # What the relaxation takes whole, at such a price, stays taken.
        fixed = ~kept & (reduced < 0)
        spent = np.asarray(sums[:, fixed].sum(axis=1)).ravel()
        chosen = _whole(cost[kept], sums[:, kept], low - spent, high - spent)
        if chosen is None:
            allowed *= 10
            continue
        picks = np.union1d(np.flatnonzero(fixed), np.flatnonzero(kept)[chosen])
        lost = float(cost[picks].sum()) - lowest
        if lost <= allowed or kept.all():
            # The looser relaxation gains its dual at the most, and whole picks may make up for what they lose to it.
            return items[picks], (duals + (lost if lost > _ROUNDING * _TOP else 0.0)) * unit
        allowed = lost


def _whole(cost: Floats, sums: Any, low: Ints, high: Ints) -> Ints | None:
    """Which of the items cost least together; None where no choice of them is allowed."""
    if not len(cost):
        return np.empty(0, np.int64) if (low <= 0).all() and (high >= 0).all() else None
    solution = whole_numbers(cost, sums, low, high, np.zeros(len(cost)), np.ones(len(cost)))
    return None if solution is None else np.flatnonzero(solution[0])


def _relaxed(cost: Floats, sums: Any, low: Ints, high: Ints) -> tuple[float, Floats, Floats]:
    """The least cost of fractions, each item's reduced cost, and what each group's ends are worth together."""
    from scipy.sparse import vstack

    # The last row is the number of picks, which is exact.
    rows = vstack([sums[:-1], -sums[:-1]], format="csc")
    limits = np.concatenate([high[:-1], -low[:-1]])
    solution = linprog(cost, A_ub=rows, b_ub=limits, A_eq=sums[-1:], b_eq=high[-1:], bounds=(0, 1))
    assert solution.fun is not None
    duals = -solution.ineqlin.marginals.reshape(2, -1).sum(axis=0)
    return float(solution.fun), solution.lower.marginals + solution.upper.marginals, duals
