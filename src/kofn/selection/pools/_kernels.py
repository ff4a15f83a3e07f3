"""Compiled loops of the two rounds: a table of costs, greedy picks from it, and what every row would still save."""

from __future__ import annotations

import numba as nb
import numpy as np

from kofn.core.compiled import CONTRACTED, INNER, OUTER, compiled_for
from kofn.core.distance_kernels import GROUP, LANES, fill_tile, load_lanes


@nb.njit(
    compiled_for("void(T[:,::1],T[:,::1],f8[::1],i8[::1],T[:,::1],i8,b1,b1,T[:,::1],T[:,::1],T[:,::1])", read=5),
    **OUTER,
    **CONTRACTED,
)
def table(rows, columns, scale, candidates, points, count, mirrored, squared, lanes, tile, out):
    """out[i, l] = distance of candidate l to points[i], for the first `count` points; the others are padding.

    Where `mirrored` says that the points are the candidates in their order, half of the distances are computed: sums of
    squared differences have the same bits both ways.
    """
    for start in range(0, len(candidates), LANES):
        stop = min(start + LANES, len(candidates))
        load_lanes(rows, columns, scale, candidates, start, lanes)
        for first in range(start if mirrored else 0, count, GROUP):
            fill_tile(lanes, points, first, tile)
            here = min(GROUP, count - first)
            for q in range(here):
                b, target = tile[q], out[first + q, start:stop]
                if squared:
                    for l in range(len(target)):
                        target[l] = b[l]
                else:
                    for l in range(len(target)):
                        target[l] = np.sqrt(b[l])
            if mirrored and first >= stop:
                for l in range(start, stop):
                    for q in range(here):
                        out[l, first + q] = out[first + q, l]


@nb.njit(
    compiled_for("void(T[:,::1],T[:,::1],f8[::1],i8[::1],T[:,::1],T[::1],T[::1],b1,T[:,::1],T[:,::1],f8[::1])", read=7),
    **OUTER,
    **CONTRACTED,
)
def saved(rows, columns, scale, candidates, points, cost, weights, squared, lanes, tile, out):
    """out[l] = sum_i weights_i max(0, cost_i - distance of candidate l to points[i]); padding weighs nothing."""
    for start in range(0, len(candidates), LANES):
        stop = min(start + LANES, len(candidates))
        sums = out[start:stop]
        for l in range(len(sums)):
            sums[l] = 0.0
        load_lanes(rows, columns, scale, candidates, start, lanes)
        for first in range(0, len(points), GROUP):
            fill_tile(lanes, points, first, tile)
            if not squared:
                for q in range(GROUP):
                    b = tile[q]
                    for l in range(LANES):
                        b[l] = np.sqrt(b[l])
            for q in range(0, GROUP, 4):
                i = first + q
                b0, b1, b2, b3 = tile[q], tile[q + 1], tile[q + 2], tile[q + 3]
                c0, c1, c2, c3 = cost[i], cost[i + 1], cost[i + 2], cost[i + 3]
                w0, w1, w2, w3 = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
                for l in range(len(sums)):
                    t0 = w0 * (c0 - min(b0[l], c0))
                    t1 = w1 * (c1 - min(b1[l], c1))
                    t2 = w2 * (c2 - min(b2[l], c2))
                    t3 = w3 * (c3 - min(b3[l], c3))
                    sums[l] += np.float64((t0 + t1) + (t2 + t3))


@nb.njit(**INNER)
def _follow(costs, weights, changed, old, count, pick, sign, gains):
    """gains[l] -= sign * sum_i weights_i max(0, old_i - max(cost_il, what the pick costs i)) over the changed items.

    Without a pick (-1), what each candidate saves from `old` on.
    """
    n = costs.shape[1]
    nothing = costs.dtype.type(0)
    for first in range(0, count, 4):
        i0 = changed[first]
        i1 = changed[min(first + 1, count - 1)]
        i2 = changed[min(first + 2, count - 1)]
        i3 = changed[min(first + 3, count - 1)]
        o0 = old[first]
        o1 = old[min(first + 1, count - 1)]
        o2 = old[min(first + 2, count - 1)]
        o3 = old[min(first + 3, count - 1)]
        w0 = weights[i0]
        w1 = weights[i1] if first + 1 < count else nothing
        w2 = weights[i2] if first + 2 < count else nothing
        w3 = weights[i3] if first + 3 < count else nothing
        r0, r1, r2, r3 = costs[i0], costs[i1], costs[i2], costs[i3]
        n0 = n1 = n2 = n3 = nothing
        if pick >= 0:
            n0, n1, n2, n3 = r0[pick], r1[pick], r2[pick], r3[pick]
        for l in range(n):
            t0 = w0 * (o0 - min(max(r0[l], n0), o0))
            t1 = w1 * (o1 - min(max(r1[l], n1), o1))
            t2 = w2 * (o2 - min(max(r2[l], n2), o2))
            t3 = w3 * (o3 - min(max(r3[l], n3), o3))
            gains[l] -= sign * np.float64((t0 + t1) + (t2 + t3))


@nb.njit(compiled_for("i8(T[:,::1],T[::1],i8[:,::1],i8,T[::1],b1[::1],i8[::1],i8[::1],i8[::1])", read=3), **OUTER)
def greedy(costs, weights, groups, k, cost, closed, room, needs, picks):
    """Pick k candidates that each save most, and then the best of every group of which more are needed.

    costs[i, l] is what candidate l costs item i, cost[i] what item i costs now; closed[l] bars a candidate. Candidate l
    is in groups[:, l]; room[g] more may be picked of a group, needs[g] more must be, if there are so many. Equal gains
    go to the lowest candidate. Returns how many were picked.
    """
    m, n = costs.shape
    gains = np.zeros(n)
    # The items that a pick changes, and what each cost before it.
    changed, old = np.empty(m, np.int64), np.empty(m, costs.dtype)
    for i in range(m):
        changed[i], old[i] = i, cost[i]
    _follow(costs, weights, changed, old, m, -1, -1.0, gains)
    columns, taken = len(groups), 0
    while taken < len(picks):
        best, top = -1, -np.inf
        for l in range(n):
            if gains[l] <= top or closed[l]:
                continue
            fits = True
            if taken < k:
                for c in range(columns):
                    fits &= room[groups[c, l]] > 0
            else:
                fits = False
                for c in range(columns):
                    fits |= needs[groups[c, l]] > 0
            if fits:
                best, top = l, gains[l]
        if best < 0:
            if taken >= k:
                break
            k = taken
            continue
        picks[taken] = best
        taken += 1
        closed[best] = True
        for c in range(columns):
            room[groups[c, best]] -= 1
            needs[groups[c, best]] -= 1
        count = 0
        for i in range(m):
            if costs[i, best] < cost[i]:
                changed[count], old[count] = i, cost[i]
                cost[i] = costs[i, best]
                count += 1
        _follow(costs, weights, changed, old, count, best, 1.0, gains)
    return taken
