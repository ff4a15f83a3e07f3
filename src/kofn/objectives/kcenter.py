"""The k-center objective: the covering radius, to be minimised."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Ints, near_one
from kofn.core.checks import InputError
from kofn.core.objective import Objective

# Entries of a block of rows: the temporaries stay in the cache of one core.
_BLOCK = 1 << 17
# Squared lengths between these have lost nothing to overflow, and nothing that counts to underflow.
_LEAST_SQUARE, _MOST_SQUARE = 1e-280, 1e300


def distances_to(X: NDArray[Any], point: NDArray[Any], metric: str = "euclidean") -> Floats:
    """(n,) distance of every row to one point, from differences, in blocks of rows.

    Squares are summed feature by feature, in float64, so that compiled code can give the same bits. Under "cosine" rows
    of zeros share a direction of their own, as in `kofn.objectives.similarity`.
    """
    out = np.empty(len(X))
    point = np.array(point, np.float64)[:, None]
    for low, columns in _blocks(X):
        out[low : low + columns.shape[1]] = _apart(columns, point.copy(), metric)
    return out


def distances_of_pairs(X: NDArray[Any], items: Ints, others: Ints, metric: str = "euclidean") -> Floats:
    """(m,) distance of each of the items, rows of X, to the row beside it in `others`: the bits of `distances_to`."""
    out = np.empty(len(items))
    step = max(1, _BLOCK // X.shape[1])
    for low in range(0, len(items), step):
        run = slice(low, low + step)
        here, there = (np.array(X[rows[run]].T, np.float64, order="C") for rows in (items, others))
        out[run] = _apart(here, there, metric)
    return out


def _apart(columns: Floats, points: Floats, metric: str) -> Floats:
    """Distances of points (features, rows) to one point (features, 1) or to each its own. Overwrites both."""
    if metric == "cosine":
        alone = columns.any(axis=0) != points.any(axis=0)
        columns, points = _directions(columns), _directions(points)
    columns -= points
    columns *= columns
    squares = _down(columns)
    if metric == "euclidean":
        return np.sqrt(squares, out=squares)
    if metric == "cosine":
        squares[alone] = 2.0
        squares /= 2
    return squares


def lengths(X: NDArray[Any]) -> Floats:
    """(n,) length of every row, in float64, summed feature by feature."""
    out = np.empty(len(X))
    for low, columns in _blocks(X):
        columns, squares, factor = _squared(columns)
        out[low : low + columns.shape[1]] = np.sqrt(squares) / factor
    return out


def _directions(columns: Floats) -> Floats:
    """`kofn.core.arrays.directions` of points (features, rows), squares summed feature by feature. Overwrites them."""
    columns, squares, _ = _squared(columns)
    sizes = np.sqrt(squares)
    columns /= np.where(sizes > 0, sizes, 1)
    return columns


def _squared(columns: Floats) -> tuple[Floats, Floats, Floats]:
    """Points (features, rows), their squared lengths, and the scaling that keeps these in range."""
    with np.errstate(over="ignore"):
        squares = _down(columns * columns)
    if bool(((squares > _LEAST_SQUARE) & (squares < _MOST_SQUARE)).all()):
        return columns, squares, np.ones(1)
    columns, factor = near_one(columns, axis=0)
    return columns, _down(columns * columns), factor[0]


def _blocks(X: NDArray[Any]) -> Iterator[tuple[int, Floats]]:
    """Runs of rows as (features, rows) in float64, with the first row's number."""
    step = max(1, _BLOCK // X.shape[1])
    for low in range(0, len(X), step):
        yield low, np.array(X[low : low + step].T, np.float64, order="C")


def _down(columns: Floats) -> Floats:
    """The sum of each column from its first entry to its last."""
    if columns.shape[1] == 1:
        # NumPy would add up a lone column in an order of its own.
        columns = np.repeat(columns, 2, axis=1)
        return _down(columns)[:1]
    total: Floats = columns.sum(axis=0)
    return total


class KCenter(Objective):
    """The covering radius as a set function. Neither submodular nor bounded by greedy gains: a gain is a drop of the
    radius."""

    name = "k_center"
    sense = "min"
    n: int
    monotone = True
    calls = 0

    def __init__(self, X: NDArray[Any], *, metric: str = "euclidean") -> None:
        if checks.is_sparse(X):
            raise InputError("X is a sparse matrix; give a dense array (X.toarray())")
        self.X, self.metric, self.n = X, metric, len(X)
        self.nearest = np.full(self.n, np.inf)

    def gains(self, candidates: NDArray[np.int64]) -> Floats:
        """Decrease of the radius by each candidate (for the first pick: minus its radius)."""
        self.calls += len(candidates)
        now = 0.0 if np.isinf(self.nearest[0]) else float(self.nearest.max())
        after = [np.minimum(self.nearest, distances_to(self.X, self.X[i], self.metric)).max() for i in candidates]
        return now - np.array(after)

    def add(self, item: int) -> float:
        """Commit a pick; returns the drop of the radius."""
        gain = float(self.gains(np.array([item]))[0])
        np.minimum(self.nearest, distances_to(self.X, self.X[item], self.metric), out=self.nearest)
        return gain

    def value(self, indices: NDArray[np.int64]) -> float:
        """The covering radius of a set."""
        if not len(indices):
            return float("inf")
        return float(np.min([distances_to(self.X, self.X[i], self.metric) for i in indices], axis=0).max())
