"""k-medoids: groups around k of the items themselves, on any dissimilarity. PAM, FastPAM1 and FasterPAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn import checks
from kofn.assignment import _swaps
from kofn.engines.control import Control
from kofn.plans import Assignment
from kofn.registry import method

Ints = NDArray[np.int64]

# Without max_memory, distances from X are kept as a matrix up to this size and computed row by row beyond.
_DEFAULT_MEMORY = 2**30
_PAPER = "Schubert & Rousseeuw 2021, Fast and Eager k-Medoids Clustering (Information Systems 101, arXiv 2008.05171)"


@method(
    "assign",
    needs=(("X", "distances"),),
    traits=("swap-optimal",),
    cost="O(n^2) a round, a handful of rounds, whatever k is; from X O(n d k) or, within max_memory, O(n^2) memory",
    exact="no single swap of a medoid lowers the loss; the optimum where k is 1 or n",
    paper=_PAPER,
)
def fasterpam(
    X: Any = None,
    *,
    distances: Any = None,
    k: int,
    metric: str = "euclidean",
    weights: Any = None,
    start: Any = None,
    init: str | None = None,
    max_iter: int | None = None,
    seed: int | None = None,
    max_memory: int | None = None,
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> Assignment:
    """Group items around k of them, at the least summed distance to the nearest: no single swap does better.

    Every item in turn is tried as a medoid; one pass over the points gives the change of the loss for all k medoids
    that it might replace (the losses of removing each medoid are cached), and the best improving swap is made at once.

    Args:
        X: vectors (n, d). Distances are kept as an (n, n) matrix where that fits into `max_memory`, else computed row
            by row.
        distances: dissimilarities (n, n), float32 or float64, symmetric, >= 0, zero on the diagonal; read in place.
        k: how many medoids, at most as many as there are distinct items. Where distances of 0 join items that differ,
            some medoids may coincide: each still stands for itself, so that no group is empty.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos), for X.
        weights: (n,) how much each item counts in the loss, >= 0, default 1.
        start: medoids to begin from: row numbers (or ids), or an earlier plan.
        init: where to begin without `start`: "lab" (default; each medoid the best of a sample of 10 + sqrt(n) items),
            "build" (greedily over all items, needs all n^2 distances) or "random".
        max_iter: rounds over all items; None goes on until no swap is left.
        seed: for "lab" and "random".
        max_memory: bytes that distances from X may take, default 1 GiB.
        time_limit: seconds.
        n_threads: threads that compute distances from X; default all cores.
        progress: show progress on a terminal.

    Returns:
        An `Assignment`: `labels`, `medoids` (row numbers; medoid j stands for bin j), `value` = weighted sum of the
        distances to the nearest medoid. `status` is "local" where no swap improves, "optimal" where k is 1 or n,
        "stopped" at a limit. `info`: swaps, rounds, swap_evaluations (pairs of a candidate and a point looked at),
        distance_evals (from X); where the loss is 0, distinct_medoids.

    Raises:
        InputError: k above the number of distinct items, a start that does not have k medoids, start and init
            together, or a diagonal that is not zero.

    Cost: O(n^2) time a round, O(n k) for a swap; O(n k) memory beside the distances.

    Guarantee: with status "local" none of the k (n - k) swaps lowers the loss by more than 1e-9 of it, and running
    again from the plan returns it. Items are tried in the order of the rows, so another order may find another local
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
    limits = _Limits(max_iter, max_memory, time_limit, n_threads, progress)
    return _cluster("eager", X, distances, k, metric, weights, (start, init, "lab", seed), limits)


