"""Balanced assignment (BASE layers): items to bins at equal loads, one or several each, exactly, with bin prices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.assignment.routing._flows import several_bins, transport
from kofn.assignment.routing._scores import capacities, log_affinity, refuse_too_many, routes, score_table, weigh
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InfeasibleError, InputError, bin_name, item_name
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method


@method(
    "assign",
    traits=("sandwich", "priced", "equivariant"),
    draws=Draw(units={"reserve": "input"}),
    cost="O(n bins) and, for each item that must move, O(bins^2) and a share of a bin; memory n bins + 32 bins^2",
    exact="the largest total score of all assignments within each bin's least and most; loads and per_item exactly",
    paper=237,
)
def balanced_assignment(
    scores: Any,
    *,
    capacity: Any = None,
    per_item: int = 1,
    min_size: Any = None,
    reserve: float | None = None,
    gates: str = "ones",
) -> Assignment:
    """Send every item to one bin, or to several, all bins equally loaded, for the largest sum of scores.

    The routing of BASE layers: each expert processes the same number of tokens, no token is dropped and no auxiliary
    loss is needed. The paper runs an auction to within a tolerance; here the optimum is found exactly by shortest paths
    between the few bins, started from the prices of a sample.

    Args:
        scores: (n, bins), higher is better; -inf where an item may not go.
        capacity: the most a bin holds, one number or (bins,). Without it the loads are balanced: every bin holds
            n/bins items (n x per_item / bins), rounded down or up, whichever of the bins it pays to round up.
        per_item: how many different bins an item goes to.
        min_size: the least that a bin must hold, one number or (bins,). Given without a capacity, 0 too, it is the only
            limit.
        reserve: value of leaving an item unassigned, or one of its `per_item` slots empty. An item is then assigned
            only if that is better. By default every slot is filled.
        gates: the weight of each route: "ones", or "sigmoid" of its score, by which BASE layers scale what the
            expert adds to the token.

    Returns:
        An `Assignment` with `per_item` routes an item (fewer where some stayed empty, counted in `info["unfilled"]`).
        `value` is the sum of the scores of all routes and of `reserve` for each slot left empty; `bound` is the dual
        value, which equals it. `v` are the prices of the bins and `u` what each item gains over them in its bins, and
        sum u + sum v x capacity = value. No bin is worth more to an item at these prices than those it has: with one
        bin an item, u + v >= score everywhere, equal on every route. A bin held to its `min_size` against the scores
        has a price below 0, counted with its `min_size`: what one item less to hold would add. `capacity` holds the
        loads themselves where they were balanced: then only differences of prices mean something, the lowest is 0.

    Raises:
        InfeasibleError: less room than items, items whose listed bins cannot hold them all, or bins that too few items
            list for their `min_size`, naming those bins.
        InputError: scores that are not (n, bins), a capacity or min_size that does not fit the bins, per_item above
            their number.

    Cost: O(n bins) to read the scores, then one shortest path among the bins, O(bins^2), for each item that is not in
    its best bin at the sample's prices (about the square root of n for each bin), and some share of a bin's members
    for each; about n^2 bins for tables of nothing but ties. Memory: the scores, and 32 entries for each pair of bins;
    with `per_item` > 1 another 4 bytes for each score.

    Guarantee: the margins of both sides hold exactly, nothing is dropped (without `reserve`), the total is optimal
    up to the rounding of float64 sums. Who routes by the whole batch lets later tokens decide where earlier ones go:
    for next-token prediction route by argmax at test time, as the paper does.

    References:
        Lewis et al. 2021. Shortest augmenting paths for the transportation problem: Ahuja, Magnanti & Orlin 1993,
        Network Flows, chapter 9.

    Examples:
        >>> from kofn.assignment import balanced_assignment
        >>> plan = balanced_assignment([[9.0, 1.0], [8.0, 5.0], [7.0, 6.5], [6.0, 0.0]])
        >>> plan.labels.tolist(), plan.value, plan.status
        ([0, 1, 1, 0], 26.5, 'optimal')
        >>> (plan.v[0] - plan.v[1]).item()
        3.0
        >>> pairs = balanced_assignment([[9.0, 1.0, 2.0], [8.0, 5.0, 6.0], [7.0, 6.5, 1.0]], per_item=2, capacity=2)
        >>> pairs.to_frame()["bin"].to_list(), pairs.value
        ([0, 2, 1, 2, 0, 1], 35.5)
    """
    checks.choice(gates, "gates", ("ones", "sigmoid"))
    if reserve is not None:
        if not checks.is_number(reserve) or not math.isfinite(reserve):
            raise InputError(f"reserve={reserve!r}: give a finite number, what an item is worth that stays out")
        reserve = float(reserve)
    scores = score_table(scores)
    n, bins = scores.shape
    refuse_too_many(per_item, bins)
    least, low, high, balanced = margins(scores, n, capacity, min_size, per_item, reserve)
    slots = n * per_item
    rows, columns, prices = _routed(scores, low, high, per_item, reserve)
    kept = scores[rows, columns].astype(np.float64)
    loads = np.bincount(columns, minlength=bins)
    out = slots - len(rows)
    value = float(kept.sum() + (reserve or 0.0) * out)
    if balanced and reserve is None:
        high = loads
        prices = prices - prices.min()
    else:
        # A bin that no item lists has price 0.
        prices = np.where(least > 0, prices, np.maximum(prices, 0))
    gains = _most(scores, prices, per_item, reserve)
    at_limits = prices * np.where(prices < 0, least, high)
    dual = math.fsum(gains.tolist()) + math.fsum(at_limits.tolist())
    slack = 1e-9 * (float(np.abs(kept).sum()) + abs(reserve or 0.0) * out + float(np.abs(at_limits).sum()))
    exact = abs(dual - value) <= slack
    weights = None if gates == "ones" else weigh(log_affinity(scores, rows, columns, "sigmoid"), rows, "raw")
    return Assignment(
        **routes(n, bins, rows, columns, weights),
        capacity=high,
        value=value,
        sense="max",
        bound=value if exact else max(dual, value),
        status="optimal" if exact else "approximate",
        u=gains,
        v=prices,
        prices={"capacity": prices},
        used={"capacity": loads.astype(np.float64)},
        budget={"capacity": high.astype(np.float64)},
        objective="balanced_score",
        info={"unfilled": out},
    )


def _routed(
    scores: NDArray[Any], low: Ints, high: Ints, per_item: int, reserve: float | None
) -> tuple[Ints, Ints, Floats]:
    """Rows and bins of the routes, in ascending order, and the prices of the bins."""
    n, bins = scores.shape
    if reserve is not None:
        # Each slot of an item may be left empty: as many bins more of unlimited capacity.
        scores = np.column_stack([scores, np.full((n, per_item), reserve)])
        low = np.append(low, np.zeros(per_item, np.int64))
        high = np.append(high, np.full(per_item, n + 1))
    if per_item == 1:
        labels, prices = transport(scores, low, high)
        rows = np.flatnonzero(labels < bins)
        return rows, labels[rows].astype(np.int64), prices[:bins]
    # A bin holds an item once.
    placed, prices = several_bins(scores, low, np.minimum(high, n), per_item)
    rows, columns = np.nonzero(placed[:, :bins])
    return rows, columns, prices[:bins]


def _most(scores: NDArray[Any], prices: Floats, per_item: int, reserve: float | None) -> Floats:
    """(n,) the sum of each item's best scores minus prices; a slot may be left empty for the reserve."""
    worth = scores - prices
    if per_item == 1:
        best: Floats = worth.max(axis=1)
        return best if reserve is None else np.maximum(best, reserve)
    if reserve is not None:
        worth = np.maximum(worth, reserve)
    # In ascending order, so that the sum does not depend on how the partition left them.
    return np.asarray(np.sort(np.partition(worth, -per_item, axis=1)[:, -per_item:], axis=1).sum(axis=1))


