"""Picking by score alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.core.constraints import Constraints, Tracker
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.words import Grouped
from kofn.selection.basics._quota_programme import best_picks


def one_score_an_item(scores: Any) -> Any:
    """Refuse scores by bin in a method that wants one score an item."""
    if scores.ndim != 1:
        raise InputError(
            f"scores has shape {scores.shape}; give one score an item, shape (n,), or method='topk_mask' for a table"
        )
    return scores


@method(
    "select",
    traits=("sandwich", "equivariant"),
    cost="O(n log n) time, O(n) memory",
    exact="optimal under k and quotas, over several columns too",
    paper=("folklore", "edmonds1971"),
)
def top_k(
    scores: Any,
    *,
    k: int,
    **where: Unpack[Grouped],
) -> Selection:
    """Pick the k highest scores, within quotas.

    Args:
        scores: (n,), higher is better.

    Returns:
        Selection: `start` and `include` first, then the highest scores, ties to the lowest row; status "optimal". Under
        quotas over one column `prices` is what the value gains where a quota that binds is loosened by one.

    Raises:
        InputError: bad scores. InfeasibleError: constraints that cannot be met together.

    Costs O(n log n) time and O(n) memory. Exact: quotas form a matroid, for which greedy is optimal; those over two
    columns are a flow, over more an integer programme, which HiGHS solves.

    References:
        Edmonds, "Matroids and the greedy algorithm", 1971.

    Examples:
        >>> from kofn.selection import top_k
        >>> top_k([3.0, 9.0, 5.0, 7.0], k=2).indices.tolist()
        [1, 3]
        >>> top_k([3.0, 9.0, 5.0, 7.0], k=2, groups=list("abbb"), quotas={"a": (1, None)}).indices.tolist()
        [1, 0]
    """
    one_score_an_item(scores)
    constraints = Constraints.of(len(scores), where, k=k)
    tracker = Tracker(constraints)
    picks = constraints.preselected.tolist()
    order = np.argsort(-scores, kind="stable")
    if len(constraints.columns) != 1:
        if constraints.columns:
            order = order[np.isin(order, best_picks(scores, constraints))]
        rest = order[tracker.open[order]][: constraints.k - len(picks)]
        for item in rest.tolist():
            tracker.add(item)
        picks += rest.tolist()
    else:
        while (open_items := tracker.eligible()).any():
            # An item once closed stays closed, so the order is walked once in all.
            order = order[open_items[order]]
            item = int(order[0])
            tracker.add(item)
            picks.append(item)
    used, limit = tracker.report()
    gains = scores[picks].astype(np.float64)
    value = math.fsum(gains.tolist())
    return Selection(
        n=len(scores),
        indices=np.array(picks, np.int64),
        gains=gains,
        value=value,
        bound=value,
        status="optimal",
        used=used,
        budget=limit,
        prices=_prices(scores, picks, constraints) if len(constraints.columns) == 1 else {},
        objective="modular",
        info={"oracle_calls": len(scores)},
    )


def _prices(scores: Array, picks: Sequence[int], constraints: Constraints) -> dict[str, float]:
    """What the value gains where a quota that binds is loosened by one: by the best exchange."""
    (column,) = constraints.columns
    codes, values = column.codes, np.asarray(scores, np.float64)
    picked = np.zeros(constraints.n, bool)
    picked[picks] = True
    fixed = np.isin(np.arange(constraints.n), constraints.preselected)
    best, worst = np.full(column.cells, -np.inf), np.full(column.cells, np.inf)
    open_items, free = ~picked & ~constraints.banned, picked & ~fixed
    np.maximum.at(best, codes[open_items], values[open_items])
    np.minimum.at(worst, codes[free], values[free])
    counts = column.counts(picks)
    may_add, may_drop = counts < column.most, counts > column.least
    out = {}
    for code in range(column.cells):
        others = np.arange(column.cells) != code
        gains = [0.0]
        if counts[code] == column.most[code]:
            gains.append(best[code] - worst[others & may_drop].min(initial=np.inf))
        if counts[code] == column.least[code] > 0:
            gains.append(best[others & may_add].max(initial=-np.inf) - worst[code])
        if len(gains) > 1:
            out[column.key(code)] = float(max(gains))
    return out
