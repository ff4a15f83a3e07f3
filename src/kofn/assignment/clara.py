"""k-medoids where n x n distances are too many: of samples of the items (CLARA), or over sampled swaps (CLARANS)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn import checks
from kofn.assignment import _swaps
from kofn.engines.control import Control
from kofn.objectives.similarity import pairwise_distances
from kofn.plans import Assignment
from kofn.registry import method

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Distances from X are kept as a matrix only up to this size.
_DEFAULT_MEMORY = 2**26
# CLARANS looks at no fewer candidates than this, or all.
_LEAST_NEIGHBORS = 250
# A change counts as an improvement beyond this share of the loss.
_TOLERANCE = 1e-10
_PAIRS_AT_ONCE = 2**22
_PAPER = "Schubert & Rousseeuw 2021, Fast and Eager k-Medoids Clustering (Information Systems 101, arXiv 2008.05171)"


@method(
    "assign",
    needs=(("X", "distances"),),
    cost="for each sample of s items FasterPAM, O(s^2) a round, and O(n d k) to place all; O(n + s^2) memory",
    exact="items go to their nearest medoid; no guarantee for the loss",
    paper=_PAPER,
)
def fastclara(
    X: Any = None,
    *,
    distances: Any = None,
    k: int,
    metric: str = "euclidean",
    weights: Any = None,
    start: Any = None,
    seed: int | None = None,
    max_memory: int | None = None,
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
    n_samples: int = 5,
    sample_size: int | None = None,
) -> Assignment:
    """Group a large pool around k of its items: FasterPAM on samples of it, the best answer for all items counts.

    The quickest of its kind; `fastclarans` with its plan as `start` comes within a percent or so of `fasterpam`.

    Args:
        X: vectors (n, d); no (n, n) matrix is made.
        distances: dissimilarities (n, n), as in `fasterpam`.
        k: how many medoids.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos), for X.
        weights: (n,) how much each item counts in the loss, >= 0, default 1.
        start: k medoids (row numbers, ids or a plan) to beat; every sample holds the best medoids so far.
        seed: for the samples and for where FasterPAM begins on them (LAB).
        max_memory: bytes of distances from X that may be kept beside those of a sample, default 64 MiB.
        time_limit: seconds.
        n_threads: threads that compute distances from X; default all cores.
        progress: show progress on a terminal.
        n_samples: how many samples.
        sample_size: items a sample; default 80 + 4 k as in the paper.

    Returns:
        An `Assignment`: `labels`, `medoids`, `value` = weighted sum of the distances to the nearest medoid, over all
        items. `status` is "heuristic", "optimal" where k = n, "stopped" at the time limit. `info`: sample_size,
        sample_losses (on all items), distance_evals (from X).

    Raises:
        InputError: k above the number of distinct items, a sample smaller than k, a start that does not have k medoids,
            or a diagonal that is not zero.

    Cost: `n_samples` times FasterPAM on s items (O(s^2) a round) and O(n d k). Memory O(n d + s^2).

    Guarantee: the loss is never above that of `start`.

    References:
        Schubert & Rousseeuw 2021, arXiv 2008.05171: FastCLARA. Kaufman & Rousseeuw 1986: CLARA.

    Examples:
        >>> from kofn.assignment import fastclara
        >>> plan = fastclara([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0]], k=2, seed=0)
        >>> sorted(plan.medoids.tolist()), plan.value
        ([1, 4], 4.0)
    """
    X, distances = _swaps.pool(X, distances, k, metric)
    n = len(X if distances is None else distances)
    checks.count(n_samples, "n_samples")
    size = min(n, 80 + 4 * k if sample_size is None else checks.count(sample_size, "sample_size", least=k))
    counts = np.ones(n) if weights is None else weights.astype(np.float64)
    source = _swaps.source_of(X, distances, metric, max_memory or _DEFAULT_MEMORY, n_threads)
    rng = np.random.default_rng(seed)
    best = None if start is None else _Placed(source, _swaps.started(start, k), counts)
    losses: list[float] = []
    evals, stopped = 0, False
    with Control(time_limit=time_limit, progress=progress, total=n_samples, what="samples") as control:
        for turn in range(n_samples):
            items = _sample(n, size, best, rng)
            if distances is not None:
                table = distances[np.ix_(items, items)]
            else:
                table = pairwise_distances(X[items], metric, n_threads=n_threads)
                evals += len(items) ** 2
            picks = _solve(_swaps.Matrix(table), k, counts[items], rng, control)
            found = _Placed(source, items[picks], counts)
            losses.append(found.loss)
            if best is None or found.loss < best.loss:
                best = found
            control.step(turn + 1)
            stopped = control.stopped()
            if stopped or k == n:
                break
        assert best is not None
    info = {"sample_size": size, "sample_losses": losses, "distance_evals": source.evals + evals}
    status = "optimal" if k == n else "stopped" if stopped else "heuristic"
    return _finish(X, distances, metric, best.medoids, best.labels, counts, status, info)


@method(
    "assign",
    needs=(("X", "distances"),),
    cost="O(n d) a candidate, of which at least max_neighbor n a descent; O(n (d + k)) memory",
    exact="items go to their nearest medoid; no single swap improves where max_neighbor is 1",
    paper=_PAPER,
)
def fastclarans(
    X: Any = None,
    *,
    distances: Any = None,
    k: int,
    metric: str = "euclidean",
    weights: Any = None,
    start: Any = None,
    seed: int | None = None,
    max_memory: int | None = None,
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
    n_local: int = 2,
    max_neighbor: float = 0.025,
) -> Assignment:
    """Group items around k of them by random candidates, each tried for all k medoids at once, until many fail.

    Args:
        X: vectors (n, d), as in `fastclara`.
        distances: dissimilarities (n, n), as in `fasterpam`.
        k: how many medoids.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos), for X.
        weights: (n,) how much each item counts in the loss, >= 0, default 1.
        start: k medoids (row numbers, ids or a plan) that the first descent begins from; default random ones.
        seed: for the medoids that descents begin from, and for the order of candidates.
        max_memory: bytes of distances from X that may be kept, default 64 MiB.
        time_limit: seconds.
        n_threads: threads that compute distances from X; default all cores.
        progress: show progress on a terminal.
        n_local: descents, of which the best counts.
        max_neighbor: a descent ends when this share of the items, at least 250 of them, have brought no swap in a row.

    Returns:
        An `Assignment` as from `fastclara`. `status` is "local" where the last candidates were all items, so that no
        single swap improves, else "heuristic"; "optimal" where k = n. `info`: swaps, candidates, local_losses,
        swap_evaluations, distance_evals.

    Raises:
        InputError: as in `fastclara`.

    Cost: O(n d) a candidate from X, O(n) from distances, O(n k) for a swap; O(n k) memory.

    Guarantee: the loss is never above that of `start`.

    References:
        Schubert & Rousseeuw 2021, arXiv 2008.05171: FastCLARANS. Ng & Han 2002: CLARANS.

    Examples:
        >>> from kofn.assignment import fastclarans
        >>> plan = fastclarans([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0]], k=2, seed=0)
        >>> sorted(plan.medoids.tolist()), plan.value
        ([1, 4], 4.0)
    """
    X, distances = _swaps.pool(X, distances, k, metric)
    n = len(X if distances is None else distances)
    checks.count(n_local, "n_local")
    share = checks.fraction(max_neighbor, "max_neighbor")
    patience = min(n, max(_LEAST_NEIGHBORS, math.ceil(share * n)))
    counts = np.ones(n) if weights is None else weights.astype(np.float64)
    source = _swaps.source_of(X, distances, metric, max_memory or _DEFAULT_MEMORY, n_threads)
    rng = np.random.default_rng(seed)
    begin = None if start is None else _swaps.started(start, k)
    best: _swaps.Swaps | None = None
    losses: list[float] = []
    swaps, evaluated, stopped = 0, 0, False
    with Control(time_limit=time_limit, progress=progress, what="swaps") as control:
        for turn in range(n_local if 1 < k < n else 0):
            medoids = begin if begin is not None and turn == 0 else rng.choice(n, k, replace=False)
            state = _swaps.Swaps(source, medoids, counts, compiled=_swaps.worth_compiling("eager", n, k))
            stopped = _descend(state, rng.permutation(n), patience, control)
            losses.append(state.loss)
            swaps, evaluated = swaps + state.swaps, evaluated + state.evaluated
            if best is None or state.loss < best.loss:
                best = state
            if stopped:
                break
    if best is not None:
        medoids, labels = best.medoids, best.labels
    else:
        begin = rng.choice(n, k, replace=False) if begin is None else begin
        if k == 1:
            begin, evaluated = _only(source, begin, rng.permutation(n)[:patience], counts), patience
        placed = _Placed(source, begin, counts)
        medoids, labels = placed.medoids, placed.labels
    info = {
        "swaps": swaps,
        "candidates": evaluated,
        "local_losses": losses,
        "swap_evaluations": evaluated * n,
        "distance_evals": source.evals,
    }
    status = "stopped" if stopped else "local" if patience == n else "heuristic"
    return _finish(X, distances, metric, medoids, labels, counts, "optimal" if k == n else status, info)


class _Placed:
    """Medoids with every item at its nearest one, in O(n) memory."""

    def __init__(self, source: _swaps.Source, medoids: Ints, weights: Floats) -> None:
        self.medoids = medoids
        n, k = source.n, len(medoids)
        self.labels = np.zeros(n, np.int32)
        near = np.full(n, np.inf)
        step = max(1, _PAIRS_AT_ONCE // n)
        for low in range(0, k, step):
            rows = source.rows(medoids[low : low + step])
            at = rows.argmin(axis=0)
            least = np.take_along_axis(rows, at[None], 0)[0]
            closer = least < near
            self.labels[closer] = at[closer] + low
            near[closer] = least[closer]
        self.labels[medoids] = np.arange(k, dtype=np.int32)
        self.loss = float((weights * near).sum())


def _sample(n: int, size: int, best: _Placed | None, rng: np.random.Generator) -> Ints:
    """`size` items in the order of the pool, the best medoids so far among them."""
    if best is None or size == n:
        return np.sort(rng.choice(n, size, replace=False))
    others = np.ones(n, bool)
    others[best.medoids] = False
    more = rng.choice(np.flatnonzero(others), max(0, size - len(best.medoids)), replace=False)
    return np.sort(np.concatenate([best.medoids, more]))


def _solve(source: _swaps.Matrix, k: int, weights: Floats, rng: np.random.Generator, control: Control) -> Ints:
    """FasterPAM from LAB."""
    if k == source.n:
        return np.arange(k)
    if k == 1:
        return _only(source, np.array([0]), np.arange(source.n), weights)
    begin = _swaps.lab(source, k, weights, rng)
    state = _swaps.Swaps(source, begin, weights, compiled=_swaps.worth_compiling("eager", source.n, k))
    state.eager(None, control.stopped, lambda _: None)
    return state.medoids


def _only(source: _swaps.Source, begin: Ints, candidates: Ints, weights: Floats) -> Ints:
    """The candidate of the least total, where it is below that of `begin`."""
    tried = np.concatenate([begin, candidates])
    step = max(1, _PAIRS_AT_ONCE // source.n)
    totals = np.concatenate(
        [source.rows(tried[low : low + step]).astype(np.float64) @ weights for low in range(0, len(tried), step)]
    )
    best = int(totals.argmin())
    return tried[[best]] if totals[best] < totals[0] * (1 - _TOLERANCE) else begin


def _descend(state: _swaps.Swaps, order: Ints, patience: int, control: Control) -> bool:
    """Try the items in order, round and round, until `patience` in a row bring no swap; returns whether stopped."""
    at, step = 0, max(8, _PAIRS_AT_ONCE // state.n // 8 * 8)
    while state.unimproved < patience:
        candidates = order[at : at + min(step, patience - state.unimproved)]
        state.sweep(state.source.rows(candidates), candidates, patience)
        at = (at + len(candidates)) % state.n
        control.step(state.swaps)
        if control.stopped():
            return True
    return False


def _finish(
    X: Any,
    distances: Any,
    metric: str,
    medoids: Ints,
    labels: NDArray[np.int32],
    weights: Floats,
    status: str,
    info: dict[str, Any],
) -> Assignment:
    k = len(medoids)
    value = _swaps.loss_of(X, distances, metric, medoids, labels, weights)
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
        info={"objective": "k_medoids", **info},
    )
