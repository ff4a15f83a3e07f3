"""Compiled loops over pairs of rows, in tiles of LANES candidates against GROUP items.

Sums over items stay in float64 for each candidate, in the order of the items: no reduction is reordered.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from kofn.core.compiled import CONTRACTED, INNER, OUTER, compiled_for
from kofn.core.distance_kernels import FEATURES, GROUP, LANES, fill_tile, load_lanes

POINTS = 4


@nb.njit(
    compiled_for(
        "void(T[:,::1],T[:,::1],f8[::1],i8[::1],T[:,::1],T[:,::1],T[:,::1],T[::1],i8[::1],b1,T,i8,i8,T[:,::1],T[:,::1],f8[:,::1])",
        read=9,
    ),
    **OUTER,
    **CONTRACTED,
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
        load_lanes(rows, columns, scale, candidates, block * LANES, lanes)
        for first in range(0, counts[block], GROUP):
            fill_tile(lanes, items, first, tile)
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


@nb.njit(**INNER)
def add_in_order(total, a, b, c, d):
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


@nb.njit(compiled_for("void(T[:,::1],f8[::1],f8[:,::1],b1,i8,i8,f8[:,::1])", read=3), **OUTER)
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
                        b[l] = add_in_order(b[l], x0[l] - p0, x1[l] - p1, x2[l] - p2, x3[l] - p3)
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


@nb.njit(compiled_for("void(f8[:,::1],f8[::1],f8[::1],f8,f8,i8,i8,i8[:,::1])", read=3), **OUTER)
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


@nb.njit(compiled_for("void(T[:,::1],f8,i8[::1],i8[::1],f8[::1],f8[::1],f8[::1],i8,i8,f8[::1])", read=7), **OUTER)
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


@nb.njit(compiled_for("void(T[:,::1],f8,i8[::1],i8[::1],f8[::1],f8[::1],f8[::1],i8,i8,f8[::1])", read=7), **OUTER)
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
