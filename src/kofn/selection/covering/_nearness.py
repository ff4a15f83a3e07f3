"""What the covers by typical rows and by balls share: exact distances in blocks, and k-means that no thread changes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.engines.threads import spread
from kofn.objectives._sparse_points import SparsePoints
from kofn.objectives.similarity import Geometry, geometry

# Rows are compared with all others so many at a time; compiled code takes them in fours.
BLOCK = 16
# Multiplications up to which NumPy is done before compiled code is loaded.
_SMALL = 1 << 18
# K-means learns its centres on this many rows a cluster, and on no fewer than the second number.
_ROWS_A_CENTRE, _LEAST_ROWS = 40, 10_000
_ROUNDS = 25


Space = Geometry | SparsePoints


def space_of(X: Any, metric: str) -> Space:
    """The rows as points, SciPy-sparse ones as they are."""
    return SparsePoints.of(X) if checks.is_sparse(X) else geometry(X, metric)


def distances(space: Space, points: Any, n_threads: int) -> Floats:
    """Float64 distances (points, n), before `space.unit`: the same bits for any number of threads."""
    if isinstance(space, SparsePoints):
        return space.squares(points, n_threads)
    if len(points) * space.rows.size <= _SMALL and "kofn.objectives._kernels" not in sys.modules:
        return np.array([space.distances(point) for point in points])
    from kofn.core.distance_kernels import LANES
    from kofn.objectives import _kernels

    out = np.empty((len(points), space.n))

    def work(low: int, high: int) -> None:
        _kernels.distances(space.columns, space.scale, points, space.squared, low, high, out)

    spread(work, -(-space.n // LANES), n_threads)
    return out


def blocks(space: Space, rows: Ints, n_threads: int, check: Callable[[], None]) -> Iterator[tuple[Ints, Floats]]:
    """Some rows, block by block, with their distances to all rows; `check` is called before each and may raise."""
    for low in range(0, len(rows), BLOCK):
        check()
        block = rows[low : low + BLOCK]
        yield block, distances(space, space.points(block), n_threads)


def kmeans(space: Space, n_clusters: int, rng: np.random.Generator, n_threads: int, check: Callable[[], None]) -> Ints:
    """Cluster of each row: k-means++ and Lloyd's rounds on a sample of the rows, then the nearest centre of every row.

    `check` is called now and then and may raise.

    O(n n_clusters d) time for the last pass, and for each of at most 25 rounds the same of the sample (40 rows a
    cluster, at least 10,000).
    """
    size = min(space.n, max(_LEAST_ROWS, _ROWS_A_CENTRE * n_clusters))
    everyone = size == space.n
    sample = space if everyone else space.part(np.sort(rng.choice(space.n, size, replace=False)))
    points = sample.points(slice(None))
    centres = _spread_out(sample, points, n_clusters, rng, n_threads, check)
    labels = np.full(size, -1)
    for _ in range(_ROUNDS):
        before, labels = labels, _nearest(sample, centres, n_threads, check)
        if np.array_equal(before, labels):
            break
        centres = _means(points, labels, centres)
    return _nearest(space, centres, n_threads, check)


def _means(points: Any, labels: Ints, centres: Any) -> Any:
    """The mean of the points of each cluster, where it has any."""
    order = np.argsort(labels, kind="stable")
    nonempty, starts = np.unique(labels[order], return_index=True)
    counts = np.diff(np.append(starts, len(labels)))
    if not checks.is_sparse(points):
        centres[nonempty] = np.add.reduceat(points[order], starts, axis=0) / counts[:, None]
        return centres
    from scipy.sparse import csr_array, vstack

    n_clusters = centres.shape[0]
    empty = np.setdiff1d(np.arange(n_clusters), nonempty)
    ends = np.append(starts, len(labels))
    members = csr_array((np.ones(len(order)), order, ends), shape=(len(nonempty), len(labels)))
    means = members @ points
    means.data /= np.repeat(counts, np.diff(means.indptr))
    back = np.argsort(np.append(nonempty, empty))
    return vstack([means, centres[empty]], format="csr")[back]


def _spread_out(
    sample: Space,
    points: Any,
    n_clusters: int,
    rng: np.random.Generator,
    n_threads: int,
    check: Callable[[], None],
) -> Any:
    """Centres by k-means++: each drawn by its squared distance to those before it."""
    chosen = [int(rng.integers(sample.n))]
    near = np.full(sample.n, np.inf)
    while len(chosen) < n_clusters:
        check()
        away = distances(sample, points[chosen[-1:]], n_threads)[0]
        np.minimum(near, away if sample.squared else away * away, out=near)
        reach = np.cumsum(near)
        if reach[-1] <= 0:
            break  # fewer different rows than clusters
        chosen.append(int(min(np.searchsorted(reach, rng.random() * reach[-1], side="right"), sample.n - 1)))
    return points[chosen]


def _nearest(space: Space, centres: Any, n_threads: int, check: Callable[[], None]) -> Ints:
    """The nearest centre of each row; of equally near ones the first."""
    near, labels = np.full(space.n, np.inf), np.zeros(space.n, np.int64)
    for low in range(0, centres.shape[0], BLOCK):
        check()
        away = distances(space, centres[low : low + BLOCK], n_threads)
        best = away.argmin(axis=0)
        least = away[best, np.arange(space.n)]
        nearer = least < near
        near[nearer], labels[nearer] = least[nearer], low + best[nearer]
    return labels
