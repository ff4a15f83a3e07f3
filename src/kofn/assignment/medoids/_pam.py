"""k-medoids by the original PAM, which evaluates every swap separately: a reference implementation."""

from __future__ import annotations

from typing import Any, Unpack

from kofn.assignment.medoids._descent import cluster
from kofn.assignment.medoids._sources import Init, KMedoids
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method


@method(
    "assign",
    needs=(("X", "distances"),),
    traits=("swap-optimal",),
    draws=Draw(distinct_rows=True, compiled=True),
    cost="O(n^2 k) for each swap; from X O(n d k) or, within max_memory, O(n^2) memory",
    exact="no single swap of a medoid lowers the loss; the reference that FastPAM1 must equal",
    paper="kaufman1990",
    local="no single swap of a medoid improves it",
)
def pam(
    X: Any = None,
    *,
    distances: Any = None,
    k: int,
    init: Init | None = None,
    max_iter: int | None = None,
    **words: Unpack[KMedoids],
) -> Assignment:
    """k-medoids by the original PAM, which evaluates every swap separately: a reference implementation.

    Args:
        X: vectors (n, d), as in `fasterpam`.
        distances: dissimilarities (n, n), as in `fasterpam`.
        k: how many medoids.
        init: initialisation used without `start`: "build" (default), "lab" or "random".
        max_iter: most swaps; None continues until no swap improves.

    Returns:
        An `Assignment` as from `fasterpam`; `info["swap_evaluations"]` counts (candidate, medoid, point) triples.

    Raises:
        InputError: as in `fasterpam`.

    Cost: O(n^2 k) time per swap and for the final check, O(n k) memory beside the distances.

    Guarantee: as in `fasterpam`.

    References:
        Kaufman & Rousseeuw 1990, Finding Groups in Data: BUILD and SWAP.

    Examples:
        >>> from kofn.assignment import pam
        >>> pam([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0]], k=2).medoids.tolist()
        [1, 4]
    """
    return cluster("naive", X, distances, k, words, "build", init, max_iter)
