"""Pick whatever gains at least a threshold, and lower it step by step: near-greedy without looking for the best."""

from __future__ import annotations

from typing import Any, Unpack

from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.selection.greedy._run import Greedy, greedy, share
from kofn.selection.greedy._search import ThresholdSearch


@method(
    "select",
    needs=(("X", "similarity", "scores"),),
    traits=("sandwich",),
    draws=Draw(options={"eps": (0.01, 0.1, 0.5)}),
    cost="(n / eps) ln(n / eps) gains at most, whatever k is",
    exact=">= 1 - 1/e - eps of the optimum under k, (1 - eps)/(2 - eps) under quotas",
    paper="badanidiyuru2014",
    sparse=True,
)
def threshold_greedy(
    X: Any = None,
    *,
    similarity: Any = None,
    scores: Any = None,
    eps: float = 0.1,
    **words: Unpack[Greedy],
) -> Selection:
    """Pick whatever gains at least a threshold, and lower it step by step: near-greedy without looking for the best.

    Args:
        X: vectors (n, d); or `similarity` (n, n); or `scores` (n,) with objective "modular".
        eps: each threshold is 1 - eps of the last, from the best single gain down to eps/n of it.

    Returns:
        Selection; `guarantee` is the share of the optimum that is proven.

    Raises:
        InputError: bad input, `eps` not in (0, 1), an objective that is not submodular.
        InfeasibleError: constraints that cannot be met together.

    Costs (n / eps) ln(n / eps) gains at most; what a stale gain rules out is not taken again. Items below the last
    threshold fill up to k without being looked at.

    References:
        Badanidiyuru, Vondrak, "Fast algorithms for maximizing submodular functions", SODA 2014.

    Examples:
        >>> from kofn.selection import threshold_greedy
        >>> threshold_greedy([[0.0], [0.1], [5.0], [5.2], [9.0]], k=2).indices.tolist()
        [2, 0]
    """
    return greedy({"X": X, "similarity": similarity, "scores": scores, **words}, ThresholdSearch, eps=share(eps))
