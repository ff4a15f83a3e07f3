"""Facility location on pools too large for all pairs: the search looks at a graph of nearest neighbours."""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
import time
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple, Unpack

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Ints, Mask
from kofn.core.constraints import Constraints, Tracker
from kofn.core.draws import Draw
from kofn.core.objective import Objective
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.runtime import Control, Stopped
from kofn.core.words import Metric, Progress, Where
from kofn.engines.opening import elsewhere, opened
from kofn.engines.threads import cores, spread
from kofn.neighbors.graphs._knn_graph import KnnGraph, knn_graph
from kofn.objectives._sparse_rows import distances_from
from kofn.objectives.similarity import ceiling, exact_sum
from kofn.selection.covering._farthest_first import LazyCover
from kofn.selection.greedy._run import greedy
from kofn.selection.greedy._search import Search

# Entries of X times picks that NumPy deals with while compiled code is still being loaded.
_SMALL = 1 << 26
# Entries of the graph looked at together, blocks of rows between two signs of progress, and coordinates of pairs of a
# row and a pick between two looks at the clock.
_ENTRIES, _BLOCKS_AT_ONCE, _AT_ONCE = 1 << 21, 64, 1 << 26
# Up to this many entries NumPy is faster than loading compiled code; candidates whose first gains are taken at once.
_COMPILED, _CANDIDATES = 1 << 20, 1 << 16
# So many of those a core of a slow machine evaluates, and the seconds it takes to load compiled code.
_COORDINATES_A_SECOND, _LOADING = 1e9, 1.0
# The bound may fail for one sample of rows in a million.
_DOUBT = 1e-6
# Seconds after Ctrl-C in which the picks may be valued.
_PATIENCE = 1.0


