"""The most typical row of each cluster: which rows to label first, where few labels can be paid for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Ints, Mask
from kofn.core.constraints import Constraints, Tracker, finish
from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.runtime import Control, Stopped
from kofn.core.words import Metric, Progress, Where
from kofn.engines.threads import cores
from kofn.objectives._filling import filling_of, in_time
from kofn.selection.covering import _nearness
from kofn.selection.covering._nearness import Space

_MOST_CLUSTERS = 500


@method(
    "select",
    sparse=True,
    draws=Draw(
        states_no_value=True,
        options={"neighbors": (1, 2, 5, 20), "min_size": (0, 1, 5)},
    ),
    cost="k-means into min(k, 500) clusters, then the pairs inside the clusters; O(n d) memory",
    exact="every constraint held exactly; the picks are those of the paper's rule for this k-means",
    paper=1002,
    aliases=("cold start", "which rows to label first"),
)
def typiclust(
    X: Any,
    *,
    metric: Metric = "euclidean",
    neighbors: int = 20,
    min_size: int = 5,
    seed: int | None = None,
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: Progress = None,
    **where: Unpack[Where],
) -> Selection:
    """Pick the most typical row of each cluster, from the clusters with the fewest labelled rows on, larger ones first.

    Args:
        X: vectors (n, d); with metric "cosine" SciPy-sparse rows too, which are never made dense.
        metric: "euclidean", "sqeuclidean" or "cosine"; k-means works in the same points.
        neighbors: a row is typical whose mean distance to so many nearest rows of its cluster is small; in a cluster of
            fewer than twice as many rows, to half of them. 20 as in the paper: on the sets that choose the
            defaults (`python -m benchmarks usefulness`) 5 beat fewer random draws at 1 and 3 rows a class.
        min_size: clusters of no more rows than this are left out as long as others have rows.
        start: rows that are labelled already; `include` likewise.

    Returns:
        Selection in the order picked. `value` is NaN: nothing is maximised. `info["clusters"]` is how many clusters
        k-means made, `info["cluster"]` that of each pick, None where the time was up before there were any.

    Raises:
        InputError: bad input. InfeasibleError: constraints that cannot be met together.

    The authors' rule: k-means into min(labelled + k, 500) clusters; those of at most `min_size`
    rows are dropped; the others come in the order of (labelled rows, -size) and give one row each in turn, the open row
    with the smallest mean distance to its min(neighbors, size // 2) nearest rows of the cluster, picked rows no longer
    counted.

    The clusters depend on k, so the picks of a smaller k are no prefix; from 500 clusters on they are.

    Costs k-means (O(n k d) for the last pass and for each of 25 rounds the same of a sample of 40 rows a cluster), then
    O(s^2 d) for each cluster of s rows that is picked from, and O(s d neighbors) for each pick. O(n d) memory; nothing
    n x n is stored.

    References:
        Hacohen, Dekel, Weinshall, "Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets", 2022.

    Examples:
        >>> from kofn.selection import typiclust
        >>> X = [[0.0], [0.1], [0.3], [0.6], [5.0], [5.1], [5.2], [5.4], [5.9]]
        >>> typiclust(X, k=2, neighbors=2, min_size=1, seed=0).indices.tolist()
        [5, 1]
    """
    n, threads = X.shape[0], cores(n_threads)
    neighbors = checks.count(neighbors, "neighbors")
    min_size = checks.count(min_size, "min_size", least=0)
    constraints = Constraints.of(n, where)
    tracker = Tracker(constraints)
    space = _nearness.space_of(X, metric)
    picks = constraints.preselected.tolist()
    n_clusters = min(n if constraints.k is None else constraints.k, n, _MOST_CLUSTERS)
    labels: Ints | None = None
    stopped = False
    total = constraints.k if constraints.exact_k else 0
    with Control(time_limit=time_limit, progress=progress, total=total, title="picking") as control:
        try:
            labels = _nearness.kmeans(space, n_clusters, np.random.default_rng(seed), threads, control.check)
            clusters = _Clusters(
                space, labels, constraints.preselected, _Typical(neighbors, min_size, threads, control.check)
            )
            while (open_items := tracker.eligible()).any():
                control.check()
                item = clusters.next(open_items)
                tracker.add(item)
                picks.append(item)
                control.step(len(picks))
        except Stopped:
            stopped = True
    picks_in_time, filling = len(picks), filling_of(X, metric, picks)
    if stopped:
        picks += finish(tracker, control, lambda _item: np.nan, filling)[0]
    used, limit = tracker.report()
    indices = np.array(picks, np.int64)
    return Selection(
        n=n,
        indices=indices,
        gains=np.full(len(picks), np.nan),
        status="stopped" if stopped else "heuristic",
        used=used,
        budget=limit,
        additive=False,
        info={
            "clusters": n_clusters,
            "cluster": None if labels is None else labels[indices].tolist(),
            **(in_time(picks_in_time, filling) if stopped else {}),
        },
    )


@dataclass
class _Typical:
    """What a typical row is, and how it is looked for: `check` is called now and then and may raise."""

    neighbors: int
    min_size: int
    n_threads: int
    check: Callable[[], None]


class _Clusters:
    """Clusters in turn, each with its typical rows."""

    def __init__(self, space: Space, labels: Ints, labelled: Ints, typical: _Typical) -> None:
        sizes = np.bincount(labels)
        known = np.bincount(labels[labelled], minlength=len(sizes))
        kept = np.ones(len(labels), bool)
        kept[labelled] = False
        order = np.argsort(labels[kept], kind="stable")
        rows = np.split(np.flatnonzero(kept)[order], np.cumsum(np.bincount(labels[kept], minlength=len(sizes)))[:-1])
        self.clusters = [_Cluster(space, own, typical) for own in rows]
        order = np.lexsort((-sizes, known))
        large = sizes[order] > typical.min_size
        # Two queues: small clusters are asked only where no large one has an open row.
        self.queues = [order[large].tolist(), order[~large].tolist()]
        self.turns = [0, 0]

    def next(self, open_items: Mask) -> int:
        """The open row to pick next."""
        for which, queue in enumerate(self.queues):
            for turn in range(self.turns[which], self.turns[which] + len(queue)):
                cluster = self.clusters[queue[turn % len(queue)]]
                if open_items[cluster.rows].any():
                    self.turns[which] = turn + 1
                    return cluster.take(open_items)
        raise AssertionError("every open row belongs to a cluster")


class _Cluster:
    """The rows of a cluster that are not picked yet, and how typical each is: the smaller its `spread`, the more."""

    def __init__(self, space: Space, rows: Ints, typical: _Typical) -> None:
        self.space, self.rows, self.typical = space, rows, typical
        self.count = -1
        # Of each row: the mean distance to its `count` nearest, the largest of those, and how many more are as near.
        self.spread = self.farthest = np.zeros(0)
        self.spare = np.zeros(0, np.int64)

    def take(self, open_items: Mask) -> int:
        """Pick the most typical open row."""
        if self.count < 0:
            self._measure_all()
        position = int(np.where(open_items[self.rows], self.spread, np.inf).argmin())
        item = int(self.rows[position])
        point = self.space.points(self.rows[position : position + 1])
        left = np.arange(len(self.rows)) != position
        self.rows, self.spread = self.rows[left], self.spread[left]
        self.farthest, self.spare = self.farthest[left], self.spare[left]
        if min(self.typical.neighbors, len(self.rows) // 2) != self.count:
            self._measure_all()
        else:
            # Only rows that counted the pick among their nearest change, unless another row is as near.
            inside = self.space.part(self.rows)
            away = _nearness.distances(inside, point, self.typical.n_threads)[0]
            replaced = (away == self.farthest) & (self.spare > 0)
            self.spare[replaced] -= 1
            self._measure(inside, np.flatnonzero((away <= self.farthest) & ~replaced))
        return item

    def _measure_all(self) -> None:
        size = len(self.rows)
        self.count = min(self.typical.neighbors, size // 2)
        self.spread, self.farthest, self.spare = np.zeros(size), np.full(size, -1.0), np.zeros(size, np.int64)
        if self.count:
            self._measure(self.space.part(self.rows), np.arange(size))

    def _measure(self, inside: Space, changed: Ints) -> None:
        for block, away in _nearness.blocks(inside, changed, self.typical.n_threads, self.typical.check):
            # The nearest of all is the row itself.
            nearest = np.sort(np.partition(away, self.count, axis=1)[:, : self.count + 1], axis=1)
            self.spread[block] = nearest[:, 1:].mean(axis=1)
            self.farthest[block] = nearest[:, -1]
            self.spare[block] = (away <= nearest[:, -1:]).sum(axis=1) - 1 - self.count
