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
    traits=("sandwich", "capped-routing"),
    cost="O(n bins) time for the choices and O(log capacity) for each that is kept; O(n bins) memory at most beside the scores",
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
    - "reroute": whoever it refuses asks for the next best bin, and may displace a lower score there (deferred acceptance).

    Args:
        scores: (n, bins), higher is better; -inf where an item does not list a bin.
        capacity: how many items a bin holds: one number for all, or (bins,).
        per_item: how many different bins an item goes to.
        overflow: "error", "drop" or "reroute".

    Returns:
        An `Assignment` of weight 1 a slot: `bins` of item i at `indptr[i]:indptr[i + 1]`, ascending. `value` is the sum of
        the scores of all slots kept; `bound` is what the items' best listed bins would sum to without capacities (negative
        scores left out), and no plan exceeds it. `status` is "optimal" where the value meets it, "approximate" (at least half
        of the best possible total) for "reroute" with scores >= 0, else "heuristic". `info["unfilled"]` counts the slots that
        stayed empty, `info["demand"]` who asked first for each bin.

    Raises:
        InfeasibleError: `overflow="error"` and more slots than room in total, a bin chosen too often, or an item that lists
            fewer than `per_item` bins.
        InputError: scores that are not (n, bins), a capacity that does not fit the bins, per_item above the number of bins.

    Cost: one pass over the scores, O(log capacity) for each slot kept or displaced, and one row for each displacement.

    Guarantee: capacities hold exactly. With "reroute" there is no justified envy: if an item lists a bin, is not in it, and
    has a free slot or holds a bin it scores lower, then that bin is full of items that score at least as high in it. Equal
    scores prefer the lowest bin, and in a bin the lowest item. With "drop" an item that lost a slot may still envy a bin
    with room; only its own first choices are held to be full of better scores.

    References:
        Gale & Shapley 1962. Items and bins rank by the same scores, so the stable plan is unique, and equals the greedy plan
        that takes the highest score of all first: half of the optimum (Avis 1983, Networks 13).

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
    if scores.size > _COMPILED_FROM:
        rows, columns, demand = _deferred(scores, room, per_item, overflow == "reroute")
    else:
        wanted_rows, wanted = _first_choices(scores, per_item)
        demand = np.bincount(wanted, minlength=bins)
        keep = _highest if overflow == "reroute" else _kept
        rows, columns = keep(scores, room, per_item) if overflow == "reroute" else keep(scores, room, wanted_rows, wanted)
    if overflow == "error":
        _refuse_excess(demand, room)
    return _plan(scores, room, per_item, rows, columns, demand, overflow)