@method(
    "select",
    traits=("sandwich", "distributed"),
    draws=Draw(options={"n_neighbors": (1, 2)}),
    cost="O(n d) for the graph (times 16,384), O(n k d) to evaluate the picks; O(n (d + n_neighbors)) memory",
    exact="the greedy picks exactly where n_neighbors >= n - 1, else those of the graph; their value is exact",
    sparse=True,
    paper=("minoux1978", "malkov2018", "wei2014"),
)
def sparse_greedy(
    X: Any,
    *,
    weights: Any = None,
    metric: Metric = "euclidean",
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: Progress = None,
    n_neighbors: int = 64,
    neighbors: Literal["auto", "exact", "cells", "usearch"] = "auto",
    expansion: int | None = None,
    engine: Any = None,
    **where: Unpack[Where],
) -> Selection:
    """Pick the items that best stand for a pool of a million, by what they save their nearest neighbours.

    Args:
        X: vectors (n, d); with metric "cosine" SciPy-sparse rows too, which are never made dense.
        metric: "euclidean" (c - distance), "sqeuclidean" or "cosine" ((1 + cos) / 2).
        n_neighbors: how many neighbours of each item can be its stand-in as far as the search sees. More are better
            and slower; where n / k is far above it, many items are near no pick that the search knows of.
        neighbors: "cells", "usearch" (extra `neighbors`), "exact" or "auto", as `engine` of `kofn.neighbors.knn_graph`.
        expansion: how many rows each is compared with in cells, or usearch keeps in view; more find more.
        engine: where the neighbours of parts of the rows are found: "local" (threads), "ray", "ray://HOST:PORT", or an
            engine. Cells and indices are made here, and looked up there. The picks are the same.

    Returns:
        Selection, in the order picked. `gains` and `value` are those of the full objective, every item with its
        nearest pick, not of the graph. `bound` is at least the full optimum's value: if every listed neighbour is one
        of the nearest, no unlisted one is nearer than the last that is listed. Where the lists are approximate, what
        they missed is measured on a sample of rows against all others and added with an upper confidence limit;
        `info["bound_confidence"]` says how sure the bound then is. Info also has `neighbors` (which engine),
        `n_neighbors`, `recall` and `recall_rows`, `unlisted` (the share of items whose nearest pick is not among
        their neighbours) and `lost_at_most` (`bound - value`: no less than what all approximations have cost).

    Raises:
        InputError: bad input. InfeasibleError: constraints that cannot be met together.

    Costs: the graph O(n^2 d) time where exact, O(n d) with cells and about O(n log n d) with usearch, its measure
    O(n d) with 4,096 rows, the search 8 bytes and a few reads for each of the n * n_neighbors entries and two passes
    over n gains a pick, the value at most k passes over X. The graph's search is the greedy algorithm on the similarity
    that is 0 for all pairs that are not listed.

    References:
        Minoux, "Accelerated greedy algorithms for maximizing submodular set functions", 1978.
        Malkov, Yashunin, "Efficient and robust approximate nearest neighbor search using HNSW graphs", 2018.
        Wei, Iyer, Bilmes, "Fast multi-stage submodular maximization", ICML 2014 (sparse neighbour graphs).
        Maurer, Pontil, "Empirical Bernstein bounds and sample variance penalization", COLT 2009 (the confidence limit).

    Examples:
        >>> from kofn.selection import sparse_greedy
        >>> s = sparse_greedy([[0.0], [0.1], [5.0], [5.2], [9.0]], k=2, n_neighbors=1)
        >>> s.indices.tolist(), s.value <= s.bound
        ([3, 0], True)
    """
    began = time.monotonic()
    n = X.shape[0]
    count = checks.count(n_neighbors, "n_neighbors")
    checks.choice(neighbors, "neighbors", ("auto", "exact", "cells", "usearch"))
    if expansion is not None:
        checks.count(expansion, "expansion")
    constraints = Constraints.of(n, where)

    def remaining() -> float | None:
        return None if time_limit is None else max(1e-9, time_limit - (time.monotonic() - began))

    def pick(objective: Any, left: float | None) -> Selection:
        shared = {"weights": weights, "metric": metric, "n_threads": n_threads} if isinstance(objective, str) else {}
        given = {"X": X, "objective": objective, "time_limit": left, "progress": progress, **where, **shared}
        return greedy(given, Search)

    if count >= n - 1:
        full = pick("facility_location", time_limit)
        facts = {"neighbors": "all", "n_neighbors": n - 1, "recall": 1.0, "recall_rows": 0, "unlisted": 0.0}
        return dataclasses.replace(full, info={**full.info, **facts, **_lost(full.value, full.bound, 1.0)})

    w = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    unit, offset = 0.5 if metric == "cosine" else 1.0, ceiling(X, metric)
    # Without the time to value them picks would be worth nothing to their reader; the graph leaves it, up to a half.
    valuing = X.size * constraints.k / (_COORDINATES_A_SECOND * cores(n_threads))
    before = None if time_limit is None else max(time_limit / 2, time_limit - valuing)
    ran: dict[str, Any] = {}
    with Control(time_limit=before, progress=progress, total=n, title="neighbours") as control:
        try:
            with opened(engine, n_threads) if elsewhere(engine) else nullcontext() as tasks:
                options: Any = {"engine": neighbors, "expansion": expansion, "n_threads": n_threads}
                graph = knn_graph(X, count, metric, control=control, tasks=tasks, **options)
                ran |= {} if tasks is None else {"engine": tasks.facts()}
        except Stopped:
            graph = None
        interrupted = control.interrupted
    left = remaining()
    if graph is None:
        # No neighbour graph: the picks are drawn at random.
        left = 1e-9
        entries = _by_candidate(np.empty((n, 0), np.int32), np.empty((n, 0)), unit)
    else:
        entries = _by_candidate(graph.indices, graph.distances, unit)
    inner = pick(_Listed(entries, np.full(n, offset), w), left)
    left = remaining()
    if interrupted or (graph is not None and inner.status == "stopped"):
        # Whoever pressed Ctrl-C waits no longer than this for the value.
        left = _PATIENCE if left is None else min(left, _PATIENCE)
    with Control(time_limit=left, progress=progress, title="evaluating") as control:
        gains, own = _served(X, inner.indices, metric, unit, offset, w, n_threads, control)
    value = math.fsum(gains.tolist())
    if math.isnan(value):
        # No time was left to value the picks.
        graph = None
    facts = {"neighbors": "none", "n_neighbors": 0, "recall": 0.0, "recall_rows": 0, "unlisted": 1.0}
    bound, confidence = None, 1.0
    if graph is not None:
        reach = np.maximum(unit * (graph.distances[:, -1].astype(np.float64) - graph.slack), 0.0)
        missed, confidence = _missed(graph, unit * graph.missed, w, reach)
        bound = max(_listed_bound(entries, reach, offset, w, constraints, inner.indices) + missed, value)
        # A pick that serves itself needs no list.
        far = np.flatnonzero(own >= 0)
        far = far[inner.indices[own[far]] != far]
        listed = (graph.indices[far] == inner.indices[own[far]][:, None]).any(axis=1)
        facts = {
            "neighbors": graph.engine,
            "n_neighbors": count,
            "recall": graph.recall,
            "recall_rows": len(graph.sample),
            "unlisted": float((~listed).sum()) / n,
        }
    in_distances = 2.0 if metric == "cosine" else 1.0
    most = offset * float(w.sum())
    return dataclasses.replace(
        inner,
        gains=gains,
        value=value,
        bound=bound,
        status="stopped" if inner.status == "stopped" else "heuristic",
        objective="facility_location",
        guarantee=None,
        info={
            **inner.info,
            "offset": offset,
            "distance": in_distances * (most - value),
            "distance_bound": None if bound is None else max(0.0, in_distances * (most - bound)),
            "distance_evals": inner.info["oracle_calls"],
            **facts,
            **ran,
            **_lost(value, bound, confidence),
        },
    )


