"""Compiled loops over the pairs of a neighbour graph."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from kofn.core.compiled import INNER, OUTER


def _read(kind: Any, dimensions: int) -> Any:
    """An array that is only read, so that memory-mapped and locked input will do."""
    return nb.types.Array(kind, dimensions, "C", readonly=True)


@nb.njit(**INNER)
def _from_row(i, rows, scale, others, here, there, out):
    """out[l] = |row i - row others[l]|, in float64, summed by four lanes of features."""
    d = rows.shape[1]
    scaled = len(scale) > 0
    factor = scale[i] if scaled else 1.0
    for f in range(d):
        here[f] = rows[i, f] * factor
    for l in range(len(others)):
        j = others[l]
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
        out[l] = np.sqrt(s0 + s1 + s2 + s3)


@nb.njit(
    [
        nb.void(nb.int64, nb.int64, _read(kind, 2), _read(nb.float64, 1), _read(nb.int32, 2), nb.float64[:, ::1])
        for kind in (nb.float32, nb.float64)
    ],
    **OUTER,
)
def lengths(low, high, rows, scale, indices, out):
    """out[i, l] = |row i - row indices[i, l]|."""
    here, there = np.empty(rows.shape[1]), np.empty(rows.shape[1])
    for i in range(low, high):
        _from_row(i, rows, scale, indices[i], here, there, out[i])


@nb.njit(
    [
        nb.void(nb.int64, _read(kind, 2), _read(nb.float64, 1), _read(nb.int32, 1), nb.float64[::1])
        for kind in (nb.float32, nb.float64)
    ],
    **OUTER,
)
def lengths_to(i, rows, scale, others, out):
    """out[l] = |row i - row others[l]|, with the bits of `lengths`."""
    _from_row(i, rows, scale, others, np.empty(rows.shape[1]), np.empty(rows.shape[1]), out)
