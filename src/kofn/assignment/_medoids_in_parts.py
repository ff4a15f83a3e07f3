"""The nearest medoid of every item, part by part on an engine: rows of a pool, entries of a matrix, or sparse rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kofn.assignment.medoids import _sources
from kofn.assignment.medoids._samples import Placed
from kofn.core import checks
from kofn.core.arrays import Array, Floats, Ints, Reals
from kofn.core.checks import InputError
from kofn.core.pools import Fragment, Pool, Unit, as_pool, cut, is_pool
from kofn.engines.base import Engine
from kofn.engines.threads import cores
from kofn.objectives._sparse_rows import cosine_distances, unit_rows
from kofn.objectives.similarity import geometry, pairwise_distances

# Rows and bytes of a part, and copies of its rows that are held while it is compared.
_PART_ROWS, _PART_BYTES, _COPIES = 1 << 15, 1 << 24, 8
# Entries of gaps between rows and medoids that are held at a time.
_GAPS = 1 << 16


class Items(Protocol):
    """Items that are compared with medoids part by part.

    Attributes:
        n: how many.
        width: numbers of an item that are read to compare it.
        itemsize: bytes of each.
        evals: distances from vectors.
    """

    evals: int

    @property
    def n(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def itemsize(self) -> int: ...

    def parts(self, rows: int) -> tuple[Fragment, ...]:
        """All items as runs of at most so many."""

    def table(self, items: Ints, n_threads: int | None, /) -> Reals:
        """(m, m) distances among some items."""

    def points(self, medoids: Ints) -> Any:
        """What parts are compared with."""

    def reader(self) -> Any:
        """What tasks need to read a part: an object whose `nearest(part, points)` gives labels and distances."""

    def distinct(self, medoids: Ints) -> int:
        """How many of the medoids differ."""


def items_of(X: Any, distances: Any, k: int, metric: str) -> Items:
    """The items of a call, checked against k.

    Raises:
        InputError: k above the number of distinct items, both given, or a diagonal that is not zero.
    """
    if is_pool(X):
        _refuse_few(X, k, metric)
        return _Rows(X, metric)
    X, distances = _sources.pool(X, distances, k, metric)
    if distances is not None:
        return _Entries(distances)
    return _Sparse(X) if checks.is_sparse(X) else _Rows(as_pool(X), metric)


def usual_rows(items: Items, max_memory: int | None) -> int:
    """How many items a part has."""
    each = items.width * items.itemsize
    most = _PART_BYTES // each if max_memory is None else min(_PART_BYTES, max_memory // _COPIES) // each
    return max(1, min(_PART_ROWS, most))


def _refuse_few(pool: Pool, k: int, metric: str) -> None:
    """Refuse more medoids than a pool has distinct rows, of which it is read until so many were seen."""
    if metric == "precomputed":
        raise InputError("metric='precomputed': a pool has vectors, not distances; give distances=, or another metric")
    if k > pool.n:
        raise InputError(f"k={k} of {pool.n} items: there are only {pool.n} to choose from; ask for k <= {pool.n}")
    sample = np.unique(np.linspace(0, pool.n - 1, 4 * k + 128).astype(np.int64))
    seen = np.unique(pool.take(sample) + 0.0, axis=0)
    for part in pool.fragments():
        if len(seen) >= k:
            return
        seen = np.unique(np.concatenate([seen, pool.read(part) + 0.0]), axis=0)
    if len(seen) < k:
        raise InputError(f"k={k} groups of {pool.n} items, {len(seen)} of them distinct; ask for k <= {len(seen)}")


@dataclass
class _Rows:
    """Vectors of a pool."""

    pool: Pool
    metric: str
    evals: int = 0

    @property
    def n(self) -> int:
        return self.pool.n

    @property
    def width(self) -> int:
        return self.pool.width

    @property
    def itemsize(self) -> int:
        return self.pool.dtype.itemsize

    def parts(self, rows: int) -> tuple[Fragment, ...]:
        return self.pool.fragments(rows)

    def table(self, items: Ints, n_threads: int | None, /) -> Reals:
        self.evals += len(items) ** 2
        return pairwise_distances(self.pool.take(items), self.metric, n_threads=n_threads)

    def points(self, medoids: Ints) -> Array:
        self.evals += len(medoids) * self.n
        return self.pool.take(medoids)

    def reader(self) -> _Rows:
        return self

    def nearest(self, part: Fragment, points: Array) -> tuple[NDArray[np.int32], Floats]:
        """Labels by the compiled rows of distances, and the distances themselves in float64."""
        k = len(points)
        space = geometry(np.concatenate([points, self.pool.read(part)]), self.metric)
        unit = _sources.unit_of(space, self.metric)
        placed = Placed(_sources.Vectors(space, unit, cores()), np.arange(k), np.zeros(space.n))
        labels, own = placed.labels[k:], np.empty(part.rows)
        centres, step = space.points(slice(0, k)), max(1, _GAPS // space.rows.shape[1])
        for low in range(0, part.rows, step):
            gap = space.points(slice(k + low, min(k + low + step, space.n))) - centres[labels[low : low + step]]
            own[low : low + step] = np.einsum("ij,ij->i", gap, gap)
        return labels, (own if space.squared else np.sqrt(own, out=own)) * unit

    def distinct(self, medoids: Ints) -> int:
        return _sources.distinct(self.pool.take(medoids), None, np.arange(len(medoids)))


@dataclass
class _Entries:
    """Distances that were given."""

    distances: Reals
    evals: int = 0

    @property
    def n(self) -> int:
        return len(self.distances)

    @property
    def width(self) -> int:
        return 1

    @property
    def itemsize(self) -> int:
        return self.distances.dtype.itemsize

    def parts(self, rows: int) -> tuple[Fragment, ...]:
        return cut([Unit("", 0, self.n)], rows)

    def table(self, items: Ints, _n_threads: int | None, /) -> Reals:
        own: Reals = self.distances[np.ix_(items, items)]
        return own

    def points(self, medoids: Ints) -> Reals:
        rows: Reals = self.distances[medoids]
        return rows

    def reader(self) -> type[_Entries]:
        return _Entries

    @staticmethod
    def nearest(part: Fragment, points: Reals) -> tuple[NDArray[np.int32], Floats]:
        """Labels and distances of columns."""
        return _least(points[:, part.first_row : part.stop])

    def distinct(self, medoids: Ints) -> int:
        return _sources.distinct(None, self.distances, medoids)


@dataclass
class _Sparse:
    """SciPy-sparse rows under 1 - cos."""

    X: Any
    evals: int = 0

    @property
    def n(self) -> int:
        return int(self.X.shape[0])

    @property
    def width(self) -> int:
        return max(1, self.X.nnz // max(1, self.n))

    @property
    def itemsize(self) -> int:
        return int(self.X.dtype.itemsize)

    def parts(self, rows: int) -> tuple[Fragment, ...]:
        return cut([Unit("", 0, self.n)], rows)

    def table(self, items: Ints, _n_threads: int | None, /) -> Reals:
        self.evals += len(items) ** 2
        unit = unit_rows(self.X[items])
        return cosine_distances(unit, unit)

    def points(self, medoids: Ints) -> Any:
        self.evals += len(medoids) * self.n
        return unit_rows(self.X[medoids])

    def reader(self) -> _Sparse:
        return self

    def nearest(self, part: Fragment, points: Any) -> tuple[NDArray[np.int32], Floats]:
        """Labels and distances of rows."""
        return _least(cosine_distances(unit_rows(self.X[part.first_row : part.stop]), points))

    def distinct(self, medoids: Ints) -> int:
        return _sources.distinct(self.X, None, medoids)


def _least(rows: Reals) -> tuple[NDArray[np.int32], Floats]:
    """Of each column the lowest row with the least entry, and that entry."""
    labels = rows.argmin(axis=0)
    return labels.astype(np.int32), np.take_along_axis(rows, labels[None], 0)[0].astype(np.float64)


def near_of(part: Fragment, reader: Any, points: Any, weights: Floats | None) -> tuple[NDArray[np.int32], float]:
    """The nearest medoid of each item of a part, and the part's share of the loss."""
    labels, own = reader.nearest(part, points)
    return labels, math.fsum((own if weights is None else weights[part.first_row : part.stop] * own).tolist())


