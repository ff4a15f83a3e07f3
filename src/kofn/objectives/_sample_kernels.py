"""Compiled loops of a search that a sample judges: near candidates of the sampled rows, exact gains of the picks."""

from __future__ import annotations

import numba as nb
import numpy as np

from kofn.core.compiled import CONTRACTED, INNER, OUTER, compiled_for
from kofn.core.distance_kernels import FEATURES, GROUP, LANES, fill_tile, load_lanes
from kofn.objectives._kernels import add_in_order


@nb.njit(
    compiled_for(
        "void(T[:,::1],T[:,::1],f8[::1],i8[::1],T[:,::1],T[::1],T[::1],T[::1],T[::1],b1,T,i8,T[:,::1],T[:,::1],f8[::1],i4[::1],T[::1],i8[::1])",
        read=9,
    ),
    **OUTER,
    **CONTRACTED,
)
def look(
    rows, columns, scale, everyone, points, old, new, weights, reach, squared, rate, block, lanes, tile, gains,
    near, costs, ends,
):  # fmt: skip
    """gains[l] += sum_i weights_i (old_i - min(max(cost_il, new_i), old_i)) for the candidates l of one block.

    Candidates that cost item i less than reach_i are listed on the way, item by item: `near` and `costs`, those of item
    i from ends[i] to ends[i + 1].
    """
    start = block * LANES
    width = min(LANES, columns.shape[1] - start)
    load_lanes(rows, columns, scale, everyone, start, lanes)
    sums = gains[start : start + width]
    kept = 0
    for first in range(0, len(points), GROUP):
        fill_tile(lanes, points, first, tile)
        for q in range(GROUP):
            b = tile[q]
            if not squared:
                for l in range(LANES):
                    b[l] = np.sqrt(b[l])
            elif rate > 0:
                for l in range(LANES):
                    b[l] = 1 - np.exp(-rate * b[l])
            i = first + q
            o, n, w, r = old[i], new[i], weights[i], reach[i]
            for l in range(width):
                sums[l] += np.float64(w * (o - min(max(b[l], n), o)))
            if r > 0:
                for l in range(width):
                    near[kept] = start + l
                    costs[kept] = b[l]
                    kept += b[l] < r
            ends[i + 1] = kept


@nb.njit(compiled_for("void(i4[::1],T[::1],i8[::1],i8[::1],i4[::1],T[::1])", read=3), **OUTER)
def move(near, costs, ends, to, all_near, all_costs):
    """Move the lists of one block to where those of their items stand; to[i] moves on behind what was added."""
    for i in range(len(to)):
        for entry in range(ends[i], ends[i + 1]):
            all_near[to[i]], all_costs[to[i]] = near[entry], costs[entry]
            to[i] += 1


@nb.njit(compiled_for("void(i8[::1],i8[::1],T[::1],T[::1],T[::1],i4[::1],T[::1],i8[::1],f8[::1])", read=5), **OUTER)
def follow(starts, which, old, new, weights, near, costs, lengths, gains):
    """gains[l] -= weights_i (old_i - max(cost_il, new_i)) over the lists of some items; then candidates as dear as
    new_i are dropped."""
    for index in range(len(which)):
        i, o, n, w = which[index], old[index], new[index], weights[index]
        start, kept = starts[i], starts[i]
        for entry in range(start, start + lengths[i]):
            candidate, cost = near[entry], costs[entry]
            gains[candidate] -= np.float64(w * (o - max(cost, n)))
            near[kept], costs[kept] = candidate, cost
            kept += cost < n
        lengths[i] = kept - start


@nb.njit(compiled_for("void(i4[::1],T[::1],i8[::1],i8[::1],i8[::1],T[::1],T[::1],f8[::1])", read=7), **OUTER)
def add_up(near, costs, starts, lengths, which, cost, weights, gains):
    """gains[l] += weights_i (cost_i - cost_il) over the lists of some items."""
    for index in range(len(which)):
        i, o, w = which[index], cost[index], weights[index]
        for entry in range(starts[i], starts[i] + lengths[i]):
            gains[near[entry]] += np.float64(w * (o - costs[entry]))


@nb.njit(**INNER)
def _distance(row, factor, point, squared):
    """Float64 distance of a row times its factor to a point, with the bits of `_kernels.distances`."""
    total = 0.0
    whole = len(row) - len(row) % FEATURES
    for f in range(0, whole, FEATURES):
        total = add_in_order(
            total,
            row[f] * factor - point[f],
            row[f + 1] * factor - point[f + 1],
            row[f + 2] * factor - point[f + 2],
            row[f + 3] * factor - point[f + 3],
        )
    for f in range(whole, len(row)):
        gap = row[f] * factor - point[f]
        total += gap * gap
    return total if squared else np.sqrt(total)


@nb.njit(**INNER)
def _limit(cost, nearest, squared, relative, moved):
    """The largest rounded squared distance of a pick that may yet be nearer than `cost`."""
    if nearest < 0:
        return np.inf
    length = np.sqrt(cost) if squared else cost
    length = length * (1 + relative) + moved
    return length * length


@nb.njit(
    compiled_for(
        "i8(T[:,::1],T[:,::1],f8[::1],i8[::1],T[:,::1],f8[:,::1],b1,f8,f8,i8,i8,T[:,::1],T[:,::1],f8[::1],i8[::1],i8[:,::1],f8[:,::1])",
        read=6,
    ),
    **OUTER,
)
def records(
    rows, columns, scale, everyone, rounded, points, squared, relative, moved, position, block, lanes, tile, cost,
    nearest, served, fell,
):  # fmt: skip
    """Follow the rows of one block through new picks: whom each pick serves better than all before it, exactly.

    Only where the rounded distance, which is off by `relative` of itself and by `moved` between points at the most,
    leaves it open whether the pick is nearer is the exact one taken. cost and nearest are brought up to date; served[e]
    is (pick, row) and fell[e] the row's cost before and after; returns how many there are.
    """
    start = block * LANES
    width = min(LANES, columns.shape[1] - start)
    load_lanes(rows, columns, scale, everyone, start, lanes)
    recorded = 0
    limit = np.empty(LANES, lanes.dtype)
    for l in range(width):
        limit[l] = _limit(cost[start + l], nearest[start + l], squared, relative, moved)
    for first in range(0, len(points), GROUP):
        fill_tile(lanes, rounded, first, tile)
        for pick in range(first, min(first + GROUP, len(points))):
            b = tile[pick - first]
            for l in range(width):
                if b[l] > limit[l]:
                    continue
                row = start + l
                exact = _distance(rows[row], scale[row] if len(scale) > 0 else 1.0, points[pick], squared)
                if exact < cost[row] or nearest[row] < 0:
                    served[recorded, 0], served[recorded, 1] = pick, row
                    fell[recorded, 0] = cost[row]
                    cost[row] = min(cost[row], exact)
                    fell[recorded, 1] = cost[row]
                    nearest[row] = position + pick
                    limit[l] = _limit(cost[row], nearest[row], squared, relative, moved)
                    recorded += 1
    return recorded
