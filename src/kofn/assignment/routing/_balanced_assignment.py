"""Balanced assignment (BASE layers): each item to one bin at equal loads, solved exactly, with bin prices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.assignment.routing._scores import capacities, log_affinity, routes, score_table, weigh
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method

# Below this many scores NumPy finishes before compiled code is loaded.
COMPILED_FROM = 2_000
# Initial prices come from a sample, in which one item represents this many.
_COARSER = 4
_SMALLEST_SAMPLE = 32
# Length of the sorted list for each pair of bins, and the most entries of all lists.
_WIDTH, _MOST_KEPT = 32, 4_000_000
# Bins of at most so many items each, on average, are matched slot by slot; the most entries of that table.
_MOST_SLOTS, _MOST_MATCHED = 4, 40_000_000
_ROUNDING = 1e-15


@method(
    "assign",
    traits=("sandwich", "priced", "equivariant"),
    draws=Draw(units={"reserve": "input"}),
    cost="O(n bins) and, for each item that must move, O(bins^2) and a share of a bin; memory n bins + 32 bins^2",
    exact="the largest total score of all assignments within each bin's least and most; loads exactly",
    paper=237,
)
def balanced_assignment(
    scores: Any,
    *,
    capacity: Any = None,
    min_size: Any = 0,
    reserve: float | None = None,
    gates: str = "ones",
) -> Assignment:
    """Send every item to one bin, all bins equally loaded, for the largest sum of scores.

    The routing of BASE layers: each expert processes the same number of tokens, no token is dropped and no auxiliary
    loss is needed. The paper runs an auction to within a tolerance; here the optimum is found exactly by shortest paths
    between the few bins, started from the prices of a sample.

    Args:
        scores: (n, bins), higher is better; -inf where an item may not go.
        capacity: the most a bin holds, one number or (bins,). Without it the loads are balanced: every bin holds
            n/bins items, rounded down or up, whichever of the bins it pays to round up.
        min_size: the least that a bin must hold, one number or (bins,). Given without a capacity, it is the only limit.
        reserve: value of leaving an item unassigned. An item is then assigned only if that is better. By default
            every item is assigned.
        gates: the weight of each route: "ones", or "sigmoid" of its score, by which BASE layers scale what the
            expert adds to the token.

    Returns:
        An `Assignment` with one route an item (none where it stayed out, counted in `info["unfilled"]`). `value` is the
        sum of the scores of all routes and of `reserve` for each item left out; `bound` is the dual value, which
        equals it. `v` are the prices of the bins and `u` what each item gains over them: u + v >= score everywhere,
        equal on every route, and sum u + sum v x capacity = value. A bin held to its `min_size` against the scores has
        a price below 0, counted with its `min_size`: what one item less to hold would add. `capacity` holds the loads
        themselves where they were balanced: then only differences of prices mean something, and the lowest is 0.

    Raises:
        InfeasibleError: less room than items, items whose listed bins cannot hold them all, or bins that too few items
            list for their `min_size`, naming those bins.
        InputError: scores that are not (n, bins), a capacity or min_size that does not fit the bins.

    Cost: O(n bins) to read the scores, then one shortest path among the bins, O(bins^2), for each item that is not in
    its best bin at the sample's prices (about the square root of n for each bin), and some share of a bin's members
    for each; about n^2 bins for tables of nothing but ties. Memory: the scores, and 32 entries for each pair of bins.

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
    """
    checks.choice(gates, "gates", ("ones", "sigmoid"))
    if reserve is not None:
        if not checks.is_number(reserve) or not math.isfinite(reserve):
            raise InputError(f"reserve={reserve!r}: give a finite number, what an item is worth that stays out")
        reserve = float(reserve)
    scores = score_table(scores)
    n, bins = scores.shape
    least = capacities(checks.capacity(min_size, "min_size"), bins, "min_size")
    balanced = capacity is None and not least.any()
    if balanced:
        low, high = np.full(bins, 0 if reserve is not None else n // bins), np.full(bins, -(-n // bins))
    else:
        low, high = least, np.full(bins, n) if capacity is None else capacities(capacity, bins)
        _refuse_minima(n, low, high)
    if reserve is None:
        _refuse_shortage(scores, high)
        labels, prices = transport(scores, low, high)
    else:
        # Leaving an item out is one more bin, of unlimited capacity.
        wide = np.column_stack([scores, np.full(n, reserve)])
        labels, prices = transport(wide, np.append(low, 0), np.append(high, n + 1))
        labels, prices = np.where(labels < bins, labels, -1).astype(np.int32), prices[:-1]
    rows = np.flatnonzero(labels >= 0)
    kept = scores[rows, labels[rows]].astype(np.float64)
    out = n - len(rows)
    value = float(kept.sum() + (reserve or 0.0) * out)
    if balanced and reserve is None:
        high = np.bincount(labels, minlength=bins)
        prices = prices - prices.min()
    else:
        # A bin that no item lists has price 0.
        prices = np.where(least > 0, prices, np.maximum(prices, 0))
    gains = _most(scores, prices, reserve)
    at_limits = prices * np.where(prices < 0, least, high)
    dual = math.fsum(gains.tolist()) + math.fsum(at_limits.tolist())
    slack = 1e-9 * (float(np.abs(kept).sum()) + abs(reserve or 0.0) * out + float(np.abs(at_limits).sum()))
    exact = abs(dual - value) <= slack
    weights = None if gates == "ones" else weigh(log_affinity(scores, rows, labels[rows], "sigmoid"), rows, "raw")
    return Assignment(
        **routes(n, bins, rows, labels[rows], weights),
        capacity=high,
        value=value,
        sense="max",
        bound=value if exact else max(dual, value),
        status="optimal" if exact else "approximate",
        u=gains,
        v=prices,
        prices={"capacity": prices},
        used={"capacity": np.bincount(labels[rows], minlength=bins).astype(np.float64)},
        budget={"capacity": high.astype(np.float64)},
        objective="balanced_score",
        info={"unfilled": out},
    )


def transport(
    scores: NDArray[Any], low: Ints, high: Ints, prices: Floats | None = None
) -> tuple[NDArray[np.int32], Floats]:
    """Transportation problem: each item to one bin, largest total score, low <= loads <= high; labels and prices.

    A price is >= 0 where a bin is full, <= 0 where it holds its least, 0 between: `scores - prices` is largest, for
    each item, at its own bin. Exact up to rounding. `prices` of a similar problem warm-start the search.

    Raises:
        InfeasibleError: the bins that some items list cannot hold them, or too few items list some bins.
    """
    scores = np.ascontiguousarray(scores)
    n, bins = scores.shape
    if scores.size > COMPILED_FROM and prices is None and one_to_one(n, bins, low, high):
        solved = _matched(scores, high)
        if solved is not None:
            return solved
    if scores.size > COMPILED_FROM:
        price = np.zeros(bins + 1) if prices is None else np.append(prices, 0.0)
        order = np.random.default_rng(0).permutation(n)
        sizes = [n]
        while prices is None and sizes[-1] // _COARSER >= _SMALLEST_SAMPLE * bins:
            sizes.append(sizes[-1] // _COARSER)
        for size in reversed(sizes[1:]):
            few = np.ascontiguousarray(scores[order[:size]])
            _min_cost_flow(few, low * size // n, -(-high * size // n), price)
        labels, reached = _min_cost_flow(scores, low, high, price)
    else:
        labels, price, reached = _plain(scores, low, high)
    if reached.any():
        _refuse_unmet(scores, low, high, reached)
    return labels, price[:-1] - price[-1]


def one_to_one(n: int, bins: int, low: Ints, high: Ints) -> bool:
    """Whether SciPy's matching is faster: bins of a few items each, as many slots as fit in memory."""
    slots = int(np.minimum(high, n).sum())
    settled = not low.any() or int(low.sum()) == n or int(high.sum()) == n
    return settled and slots <= _MOST_SLOTS * n and bins * _MOST_SLOTS >= n and n * slots <= _MOST_MATCHED


