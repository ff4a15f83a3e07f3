"""What the covers by typical rows and by balls share: exact distances in blocks, and k-means that no thread changes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np

from kofn.core.arrays import Floats, Ints
from kofn.engines.threads import spread
from kofn.objectives.similarity import Geometry

# Rows are compared with all others so many at a time; compiled code takes them in fours.
BLOCK = 16
# Multiplications up to which NumPy is done before compiled code is loaded.
_SMALL = 1 << 18
# K-means learns its centres on this many rows a cluster, and on no fewer than the second number.
_ROWS_A_CENTRE, _LEAST_ROWS = 40, 10_000
_ROUNDS = 25


def distances(space: Geometry, points: Floats, n_threads: int) -> Floats:
    """Float64 distances (points, n), before `space.unit`: the same bits for any number of threads."""
    if len(points) * space.rows.size <= _SMALL and "kofn.objectives._kernels" not in sys.modules:
        return np.array([space.distances(point) for point in points])
    from kofn.objectives import _kernels

    out = np.empty((len(points), space.n))

    def work(low: int, high: int) -> None:
        _kernels.distances(space.columns, space.scale, points, space.squared, low, high, out)

    spread(work, -(-space.n // _kernels.LANES), n_threads)
    return out


def blocks(space: Geometry, rows: Ints, n_threads: int, check: Callable[[], None]) -> Iterator[tuple[Ints, Floats]]:
    """Some rows, block by block, with their distances to all rows; `check` is called before each and may raise."""
    for low in range(0, len(rows), BLOCK):
        check()
        block = rows[low : low + BLOCK]
        yield block, distances(space, space.points(block), n_threads)


def kmeans(
    space: Geometry, n_clusters: int, rng: np.random.Generator, n_threads: int, check: Callable[[], None]
) -> Ints:
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
        order = np.argsort(labels, kind="stable")
        nonempty, starts = np.unique(labels[order], return_index=True)
        sums = np.add.reduceat(points[order], starts, axis=0)
        centres[nonempty] = sums / np.diff(np.append(starts, size))[:, None]
    return _nearest(space, centres, n_threads, check)


def _spread_out(
    sample: Geometry,
    points: Floats,
    n_clusters: int,
    rng: np.random.Generator,
    n_threads: int,
    check: Callable[[], None],
) -> Floats:
    """Centres by k-means++: each drawn by its squared distance to those before it."""
    chosen = [int(rng.integers(len(points)))]
    near = np.full(len(points), np.inf)
    while len(chosen) < n_clusters:
        check()
        away = distances(sample, points[chosen[-1:]], n_threads)[0]
        np.minimum(near, away if sample.squared else away * away, out=near)
        reach = np.cumsum(near)
        if reach[-1] <= 0:
            break  # fewer different rows than clusters
        chosen.append(int(min(np.searchsorted(reach, rng.random() * reach[-1], side="right"), len(points) - 1)))
    return points[chosen]


def _nearest(space: Geometry, centres: Floats, n_threads: int, check: Callable[[], None]) -> Ints:
    """The nearest centre of each row; of equally near ones the first."""
    near, labels = np.full(space.n, np.inf), np.zeros(space.n, np.int64)
    for low in range(0, len(centres), BLOCK):
        check()
        away = distances(space, centres[low : low + BLOCK], n_threads)
        best = away.argmin(axis=0)
        least = away[best, np.arange(space.n)]
        nearer = least < near
        near[nearer], labels[nearer] = least[nearer], low + best[nearer]
    return labels
