"""Transportation problems between items and a few bins, solved exactly: each item to one bin, or to several."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InfeasibleError, names_of_bins

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
        # Minima that use up all items are the loads.
        at_least = int(low.sum()) == n and int(high.sum()) > n
        solved = _matched(scores, low if at_least else high)
        if solved is not None:
            labels, price = solved
            return labels, price - price.max() if at_least else price
    if scores.size > COMPILED_FROM:
        price = np.zeros(bins + 1) if prices is None else np.append(prices, 0.0)
        order = np.random.default_rng(0).permutation(n)
        for size in _samples(n, bins) if prices is None else ():
            few = np.ascontiguousarray(scores[order[:size]])
            _min_cost_flow(few, low * size // n, -(-high * size // n), price)
        labels, reached = _min_cost_flow(scores, low, high, price)
    else:
        placed, price, reached = _plain(scores, low, high, 1)
        labels = placed.argmax(axis=1).astype(np.int32)
    if reached.any():
        refuse_unmet(scores, low, high, reached)
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
        one_slot_each = len(slots) == bins and (slots == np.arange(bins)).all()
        rows, columns = linear_sum_assignment(table if one_slot_each else table[:, slots], maximize=True)
    except ValueError:  # some items list no free slot
        return None
    if not np.isfinite(table[rows, slots[columns]]).all():  # nor do these, which SciPy let pass
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
    counts = np.zeros(2, np.int64)
    _flow_kernels.min_cost_flow(scores, low, high, price, labels, flow, reached, _width(bins), counts)
    # A bin strictly within its bounds has exactly the price of a free slot; rounding must not blur this.
    price[:-1][(flow > low) & (flow < high)] = price[-1]
    return labels, reached


def _cheapest(cost: Floats, distance: Floats) -> tuple[Floats, list[Ints]]:
    """Shortest distances from the sources, and in each round whence the nodes are reached that came nearer, else -1."""
    rounds: list[Ints] = []
    for _ in range(len(cost)):
        paths = distance[:, None] + cost
        before = paths.argmin(axis=0)
        reach = paths[before, np.arange(len(cost))]
        nearer = reach < distance - 1e-12 * np.abs(np.where(np.isfinite(distance), distance, 0.0))
        if not nearer.any():
            break
        distance = np.where(nearer, reach, distance)
        rounds.append(np.where(nearer, before, -1))
    return distance, rounds


def _path(rounds: Sequence[Ints], end: int) -> list[int]:
    """The nodes of the shortest path to the end, backwards, each once.

    Where scores are large, a cycle of cost 0 is below it by rounding and comes nearer in every round. Followed round by
    round a path always begins at a source; what goes around such a cycle is left out.
    """
    path = [end]
    for before in reversed(rounds):
        node = int(before[path[-1]])
        if node < 0:
            continue
        if node in path:
            del path[path.index(node) + 1 :]
        else:
            path.append(node)
    return path


def _samples(n: int, bins: int) -> list[int]:
    """Sizes of the samples from which initial prices come, the smallest first."""
    sizes = [n]
    while sizes[-1] // _COARSER >= _SMALLEST_SAMPLE * bins:
        sizes.append(sizes[-1] // _COARSER)
    return sizes[:0:-1]


def _width(bins: int) -> int:
    """Length of the sorted list for each pair of bins."""
    return max(1, min(_WIDTH, _MOST_KEPT // bins**2))


def several_bins(scores: NDArray[Any], low: Ints, high: Ints, per_item: int) -> tuple[NDArray[np.bool_], Floats]:
    """Each item to `per_item` different bins, largest total score, low <= loads <= high.

    Returns:
        (n, bins) True where the bin holds the item, and the prices of the bins, at which each item holds its best ones.

    Raises:
        InfeasibleError: the bins that items list cannot hold them, or too few items list some bins.
    """
    scores = np.ascontiguousarray(scores)
    n, bins = scores.shape
    if scores.size <= COMPILED_FROM:
        placed, price, reached = _plain(scores, low, high, per_item)
    else:
        price = np.zeros(bins + 1)
        order = np.random.default_rng(0).permutation(n)
        for size in _samples(n, bins):
            few = np.ascontiguousarray(scores[order[:size]])
            _several_flow(few, low * size // n, np.minimum(-(-high * size // n), size), per_item, price)
        placed, reached = _several_flow(scores, low, high, per_item, price)
    if reached.any():
        refuse_unmet(scores, low, high, reached, per_item)
    return placed, price[:-1] - price[-1]


def _several_flow(
    scores: NDArray[Any], low: Ints, high: Ints, per_item: int, price: Floats
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Run the compiled search from `prices`, and update them in place."""
    from kofn.assignment.routing import _several_kernels

    n, bins = scores.shape
    position, flow, reached = np.full((n, bins), -1, np.int32), np.zeros(bins, np.int64), np.zeros(bins + 1, bool)
    counts = np.zeros(2, np.int64)
    _several_kernels.several_flow(scores, low, high, price, per_item, position, flow, reached, _width(bins), counts)
    # A bin strictly within its bounds has exactly the price of a free slot; rounding must not blur this.
    price[:-1][(flow > low) & (flow < high)] = price[-1]
    return position >= 0, reached


