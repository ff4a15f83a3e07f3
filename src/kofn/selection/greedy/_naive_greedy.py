"""Pick greedily, evaluating every candidate at every step: the reference that `lazy_greedy` must agree with."""

from __future__ import annotations

from typing import Any, Unpack

from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.selection.greedy._run import Greedy, greedy
from kofn.selection.greedy._search import Search


@method(
    "select",
    needs=(("X", "similarity", "scores"),),
    traits=("sandwich", "greedy"),
    draws=Draw(any_function=True, compiled=True),
    cost="k passes over n x n pairs",
    exact="as lazy_greedy; takes objectives that are not submodular, then without a bound",
    paper="nemhauser1978",
    sparse=True,
)
def naive_greedy(
    X: Any = None,
    *,
    similarity: Any = None,
    scores: Any = None,
    **words: Unpack[Greedy],
) -> Selection:
    """Pick greedily, evaluating every candidate at every step: the reference that `lazy_greedy` must agree with.

    Args:
        X: vectors (n, d); or `similarity` (n, n); or `scores` (n,) with objective "modular".
        objective: as `lazy_greedy`, or any set function that is not submodular.

    Returns:
        Selection; `bound` only where the objective is submodular and monotone.

    Raises:
        InputError: bad input. InfeasibleError: constraints that cannot be met together.

    Costs O(k n^2 d) time, O(n d) memory.

    References:
        Nemhauser, Wolsey, Fisher, "An analysis of approximations for maximizing submodular set functions", 1978.

    Examples:
        >>> from kofn.selection import naive_greedy
        >>> naive_greedy([[0.0], [0.1], [5.0], [5.2], [9.0]], k=2).indices.tolist()
        [2, 0]
    """
    return greedy({"X": X, "similarity": similarity, "scores": scores, **words}, Search, lazy=False)