def _matched(scores: NDArray[Any], high: Ints) -> tuple[NDArray[np.int32], Floats] | None:
    """Items matched with the bins' slots by SciPy, and the least prices that prove it; None where not all have one."""
    from scipy.optimize import linear_sum_assignment

    n, bins = scores.shape
    slots = np.repeat(np.arange(bins), np.minimum(high, n))
    table = scores.astype(np.float64)
    if len(slots) < n:
        return None
    try:
        rows, columns = linear_sum_assignment(table if len(slots) == bins else table[:, slots], maximize=True)
    except ValueError:  # some items list no free slot
        return None
    labels = np.empty(n, np.int32)
    labels[rows] = slots[columns]
    order = np.argsort(labels, kind="stable")
    used, first = np.unique(labels[order], return_index=True)
    # What an item of one bin would lose by going to another, at the least: no more than that do their prices differ.
    gains = np.maximum.reduceat(table[order] - table[order, labels[order]][:, None], first, axis=0)
    full = np.bincount(labels, minlength=bins) >= high
    prices, stale = np.zeros(bins), np.arange(len(used))
    for _ in range(bins):
        raised = np.maximum(prices, (prices[used[stale], None] + gains[stale]).max(axis=0))
        raised[~full] = 0.0
        grown = raised > prices + _ROUNDING * np.abs(raised)
        if not grown.any():
            break
        prices = np.where(grown, raised, prices)
        stale = np.flatnonzero(grown[used])
        if not len(stale):
            break
    return labels, prices


