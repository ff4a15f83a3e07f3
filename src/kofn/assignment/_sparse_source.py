"""Distances between SciPy-sparse rows under "cosine": rows are never made dense."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints
from kofn.objectives._sparse_rows import cosine_distances, unit_rows

# Entries of a block of distances, and of rows whose own distances to their medoids are added up together.
_PAIRS_AT_ONCE, _ROWS_AT_ONCE = 2**22, 4096
_ALL = slice(None)


class SparseVectors:
    """A `Source` of 1 - cos from sparse rows, computed on demand: O(entries of X) a row. A pair has one value only."""

    def __init__(self, X: Any) -> None:
        self._unit = unit_rows(X)
        self.n, self.evals = X.shape[0], 0

    def rows(self, candidates: Ints) -> Floats:
        """(len(candidates), n) distances."""
        self.evals += len(candidates) * self.n
        return cosine_distances(self._unit, self._unit[candidates])

    def blocks(self) -> Iterator[tuple[int, Floats]]:
        """All rows in order, in blocks."""
        step = max(1, _PAIRS_AT_ONCE // self.n)
        for start in range(0, self.n, step):
            yield start, self.rows(np.arange(start, min(start + step, self.n)))

    def among(self, items: Ints, some: slice = _ALL) -> Floats:
        """Distances of some of the items to all of them."""
        return self.between(items[some], items)

    def between(self, items: Ints, others: Ints) -> Floats:
        """Distances between two sets of rows."""
        self.evals += len(items) * len(others)
        return cosine_distances(self._unit[others], self._unit[items])


def sparse_loss(X: Any, medoids: Ints, labels: NDArray[np.int32], weights: Floats) -> float:
    """Weighted sum of the distances of all sparse rows to their medoids."""
    unit = unit_rows(X)
    centres = unit[medoids]

    def terms() -> Iterator[float]:
        for low in range(0, len(labels), _ROWS_AT_ONCE):
            part = slice(low, low + _ROWS_AT_ONCE)
            cosines = np.asarray(unit[part].multiply(centres[labels[part]]).sum(axis=1)).ravel()
            yield from (weights[part] * np.clip(1 - cosines, 0.0, 2.0)).tolist()

    return math.fsum(terms())


def count_distinct(X: Any) -> int:
    """How many of the sparse rows differ in an entry."""
    rows = X.copy()
    rows.eliminate_zeros()
    rows.sort_indices()
    ends = rows.indptr
    return len(
        {(rows.indices[low:high].tobytes(), rows.data[low:high].tobytes()) for low, high in itertools.pairwise(ends)}
    )
