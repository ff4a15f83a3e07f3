"""The nearest neighbours of SciPy-sparse rows by their cosines: every pair, a block of rows at a time."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats
from kofn.core.runtime import Control
from kofn.engines.threads import cores, spread
from kofn.objectives._sparse_rows import cosine_distances, rounding_of, unit_rows

# Rows whose distances to all others are held at once by a thread, and blocks of them between two looks at the clock.
_ROWS_AT_ONCE, _BLOCKS_AT_ONCE = 32, 16


def neighbors_of_sparse(
    X: Any, count: int, n_threads: int | None, control: Control
) -> tuple[NDArray[np.int32], Floats, float]:
    """The nearest other rows of each row, nearest first, their distances 1 - cos, and the rounding of a distance.

    Ties go to the lowest row. O(n) time an entry of X; memory for a block of distances a thread.
    """
    unit, n = unit_rows(X), X.shape[0]
    indices, distances = np.empty((n, count), np.int32), np.empty((n, count))

    def work(start: int, low: int, high: int) -> None:
        for block in range(start + low, start + high):
            _nearest_of_block(unit, slice(block * _ROWS_AT_ONCE, (block + 1) * _ROWS_AT_ONCE), indices, distances)

    blocks = -(-n // _ROWS_AT_ONCE)
    for start in range(0, blocks, _BLOCKS_AT_ONCE):
        control.check()
        here = min(_BLOCKS_AT_ONCE, blocks - start)
        spread(functools.partial(work, start), here, cores(n_threads), shares=4)
        control.step(min(n, (start + here) * _ROWS_AT_ONCE))
    return indices, distances, rounding_of(unit)


def _nearest_of_block(unit: Any, part: slice, indices: NDArray[np.int32], distances: Floats) -> None:
    """Fill in the lists of these rows."""
    count = indices.shape[1]
    away = cosine_distances(unit, unit[part])
    away[np.arange(len(away)), np.arange(part.start, part.start + len(away))] = np.inf
    farthest = np.partition(away, count - 1, axis=1)[:, count - 1]
    for row, (lengths, least) in enumerate(zip(away, farthest, strict=True)):
        # All that tie with the last of the list stand in the order of the rows.
        near = np.flatnonzero(lengths <= least)
        near = near[np.argsort(lengths[near], kind="stable")][:count]
        indices[part.start + row], distances[part.start + row] = near, lengths[near]