def _plain(
    scores: NDArray[Any], low: Ints, high: Ints, per_item: int
) -> tuple[NDArray[np.bool_], Floats, NDArray[np.bool_]]:
    """The same in NumPy without initial prices, also of one bin an item: shortest paths by Bellman-Ford."""
    table = scores.astype(np.float64)
    n, bins = table.shape
    placed = np.zeros((n, bins), bool)
    np.put_along_axis(placed, np.argsort(-table, axis=1, kind="stable")[:, :per_item], True, axis=1)
    load = placed.sum(axis=0)
    flow = np.clip(load, low, high)
    excess = np.append(load - flow, flow.sum() - n * per_item)
    cost, who = np.full((bins + 1, bins + 1), np.inf), np.zeros((bins, bins), np.int64)
    stale = np.arange(bins)
    while True:
        for a in stale.tolist():
            _costs(table, placed, a, cost, who)
        cost[:-1, -1] = np.where(flow < high, 0.0, np.inf)
        cost[-1, :-1] = np.where(flow > low, 0.0, np.inf)
        np.fill_diagonal(cost, np.inf)
        distance, rounds = _cheapest(cost, np.where(excess > 0, 0.0, np.inf))
        ends = np.flatnonzero((excess < 0) & np.isfinite(distance))
        if not len(ends):
            break
        path = _path(rounds, int(ends[distance[ends].argmin()]))
        excess[path[0]] += 1
        excess[path[-1]] -= 1
        moves = []
        for b, a in itertools.pairwise(path):
            if a == bins:
                flow[b] -= 1
            elif b == bins:
                flow[a] += 1
            else:
                moves.append((int(who[a, b]), a, b))
        for i, a, b in moves:
            placed[i, a], placed[i, b] = False, True
        stale = np.array([node for node in path if node < bins], np.int64)
    reached = np.isfinite(distance) & bool((excess > 0).any())
    return placed, -_cheapest(cost, np.zeros(bins + 1))[0], reached


def _costs(table: Floats, placed: NDArray[np.bool_], a: int, cost: Floats, who: Ints) -> None:
    """What the cheapest move from bin a to each other and from each other to it costs, and whose it is."""
    bins = table.shape[1]
    own = table[:, [a]]
    away = np.where(placed[:, [a]] & ~placed, own, np.inf) - table
    home = np.where(placed & ~placed[:, [a]], table, np.inf) - own
    for costs, at in ((away, (a, slice(bins))), (home, (slice(bins), a))):
        pick = costs.argmin(axis=0)
        who[at], cost[at] = pick, costs[pick, np.arange(bins)]


def refuse_unmet(scores: NDArray[Any], low: Ints, high: Ints, reached: NDArray[np.bool_], per_item: int = 1) -> None:
    """Refuse an infeasible problem, naming the bins with too little room or too few items.

    Raises:
        InfeasibleError: always.
    """
    inside, listed = reached[:-1], scores > -np.inf
    if not reached[-1]:
        bound = int(np.maximum(per_item - listed[:, ~inside].sum(axis=1), 0).sum())
        room = int(high[inside].sum())
        slots = f"slots of per_item={per_item} fit in no bins but"
        shortage = "items list no other bins than" if per_item == 1 else slots
        raise InfeasibleError(
            f"{bound} {shortage} {names_of_bins(inside)}, whose capacity holds {room}: {bound - room} too many; raise "
            "it, list more bins, or give a reserve"
        )
    able = int(np.minimum(per_item, listed[:, ~inside].sum(axis=1)).sum())
    need = int(low[~inside].sum())
    who = f"{able} items list them" if per_item == 1 else f"items that list them fill {able}"
    raise InfeasibleError(
        f"bins {names_of_bins(~inside)} must hold {need} items (min_size, or to be balanced), and {who}: "
        f"{need - able} too few; lower min_size, give a capacity, or list more bins"
    )
