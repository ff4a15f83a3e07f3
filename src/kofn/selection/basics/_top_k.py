"""Picking by score alone."""

from __future__ import annotations

import math
from typing import Any, Unpack

import numpy as np

from kofn.core.checks import InputError
from kofn.core.constraints import Constraints, Tracker
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.words import Grouped
from kofn.selection.basics._quota_prices import quota_prices
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
        quotas `prices` is what the value gains where a quota that binds is loosened by one; over three or more
        columns at most that, by the linear relaxation.

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
    relaxed = None
    order = np.argsort(-scores, kind="stable")
    if len(constraints.columns) != 1:
        if constraints.columns:
            best, relaxed = best_picks(scores, constraints)
            order = order[np.isin(order, best)]
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
        prices=quota_prices(scores, picks, constraints, relaxed) if constraints.columns else {},
        objective="modular",
        info={"oracle_calls": len(scores)},
    )
