"""Cosine costs from SciPy-sparse rows, which are never made dense: a pair that shares no feature takes no time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.objectives._sources import Change
from kofn.objectives.kcenter import distances_to
from kofn.objectives.similarity import exact_sum

# Products of two entries that a block of rows may take: what it holds grows with them.
_PRODUCTS = 1 << 22
# A squared chord below this is the rounding of a row's distance to its copy.
NOTHING = 1e-14
# Rows that are compared with all others at once.
_DENSE_ROWS = 64


def directions(X: Any) -> Any:
    """The rows of a CSR matrix with length 1, float64; rows of zeros stay zero."""
    from scipy.sparse import csr_array

    n, d = X.shape
    rows = np.repeat(np.arange(n), np.diff(X.indptr))
    data = X.data.astype(np.float64)
    largest = np.zeros(n)
    np.maximum.at(largest, rows, np.abs(data))
    # By their largest entries first, so that no square overflows or vanishes.
    data /= np.where(largest > 0, largest, 1)[rows]
    lengths = np.sqrt(np.bincount(rows, data * data, n))
    data /= np.where(lengths > 0, lengths, 1)[rows]
    return csr_array((data, X.indices, X.indptr), shape=(n, d))


def unit_rows(X: Any) -> Any:
    """The rows of a CSR matrix with length 1, float64; rows of zeros share a direction of their own, a column more."""
    from scipy.sparse import csr_array, hstack

    unit, n = directions(X), X.shape[0]
    empty = np.flatnonzero(unit.multiply(unit).sum(axis=1) == 0)
    own = csr_array((np.ones(len(empty)), (empty, np.zeros(len(empty), np.int64))), shape=(n, 1))
    joined = hstack([unit, own], format="csr")
    joined.sort_indices()
    return joined


def chords(unit: Any, row: int) -> Floats:
    """(n,) squared distance of every unit row to one of them, 2 - 2 cos. O(entries)."""
    point = np.zeros(unit.shape[1])
    own = slice(*unit.indptr[row : row + 2])
    point[unit.indices[own]] = unit.data[own]
    return squared_chords(unit @ point)


class SparseDistances:
    """Distances of sparse rows to a point, as differences of coordinates: copies are exactly 0 apart.

    Rows are held in a power of 2 near their largest entry, so that no square overflows or vanishes.
    """

    def __init__(self, X: Any) -> None:
        from scipy.sparse import csr_array

        data = X.data.astype(np.float64)
        largest = float(np.abs(data).max(initial=0.0))
        self.exponent = math.frexp(largest)[1] if largest else 0
        self.rows = csr_array((np.ldexp(data, -self.exponent), X.indices, X.indptr), shape=X.shape)
        self._starts = X.indptr[:-1]
        self._filled = np.flatnonzero(np.diff(X.indptr))

    def row(self, item: int) -> Floats:
        """(d,) one of the rows."""
        point = np.zeros(self.rows.shape[1])
        own = slice(*self.rows.indptr[item : item + 2])
        point[self.rows.indices[own]] = self.rows.data[own]
        return point

    def squares(self, point: Floats) -> Floats:
        """(n,) squared distances of all rows to a point (d,), both in the unit of `rows`. O(entries)."""
        there = point[self.rows.indices]
        total = float(point @ point)
        out = np.full(self.rows.shape[0], total)
        if not len(self._filled):
            return out
        starts = self._starts[self._filled]
        shared = np.add.reduceat(there * there, starts)
        # What a row shares with all that the point has leaves nothing, whatever the order of the sums.
        complete = np.add.reduceat((there != 0).astype(np.int64), starts) == np.count_nonzero(point)
        rest = np.where(complete, 0.0, np.maximum(total - shared, 0.0))
        out[self._filled] = np.add.reduceat((self.rows.data - there) ** 2, starts) + rest
        return out

    def in_units(self, distances: Floats, metric: str) -> Floats:
        """Distances in the unit of the data.

        Raises:
            InputError: squares that float64 does not hold.
        """
        with np.errstate(over="ignore", under="ignore"):
            out = np.ldexp(distances, self.exponent * (2 if metric == "sqeuclidean" else 1))
        if not np.isfinite(out).all() or ((out == 0) & (distances > 0)).any():
            raise InputError(
                f"X has distances beyond what float64 holds under metric={metric!r}; multiply X by "
                f"{2.0**-self.exponent:g}, or compare by metric='euclidean'"
            )
        return out


def distances_from(X: Any, metric: str) -> Callable[[int], Floats]:
    """The distances of all rows to one of them, by its number; of sparse rows 1 - cos."""
    if checks.is_sparse(X):
        unit = unit_rows(X)
        return lambda item: chords(unit, item) / 2
    return lambda item: distances_to(X, X[item], metric)


def cosine_rows(X: Any, metric: str) -> Any:
    """Check SciPy-sparse rows, which only the cosine compares.

    Raises:
        InputError: another metric, or entries that are not finite.
    """
    if metric != "cosine":
        raise InputError(f"X is a sparse matrix, whose rows are compared by metric='cosine', not {metric!r}")
    return checks.sparse_rows(X)


def cosine_distances(unit: Any, others: Any) -> Floats:
    """(m, n) distances 1 - cos of the rows of `others`, made dense a few at a time, to all unit rows."""
    n, m = unit.shape[0], others.shape[0]
    out = np.empty((m, n))
    for low in range(0, m, _DENSE_ROWS):
        part = slice(low, low + _DENSE_ROWS)
        out[part] = squared_chords((unit @ others[part].toarray().T).T) / 2
    return out


def rounding_of(unit: Any) -> float:
    """Bound on the error of a distance 1 - cos between unit rows."""
    longest = int(np.diff(unit.indptr).max())
    return 2 * (longest + 4) * 2.0**-53 + NOTHING


def squared_chords(cosines: Floats) -> Floats:
    squares = 2 - 2 * cosines
    squares[squares < NOTHING] = 0.0
    return squares


class SparseRows:
    """A `Source` of squared distances between unit rows; four of its units are two of `1 - cos`."""

    def __init__(self, X: Any) -> None:
        self.rows = unit_rows(X)
        self.columns = self.rows.T.tocsr()
        self.n, self.start, self.least, self.rounding, self.pairs = X.shape[0], 4.0, 0.0, 2.0**-53, 0
        self.poll: Callable[[], None] | None = None
        self.error_of_a_pair = 2 * rounding_of(self.rows)
        # Products that the cosines of each row with all rows take.
        popular = np.diff(self.columns.indptr).astype(np.float64)
        summed = np.concatenate([[0.0], np.cumsum(popular[self.rows.indices])])
        self.products = summed[self.rows.indptr[1:]] - summed[self.rows.indptr[:-1]]

    def column(self, candidate: int) -> Floats:
        self.pairs += self.n
        return chords(self.rows, candidate)

    def apart(self, candidate: int) -> Floats:
        return self.column(candidate)

    def savings(self, candidates: Ints, change: Change, weights: Floats) -> Floats:
        if not len(change.items):
            # Everything is covered for good.
            return np.zeros(len(candidates))
        # All that an item does not resemble cost it the same, 2.
        w = weights[change.items]
        apart = w * (change.old - np.clip(2.0, change.new, np.maximum(change.old, change.new)))
        out = np.full(self.n, apart.sum())
        cuts = np.flatnonzero(np.diff(np.cumsum(self.products[change.items]) // _PRODUCTS, prepend=-1.0))
        for low, high in zip(cuts, [*cuts[1:], len(change.items)], strict=True):
            if low and self.poll is not None:
                self.poll()
            part = slice(low, high)
            cosines = self.rows[change.items[part]] @ self.columns
            item = np.repeat(np.arange(low, high), np.diff(cosines.indptr))
            old = change.old[item]
            cost = np.minimum(np.maximum(squared_chords(cosines.data), change.new[item]), old)
            out += np.bincount(cosines.indices, w[item] * (old - cost) - apart[item], self.n)
        self.pairs += len(candidates) * len(change.items)
        return out[candidates]

    def look_ahead(self, candidates: Ints, items: Ints, cost: Floats, weights: Floats) -> tuple[list[int], Floats]:
        nothing = np.full(len(items), -np.inf)
        return [], self.savings(candidates, Change(items, cost[items], nothing), weights)[None]

    def exact(self, candidates: Ints, old: Floats, weights: Floats) -> Floats:
        return np.array([exact_sum(weights * (old - np.minimum(self.column(int(j)), old))) for j in candidates])

    def error(self, total: float, weight: float) -> float:  # noqa: ARG002 (a cosine's error does not shrink with it)
        """Sums of products may be added up in another order, of numbers up to 1; then small ones are taken as none."""
        return weight * self.error_of_a_pair
