"""What k-medoids methods take, distance sources (a matrix, or rows computed on demand), and the loss."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kofn.assignment._sparse_source import SparseVectors, count_distinct, sparse_loss
from kofn.core import checks
from kofn.core.arrays import Floats, Ints, Reals
from kofn.core.checks import InputError
from kofn.core.words import Metric, Runtime
from kofn.engines.speed import pairs_a_second
from kofn.objectives.similarity import Geometry, geometry, is_small, pairwise_distances

if TYPE_CHECKING:
    from kofn.engines.torch_swaps import SwapBounds

_PAIRS_AT_ONCE = 2**22
# Coordinates laid out feature by feature at a time where there is no room for all.
_LAID_OUT = 2**18
_ALL = slice(None)
# Seconds that no limit is about.
_SOON = 0.05
Init = Literal["lab", "build", "random"]


class Pairs(Runtime, total=False):
    """Metric, weights and runtime words."""

    metric: Annotated[Metric, '"euclidean", "sqeuclidean" or "cosine" (1 - cos), for X.', "euclidean"]
    weights: Annotated[ArrayLike | None, "How much each item counts, (n,), >= 0, default 1."]


class KMedoids(Pairs, total=False):
    """`Pairs`, and the start of the search."""

    start: Annotated[Any, "Medoids to begin from: row numbers (or ids), or an earlier plan."]


class Source(Protocol):
    """Source of distance rows: row j holds the distances of all points to candidate j."""

    n: int
    evals: int

    def rows(self, candidates: Ints) -> Reals:
        """(len(candidates), n) distances."""
        ...

    def blocks(self) -> Iterator[tuple[int, Reals]]:
        """All rows in order, in blocks, each with the index of its first candidate."""
        ...

    def among(self, items: Ints, some: slice = _ALL) -> Reals:
        """(l, m) distances of some of the given points, by default all, to all of them."""
        ...

    def between(self, items: Ints, others: Ints) -> Reals:
        """(m, l) distances between two sets of points, accurate to about the rounding of the largest one."""
        ...


class Matrix:
    """Distances given as a matrix, read in place."""

    def __init__(self, distances: Reals, evals: int = 0) -> None:
        self.matrix = np.ascontiguousarray(distances)
        self.n, self.evals = len(distances), evals

    def rows(self, candidates: Ints) -> Reals:
        """A copy of the given rows."""
        return self.matrix[candidates]

    def blocks(self) -> Iterator[tuple[int, Reals]]:
        """Views of the matrix, in order."""
        step = max(1, _PAIRS_AT_ONCE // self.n)
        for start in range(0, self.n, step):
            yield start, self.matrix[start : start + step]

    def among(self, items: Ints, some: slice = _ALL) -> Reals:
        """The submatrix."""
        return self.between(items[some], items)

    def between(self, items: Ints, others: Ints) -> Reals:
        """The submatrix."""
        out: Reals = self.matrix[np.ix_(items, others)]
        return out


class Vectors:
    """Distances computed from coordinates on demand: O(n d) per row, memory for one block of rows.

    The coordinates are also held feature by feature; `lean` lays them out so for each call, part by part.
    """

    def __init__(self, space: Geometry, unit: float, n_threads: int | None, lean: bool = False) -> None:
        self.n, self.evals = space.n, 0
        self.space, self.unit, self._n_threads, self._lean = space, unit, n_threads, lean

    def rows(self, candidates: Ints) -> Reals:
        """Distance rows by differences; a pair has the same bits in every call."""
        from kofn.core.distance_kernels import LANES, distance_rows, scratch
        from kofn.engines.threads import cores, spread

        space, kind = self.space, self.space.rows.dtype.type
        out = np.empty((len(candidates), self.n), kind)
        self.evals += out.size
        if self._lean and self.n > (part := max(1, _LAID_OUT // space.rows.shape[1] // LANES) * LANES):
            self._in_parts(candidates, part, out)
            return out
        columns = space.columns

        def fill(low: int, high: int) -> None:
            lanes, tile = scratch(space.rows.shape[1], kind)
            distance_rows(
                space.rows,
                columns,
                space.scale,
                candidates,
                space.squared,
                self.unit,
                low,
                high,
                lanes,
                tile,
                out,
            )

        spread(fill, -(-self.n // LANES), cores(self._n_threads), shares=4)
        return out

    def _in_parts(self, candidates: Ints, size: int, out: Reals) -> None:
        """Distance rows of a few rows and the candidates at a time; each pair has the bits that it has at once."""
        last = len(candidates)
        for low in range(0, self.n, size):
            items = np.concatenate([candidates, np.arange(low, min(low + size, self.n))])
            part = Vectors(self.space.part(items), self.unit, self._n_threads)
            out[:, low : low + size] = part.rows(np.arange(last))[:, last:]

    def blocks(self) -> Iterator[tuple[int, Reals]]:
        """Blocks of up to 16 MB in float32."""
        step = max(8, _PAIRS_AT_ONCE // self.n // 8 * 8)
        for start in range(0, self.n, step):
            yield start, self.rows(np.arange(start, min(start + step, self.n)))

    def among(self, items: Ints, some: slice = _ALL) -> Reals:
        """Distances among the points, by differences."""
        points = self.space.points(items)
        out = np.stack([((points - point) ** 2).sum(axis=1) for point in points[some]])
        self.evals += out.size
        return (out if self.space.squared else np.sqrt(out)) * self.unit

    def between(self, items: Ints, others: Ints) -> Reals:
        """By a matrix product of offsets from the first of the items, near which the others lie."""
        rows, columns = self.space.points(items), self.space.points(others)
        columns -= rows[0]
        rows = rows - rows[0]
        squares = -2.0 * (rows @ columns.T)
        squares += np.einsum("ij,ij->i", rows, rows)[:, None]
        squares += np.einsum("ij,ij->i", columns, columns)
        np.maximum(squares, 0.0, out=squares)
        self.evals += squares.size
        return (squares if self.space.squared else np.sqrt(squares, out=squares)) * self.unit


class _MatrixByRows(Vectors):
    """The entries of a matrix of distances, computed on demand."""

    def among(self, items: Ints, some: slice = _ALL) -> Reals:
        """The submatrix."""
        part = Vectors(self.space.part(items), self.unit, self._n_threads)
        out = part.rows(np.arange(len(items))[some])
        self.evals += part.evals
        return out


def source_of(
    X: Any,
    distances: Any,
    metric: str,
    max_memory: int,
    n_threads: int | None,
    limit: int | None = None,
    *,
    by_rows: bool = False,
) -> Source:
    """Distances as given, or from X: as a matrix where that fits into `max_memory`, else row by row.

    Where a second copy of X takes more than half of `limit`, which is the caller's own, none is held. With `by_rows`
    the same distances are computed row by row, but in small pools.
    """
    if distances is not None:
        return Matrix(distances)
    if checks.is_sparse(X):
        return SparseVectors(X)
    space = geometry(X, metric)
    unit = unit_of(space, metric)
    n, d = X.shape
    if is_small(n, d) and 8 * n * n <= max_memory:
        table = space.table()
        table *= unit
        return Matrix(table, evals=n * n)
    if n * n * X.dtype.itemsize <= max_memory and by_rows:
        # A matrix is computed in the precision of X, even where its entries need less.
        kind = np.float32 if X.dtype == np.float32 else np.float64
        return _MatrixByRows(dataclasses.replace(space, rows=space.rows.astype(kind, copy=False)), unit, n_threads)
    if n * n * X.dtype.itemsize <= max_memory:
        return Matrix(pairwise_distances(X, metric, n_threads=n_threads), evals=n * n)
    return Vectors(space, unit, n_threads, lean=limit is not None and 2 * space.rows.nbytes > limit)


def swap_bounds(source: Source, weights: Floats, k: int, device: Any, max_memory: int | None) -> SwapBounds:
    """Bounds on what swaps save by these distances, on a device."""
    from kofn.engines.torch_swaps import SwapBounds

    if isinstance(source, Matrix):
        return SwapBounds(weights, k, device, max_memory, matrix=source.matrix)
    assert isinstance(source, Vectors)
    space = source.space
    return SwapBounds(
        weights,
        k,
        device,
        max_memory,
        rows=space.rows,
        scale=space.scale,
        squared=space.squared,
        unit=source.unit,
    )


def unit_of(space: Geometry, metric: str) -> float:
    """Factor from the geometry's distance to the metric: 1 - cos is half the squared chord."""
    return 0.5 if metric == "cosine" else space.unit


