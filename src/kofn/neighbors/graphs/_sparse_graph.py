"""The nearest neighbours of SciPy-sparse rows by their cosines, exactly, by an inverted index with bounds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints
from kofn.core.runtime import Control
from kofn.engines.base import Engine
from kofn.engines.threads import cores, spread
from kofn.neighbors.graphs._found_rows import of_tasks
from kofn.objectives._sparse_rows import NOTHING, rounding_of, unit_rows

# Rows between two looks at the clock, for each thread.
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class _Index:
    """Unit rows with their columns from the rarest on, and of each column the rows that have it.

    Attributes:
        rows: the unit rows (CSR).
        ranked, own, tails: their columns by rank, the entries there, and the length of a row from each on.
        heads, listed, weights: where the list of each rank begins, the rows of the lists and their entries.
        reach: the length of a listed row from its column on, by which a list falls.
    """

    rows: Any
    ranked: NDArray[np.int32]
    own: NDArray[np.float32]
    tails: NDArray[np.float32]
    heads: Ints
    listed: NDArray[np.int32]
    weights: NDArray[np.float32]
    reach: NDArray[np.float32]

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """In the order in which the search takes them."""
        of_rows = self.rows.indptr.astype(np.int64), self.rows.indices.astype(np.int32, copy=False), self.rows.data
        of_ranks = self.ranked, self.own, self.tails, self.heads
        return *of_rows, *of_ranks, self.listed, self.weights, self.reach

    @classmethod
    def of(cls, rows: Any) -> _Index:
        from scipy.sparse import csr_array

        n, d = rows.shape
        rarest = np.argsort(np.bincount(rows.indices, minlength=d), kind="stable")
        rank = np.empty(d, rows.indices.dtype)
        rank[rarest] = np.arange(d)
        ranked = csr_array((rows.data.copy(), rank[rows.indices], rows.indptr.copy()), shape=(n, d))
        ranked.sort_indices()
        row = np.repeat(np.arange(n, dtype=np.int32), np.diff(rows.indptr))
        tails = np.empty(len(ranked.data), np.float32)
        _kernels().tails(ranked.indptr.astype(np.int64), ranked.data, tails)
        order = np.lexsort((-tails, ranked.indices))
        heads = np.concatenate([[0], np.cumsum(np.bincount(ranked.indices, minlength=d))])
        own = ranked.data.astype(np.float32)
        return cls(
            rows=rows,
            ranked=ranked.indices.astype(np.int32, copy=False),
            own=own,
            tails=tails,
            heads=heads,
            listed=row[order],
            weights=own[order],
            reach=tails[order],
        )


def neighbors_of_sparse(
    X: Any, count: int, n_threads: int | None, control: Control, engine: Engine | None = None
) -> tuple[NDArray[np.int32], Floats, float]:
    """The nearest other rows of each row, nearest first, their distances 1 - cos, and the rounding of a distance.

    Ties go to the lowest row. Rows that repeat another are searched for once. Memory of four copies of X.

    References:
        Bayardo, Ma, Srikant, "Scaling up all pairs similarity search", WWW 2007.
        Anastasiu, Karypis, "L2Knng: fast exact k-nearest neighbor graph construction with L2-norm pruning", CIKM 2015.
    """
    unit, n, threads = unit_rows(X), X.shape[0], cores(n_threads)
    kinds = _kinds(unit)
    firsts = np.unique(kinds, return_index=True)[1]
    index = _Index.of(unit if len(firsts) == n else unit[firsts])
    width = min(count + 1, len(firsts))
    near, away = np.empty((len(firsts), width), np.int32), np.empty((len(firsts), width))
    # Partial cosines are sums of float32 products whose absolute values add up to 1 at most; lengths are rounded once.
    margin = (int(np.diff(index.rows.indptr).max()) + 16) * 2.0**-23
    arrays = index.arrays()
    step = _ROWS_AT_ONCE * (threads if engine is None else 4)
    parts = [(low, min(low + step, len(firsts))) for low in range(0, len(firsts), step)]
    if engine is None:
        results: Iterator[Any] = (None for _ in parts)
    else:
        results = of_tasks(engine, sparse_rows, parts, (arrays, margin, near.shape), control)
    for (start, stop), rows in zip(parts, results, strict=True):
        control.check()
        if rows is not None:
            near[start:stop], away[start:stop] = rows
        else:

            def work(low: int, high: int, start: int = start) -> None:
                _kernels().nearest(start + low, start + high, *arrays, NOTHING, margin, near, away)

            spread(work, stop - start, threads, shares=4)
        control.step(n * stop // len(firsts))
    indices, distances = np.empty((n, count), np.int32), np.empty((n, count))
    members = np.argsort(kinds, kind="stable").astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(np.bincount(kinds))])
    _kernels().expand(0, n, kinds, starts, members, near, away, indices, distances)
    return indices, distances, rounding_of(unit)


def sparse_rows(
    part: tuple[int, int], shared: tuple[tuple[NDArray[Any], ...], float, tuple[int, int]]
) -> tuple[NDArray[np.int32], Floats]:
    """The nearest of some rows, themselves among them, and their distances."""
    arrays, margin, shape = shared
    # Of the arrays for all rows no more takes memory than is written.
    near, away = np.empty(shape, np.int32), np.empty(shape)
    _kernels().nearest(*part, *arrays, NOTHING, margin, near, away)
    return near[slice(*part)].copy(), away[slice(*part)].copy()


def _kinds(unit: Any) -> NDArray[np.int32]:
    """Of each row its number among the different ones, in the order in which those come first."""
    numbers: dict[bytes, int] = {}
    out = np.empty(unit.shape[0], np.int32)
    for row, (low, high) in enumerate(itertools.pairwise(unit.indptr.tolist())):
        key = unit.indices[low:high].tobytes() + unit.data[low:high].tobytes()
        out[row] = numbers.setdefault(key, len(numbers))
    return out


def _kernels() -> Any:
    from kofn.neighbors.graphs import _sparse_kernels

    return _sparse_kernels
