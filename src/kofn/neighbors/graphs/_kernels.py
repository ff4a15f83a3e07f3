"""Compiled loops over the pairs of a neighbour graph."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from kofn.core.compiled import OUTER


def _read(kind: Any, dimensions: int) -> Any:
    """An array that is only read, so that memory-mapped and locked input will do."""
    return nb.types.Array(kind, dimensions, "C", readonly=True)


@nb.njit(
    [
        nb.void(nb.int64, nb.int64, _read(kind, 2), _read(nb.float64, 1), _read(nb.int32, 2), nb.float64[:, ::1])
        for kind in (nb.float32, nb.float64)
    ],
    **OUTER,
)
def lengths(low, high, rows, scale, indices, out):
    """out[i, l] = |row i - row indices[i, l]|, in float64, summed by four lanes of features."""
    d = rows.shape[1]
    scaled = len(scale) > 0
    here, there = np.empty(d), np.empty(d)
    for i in range(low, high):
        factor = scale[i] if scaled else 1.0
        for f in range(d):
            here[f] = rows[i, f] * factor
        for l in range(indices.shape[1]):
            j = indices[i, l]
            factor = scale[j] if scaled else 1.0
            for f in range(d):
                gap = here[f] - rows[j, f] * factor
                there[f] = gap * gap
            s0 = s1 = s2 = s3 = 0.0
            for f in range(0, d - 3, 4):
                s0 += there[f]
                s1 += there[f + 1]
                s2 += there[f + 2]
                s3 += there[f + 3]
            for f in range(d - d % 4, d):
                s0 += there[f]
            out[i, l] = np.sqrt(s0 + s1 + s2 + s3)
