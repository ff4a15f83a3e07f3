"""Route each item to its best-scoring bins, with at most `capacity` items per bin."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.assignment.routing import _scores
from kofn.assignment.routing._scores import (
    affinities,
    best_bins,
    capacities,
    compiled,
    known,
    log_affinity,
    plain,
    ranks,
    refuse_too_many,
    routes,
    score_table,
    weigh,
)
from kofn.core import checks
from kofn.core.arrays import Ints
from kofn.core.checks import InfeasibleError, InputError, bin_name, item_name
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method

_OVERFLOWS = ("error", "drop", "reroute")


@method(
    "assign",
    traits=("sandwich", "capped-routing", "equivariant"),
    draws=Draw(absolute=("affinity",)),
    cost="O(n bins) for the choices, O(log capacity) a slot kept, O(bins) for each displaced; memory for the slots",
    exact="capacities exactly; with reroute (and error) no justified envy, and half of the best total for scores >= 0",
    paper=("gale1962", 213),
)
def capped_routing(
    scores: Any,
    *,
    capacity: Any,
    per_item: int = 1,
    overflow: str = "error",
    candidates: int | None = None,
    affinity: str = "none",
    gates: str = "ones",
) -> Assignment:
    """Route each item to its best-scoring bins, with at most `capacity` items per bin.

    `overflow` decides what happens when more items choose a bin than it holds:

    - "error": refuse, naming the bin and the excess. A plan, if returned, gives every item its first choices.
    - "drop": the bin keeps its highest scores; a refused item loses that slot (token dropping).
    - "reroute": a refused item asks its next best bin, and may displace a lower score there (deferred
    acceptance).

    For a router at inference (capacity-aware inference: capacity = gamma x n x per_item / bins) give its logits with
    `affinity="softmax"`, so that bins rank by gate score, and `gates="raw"` or "share".

    Args:
        scores: (n, bins), higher is better; -inf where an item does not list a bin.
        capacity: how many items a bin holds: one number for all, or (bins,).
        per_item: how many different bins an item goes to.
        overflow: "error", "drop" or "reroute".
        candidates: how many of its best bins an item may ask for under "reroute"; all that it lists where not given.
        affinity: the value that items and bins rank by: the scores ("none"), their "softmax" over the bins that the
            item lists, or their "sigmoid".
        gates: the weight of each slot: "ones", the "raw" affinity, or its "share" among the item's slots.

    Returns:
        An `Assignment`: `bins` of item i at `indptr[i]:indptr[i + 1]`, ascending. `value` is the sum of the scores
        (affinities) of all slots kept; `bound` is the sum over the items' best listed bins without capacities
        (negative scores left out), which no plan exceeds. `status` is "optimal" where the value meets it,
        "approximate" (at least half of the best possible total) for "reroute" with no negative score kept, else
        "heuristic". `info["unfilled"]` counts the slots that stayed empty.

    Raises:
        InfeasibleError: `overflow="error"` and more slots than room in total, a bin chosen too often, or an item that
            lists fewer than `per_item` bins.
        InputError: scores that are not (n, bins), a capacity that does not fit the bins, per_item above the number of
            bins, candidates below per_item, weights that would not be > 0.

    Cost: one pass over the scores, O(log capacity) for each slot kept or displaced, one row of scores for each
    displacement; memory for the slots of all bins that cannot hold everyone.

    Guarantee: capacities hold exactly. With "reroute" there is no justified envy: if an item lists a bin, is not in it,
    and has a free slot or holds a bin it scores lower, then that bin is full of items that score at least as high in
    it. Equal scores prefer the lowest bin, and in a bin the lowest item. With "drop" that holds of each item's own
    first choices only: an item that lost a slot may still envy any other bin, even one with room.

    References:
        Gale & Shapley 1962. Items and bins rank by the same scores, so the stable plan is unique, and equals the greedy
        plan that takes the highest score of all first: half of the optimum (Avis 1983, Networks 13). Dropping by
        score and asking further bins at inference: He, Cai, Huang & Li 2025, Capacity-Aware Inference (arXiv
        2503.05066), whose experts choose once among each token's candidates, where here refused tokens ask on.

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
    known(affinity, gates)
    scores = score_table(scores)
    n, bins = scores.shape
    refuse_too_many(per_item, bins)
    room = capacities(capacity, bins)
    if candidates is not None and checks.count(candidates, "candidates") < per_item:
        raise InputError(f"candidates={candidates} for per_item={per_item}; let an item ask for at least per_item bins")
    if overflow == "error":
        refuse_shortage(scores, n, room, per_item)
    # Affinities that round to 0, 1 or each other would hide which score is higher.
    table = np.ascontiguousarray(ranks(scores, affinity))
    felt = scores if affinity == "none" else affinities(scores, affinity)
    if candidates is not None and candidates < bins:
        able = best_bins(scores, candidates)
        every, table = table, np.full_like(table, -np.inf)
        items, slots = np.nonzero(able >= 0)
        asked_bins = able[items, slots]
        table[items, asked_bins] = every[items, asked_bins]
    run = compiled if table.size > _scores.COMPILED_FROM else plain
    rows, columns, asked, most = run(table, room, per_item, overflow == "reroute")
    if overflow == "error" and (asked > room).any():
        over = int((asked - room).argmax())
        # Which takes neither of these two options.
        alike = affinity == "none" and candidates is None
        exact = "method='balanced_assignment' (the largest total within the capacities), or " if alike else ""
        raise InfeasibleError(
            f"{bin_name(over)} is a first choice of {asked[over]} items, over its capacity of {room[over]} by "
            f"{asked[over] - room[over]}; raise it, or use {exact}overflow='reroute' (next best bin) or 'drop'"
        )
    kept = felt[rows, columns].astype(np.float64)
    if affinity != "none":
        first = best_bins(table, per_item)
        items, slots = np.nonzero(first >= 0)
        most = float(felt[items, first[items, slots]].sum())
    value = float(kept.sum())
    positive = bool((kept >= 0).all())
    full = positive and bool((asked <= room).all())
    weights = None if gates == "ones" else weigh(log_affinity(scores, rows, columns, affinity), rows, gates)
    return Assignment(
        **routes(n, bins, rows, columns, weights),
        capacity=room,
        value=value,
        sense="max",
        bound=value if full else max(most, value),
        status="optimal" if full else "approximate" if overflow == "reroute" and positive else "heuristic",
        used={"capacity": np.bincount(columns, minlength=bins).astype(np.float64)},
        budget={"capacity": room.astype(np.float64)},
        objective="routed_score" if affinity == "none" else "routed_affinity",
        info={
            "unfilled": n * per_item - len(kept),
        },
    )


def refuse_shortage(scores: NDArray[Any], n: int, room: Ints, per_item: int) -> None:
    """Refuse infeasible input: too little room in total for n items, or one of `scores` that lists too few bins."""
    bins = scores.shape[1]
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
            f"{item_name(row)} lists {listed[row]} bins, the others are -inf or missing, per_item={per_item}; "
            "use overflow='reroute' or 'drop' to leave such slots empty"
        )
