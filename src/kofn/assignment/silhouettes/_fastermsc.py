"""Medoid silhouette clustering: maximise the average medoid silhouette by eager swaps (FasterMSC)."""

from __future__ import annotations

from typing import Any, Unpack

from kofn.assignment.medoids import _inits, _sources
from kofn.assignment.medoids._sources import Init, KMedoids
from kofn.assignment.silhouettes import _silhouette
from kofn.assignment.silhouettes._silhouette import DEFAULT_MEMORY, State, finish, one_group
from kofn.core import checks
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method
from kofn.core.runtime import Control


@method(
    "assign",
    needs=(("X", "distances"),),
    traits=("swap-optimal",),
    draws=Draw(distinct_rows=True, compiled=True),
    cost="O(n^2) a round, whatever k is, and O(n k) a swap; from X O(n d) more a candidate or O(n^2) memory",
    exact="no single swap of a medoid raises the average medoid silhouette",
    paper="lenssen2024",
    local="no single swap of a medoid improves it",
    aliases=("fastmsc", "pammedsil", "PAMMEDSIL"),
)
def fastermsc(
    X: Any = None,
    *,
    distances: Any = None,
    k: int,
    init: Init | None = None,
    max_iter: int | None = None,
    **words: Unpack[KMedoids],
) -> Assignment:
    """Medoid silhouette clustering: maximise the average medoid silhouette by eager swaps (FasterMSC).

    An item's medoid silhouette is 1 - a/b for its distances a to the nearest and b to the second nearest medoid, and 0
    if both are 0. As in FasterPAM, one pass over the points evaluates a candidate against all k medoids.

    Args:
        X: vectors (n, d). Distances are kept as an (n, n) matrix where that fits into `max_memory`, else computed row
            by row.
        distances: dissimilarities (n, n), symmetric, >= 0, zero on the diagonal; read in place.
        k: number of medoids. With k = 1 the silhouette is 0, and the medoid is that of `fasterpam`.
        init: initialisation used without `start`: "lab" (default), "build" or "random", as in `fasterpam`.
        max_iter: most rounds over all items; None continues until no swap improves.

    Returns:
        An `Assignment`: `labels`, `medoids`, `value` = the average medoid silhouette, 0 to 1, to be maximised. `status`
        is "local" where no swap improves, "optimal" where k is 1 or n, "stopped" at a limit. `info`: swaps, rounds,
        swap_evaluations, distance_evals (from X), zero_below (distances up to this count as 0).

    Raises:
        InputError: k above the number of distinct items, a start that does not have k medoids, start and init
            together, or a diagonal that is not zero.

    Cost: O(n^2) time a round, O(n k) for a swap; O(n k) memory beside the distances.

    Guarantee: with status "local" no swap raises the average by more than 1e-12 of its gap to 1.

    References:
        Lenssen & Schubert 2024, Information Systems 120, arXiv 2309.03751: FasterMSC.

    Examples:
        >>> from kofn.assignment import fastermsc
        >>> plan = fastermsc([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0]], k=2, seed=0)
        >>> sorted(plan.medoids.tolist()), round(plan.value, 4), plan.status
        ([1, 4], 0.925, 'local')
    """
    if max_iter is not None:
        checks.count(max_iter, "max_iter")
    pool = _sources.opened(X, distances, k, words, DEFAULT_MEMORY)
    n, counts, source = pool.n, pool.counts, pool.source
    info: dict[str, Any] = {}
    done, rounds = True, 0
    with Control(time_limit=words["time_limit"], progress=words["progress"], title="swaps") as control:
        medoids = _inits.begin(source, k, counts, (words["start"], init, "lab", words["seed"]), info, control.stopped)
        if k == 1:
            return one_group(source, medoids, counts, info, control)
        state = State(source, medoids, counts, compiled=_silhouette.worth_compiling(n, 1))
        if k < n:
            done, rounds = state.eager(max_iter, control.stopped, control.step)
    info |= {"swaps": state.swaps, "rounds": rounds, "swap_evaluations": state.evaluated * n}
    return finish(state, "optimal" if k == n else "local" if done else "stopped", info)
