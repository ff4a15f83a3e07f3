"""Token choice routing: each item to its highest-scoring bins, weighted by a softmax over them."""

from __future__ import annotations

from typing import Any

import numpy as np

from kofn.assignment.routing._scores import best_bins, known, log_affinity, refuse_too_many, routes, score_table, weigh
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method


@method(
    "assign",
    traits=("sandwich", "equivariant"),
    draws=Draw(scale_free=False),
    cost="O(n bins per_item) at worst, mostly O(n bins); memory n bins numbers",
    exact="the best bins of each item, exactly; no bin is limited",
    paper=("shazeer2017", 273),
)
def token_choice(scores: Any, *, per_item: int = 1, affinity: str = "softmax", gates: str = "share") -> Assignment:
    """Token choice routing: each item to its highest-scoring bins, weighted by a softmax over them.

    Args:
        scores: (n, bins) router logits; -inf where an item does not list a bin.
        per_item: how many bins an item goes to.
        affinity: basis of the weights: "softmax" of the scores over all bins that the item lists, "sigmoid" of
            each score, or "none", the scores as they are.
        gates: the weight of each route: its affinity's "share" among the item's bins (softmax over the kept: Mixtral;
            with sigmoid: DeepSeek-V3), the "raw" affinity (Switch), or "ones".

    Returns:
        An `Assignment`; `value` is the sum of the affinities of all routes and, where none is negative, the best there
        is. `info["unfilled"]` counts slots of items that list fewer than `per_item` bins.

    Raises:
        InputError: scores that are not (n, bins), per_item above the number of bins, weights that would not be > 0.

    Cost: one pass over the scores and the exponentials of all of them.

    Guarantee: every item has exactly `per_item` bins, with weights that sum to 1 under "share"; loads are not limited.
    No item is dropped. Equal scores prefer the lowest bin. A weight that
    underflows is the smallest positive number.

    References:
        Jiang et al. 2024, section 2.1; Fedus, Zoph & Shazeer 2022, Switch Transformers (JMLR 23).

    Examples:
        >>> from kofn.assignment import token_choice
        >>> plan = token_choice([[2.0, 2.0, -1.0], [0.0, 5.0, 1.0]], per_item=2)
        >>> plan.bins.tolist(), plan.weights.round(3).tolist()
        ([0, 1, 1, 2], [0.5, 0.5, 0.9819999933242798, 0.017999999225139618])
    """
    known(affinity, gates)
    scores = score_table(scores)
    n, bins = scores.shape
    refuse_too_many(per_item, bins)
    chosen = np.sort(best_bins(scores, per_item), axis=1)
    rows, slots = np.nonzero(chosen >= 0)
    columns = chosen[rows, slots].astype(np.int64)
    logs = log_affinity(scores, rows, columns, affinity)
    felt = scores[rows, columns].astype(np.float64) if affinity == "none" else np.exp(logs)
    positive = bool((felt >= 0).all())
    value = float(felt.sum())
    return Assignment(
        **routes(n, bins, rows, columns, weigh(logs, rows, gates)),
        value=value,
        sense="max",
        bound=value if positive else float(np.maximum(felt, 0).sum()),
        status="optimal" if positive else "heuristic",
        objective="routed_affinity",
        info={"unfilled": n * per_item - len(rows)},
    )
