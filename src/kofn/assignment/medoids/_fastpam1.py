"""k-medoids by PAM's best swaps, each found k times faster than by PAM (FastPAM1)."""

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
    cost="O(n^2) for each swap; from X O(n d k) or, within max_memory, O(n^2) memory",
    exact="no single swap of a medoid lowers the loss; the swaps are those of PAM",
    paper=(33, 67),
    local="no single swap of a medoid improves it",
)
def fastpam1(
    X: Any = None,
    *,
    distances: Any = None,
    k: int,
    init: Init | None = None,
    max_iter: int | None = None,
    **words: Unpack[KMedoids],
) -> Assignment:
    """k-medoids by PAM's best swaps, each found k times faster than by PAM (FastPAM1).

    Args:
        X: vectors (n, d), as in `fasterpam`.
        distances: dissimilarities (n, n), as in `fasterpam`.
        k: how many medoids.
        init: initialisation used without `start`: "build" (default, as PAM does), "lab" or "random".
        max_iter: most swaps; None continues until no swap improves.

    Returns:
        An `Assignment` as from `fasterpam`.

    Raises:
        InputError: as in `fasterpam`.

    Cost: O(n^2) time per swap and for the final check, O(n k) memory beside the distances.

    Guarantee: as in `fasterpam`; from the same start the swaps are PAM's, in the same order (equal swaps: the lowest
    candidate, then the lowest position).

    References:
        Schubert & Rousseeuw 2021, arXiv 2008.05171: FastPAM1.

    Examples:
        >>> from kofn.assignment import fastpam1
        >>> fastpam1([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0]], k=2).medoids.tolist()
        [1, 4]
    """
    return cluster("best", X, distances, k, words, "build", init, max_iter)
