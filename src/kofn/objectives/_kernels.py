"""Compiled loops over pairs of rows, in tiles of LANES candidates against GROUP items.

Distances come from differences, never from |x|^2 + |y|^2 - 2xy, which cancels for close rows; subtracting costs little
beside multiplying. A distance is summed over the features in the same order wherever its pair stands, so that its bits
are the same in every call. Sums over items stay in float64 for each candidate, in the order of the items: no reduction
is reordered.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

from kofn.core.compiled import INNER, OUTER

LANES = 512
GROUP = 8
FEATURES = 4
POINTS = 4
_CONTRACTED: dict[str, Any] = {"fastmath": {"contract"}}
_INNER, _TILING = {**INNER, **_CONTRACTED}, {**OUTER, **_CONTRACTED}
_F8, _INT, _BOOL = nb.float64, nb.int64, nb.boolean
_PRECISIONS = (nb.float32, nb.float64)


def _read(kind: Any, dimensions: int) -> Any:
    """A read-only array type, so that memory-mapped and read-only input is accepted."""
    return nb.types.Array(kind, dimensions, "C", readonly=True)


def _write(kind: Any, dimensions: int) -> Any:
    return nb.types.Array(kind, dimensions, "C")


@nb.njit(**_INNER)
def _add_squares(total, a, b, c, d):
    return total + (a * a + b * b + c * c + d * d)


@nb.njit(**_INNER)
def _tile(lanes, items, first, out):
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


@nb.njit(**_INNER)
def _load(rows, columns, scale, candidates, start, lanes):
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
    [
        nb.void(
            *(_read(f, 2), _read(f, 2), _read(_F8, 1), _read(_INT, 1)),
            *(_read(f, 2), _read(f, 2), _read(f, 2), _read(f, 1), _read(_INT, 1)),
            *(_BOOL, f, _INT, _INT, _write(f, 2), _write(f, 2), _write(_F8, 2)),
        )
        for f in _PRECISIONS
    ],
    **_TILING,
)
def savings(
    rows, columns, scale, candidates, items, old, new, weights, counts, squared, rate, low, high, lanes, tile, out
):
    """out[s, l] += sum_i weights_i (old_si - min(max(cost_il, new_si), old_si)), blocks low..high-1 of candidates.

    A cost is the distance, squared or not; with rate > 0 it is 1 - exp(-rate * squared distance).

    The stages s share the distances, which take most of the time. Block b looks at the first counts[b] items, a
    multiple of GROUP: the caller has sorted them so that no later one matters.
    """
    for block in range(low, high):
        if counts[block] == 0:
            continue
        _load(rows, columns, scale, candidates, block * LANES, lanes)
        for first in range(0, counts[block], GROUP):
            _tile(lanes, items, first, tile)
            if not squared:
                for q in range(GROUP):
                    b = tile[q]
                    for l in range(LANES):
                        b[l] = np.sqrt(b[l])
            elif rate > 0:
                for q in range(GROUP):
                    b = tile[q]
                    for l in range(LANES):
                        b[l] = 1 - np.exp(-rate * b[l])
            for s in range(len(old)):
                sums = out[s, block * LANES : (block + 1) * LANES]
                for q in range(0, GROUP, 4):
                    i = first + q
                    b0, b1, b2, b3 = tile[q], tile[q + 1], tile[q + 2], tile[q + 3]
                    o0, o1, o2, o3 = old[s, i], old[s, i + 1], old[s, i + 2], old[s, i + 3]
                    n0, n1, n2, n3 = new[s, i], new[s, i + 1], new[s, i + 2], new[s, i + 3]
                    w0, w1, w2, w3 = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
                    for l in range(LANES):
                        t0 = w0 * (o0 - min(max(b0[l], n0), o0))
                        t1 = w1 * (o1 - min(max(b1[l], n1), o1))
                        t2 = w2 * (o2 - min(max(b2[l], n2), o2))
                        t3 = w3 * (o3 - min(max(b3[l], n3), o3))
                        sums[l] += np.float64((t0 + t1) + (t2 + t3))


@nb.njit(
    [
        nb.void(
            *(_read(f, 2), _read(f, 2), _read(_F8, 1), _BOOL, _F8, _INT, _INT),
            *(_write(f, 2), _write(f, 2), _write(f, 2)),
        )
        for f in _PRECISIONS
    ],
    **_TILING,
)
def pairs(rows, columns, scale, squared, unit, low, high, lanes, tile, out):
    """out[i, j] = unit * distance of rows i and j, for the columns of blocks low..high-1."""
    n, d = rows.shape
    items = np.zeros((GROUP, lanes.shape[0]), rows.dtype)
    everyone = np.empty(0, np.int64)
    for block in range(low, high):
        start = block * LANES
        stop = min(start + LANES, n)
        _load(rows, columns, scale, everyone, start, lanes)
        for first in range(0, n, GROUP):
            here = min(GROUP, n - first)
            for q in range(here):
                for f in range(d):
                    items[q, f] = rows[first + q, f]
                if len(scale) > 0:
                    for f in range(d):
                        items[q, f] = rows[first + q, f] * scale[first + q]
            _tile(lanes, items, 0, tile)
            for q in range(here):
                b, target = tile[q], out[first + q, start:stop]
                if squared:
                    for l in range(len(target)):
                        target[l] = b[l] * unit
                else:
                    for l in range(len(target)):
                        target[l] = np.sqrt(b[l]) * unit


@nb.njit(**INNER)
def _add_in_order(total, a, b, c, d):
    return total + a * a + b * b + c * c + d * d


@nb.njit(**INNER)
def _coordinates(columns, scale, feature, start, stop, out):
    """out[l] = the feature of row start + l, in float64."""
    source = columns[feature, start:stop]
    if len(scale) > 0:
        factor = scale[start:stop]
        for l in range(len(out)):
            out[l] = source[l] * factor[l]
    else:
        for l in range(len(out)):
            out[l] = source[l]


@nb.njit(
    [nb.void(_read(f, 2), _read(_F8, 1), _read(_F8, 2), _BOOL, _INT, _INT, _write(_F8, 2)) for f in _PRECISIONS],
    **OUTER,
)
def distances(columns, scale, points, squared, low, high, out):
    """out[q, i] = float64 distance of row i to points[q], for blocks low..high-1 of LANES rows.

    Summed over the features one by one without fused multiplication: NumPy in the same order gives the same bits.
    """
    d, n = columns.shape
    whole = d - d % FEATURES
    buffer = np.empty((FEATURES, LANES))
    for block in range(low, high):
        start = block * LANES
        stop = min(start + LANES, n)
        here = stop - start
        x0, x1, x2, x3 = buffer[0, :here], buffer[1, :here], buffer[2, :here], buffer[3, :here]
        # What a few points have so far stays in the cache.
        for first in range(0, len(points), POINTS):
            few = range(first, min(first + POINTS, len(points)))
            for q in few:
                b = out[q, start:stop]
                for l in range(here):
                    b[l] = 0
            for f in range(0, whole, FEATURES):
                _coordinates(columns, scale, f, start, stop, x0)
                _coordinates(columns, scale, f + 1, start, stop, x1)
                _coordinates(columns, scale, f + 2, start, stop, x2)
                _coordinates(columns, scale, f + 3, start, stop, x3)
                for q in few:
                    b, p = out[q, start:stop], points[q]
                    p0, p1, p2, p3 = p[f], p[f + 1], p[f + 2], p[f + 3]
                    for l in range(here):
                        b[l] = _add_in_order(b[l], x0[l] - p0, x1[l] - p1, x2[l] - p2, x3[l] - p3)
            for f in range(whole, d):
                _coordinates(columns, scale, f, start, stop, x0)
                for q in few:
                    b, p0 = out[q, start:stop], points[q, f]
                    for l in range(here):
                        b[l] += (x0[l] - p0) * (x0[l] - p0)
            if not squared:
                for q in few:
                    b = out[q, start:stop]
                    for l in range(here):
                        b[l] = np.sqrt(b[l])


@nb.njit(
    nb.void(_read(_F8, 2), _read(_F8, 1), _read(_F8, 1), _F8, _F8, _INT, _INT, _write(_INT, 2)),
    **OUTER,
)
def exact_sums(costs, old, weights, scale, fine, low, high, out):
    """sum_i weights_i max(0, old_i - costs[q, i]) for rows low..high-1, in fixed point: out[q] = units, 1/fine parts.

    Integer sums do not depend on the order, so equal terms give equal sums.
    """
    for q in range(low, high):
        row = costs[q]
        whole, part = np.int64(0), np.int64(0)
        for i in range(len(old)):
            term = weights[i] * (old[i] - min(row[i], old[i])) * scale
            unit = np.rint(term)
            whole += np.int64(unit)
            part += np.int64(np.rint((term - unit) * fine))
        out[q, 0], out[q, 1] = whole, part


@nb.njit(
    [
        nb.void(
            *(_read(f, 2), _F8, _read(_INT, 1), _read(_INT, 1)),
            *(_read(_F8, 1), _read(_F8, 1), _read(_F8, 1), _INT, _INT, _write(_F8, 1)),
        )
        for f in _PRECISIONS
    ],
    **OUTER,
)
def table_savings(table, sign, candidates, items, old, new, weights, low, high, out):
    """`savings` where the costs are sign * table, item by row; without a list of candidates, for all columns."""
    listed = len(candidates) > 0
    for start in range(low * LANES, min(high * LANES, len(out)), LANES):
        sums = out[start : start + LANES]
        for i in range(len(items)):
            o, w, n = old[i], weights[i], new[i]
            if listed:
                row, chosen = table[items[i]], candidates[start : start + LANES]
                for l in range(len(sums)):
                    sums[l] += w * (o - min(max(sign * row[chosen[l]], n), o))
            else:
                part = table[items[i], start : start + LANES]
                for l in range(len(sums)):
                    sums[l] += w * (o - min(max(sign * part[l], n), o))


@nb.njit(
    [
        nb.void(
            *(_read(f, 2), _F8, _read(_INT, 1), _read(_INT, 1)),
            *(_read(_F8, 1), _read(_F8, 1), _read(_F8, 1), _INT, _INT, _write(_F8, 1)),
        )
        for f in _PRECISIONS
    ],
    **OUTER,
)
def turned_table_savings(table, sign, candidates, items, old, new, weights, low, high, out):
    """`table_savings` where the costs of a candidate lie together: sign * table[candidate, item]."""
    start, stop = low * LANES, min(high * LANES, len(out))
    for first in range(start, stop, 4):
        # Four candidates at a time, whose sums are independent.
        last = stop - 1
        j0, j1, j2, j3 = first, min(first + 1, last), min(first + 2, last), min(first + 3, last)
        r0, r1, r2, r3 = table[candidates[j0]], table[candidates[j1]], table[candidates[j2]], table[candidates[j3]]
        s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
        for i in range(len(items)):
            item, o, n, w = items[i], old[i], new[i], weights[i]
            s0 += w * (o - min(max(sign * r0[item], n), o))
            s1 += w * (o - min(max(sign * r1[item], n), o))
            s2 += w * (o - min(max(sign * r2[item], n), o))
            s3 += w * (o - min(max(sign * r3[item], n), o))
        out[j0], out[j1], out[j2], out[j3] = s0, s1, s2, s3


def scratch(d: int, kind: type) -> tuple[NDArray[Any], NDArray[Any]]:
    """Room for the lanes of one block and for one tile, on cache lines; features padded with zeros."""
    padded = -(-d // FEATURES) * FEATURES
    room: NDArray[Any] = np.zeros((padded + GROUP) * LANES + 64, kind)
    skip = -room.ctypes.data % 64 // room.itemsize
    both = room[skip : skip + (padded + GROUP) * LANES].reshape(-1, LANES)
    return both[:padded], both[padded:]