@dataclass(frozen=True)
class PlacedItems:
    """Medoids, the nearest of them for every item, and the loss."""

    medoids: Ints
    labels: NDArray[np.int32]
    loss: float


@dataclass(frozen=True)
class Placing:
    """Where all items are placed."""

    items: Items
    parts: tuple[Fragment, ...]
    engine: Engine
    reader: Any
    weights: Any

    @classmethod
    def on(cls, engine: Engine, items: Items, rows: int, weights: Floats | None) -> Placing:
        """With what the tasks share on the engine."""
        shared = None if weights is None else engine.share(weights)
        return cls(items, items.parts(rows), engine, engine.share(items.reader()), shared)

    def of(self, medoids: Ints, stopped: Callable[[], bool] | None) -> PlacedItems | None:
        """Each item with its nearest medoid; None where that was stopped."""
        labels = np.empty(self.items.n, np.int32)
        shared = (self.reader, self.engine.share(self.items.points(medoids)), self.weights)
        losses = []
        results = self.engine.map(near_of, self.parts, shared=shared, stopped=stopped)
        for part, (own, loss) in zip(self.parts, results, strict=False):
            labels[part.first_row : part.stop] = own
            losses.append(loss)
        if len(losses) < len(self.parts):
            return None
        labels[medoids] = np.arange(len(medoids), dtype=np.int32)
        return PlacedItems(medoids, labels, math.fsum(losses))