def _min_cost_flow(
    scores: NDArray[Any], low: Ints, high: Ints, price: Floats
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Run the compiled search from `prices`, and update them in place."""
    from kofn.assignment.routing import _flow_kernels

    n, bins = scores.shape
    labels, flow, reached = np.empty(n, np.int32), np.zeros(bins, np.int64), np.zeros(bins + 1, bool)
    width = max(1, min(_WIDTH, _MOST_KEPT // bins**2))
    counts = np.zeros(2, np.int64)
    _flow_kernels.min_cost_flow(scores, low, high, price, labels, flow, reached, width, counts)
    # A bin strictly within its bounds has exactly the price of a free slot; rounding must not blur this.
    price[:-1][(flow > low) & (flow < high)] = price[-1]
    return labels, reached


def _plain(scores: NDArray[Any], low: Ints, high: Ints) -> tuple[NDArray[np.int32], Floats, NDArray[np.bool_]]:
    """The same in NumPy without initial prices: shortest paths by Bellman-Ford."""
    table = scores.astype(np.float64)
    n, bins = table.shape
    labels = table.argmax(axis=1).astype(np.int32)
    load = np.bincount(labels, minlength=bins)
    flow = np.clip(load, low, high)
    excess = np.append(load - flow, flow.sum() - n)
    cost, who = np.full((bins + 1, bins + 1), np.inf), np.zeros((bins, bins), np.int64)
    stale = list(range(bins))
    while True:
        for a in stale:
            cost[a, :-1] = np.inf
            members = np.flatnonzero(labels == a)
            if len(members):
                falls = table[members, a][:, None] - table[members]
                pick = falls.argmin(axis=0)
                who[a], cost[a, :-1] = members[pick], falls[pick, np.arange(bins)]
        cost[:-1, -1] = np.where(flow < high, 0.0, np.inf)
        cost[-1, :-1] = np.where(flow > low, 0.0, np.inf)
        np.fill_diagonal(cost, np.inf)
        distance, parent = _cheapest(cost, np.where(excess > 0, 0.0, np.inf))
        ends = np.flatnonzero((excess < 0) & np.isfinite(distance))
        if not len(ends):
            break
        b = int(ends[distance[ends].argmin()])
        excess[b] += 1
        stale = []
        while (a := int(parent[b])) >= 0:
            if a == bins:
                flow[b] -= 1
            elif b == bins:
                flow[a] += 1
            else:
                labels[who[a, b]] = b
                stale += [a, b]
            b = a
        excess[b] -= 1
    reached = np.isfinite(distance) & bool((excess > 0).any())
    return labels, -_cheapest(cost, np.zeros(bins + 1))[0], reached


def _cheapest(cost: Floats, distance: Floats) -> tuple[Floats, Ints]:
    """Shortest distances from the sources, and each node's predecessor."""
    parent = np.full(len(cost), -1)
    for _ in range(len(cost)):
        paths = distance[:, None] + cost
        before = paths.argmin(axis=0)
        reach = paths[before, np.arange(len(cost))]
        # Rounding must not make a zero-cost cycle loop forever.
        nearer = reach < distance - 1e-12 * np.abs(np.where(np.isfinite(distance), distance, 0.0))
        if not nearer.any():
            break
        distance, parent = np.where(nearer, reach, distance), np.where(nearer, before, parent)
    return distance, parent


def _most(scores: NDArray[Any], prices: Floats, reserve: float | None) -> Floats:
    """(n,) best score minus price of each item."""
    best: Floats = (scores - prices).max(axis=1)
    return best if reserve is None else np.maximum(best, reserve)


def _refuse_minima(n: int, low: Ints, high: Ints) -> None:
    """Refuse minima beyond a bin's capacity, or beyond the items there are."""
    over = np.flatnonzero(low > high)
    if len(over):
        j = int(over[0])
        raise InfeasibleError(
            f"bin {j} must hold {low[j]} (min_size) and can hold {high[j]} (capacity): raise its capacity or lower "
            f"min_size by {low[j] - high[j]}"
        )
    if (need := sum(low.tolist())) > n:
        raise InfeasibleError(f"min_size asks for {need} items in all, there are {n}: lower it by {need - n}")


def _refuse_shortage(scores: NDArray[Any], high: Ints) -> None:
    n, total = len(scores), sum(high.tolist())
    if n > total:
        raise InfeasibleError(
            f"{n} items need a bin each, capacity holds {total}: {n - total} too few; raise it to "
            f"{-(-n // len(high))} a bin, or give a reserve, what an item is worth that stays out"
        )
    empty = np.flatnonzero((scores == -np.inf).all(axis=1))
    if len(empty):
        raise InfeasibleError(
            f"scores at row {empty[0]} are all -inf ({len(empty)} such rows): such an item has nowhere to go; list a "
            "bin, or give a reserve, what an item is worth that stays out"
        )


def _refuse_unmet(scores: NDArray[Any], low: Ints, high: Ints, reached: NDArray[np.bool_]) -> None:
    """Refuse an infeasible problem, naming the bins with too little room or too few items."""
    inside = reached[:-1]
    names = ", ".join(map(str, np.flatnonzero(inside)[:5])) + (", ..." if inside.sum() > 5 else "")
    if not reached[-1]:
        bound = int((scores[:, ~inside] == -np.inf).all(axis=1).sum())
        raise InfeasibleError(
            f"{bound} items list no other bins than {names}, whose capacity holds {high[inside].sum()}: "
            f"{bound - high[inside].sum()} too many; raise it, list more bins, or give a reserve"
        )
    names = ", ".join(map(str, np.flatnonzero(~inside)[:5])) + (", ..." if (~inside).sum() > 5 else "")
    able = int((scores[:, ~inside] > -np.inf).any(axis=1).sum())
    raise InfeasibleError(
        f"bins {names} must hold {low[~inside].sum()} items (min_size, or to be balanced), and {able} items list them: "
        f"{low[~inside].sum() - able} too few; lower min_size, give a capacity, or list more bins"
    )
