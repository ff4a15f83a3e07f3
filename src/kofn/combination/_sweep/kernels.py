"""Compiled loops of the merge rules: histograms of bit patterns, and the elected mean."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

_FLOATS = (nb.float32, nb.float64)


def _row(kind: Any) -> Any:
    return nb.types.Array(kind, 1, "C")


@nb.njit(nb.void(_row(nb.uint32), nb.int64[::1]), nogil=True, cache=True)
def count_upper(words, counts):
    """Add to counts[h] the number of words whose upper half is h."""
    for i in range(len(words)):
        counts[words[i] >> np.uint32(16)] += 1


@nb.njit(nb.void(_row(nb.uint32), nb.uint32, nb.int64[::1]), nogil=True, cache=True)
def count_lower(words, upper, counts):
    """Add to counts[l] the number of words with this upper half whose lower half is l."""
    for i in range(len(words)):
        word = words[i]
        if (word >> np.uint32(16)) == upper:
            counts[word & np.uint32(65535)] += 1


@nb.njit(
    [nb.void(nb.types.Array(kind, 2, "C"), _row(kind), _row(kind), _row(kind), _row(kind)) for kind in _FLOATS],
    nogil=True,
    cache=True,
)
def elect(deltas, weights, sign, total, heard):
    """total = weighted mean of the deltas with the sign of the weighted sum, 0 without any."""
    members, count = deltas.shape
    zero = weights[0] * 0
    sign[:], total[:], heard[:] = zero, zero, zero
    # Members in the outer loop and no branches in the inner one, so that it vectorises.
    for member in range(members):
        weight = weights[member]
        for i in range(count):
            sign[i] += weight * deltas[member, i]
    for member in range(members):
        weight = weights[member]
        for i in range(count):
            delta = deltas[member, i]
            agrees = ((sign[i] > 0) & (delta > 0)) | ((sign[i] < 0) & (delta < 0))
            total[i] += weight * delta if agrees else zero
            heard[i] += weight if agrees else zero
    for i in range(count):
        total[i] = total[i] / heard[i] if heard[i] > 0 else zero
