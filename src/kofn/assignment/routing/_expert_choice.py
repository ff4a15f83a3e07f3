"""Expert choice routing: each bin takes its `capacity` highest-affinity items, so loads are equal by construction."""

from __future__ import annotations

from typing import Any

import numpy as np

from kofn.assignment.routing import _scores
from kofn.assignment.routing._scores import (
    affinities,
    capacities,
    compiled,
    known,
    log_affinity,
    plain,
    refuse_too_many,
    routes,
    score_table,
    weigh,
)
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method


@method(
    "assign",
    traits=("sandwich", "equivariant"),
    draws=Draw(kinds={"capacity": "choosing"}, scale_free=False),
    cost="O(n bins); with per_item O(n bins + slots log capacity); memory 2 n bins numbers",
    exact="each bin's highest affinities, capacities exactly; with per_item both margins exactly",
    paper=276,
)
def expert_choice(
    scores: Any,
    *,
    capacity: Any = None,
    per_item: int | None = None,
    capacity_factor: float | None = None,
    affinity: str = "softmax",
    gates: str = "raw",
) -> Assignment:
    """Expert choice routing: each bin takes its `capacity` highest-affinity items, so loads are equal by construction.

    An item may be taken by any number of bins, including none. The choice depends on the whole batch, so **later tokens
    affect whether earlier ones are served**: in next-token prediction this leaks the future.

    Args:
        scores: (n, bins) router logits; -inf where a bin may not take an item.
        capacity: how many items a bin takes, one number or (bins,).
        capacity_factor: in place of capacity: bins per item on average, capacity = n x factor / bins, rounded down, at
            least 1. 2 where neither is given.
        per_item: the most bins that may take the same item. Routing is then deferred acceptance, as in `capped_routing`
            with "reroute", and bins may stay below their capacity.
        affinity: the value that bins rank by: "softmax" of an item's scores over the bins (the paper), "sigmoid", or
            "none".
        gates: the weight of each route: the "raw" affinity (the paper), its "share" among the item's bins, or "ones".

    Returns:
        An `Assignment`; `value` is the sum of the affinities of all routes. Without `per_item` it is optimal for these
        capacities, with it at least half of the optimum. `info["unserved"]` counts items that no bin took,
        `info["unfilled"]` slots of bins that stayed empty.

    Raises:
        InputError: scores that are not (n, bins), both capacity and capacity_factor, weights that would not be > 0.

    Cost: the exponentials of all scores and one partition for each bin.

    Guarantee: without `per_item` every bin holds exactly min(capacity, items that list it); the number of bins
    per item is free, and an item that no bin takes is dropped (`unserved`). With `per_item` no item exceeds it and no
    bin its capacity. Equal affinities prefer the lowest item.

    References:
        Zhou et al. 2022, sections 3.2-3.3. Their capped variant solves an entropic linear program by Dykstra's
        iterations and takes each expert's top entries of that, which may exceed the cap; here the cap is exact.

    Examples:
        >>> from kofn.assignment import expert_choice
        >>> plan = expert_choice([[3.0, 3.1], [2.0, 0.0], [0.0, 0.5], [1.0, 0.0]], capacity=2)
        >>> plan.bins.tolist(), plan.indptr.tolist()
        ([1, 0, 1, 0], [0, 1, 2, 3, 4])
        >>> plan.info["unserved"]
        0
    """
    known(affinity, gates)
    scores = score_table(scores)
    n, bins = scores.shape
    if capacity is not None and capacity_factor is not None:
        raise InputError(f"capacity and capacity_factor={capacity_factor!r} both say how much a bin takes; give one")
    if capacity is None:
        factor = checks.number(2.0 if capacity_factor is None else capacity_factor, "capacity_factor")
        capacity = max(1, int(min(n * factor / bins, n)))
    room = capacities(capacity, bins)
    felt = affinities(scores, affinity)
    if per_item is None:
        rows, columns = _favourites(felt, room)
    else:
        refuse_too_many(per_item, bins)
        run = compiled if felt.size > _scores.COMPILED_FROM else plain
        rows, columns, _asked, _most = run(felt, room, per_item, True)
    kept = felt[rows, columns]
    value, positive = float(kept.sum()), bool((kept >= 0).all())
    best = value
    if per_item is not None or not positive:
        freely = felt[_favourites(felt, room)]
        best = max(value, float(np.maximum(freely, 0).sum()))
    load = np.bincount(columns, minlength=bins)
    exact = positive and best == value
    return Assignment(
        **routes(n, bins, rows, columns, weigh(log_affinity(scores, rows, columns, affinity), rows, gates)),
        capacity=room,
        value=value,
        sense="max",
        bound=best,
        status="optimal" if exact else "approximate" if positive else "heuristic",
        used={"capacity": load.astype(np.float64)},
        budget={"capacity": room.astype(np.float64)},
        objective="chosen_affinity",
        guarantee=0.5 if per_item is not None and positive else None,
        info={
            "unserved": n - len(np.unique(rows)),
            "unfilled": int((room - load).sum()),
        },
    )


def _favourites(felt: Floats, room: Ints) -> tuple[Ints, Ints]:
    """Rows and bins of each bin's highest affinities; ties go to the lowest item."""
    n, bins = felt.shape
    taken = np.zeros((bins, n), bool)
    for mine, column, most in zip(taken, np.ascontiguousarray(felt.T), room.tolist(), strict=True):
        if most >= n:
            mine[:] = True
        elif most:
            cut = np.partition(column, n - most)[n - most]
            mine[:] = column > cut
            mine[np.flatnonzero(column == cut)[: most - int(mine.sum())]] = True
        mine &= column > -np.inf
    rows, columns = np.nonzero(taken.T)
    return rows, columns
