"""Sparse rows as points on the sphere: squared distances by an inverted index, and similarities (1 + cos) / 2."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints
from kofn.engines.threads import cores, spread
from kofn.objectives._sparse_rows import NOTHING, unit_rows
from kofn.objectives._units import Units, Worth

# Distances held at once.
_AT_ONCE = 1 << 21


class SparsePoints:
    """Unit rows, SciPy-sparse: what `Geometry` is to dense rows under the cosine, of which the distances here are too.

    Attributes:
        rows: (n, d + 1) unit rows, CSR; the last column is the direction that rows of zeros share.
        squared, unit, top: as of `Geometry`: D = unit * squared distance, at most `top` before `unit`.
    """

    squared, unit, top = True, 0.25, 4.0

    def __init__(self, unit: Any) -> None:
        self.rows = unit
        self.n = int(unit.shape[0])

    @classmethod
    def of(cls, X: Any) -> SparsePoints:
        """The directions of SciPy-sparse rows."""
        return cls(unit_rows(X))

    @functools.cached_property
    def _lists(self) -> tuple[NDArray[np.int64], NDArray[np.int32], Floats]:
        columns = self.rows.tocsc()
        return columns.indptr.astype(np.int64), columns.indices.astype(np.int32, copy=False), columns.data

    def part(self, items: Ints) -> SparsePoints:
        """Some of the rows."""
        return SparsePoints(self.rows[items])

    def points(self, items: Ints | slice) -> Any:
        """Sparse coordinates of some rows."""
        return self.rows[items]

    def squares(self, points: Any, n_threads: int) -> Floats:
        """(points, n) squared distances of all rows to sparse points, below the rounding of their sums 0.

        O(rows that share a column) for each entry of a point; the bits do not depend on the other points.
        """
        from kofn.objectives import _sparse_kernels

        if not points.has_sorted_indices:
            points = points.sorted_indices()
        out = np.zeros((points.shape[0], self.n))
        own = points.indptr.astype(np.int64), points.indices.astype(np.int32, copy=False), points.data

        def work(low: int, high: int) -> None:
            _sparse_kernels.products(low, high, *own, *self._lists, out)

        self._lists  # noqa: B018 (made once, before the threads)
        spread(work, len(out), n_threads)
        sizes = np.asarray(points.multiply(points).sum(axis=1)).ravel()
        sizes[np.abs(sizes - 1) < NOTHING] = 1.0
        out *= -2
        out += (1 + sizes)[:, None]
        out[out < NOTHING] = 0.0
        return out


class SparseSimilar:
    """Similarities (1 + cos) / 2 between sparse rows, on demand: `Amounts` that every row has to every row."""

    def __init__(self, X: Any, n_threads: int | None) -> None:
        self.space = SparsePoints.of(X)
        self.n = self.units = self.longest = self.space.n
        # Totals are sums of products, and squares below the rounding of their own sums are taken as 0.
        most = int(np.diff(self.space.rows.indptr).max(initial=0))
        self.rounding = 4 * (self.n + most + 8) * 2.0**-53 + self.space.unit * NOTHING
        self.pairs = 0
        self.poll: Callable[[], None] | None = None
        self.n_threads = cores(n_threads)

    def _similarity(self, candidates: Ints) -> Floats:
        squares = self.space.squares(self.space.points(candidates), self.n_threads)
        self.pairs += squares.size
        out: Floats = self.space.unit * np.maximum(self.space.top - squares, 0.0)
        return out

    def sums(self, candidates: Ints, worth: Worth) -> Floats:
        """The sum of worth(amounts, units) over the units, for each candidate."""
        out = np.empty(len(candidates))
        step = max(1, _AT_ONCE // self.n)
        for low in range(0, len(candidates), step):
            if low and self.poll is not None:
                self.poll()
            block = worth(self._similarity(candidates[low : low + step]), slice(None))
            out[low : low + step] = np.ascontiguousarray(block).sum(axis=1)
        return out

    def own(self, candidate: int) -> tuple[Units, Floats]:
        """All units, and how similar a candidate is to each."""
        return slice(None), self._similarity(np.array([candidate], np.int64))[0]

    def totals(self, weights: Floats | None = None) -> Floats:
        """Each row's weighted summed similarity to all, by the sum of the rows: O(entries)."""
        rows = self.space.rows
        everyone = self.n if weights is None else math.fsum(weights.tolist())
        summed = np.asarray((rows if weights is None else rows.multiply(weights[:, None]).tocsr()).sum(axis=0)).ravel()
        out: Floats = np.maximum((everyone + rows @ summed) / 2, 0.0)
        return out


def scratch_of(X: Any, bytes_an_item: int) -> int:
    """Bytes that similarities of sparse rows take beside X."""
    # The unit rows and their lists by column, each an entry and its place; distances, what they are worth, and a copy.
    return 2 * 12 * int(X.nnz) + 3 * 8 * max(_AT_ONCE, int(X.shape[0])) + bytes_an_item * int(X.shape[0])
