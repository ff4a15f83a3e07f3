"""Distances of rows in tiles: LANES candidates, feature by feature, against GROUP items at a time.

Distances come from differences, never from |x|^2 + |y|^2 - 2xy, which cancels for close rows; subtracting costs little
beside multiplying. A distance is summed over the features in the same order wherever its pair stands, so that its bits
are the same in every call.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

from kofn.core.compiled import CONTRACTED, INNER, OUTER, compiled_for

LANES = 512
GROUP = 8
FEATURES = 4


@nb.njit(**INNER, **CONTRACTED)
def _add_squares(total, a, b, c, d):
    return total + (a * a + b * b + c * c + d * d)


@nb.njit(**INNER, **CONTRACTED)
def fill_tile(lanes, items, first, out):
    """out[q, l] = |items[first + q] - lanes[:, l]|^2. Spelt out, since a loop over q would not stay in registers."""
    b0, b1, b2, b3, b4, b5, b6, b7 = out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7]
    for l in range(LANES):
        b0[l] = b1[l] = b2[l] = b3[l] = b4[l] = b5[l] = b6[l] = b7[l] = 0
    r0, r1, r2, r3 = items[first], items[first + 1], items[first + 2], items[first + 3]
    r4, r5, r6, r7 = items[first + 4], items[first + 5], items[first + 6], items[first + 7]
    for f in range(0, lanes.shape[0], FEATURES):
        u0, u1, u2, u3 = lanes[f], lanes[f + 1], lanes[f + 2], lanes[f + 3]
        p00, p01, p02, p03 = r0[f], r0[f + 1], r0[f + 2], r0[f + 3]
        p10, p11, p12, p13 = r1[f], r1[f + 1], r1[f + 2], r1[f + 3]
        p20, p21, p22, p23 = r2[f], r2[f + 1], r2[f + 2], r2[f + 3]
        p30, p31, p32, p33 = r3[f], r3[f + 1], r3[f + 2], r3[f + 3]
        p40, p41, p42, p43 = r4[f], r4[f + 1], r4[f + 2], r4[f + 3]
        p50, p51, p52, p53 = r5[f], r5[f + 1], r5[f + 2], r5[f + 3]
        p60, p61, p62, p63 = r6[f], r6[f + 1], r6[f + 2], r6[f + 3]
        p70, p71, p72, p73 = r7[f], r7[f + 1], r7[f + 2], r7[f + 3]
        for l in range(LANES):
            x0, x1, x2, x3 = u0[l], u1[l], u2[l], u3[l]
            b0[l] = _add_squares(b0[l], x0 - p00, x1 - p01, x2 - p02, x3 - p03)
            b1[l] = _add_squares(b1[l], x0 - p10, x1 - p11, x2 - p12, x3 - p13)
            b2[l] = _add_squares(b2[l], x0 - p20, x1 - p21, x2 - p22, x3 - p23)
            b3[l] = _add_squares(b3[l], x0 - p30, x1 - p31, x2 - p32, x3 - p33)
            b4[l] = _add_squares(b4[l], x0 - p40, x1 - p41, x2 - p42, x3 - p43)
            b5[l] = _add_squares(b5[l], x0 - p50, x1 - p51, x2 - p52, x3 - p53)
            b6[l] = _add_squares(b6[l], x0 - p60, x1 - p61, x2 - p62, x3 - p63)
            b7[l] = _add_squares(b7[l], x0 - p70, x1 - p71, x2 - p72, x3 - p73)


@nb.njit(**INNER, **CONTRACTED)
def load_lanes(rows, columns, scale, candidates, start, lanes):
    """The coordinates of LANES candidates, feature by feature; without a list of candidates, those of a run of rows.

    Padding is zero: padded features must not contribute, and sums of padded lanes are never read.
    """
    n, d = rows.shape
    listed, scaled = len(candidates) > 0, len(scale) > 0
    width = min(LANES, (len(candidates) if listed else n) - start)
    if listed:
        for l in range(width):
            j = candidates[start + l]
            row = rows[j]
            for f in range(d):
                lanes[f, l] = row[f]
            if scaled:
                for f in range(d):
                    lanes[f, l] = row[f] * scale[j]
    else:
        for f in range(d):
            source, target = columns[f, start : start + width], lanes[f]
            for l in range(width):
                target[l] = source[l]
            if scaled:
                factor = scale[start : start + width]
                for l in range(width):
                    target[l] = source[l] * factor[l]


@nb.njit(
    compiled_for("void(T[:,::1],T[:,::1],f8[::1],i8[::1],b1,f8,i8,i8,T[:,::1],T[:,::1],T[:,::1])", read=4),
    **OUTER,
    **CONTRACTED,
)
def distance_rows(rows, columns, scale, candidates, squared, unit, low, high, lanes, tile, out):
    """out[q, i] = unit * distance of row i to row candidates[q], for the rows of blocks low..high-1."""
    n, d = rows.shape
    items = np.zeros((GROUP, lanes.shape[0]), rows.dtype)
    everyone = np.empty(0, np.int64)
    for block in range(low, high):
        start = block * LANES
        stop = min(start + LANES, n)
        load_lanes(rows, columns, scale, everyone, start, lanes)
        for first in range(0, len(candidates), GROUP):
            here = min(GROUP, len(candidates) - first)
            for q in range(here):
                c = candidates[first + q]
                for f in range(d):
                    items[q, f] = rows[c, f]
                if len(scale) > 0:
                    for f in range(d):
                        items[q, f] = rows[c, f] * scale[c]
            fill_tile(lanes, items, 0, tile)
            for q in range(here):
                b, target = tile[q], out[first + q, start:stop]
                if squared:
                    for l in range(len(target)):
                        target[l] = b[l] * unit
                else:
                    for l in range(len(target)):
                        target[l] = np.sqrt(b[l]) * unit


def in_whole_tiles(rows: NDArray[Any], scale: NDArray[Any]) -> NDArray[Any]:
    """Rows in their precision, each times its scale where there are scales, padded with zeros to whole tiles."""
    m, d = rows.shape
    points: NDArray[Any] = np.zeros((m + -m % GROUP, d + -d % FEATURES), rows.dtype)
    points[:m, :d] = rows * scale[:, None] if len(scale) else rows
    return points


def scratch(d: int, kind: type) -> tuple[NDArray[Any], NDArray[Any]]:
    """Room for the lanes of one block and for one tile, on cache lines; features padded with zeros."""
    padded = -(-d // FEATURES) * FEATURES
    room: NDArray[Any] = np.zeros((padded + GROUP) * LANES + 64, kind)
    skip = -room.ctypes.data % 64 // room.itemsize
    both = room[skip : skip + (padded + GROUP) * LANES].reshape(-1, LANES)
    return both[:padded], both[padded:]
