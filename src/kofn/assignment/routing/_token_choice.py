"""Token choice routing: each item to its highest-scoring bins, with all of them or without those that hardly count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kofn.assignment.routing._scores import best_bins, known, log_affinity, refuse_too_many, routes, score_table, weigh
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method

# Ratios of scores as they are would depend on where their zero is.
_RATIO_AFFINITIES = ("softmax", "sigmoid")


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


@method(
    "assign",
    traits=("sandwich", "equivariant"),
    draws=Draw(
        scale_free=False,
        options={
            "affinity": ("sigmoid",),
            "gates": ("ones", "raw"),
            "threshold": (0.0, 0.4, 1.0),
            "protect": (0.0, 0.3, 1.0),
        },
    ),
    cost="O(n bins per_item) at worst, mostly O(n bins); memory n bins numbers",
    exact="every route that the threshold asks for, exactly; no bin is limited",
    paper=(136, "lu2024"),
    aliases=("online dynamic pruning", "dynamic expert skipping", "drop the second expert", "adaptive top-k routing"),
)
def expert_skipping(
    scores: Any,
    *,
    weights: ArrayLike | None = None,
    per_item: int,
    threshold: float | None = None,
    protect: float = 0.02,
    affinity: str = "softmax",
    gates: str = "share",
) -> Assignment:
    """Expert skipping: token choice without the bins that an item's first one outweighs, but for protected items.

    A bin after the first is skipped where its affinity is below `threshold` times that of the first. Items of the
    largest `weights` keep all of theirs.

    Args:
        scores: (n, bins) router logits; -inf where an item does not list a bin.
        weights: (n,) importance of each item, such as the norm of a token times the attention that it gets; by default
            no item is protected.
        per_item: the most bins that an item goes to, 2 or more for anything to be skipped.
        threshold: in 0..1; default the median of this batch's ratios, which skips half of the bins after the first.
            Measure it once and give it while a model runs: a token alone has no median.
        protect: share of the items, those of the largest `weights`, that nothing is skipped of; as many as tie with the
            last of them are protected, too.
        affinity: basis of the weights: "softmax" of the scores over all bins that the item lists, or "sigmoid".
        gates: the weight of each route: its affinity's "share" among the bins that are left to the item, the "raw"
            affinity, or "ones".

    Returns:
        An `Assignment`; `value` is the sum of the affinities of all routes, `bound` the sum without skipping.
        `info["skipped"]` counts the routes left out, `info["candidates"]` those that could have been,
        `info["threshold"]` is the ratio that decided, and `info["protected"]` counts the protected items.

    Raises:
        InputError: scores that are not (n, bins), per_item above the number of bins, a threshold outside 0..1.

    Cost: one pass over the scores and the exponentials of all of them.

    Guarantee: an item that lists a bin keeps its first one; loads are not limited. Equal ratios are skipped alike, so
    that with the median fewer than half are left out where many tie with it.

    References:
        Huang et al. 2025, "MC-MoE: Mixture Compressor for Mixture-of-Experts LLMs Gains More", ICLR (the median, and
        protected tokens). Lu et al. 2024, "Not All Experts are Equal", ACL (skipping by the ratio of two gates).

    Examples:
        >>> from kofn.assignment import expert_skipping
        >>> scores = [[4.0, 0.0, 1.0], [2.0, 1.9, 0.0], [3.0, 0.5, 0.0]]
        >>> plan = expert_skipping(scores, per_item=2, threshold=0.5)
        >>> plan.indptr.tolist(), plan.bins.tolist(), plan.info["skipped"]
        ([0, 1, 3, 4], [0, 0, 1, 0], 2)
        >>> expert_skipping(scores, per_item=2, threshold=0.5, weights=[9.0, 1.0, 1.0], protect=0.3).indptr.tolist()
        [0, 2, 4, 5]
    """
    known(checks.choice(affinity, "affinity", _RATIO_AFFINITIES), gates)
    scores = score_table(scores)
    n, bins = scores.shape
    refuse_too_many(per_item, bins)
    share = checks.fraction(protect, "protect")
    ranked = best_bins(scores, per_item)
    ratio = _ratios(scores, ranked, affinity)
    later = ranked >= 0
    later[:, 0] = False
    limit = _limit(ratio[later]) if threshold is None else checks.fraction(threshold, "threshold")
    protected = _protected(n, weights, share)
    skipped = later & (ratio < limit) & ~protected[:, None]
    everything = log_affinity(scores, *_listed(ranked), affinity)
    kept = np.sort(np.where(skipped, -1, ranked), axis=1)
    rows, columns = _listed(kept)
    logs = log_affinity(scores, rows, columns, affinity)
    return Assignment(
        **routes(n, bins, rows, columns, weigh(logs, rows, gates)),
        value=math.fsum(np.exp(logs).tolist()),
        sense="max",
        bound=math.fsum(np.exp(everything).tolist()),
        status="heuristic",
        objective="routed_affinity",
        info={
            "skipped": int(skipped.sum()),
            "candidates": int(later.sum()),
            "threshold": limit,
            "protected": int(protected.sum()),
        },
    )


def _listed(ranked: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Items and bins of a padded table of choices, item by item."""
    rows, slots = np.nonzero(ranked >= 0)
    return rows, ranked[rows, slots].astype(np.int64)


def _ratios(scores: NDArray[Any], ranked: NDArray[np.int32], affinity: str) -> Floats:
    """(n, per_item) each bin's affinity over that of the item's first; 0 where there is none.

    Of a softmax it is the exponential of the scores' difference: without a normaliser's rounding, equals are equal.
    """
    logs = np.take_along_axis(scores, np.maximum(ranked, 0), axis=1).astype(np.float64)
    if affinity == "sigmoid":
        logs = -np.logaddexp(0, -logs)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(ranked >= 0, np.exp(logs - logs[:, :1]), 0.0))


def _limit(ratios: Floats) -> float:
    """The median, with which half of the routes after the first are skipped."""
    return float(np.median(ratios)) if len(ratios) else 0.0


def _protected(n: int, weights: ArrayLike | None, share: float) -> NDArray[np.bool_]:
    """(n,) the share of items of the largest weights, with all that tie with the last of them."""
    count = math.ceil(share * n)
    if weights is None or not count:
        return np.zeros(n, bool)
    heavy = np.asarray(weights)
    return np.asarray(heavy >= np.sort(heavy)[n - count])