def _refuse_minima(n: int, low: Ints, high: Ints, per_item: int) -> None:
    """Refuse minima beyond a bin's capacity, or beyond the items there are."""
    over = np.flatnonzero(low > high)
    if len(over):
        j = int(over[0])
        raise InfeasibleError(
            f"{bin_name(j)} must hold {low[j]} (min_size) and can hold {high[j]} (capacity): raise its capacity or "
            f"lower min_size by {low[j] - high[j]}"
        )
    if (need := sum(low.tolist())) > n * per_item:
        there = f"there are {n}" if per_item == 1 else f"{n} items in {per_item} bins each are {n * per_item}"
        raise InfeasibleError(f"min_size asks for {need} items in all, {there}: lower it by {need - n * per_item}")
    if low.max() > n:
        j = int(low.argmax())
        raise InfeasibleError(
            f"{bin_name(j)} must hold {low[j]} (min_size), there are {n} items: lower it by {low[j] - n}"
        )


def margins(
    scores: NDArray[Any], n: int, capacity: Any, min_size: Any, per_item: int, reserve: float | None
) -> tuple[Ints, Ints, Ints, bool]:
    """(bins,) the least asked of each bin, the least and most that it holds, and whether all are to hold the same.

    Args:
        scores: of the n items, or of the first of them, where only those were read.
        n: how many items there are.
        capacity: the most that a bin holds, one number or (bins,); None for any.
        min_size: the least, likewise; None for none.
        per_item: bins of each item.
        reserve: what an item is worth that stays out; None where none may.

    Raises:
        InfeasibleError: no routes hold these margins, as the counts or an item's listed bins show.
    """
    bins, slots = scores.shape[1], n * per_item
    least = capacities(0 if min_size is None else checks.capacity(min_size, "min_size"), bins, "min_size")
    balanced = capacity is None and min_size is None
    if balanced:
        low, high = np.full(bins, 0 if reserve is not None else slots // bins), np.full(bins, -(-slots // bins))
    else:
        low, high = least, np.full(bins, n) if capacity is None else capacities(capacity, bins)
        _refuse_minima(n, low, high, per_item)
    if reserve is None:
        _refuse_shortage(scores, n, high, per_item)
    return least, low, high, balanced


def _refuse_shortage(scores: NDArray[Any], n: int, high: Ints, per_item: int) -> None:
    total = sum(np.minimum(high, n).tolist())
    if n * per_item > total:
        need = (
            f"{n} items need a bin each" if per_item == 1 else f"{n} items in {per_item} bins each need {n * per_item}"
        )
        raise InfeasibleError(
            f"{need}, capacity holds {total}: {n * per_item - total} too few; raise it to "
            f"{-(-n * per_item // len(high))} a bin, or give a reserve, what an item is worth that stays out"
        )
    listed = (scores > -np.inf).sum(axis=1)
    short = np.flatnonzero(listed < per_item)
    if len(short) and per_item == 1:
        raise InfeasibleError(
            f"{item_name(short[0])} lists no bin, all its scores are -inf or missing ({len(short)} such items): it has "
            "nowhere to go; list a bin, or give a reserve, what an item is worth that stays out"
        )
    if len(short):
        raise InfeasibleError(
            f"{item_name(short[0])} lists {listed[short[0]]} bins, the others are -inf or missing ({len(short)} such "
            f"items), per_item={per_item}; list more bins, or give a reserve, what a slot is worth that stays empty"
        )