@method(
    "assign",
    needs=(("X", "distances"),),
    traits=("swap-optimal",),
    cost="O(n^2) for each swap; from X O(n d k) or, within max_memory, O(n^2) memory",
    exact="no single swap of a medoid lowers the loss; the swaps are those of PAM",
    paper=_PAPER,
)
def fastpam1(
    X: Any = None,
    *,
    distances: Any = None,
    k: int,
    metric: str = "euclidean",
    weights: Any = None,
    start: Any = None,
    init: str | None = None,
    max_iter: int | None = None,
    seed: int | None = None,
    max_memory: int | None = None,
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> Assignment:
    """Group items around k medoids by PAM's own swaps, each found in 1/k of PAM's work.

    Args:
        X: vectors (n, d), as in `fasterpam`.
        distances: dissimilarities (n, n), as in `fasterpam`.
        k: how many medoids.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos), for X.
        weights: (n,) how much each item counts in the loss, >= 0, default 1.
        start: medoids to begin from: row numbers (or ids), or an earlier plan.
        init: where to begin without `start`: "build" (default, as PAM does), "lab" or "random".
        max_iter: swaps; None goes on until no swap is left.
        seed: for "lab" and "random".
        max_memory: bytes that distances from X may take, default 1 GiB.
        time_limit: seconds.
        n_threads: threads that compute distances from X; default all cores.
        progress: show progress on a terminal.

    Returns:
        An `Assignment` as from `fasterpam`.

    Raises:
        InputError: as in `fasterpam`.

    Cost: O(n^2) time for each swap made and for the last look, O(n k) memory beside the distances.

    Guarantee: as in `fasterpam`; from the same start the swaps are PAM's, in the same order (equal swaps: the lowest
    candidate, then the lowest place).

    References:
        Schubert & Rousseeuw 2021, arXiv 2008.05171: FastPAM1.

    Examples:
        >>> from kofn.assignment import fastpam1
        >>> fastpam1([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0]], k=2).medoids.tolist()
        [1, 4]
    """
    limits = _Limits(max_iter, max_memory, time_limit, n_threads, progress)
    return _cluster("best", X, distances, k, metric, weights, (start, init, "build", seed), limits)


@method(
    "assign",
    needs=(("X", "distances"),),
    traits=("swap-optimal",),
    cost="O(n^2 k) for each swap; from X O(n d k) or, within max_memory, O(n^2) memory",
    exact="no single swap of a medoid lowers the loss; the reference that FastPAM1 must equal",
    paper="Kaufman & Rousseeuw 1990, Finding Groups in Data, chapter 2",
)
def pam(
    X: Any = None,
    *,
    distances: Any = None,
    k: int,
    metric: str = "euclidean",
    weights: Any = None,
    start: Any = None,
    init: str | None = None,
    max_iter: int | None = None,
    seed: int | None = None,
    max_memory: int | None = None,
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> Assignment:
    """Group items around k medoids by PAM as it was written, every swap judged on its own: the reference.

    Args:
        X: vectors (n, d), as in `fasterpam`.
        distances: dissimilarities (n, n), as in `fasterpam`.
        k: how many medoids.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos), for X.
        weights: (n,) how much each item counts in the loss, >= 0, default 1.
        start: medoids to begin from: row numbers (or ids), or an earlier plan.
        init: where to begin without `start`: "build" (default), "lab" or "random".
        max_iter: swaps; None goes on until no swap is left.
        seed: for "lab" and "random".
        max_memory: bytes that distances from X may take, default 1 GiB.
        time_limit: seconds.
        n_threads: threads that compute distances from X; default all cores.
        progress: show progress on a terminal.

    Returns:
        An `Assignment` as from `fasterpam`; `info["swap_evaluations"]` counts a candidate, a medoid and a point each.

    Raises:
        InputError: as in `fasterpam`.

    Cost: O(n^2 k) time for each swap made and for the last look, O(n k) memory beside the distances.

    Guarantee: as in `fasterpam`.

    References:
        Kaufman & Rousseeuw 1990, Finding Groups in Data: BUILD and SWAP.

    Examples:
        >>> from kofn.assignment import pam
        >>> pam([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0]], k=2).medoids.tolist()
        [1, 4]
    """
    limits = _Limits(max_iter, max_memory, time_limit, n_threads, progress)
    return _cluster("naive", X, distances, k, metric, weights, (start, init, "build", seed), limits)


@dataclass(frozen=True)
class _Limits:
    max_iter: int | None
    max_memory: int | None
    time_limit: float | None
    n_threads: int | None
    progress: bool | None


def _cluster(
    search: str,
    X: Any,
    distances: Any,
    k: int,
    metric: str,
    weights: Any,
    begin: tuple[Any, str | None, str, int | None],
    limits: _Limits,
) -> Assignment:
    if limits.max_iter is not None:
        checks.count(limits.max_iter, "max_iter")
    X, distances = _swaps.pool(X, distances, k, metric)
    n = len(X if distances is None else distances)
    counts = np.ones(n) if weights is None else weights.astype(np.float64)
    source = _swaps.source_of(X, distances, metric, limits.max_memory or _DEFAULT_MEMORY, limits.n_threads)
    info: dict[str, Any] = {"objective": "k_medoids"}
    medoids = _swaps.begin(source, k, counts, begin, info)
    if k == 1:
        labels, status = np.zeros(n, np.int32), "optimal"
        totals = np.concatenate([rows.astype(np.float64) @ counts for _, rows in source.blocks()])
        best = int(totals.argmin())
        # An equally good start is kept, so that running again from a plan returns it.
        moved = bool(totals[best] < totals[medoids[0]] * (1 - 1e-10))
        medoids = np.array([best]) if moved else medoids
        info |= {"swaps": int(moved), "rounds": 1, "swap_evaluations": n * n}
    elif k == n:
        labels, status = np.empty(n, np.int32), "optimal"
        labels[medoids] = np.arange(n, dtype=np.int32)
        info |= {"swaps": 0, "rounds": 0, "swap_evaluations": 0}
    else:
        state = _swaps.Swaps(source, medoids, counts, compiled=_swaps.worth_compiling(search, n, k))
        with Control(time_limit=limits.time_limit, progress=limits.progress, what="swaps") as control:
            if search == "eager":
                done, rounds = state.eager(limits.max_iter, control.stopped, control.step)
            else:
                done, rounds = state.best(limits.max_iter, control.stopped, control.step, naive=search == "naive")
        medoids, labels, status = state.medoids, state.labels, "local" if done else "stopped"
        looked = state.evaluated * n * (k if search == "naive" else 1)
        info |= {"swaps": state.swaps, "rounds": rounds, "swap_evaluations": looked}
    value = _swaps.loss_of(X, distances, metric, medoids, labels, counts)
    if value == 0 and k > 1:
        info["distinct_medoids"] = _swaps.distinct(X, distances, medoids)
    return Assignment.from_labels(
        labels,
        k,
        medoids=medoids,
        value=value,
        sense="min",
        status=status,
        bound=value if status == "optimal" else None,
        used={"k": k},
        budget={"k": k},
        info={**info, "distance_evals": source.evals},
    )