def _lost(value: float, bound: float | None, confidence: float) -> dict[str, float | None]:
    """What all approximations can have cost together, and with what confidence."""
    return {
        "lost_at_most": None if bound is None else max(0.0, bound - value),
        "bound_confidence": None if bound is None else confidence,
    }


class _Entries(NamedTuple):
    """The pairs of a graph, candidate by candidate: candidate j serves items[starts[j] : starts[j + 1]] at these costs.

    lists: (n, m) the candidates of each item, without itself.
    """

    starts: NDArray[np.int64]
    items: NDArray[np.int32]
    costs: NDArray[Any]
    lists: NDArray[np.int32]

    @property
    def compiled(self) -> bool:
        """Whether there are so many that loading compiled code is worth its while."""
        return len(self.items) > _COMPILED


def _by_candidate(indices: NDArray[np.int32], distances: NDArray[Any], unit: float) -> _Entries:
    """Of each candidate, the items that list it and what it costs to serve them: unit * distance, itself nothing."""
    n, m = indices.shape
    if n * (m + 1) > _COMPILED:
        from kofn.neighbors.graphs import _kernels

        starts, items = np.zeros(n + 1, np.int64), np.empty(n * (m + 1), np.int32)
        costs = np.empty(n * (m + 1), distances.dtype)
        _kernels.by_candidate(indices, distances, unit, starts, items, costs)
        return _Entries(starts, items, costs, indices)
    candidates = np.column_stack([np.arange(n, dtype=np.int32), indices]).ravel()
    costs = np.column_stack([np.zeros(n, distances.dtype), unit * distances]).ravel()
    order = np.argsort(candidates, kind="stable")
    ends = np.cumsum(np.bincount(candidates, minlength=n))
    return _Entries(np.append(0, ends), (order // (m + 1)).astype(np.int32), costs[order], indices)


class _Listed(Objective):
    """sum_i w_i (start_i - min(start_i, least cost of a pick that i lists)): monotone and submodular.

    Attributes:
        upper: (n,) what each candidate gained when it was last looked at, which bounds what it gains now.
        stale: (n,) the candidates whose gain may have fallen since: those in a list of an item that a pick serves.
    """

    submodular = True
    monotone = True
    calls = 0

    def __init__(self, entries: _Entries, start: Floats, weights: Floats) -> None:
        self.entries, self.start, self.weights = entries, start, weights
        self.cost = start.copy()
        self.upper, self.stale = np.full(len(start), np.inf), np.ones(len(start), bool)

    def __deepcopy__(self, memo: Any) -> _Listed:
        fresh = _Listed(self.entries, self.start, self.weights)
        fresh.cost, fresh.calls = self.cost.copy(), self.calls
        return fresh

    @property
    def finds_best(self) -> bool:
        return self.entries.compiled

    def gains(self, candidates: Ints) -> Floats:
        """What each candidate saves the items that list it. O(its entries)."""
        self.calls += len(candidates)
        out = np.empty(len(candidates))
        starts, listed, costs, _ = self.entries
        if self.entries.compiled:
            from kofn.neighbors.graphs import _kernels

            _kernels.listed_gains(candidates, starts, listed, costs, self.weights, self.cost, out)
            return out
        first = starts[candidates]
        lengths = starts[candidates + 1] - first
        ends = np.cumsum(lengths)
        cuts = np.searchsorted(ends, np.arange(_ENTRIES, ends[-1] + _ENTRIES, _ENTRIES) if len(ends) else [])
        for low, high in itertools.pairwise([0, *dict.fromkeys(np.minimum(cuts + 1, len(ends)).tolist())]):
            length = lengths[low:high]
            before = np.cumsum(length) - length
            slots = np.arange(int(length.sum())) + np.repeat(first[low:high] - before, length)
            items = listed[slots]
            saved = self.weights[items] * np.maximum(self.cost[items] - costs[slots], 0.0)
            out[low:high] = np.add.reduceat(saved, before)
        return out

    def best(self, open_items: Mask) -> int:
        """The open candidate that gains most, the lowest in a tie: of those that are stale, few are looked at."""
        from kofn.neighbors.graphs import _kernels

        if np.isinf(self.upper[-1]):
            self._look_at_all()
        closed = ~open_items
        self.calls += _kernels.refresh_best(closed, self.stale, self.upper, *self.entries[:3], self.weights, self.cost)
        return int(np.argmax(np.where(closed, -np.inf, self.upper)))

    def _look_at_all(self) -> None:
        """Take the gains that have not been taken yet."""
        unseen = np.flatnonzero(np.isinf(self.upper))
        for low in range(0, len(unseen), _CANDIDATES):
            if self.poll is not None:
                self.poll()
            some = unseen[low : low + _CANDIDATES]
            self.upper[some], self.stale[some] = self.gains(some), False

    def ceilings(self) -> Floats:
        return self.upper

    def add(self, item: int) -> float:
        """Commit a pick; returns its gain."""
        column = slice(*self.entries.starts[item : item + 2])
        items = self.entries.items[column]
        new = np.minimum(self.cost[items], self.entries.costs[column])
        gain = exact_sum(self.weights[items] * (self.cost[items] - new))
        served = items[new < self.cost[items]]
        self.stale[served] = True
        self.stale[self.entries.lists[served]] = True
        self.cost[items] = new
        return gain

    def value(self, indices: Ints) -> float:
        """The value of a set from scratch."""
        other = _Listed(self.entries, self.start, self.weights)
        return math.fsum(other.add(item) for item in np.asarray(indices).tolist())


def _listed_bound(
    entries: _Entries, reach: Floats, offset: float, weights: Floats, constraints: Constraints, picks: Ints
) -> float:
    """At least the optimum, if no unlisted row is nearer to an item than its `reach`.

    Then serving item i at the cheaper of its reach and its nearest listed pick costs no more than it does in truth, and
    the optimum of that function, which is submodular, is bounded by any set's value and what others add to it.
    """
    objective = _Listed(entries, reach, weights)
    possible = Tracker(constraints).eligible()
    picked = np.zeros(constraints.n, bool)
    best = math.inf
    for batch in (constraints.preselected, picks[len(constraints.preselected) :]):
        for item in batch.tolist():
            objective.add(item)
            picked[item] = True
        residual = np.where(possible, objective.gains(np.arange(constraints.n)), 0.0)
        total = math.fsum((weights * (offset - objective.cost)).tolist()) + constraints.upper_bound(residual, picked)
        best = min(best, total * (1 + constraints.n * 2.0**-52))
    return best


def _missed(graph: KnnGraph, missed: Floats, weights: Floats, reach: Floats) -> tuple[float, float]:
    """How much the neighbours that the lists lack can add to any value, and with what confidence that is enough.

    Item i is never served for less than its nearest missing neighbour would, whatever is picked; so what is missing
    adds at most a sum over the items that no choice of picks changes, and a sample tells that sum.
    """
    n, rows = len(weights), graph.sample
    if graph.engine == "exact":
        return 0.0, 1.0
    lacking = weights[rows] * missed
    if len(rows) == n:
        return math.fsum(lacking.tolist()), 1.0
    most, size, doubt = float((weights * reach).max()), len(rows), math.log(2 / _DOUBT)
    mean = lacking.mean() + math.sqrt(2 * lacking.var(ddof=1) * doubt / size) + 7 * most * doubt / (3 * (size - 1))
    return n * min(float(mean), most), 1 - _DOUBT


def _served(
    X: NDArray[Any],
    picks: Ints,
    metric: str,
    unit: float,
    offset: float,
    weights: Floats,
    n_threads: int | None,
    control: Control,
) -> tuple[Floats, Ints]:
    """What each pick saves everyone after those before it, NaN where no time is left to tell, and each item's nearest
    pick (-1: none is below c)."""
    n, gains = X.shape[0], np.zeros(len(picks))
    near, own = np.full(n, offset), np.full(n, -1, np.int32)
    nothing = np.full(len(picks), math.nan), np.full(n, -1)
    if checks.is_sparse(X) or X.size * len(picks) <= _SMALL:
        distances = distances_from(X, metric)
        for t, item in enumerate(picks.tolist()):
            if control.late():
                return nothing
            cost = unit * distances(item)
            nearer = cost < near
            gains[t] = exact_sum(weights * np.where(nearer, near - cost, 0.0))
            near[nearer], own[nearer] = cost[nearer], t
        return gains, own.astype(np.int64)
    if control.left() < _LOADING and "kofn.selection.covering._kernels" not in sys.modules:
        return nothing
    from kofn.selection.covering import _kernels

    cover = LazyCover(X, metric, cores(n_threads))
    for item in picks.tolist():
        if control.late():
            return nothing
        cover.place(item)
    rows, sizes, *placed = cover.pool
    blocks = -(-n // _kernels.BLOCK)
    saved = np.zeros((blocks, len(picks)))
    # A power of two, so that blocks are whole numbers of parts.
    step = min(_kernels.BLOCK, 1 << max(0, (_AT_ONCE // (X.shape[1] * len(picks))).bit_length() - 1))
    for low in range(0, blocks, _BLOCKS_AT_ONCE):
        high = min(low + _BLOCKS_AT_ONCE, blocks)

        def work(first: int, last: int, low: int = low) -> None:
            for start in range((low + first) * _kernels.BLOCK, min((low + last) * _kernels.BLOCK, n), step):
                if control.late():
                    return
                part, block = slice(start, min(start + step, n)), start // _kernels.BLOCK
                mine = rows[part], sizes[part], *placed, unit, weights[part], near[part], own[part]
                _kernels.serve(0, 1, *mine, saved[block : block + 1])

        spread(work, high - low, cover.n_threads)
        if control.late():
            return nothing
        control.step(high)
    return saved.sum(axis=0), own.astype(np.int64)
