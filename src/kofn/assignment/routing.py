"""Routes over a table of scores: every item to its best bins, no bin above its capacity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn import checks
from kofn.checks import InfeasibleError, InputError
from kofn.plans import Assignment
from kofn.registry import method

Ints = NDArray[np.int64]

_OVERFLOWS = ("error", "drop", "reroute")
# Below this many scores Python and NumPy are done before compiled code is loaded.
_COMPILED_FROM = 20_000


@method(
    "assign",
    traits=("sandwich", "capped-routing", "equivariant"),
    cost="O(n bins) for the choices, O(log capacity) a slot kept, O(bins) for each displaced; memory for the slots",
    exact="capacities exactly; with reroute (and error) no justified envy, and half of the best total for scores >= 0",
    paper="Gale & Shapley 1962, College Admissions and the Stability of Marriage (American Mathematical Monthly 69)",
)
def capped_routing(
    scores: Any,
    *,
    capacity: Any,
    per_item: int = 1,
    overflow: str = "error",
) -> Assignment:
    """Send each item to its best-scoring bins, at most `capacity` items to a bin.

    What happens where more items choose a bin than it holds:

    - "error": refuse, naming the bin and by how much. The plan, if there is one, gives every item its first choices.
    - "drop": the bin keeps its highest scores; whoever it refuses loses that slot (token dropping).
    - "reroute": whoever it refuses asks for the next best bin, and may displace a lower score there (deferred
    acceptance).

    Args:
        scores: (n, bins), higher is better; -inf where an item does not list a bin.
        capacity: how many items a bin holds: one number for all, or (bins,).
        per_item: how many different bins an item goes to.
        overflow: "error", "drop" or "reroute".

    Returns:
        An `Assignment` of weight 1 a slot: `bins` of item i at `indptr[i]:indptr[i + 1]`, ascending. `value` is the sum
        of the scores of all slots kept; `bound` is what the items' best listed bins would sum to without capacities
        (negative scores left out), and no plan exceeds it. `status` is "optimal" where the value meets it,
        "approximate" (at least half of the best possible total) for "reroute" with no negative score kept, else
        "heuristic". `info["unfilled"]` counts the slots that stayed empty.

    Raises:
        InfeasibleError: `overflow="error"` and more slots than room in total, a bin chosen too often, or an item that
            lists fewer than `per_item` bins.
        InputError: scores that are not (n, bins), a capacity that does not fit the bins, per_item above the number of
            bins.

    Cost: one pass over the scores, O(log capacity) for each slot kept or displaced, one row of scores for each
    displacement; memory for the slots of all bins that cannot hold everyone.

    Guarantee: capacities hold exactly. With "reroute" there is no justified envy: if an item lists a bin, is not in it,
    and has a free slot or holds a bin it scores lower, then that bin is full of items that score at least as high in
    it. Equal scores prefer the lowest bin, and in a bin the lowest item. With "drop" that holds of each item's own
    first choices
    only: who lost a slot may still envy any other bin, even one with room.

    References:
        Gale & Shapley 1962. Items and bins rank by the same scores, so the stable plan is unique, and equals the greedy
        plan that takes the highest score of all first: half of the optimum (Avis 1983, Networks 13).

    Examples:
        >>> from kofn.assignment import capped_routing
        >>> scores = [[9.0, 1.0], [8.0, 5.0], [7.0, 6.0]]
        >>> capped_routing(scores, capacity=2, overflow="reroute").labels.tolist()
        [0, 0, 1]
        >>> capped_routing(scores, capacity=2, overflow="drop").labels.tolist()
        [0, 0, -1]
        >>> capped_routing(scores, capacity=3).value
        24.0
    """
    checks.choice(overflow, "overflow", _OVERFLOWS)
    if scores.ndim != 2:
        raise InputError(f"scores has shape {scores.shape}; give (n, bins), one score for each item and bin")
    n, bins = scores.shape
    if per_item > bins:
        raise InputError(f"per_item={per_item} of {bins} bins; ask for per_item <= {bins}")
    if not np.isscalar(capacity) and len(capacity) != bins:
        raise InputError(f"capacity has {len(capacity)} values, scores has {bins} bins; give one for each bin")
    room = np.broadcast_to(np.asarray(capacity, np.int64), bins).copy()
    if overflow == "error":
        _refuse_shortage(scores, room, per_item)
    scores = np.ascontiguousarray(scores)
    run = _compiled if scores.size > _COMPILED_FROM else _plain
    rows, columns, asked, most = run(scores, room, per_item, overflow == "reroute")
    if overflow == "error" and (asked > room).any():
        over = int((asked - room).argmax())
        raise InfeasibleError(
            f"bin {over} is a first choice of {asked[over]} items, over its capacity of {room[over]} by "
            f"{asked[over] - room[over]}; raise it, or use overflow='reroute' (next best bin) or 'drop'"
        )
    kept = scores[rows, columns].astype(np.float64)
    value = float(kept.sum())
    positive = bool((kept >= 0).all())
    full = positive and bool((asked <= room).all())
    return Assignment(
        n=n,
        indptr=np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))]).astype(np.int64),
        bins=columns.astype(np.int32),
        weights=np.ones(len(columns), np.float32),
        k=bins,
        capacity=room,
        value=value,
        sense="max",
        bound=value if full else max(most, value),
        status="optimal" if full else "approximate" if overflow == "reroute" and positive else "heuristic",
        used={"capacity": np.bincount(columns, minlength=bins).astype(np.float64)},
        budget={"capacity": room.astype(np.float64)},
        info={"objective": "routed_score", "unfilled": n * per_item - len(kept)},
    )


def _refuse_shortage(scores: NDArray[Any], room: Ints, per_item: int) -> None:
    """Refuse what no routing can place: too little room in all, or an item that lists too few bins."""
    n, bins = scores.shape
    total = sum(room.tolist())
    if n * per_item > total:
        raise InfeasibleError(
            f"{n} items in {per_item} bins each need {n * per_item} slots, capacity holds {total}: "
            f"{n * per_item - total} too few; raise it to {-(-n * per_item // bins)} a bin, or use overflow='drop'"
        )
    listed = (scores > -np.inf).sum(axis=1)
    if listed.min() < per_item:
        row = int(listed.argmin())
        raise InfeasibleError(
            f"scores at row {row} list {listed[row]} bins (the others are -inf), per_item={per_item}; "
            "use overflow='reroute' or 'drop' to leave such slots empty"
        )


def _compiled(scores: NDArray[Any], room: Ints, per_item: int, reroute: bool) -> tuple[Ints, Ints, Ints, float]:
    """Rows and bins of the slots kept, how many ask first for each bin, and what the first choices sum to."""
    from kofn.assignment import _kernels

    n, bins = scores.shape
    heaped = np.where(room < n, room, 0)
    held = np.full((n, per_item), -1, np.int32)
    asked, most = np.zeros(bins, np.int64), np.zeros(1)
    heaps = np.empty(heaped.sum(), scores.dtype), np.empty(heaped.sum(), np.int32)
    _kernels.defer(scores, room, np.cumsum(heaped) - heaped, reroute, held, asked, *heaps, most)
    held.sort(axis=1)
    rows, slots = np.nonzero(held >= 0)
    return rows, held[rows, slots].astype(np.int64), asked, float(most[0])


def _plain(scores: NDArray[Any], room: Ints, per_item: int, reroute: bool) -> tuple[Ints, Ints, Ints, float]:
    """The same by sorting; as both sides rank by score, the stable plan takes the highest score of all first."""
    n, bins = scores.shape
    first = np.argsort(-scores, axis=1, kind="stable")[:, :per_item]
    rows, columns = np.repeat(np.arange(n), per_item), first.ravel()
    listed = scores[rows, columns] > -np.inf
    rows, columns = rows[listed], columns[listed]
    best = scores[rows, columns]
    asked, most = np.bincount(columns, minlength=bins), float(np.maximum(best, 0).sum(dtype=np.float64))
    if reroute:
        rows, columns = np.nonzero(scores > -np.inf)
        order = np.lexsort((columns, rows, -scores[rows, columns]))
        free, space, kept = [per_item] * n, room.tolist(), []
        for pair in order.tolist():
            i, j = rows[pair], columns[pair]
            if free[i] and space[j]:
                free[i] -= 1
                space[j] -= 1
                kept.append(pair)
    else:
        order = np.lexsort((rows, -best, columns))
        place = np.arange(len(order)) - (np.cumsum(asked) - asked)[columns[order]]
        kept = order[place < room[columns[order]]].tolist()
    rows, columns = rows[kept], columns[kept]
    tidy = np.lexsort((columns, rows))
    return rows[tidy], columns[tidy], asked, most