def loss_of(X: Any, distances: Any, metric: str, medoids: Ints, labels: NDArray[np.int32], weights: Floats) -> float:
    """Weighted sum of the distances of all points to their medoids, recomputed in float64."""
    if distances is not None:
        own = distances[medoids[labels], np.arange(len(distances))].astype(np.float64)
        return math.fsum((weights * own).tolist())
    if checks.is_sparse(X):
        return sparse_loss(X, medoids, labels, weights)
    space = geometry(X, metric)
    centres = space.points(medoids)

    def terms() -> Iterator[float]:
        for low in range(0, space.n, 4096):
            gap = space.points(slice(low, low + 4096)) - centres[labels[low : low + 4096]]
            squares = np.einsum("ij,ij->i", gap, gap)
            yield from (weights[low : low + 4096] * (squares if space.squared else np.sqrt(squares))).tolist()

    return unit_of(space, metric) * math.fsum(terms())


@dataclass(frozen=True)
class Opened:
    """The checked input of one call: rows or distances, n, weights, and the distance source."""

    X: Any
    distances: Any
    n: int
    counts: Floats
    source: Source


def opened(X: Any, distances: Any, k: int, words: Mapping[str, Any], memory: int, *, by_rows: bool = False) -> Opened:
    """Open the input of one call from the words of `Pairs`; `memory` is the default for max_memory.

    With `by_rows` distances from X are held as a matrix in small pools alone, and are the same.
    """
    metric, weights = words["metric"], words["weights"]
    X, distances = pool(X, distances, k, metric)
    n = _items(X, distances)
    counts = np.ones(n) if weights is None else weights.astype(np.float64)
    room = room_within(X, words["max_memory"] or memory, words["time_limit"])
    source = source_of(X, distances, metric, room, words["n_threads"], words["max_memory"], by_rows=by_rows)
    return Opened(X, distances, n, counts, source)


