"""k-medoids by eager swaps: minimise the summed distance to the nearest medoid, to a local optimum (FasterPAM)."""

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
    cost="O(n^2) a round, a handful of rounds, whatever k is; from X O(n d k) or, within max_memory, O(n^2) memory",
    exact="no single swap of a medoid lowers the loss; the optimum where k is 1 or n",
    paper=33,
    local="no single swap of a medoid improves it",
    aliases=("k-medoids", "kmedoids", "fastpam"),
)
def fasterpam(
    X: Any = None,
    *,
    distances: Any = None,
    k: int,
    init: Init | None = None,
    max_iter: int | None = None,
    device: str | None = None,
    **words: Unpack[KMedoids],
) -> Assignment:
    """k-medoids by eager swaps: minimise the summed distance to the nearest medoid, to a local optimum (FasterPAM).

    Every item in turn is tried as a medoid; one pass over the points gives the change of the loss for all k medoids
    that it might replace (the losses of removing each medoid are cached), and the best improving swap is made at once.

    Args:
        X: vectors (n, d). Distances are kept as an (n, n) matrix where that fits into `max_memory`, else computed row
            by row.
        distances: dissimilarities (n, n), float32 or float64, symmetric, >= 0, zero on the diagonal; read in place.
        k: number of medoids, at most the number of distinct items. Where different items are at distance 0, some
            medoids may coincide; each is still assigned to itself, so no group is empty.
        init: initialisation used without `start`: "lab" (default; each medoid the best of a sample of 10 + sqrt(n)
            items), "build" (greedily over all items, needs all n^2 distances) or "random".
        max_iter: most rounds over all items; None continues until no swap improves.
        device: what compares candidates with items: "cpu" (default), "cuda", "cuda:1", "auto" (a GPU where torch sees
            one). Swaps are the same: the device shows which candidates cannot lower the loss, the processor tries the
            others. X is held there, distances that are given block by block, and `max_memory` counts there too.

    Returns:
        An `Assignment`: `labels`, `medoids` (row numbers; medoid j represents bin j), `value` = weighted sum of the
        distances to the nearest medoid. `status` is "local" where no swap improves, "optimal" where k is 1 or n,
        "stopped" at a limit. `info`: swaps, rounds, swap_evaluations (candidate-point pairs evaluated),
        distance_evals (from X); where the loss is 0, distinct_medoids.

    Raises:
        InputError: k above the number of distinct items, a start that does not have k medoids, start and init
            together, or a diagonal that is not zero.

    Cost: O(n^2) time a round, O(n k) for a swap; O(n k) memory beside the distances.

    Guarantee: with status "local" none of the k (n - k) swaps lowers the loss by more than 1e-9 of it, and running
    again from the plan returns it. Items are tried in row order, so another order may reach another local
    optimum.

    References:
        Schubert & Rousseeuw 2021, Information Systems 101, arXiv 2008.05171: FasterPAM, and LAB to begin.

    Examples:
        >>> from kofn.assignment import fasterpam
        >>> plan = fasterpam([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0]], k=2, seed=0)
        >>> sorted(plan.medoids.tolist()), plan.value, plan.status
        ([1, 4], 4.0, 'local')
        >>> fasterpam(distances=[[0, 1, 7], [1, 0, 5], [7, 5, 0]], k=1).medoids.tolist()
        [1]
    """
    return cluster("eager", X, distances, k, words, "lab", init, max_iter, device)