def room_within(X: Any, room: int, seconds: float | None) -> int:
    """Bytes for the distances as a matrix, which is computed as a whole: none where that takes much of the time."""
    if X is None or seconds is None or checks.is_sparse(X):
        return room
    return 0 if len(X) ** 2 / pairs_a_second(X.shape[1]) > max(_SOON, seconds / 4) else room


def pool(X: Any, distances: Any, k: int, metric: str) -> tuple[Any, Any]:
    """Rows or distances (exactly one is given), checked against k.

    Raises:
        InputError: k above the number of distinct items, both given, or a diagonal that is not zero.
    """
    n = _items(X, distances)
    if k > n:
        raise InputError(f"k={k} of {n} items: there are only {n} to choose from; ask for k <= {n}")
    if X is not None and distances is not None:
        raise InputError("X and distances are both given; give one of them")
    if distances is None and metric == "precomputed":
        X, distances = None, checks.distances(X, "X")
    if distances is not None:
        _refuse_diagonal(distances)
    if (different := differing(X, distances, k)) < k:
        raise InputError(f"k={k} groups of {n} items, {different} of them distinct; ask for k <= {different}")
    return X, distances


def differing(X: Any, distances: Any, most: int) -> int:
    """Number of distinct items, counted up to `most`; rows that are equal entry by entry are one item.

    An evenly spaced sample usually suffices; otherwise all rows are hashed.
    """
    n = _items(X, distances)
    if n > 8 * most + 256:
        sample = np.linspace(0, n - 1, 4 * most + 128).astype(np.int64)
        part = X[sample] if distances is None else distances[np.ix_(sample, sample)]
        if _count_distinct(part) >= most:
            return most
    return min(most, _count_distinct(X if distances is None else distances))


def _items(X: Any, distances: Any) -> int:
    """Number of items."""
    return int((X if distances is None else distances).shape[0])


def _count_distinct(rows: Any) -> int:
    return count_distinct(rows) if checks.is_sparse(rows) else len(np.unique(checks.first_equal(rows)))


def _refuse_diagonal(distances: NDArray[Any]) -> None:
    own = np.abs(np.diagonal(distances))
    worst = int(own.argmax())
    if own[worst] > 0 and own[worst] > 1e-6 * distances.max():
        raise InputError(
            f"distances at row {worst}, column {worst} is {own[worst]:g}; an item's distance to itself must be 0: "
            "use np.fill_diagonal(distances, 0)"
        )


def distinct(X: Any, distances: Any, medoids: Ints) -> int:
    """Number of distinct medoids: fewer than k if different items are at distance 0."""
    if distances is None:
        return _count_distinct(X[medoids])
    same = distances[np.ix_(medoids, medoids)] == 0
    same[np.diag_indices(len(medoids))] = True
    return int((same.argmax(axis=1) == np.arange(len(medoids))).sum())
