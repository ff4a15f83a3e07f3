"""Compiled loops that look for the item farthest from its nearest pick, and look at no more items than they must.

Distances are those of `kofn.objectives.kcenter.distances_to`, bit for bit: differences in float64, squares summed
feature by feature. Nothing is reordered; the lanes of a chunk are picks, each with a sum of its own.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from kofn.core.compiled import INNER, OUTER, compiled_for

LANES = 8
BLOCK = 1024
EUCLIDEAN, SQEUCLIDEAN, COSINE = 0, 1, 2


@nb.njit(**INNER)
def _squares(point, chunk, out):
    """out[l] = |point - chunk[:, l]|^2. Spelt out, since a loop over l would not stay in registers."""
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    for f in range(len(point)):
        x = point[f]
        g0, g1, g2, g3 = x - chunk[f, 0], x - chunk[f, 1], x - chunk[f, 2], x - chunk[f, 3]
        g4, g5, g6, g7 = x - chunk[f, 4], x - chunk[f, 5], x - chunk[f, 6], x - chunk[f, 7]
        s0 += g0 * g0
        s1 += g1 * g1
        s2 += g2 * g2
        s3 += g3 * g3
        s4 += g4 * g4
        s5 += g5 * g5
        s6 += g6 * g6
        s7 += g7 * g7
    out[0], out[1], out[2], out[3] = s0, s1, s2, s3
    out[4], out[5], out[6], out[7] = s4, s5, s6, s7


@nb.njit(**INNER)
def _finish(square, metric):
    if metric == EUCLIDEAN:
        return np.sqrt(square)
    return square / 2 if metric == COSINE else square


@nb.njit(**INNER)
def _length(distance, metric):
    """The distance that obeys the triangle inequality."""
    if metric == EUCLIDEAN:
        return distance
    return np.sqrt(2 * distance) if metric == COSINE else np.sqrt(distance)


@nb.njit(**INNER)
def _refresh(i, rows, sizes, metric, picks, directionless, apart, count, point, out, near, own, seen):
    """Bring item i up to date with all picks; returns how many distances that took."""
    best, owner, taken = near[i], own[i], 0
    zero = metric == COSINE and sizes[i] == 0
    if metric == COSINE and not zero:
        for f in range(len(point)):
            point[f] = rows[i, f] / sizes[i]
    else:
        for f in range(len(point)):
            point[f] = rows[i, f]
    for start in range(seen[i] - seen[i] % LANES, count, LANES):
        low, high = max(start, seen[i]), min(start + LANES, count)
        # A pick at least twice as far from the item's own pick as the item is cannot be nearer to it.
        wanted = owner < 0 or owner >= len(apart) or high > len(apart)
        if not wanted:
            reach = _length(best, metric)
            for j in range(low, high):
                wanted |= not (apart[owner, j] > reach)
        if not wanted:
            continue
        taken += high - low
        _squares(point, picks[start // LANES], out)
        for j in range(low, high):
            square = out[j - start]
            if metric == COSINE and (zero or directionless[j]):
                square = 0.0 if zero and directionless[j] else 2.0
            distance = _finish(square, metric)
            if distance < best:
                best, owner = distance, j
    near[i], own[i], seen[i] = best, owner, count
    return taken


@nb.njit(**INNER)
def _look(
    block, least, closed, rows, sizes, metric, picks, directionless, apart, count, point, out, near, own, seen, tops,
    places,
):  # fmt: skip
    """Find the farthest open item of a block, as far as it is no nearer than `least`; returns distances taken.

    Distances to the nearest pick only fall, so old ones are upper bounds: an item is brought up to date only where its
    bound reaches the best distance that is known to be true.
    """
    low, high, taken = block * BLOCK, min((block + 1) * BLOCK, len(near)), 0
    # A plain -1 would be a type of its own, for which `_refresh` would be compiled again.
    nowhere: Any = np.int64(-1)
    top, farthest = -np.inf, nowhere
    for i in range(low, high):
        if not closed[i] and near[i] > top:
            top, farthest = near[i], i
    if top >= least and farthest >= 0:
        if seen[farthest] < count:
            taken += _refresh(
                farthest, rows, sizes, metric, picks, directionless, apart, count, point, out, near, own, seen
            )
        best = max(least, near[farthest])
        top, farthest = -np.inf, nowhere
        for i in range(low, high):
            if closed[i]:
                continue
            if near[i] >= best and seen[i] < count:
                taken += _refresh(
                    i, rows, sizes, metric, picks, directionless, apart, count, point, out, near, own, seen
                )
                best = max(best, near[i])
            if near[i] > top:
                top, farthest = near[i], i
    tops[block], places[block] = top, farthest
    return taken


_STATE = "T[:,::1],f8[::1],i8,f8[:,:,::1],b1[::1],f4[:,::1],i8"
_KEPT = "f8[::1],i4[::1],i4[::1],f8[::1],i8[::1]"


@nb.njit(compiled_for(f"i8(i8,b1[::1],{_STATE},{_KEPT})", read=9), **OUTER)
def few_blocks(most, closed, rows, sizes, metric, picks, directionless, apart, count, near, own, seen, tops, places):
    """Look at up to `most` promising blocks in turn; returns distances taken, or -1 - that if it is not yet settled."""
    point, out, taken = np.empty(rows.shape[1]), np.empty(LANES), 0
    true = np.zeros(len(tops), np.bool_)
    for _ in range(most):
        block = int(np.argmax(tops))
        if true[block] or tops[block] == -np.inf:
            return taken
        taken += _look(
            block, -np.inf, closed, rows, sizes, metric, picks, directionless, apart, count, point, out, near, own,
            seen, tops, places,
        )  # fmt: skip
        true[block] = True
    return -1 - taken


@nb.njit(compiled_for(f"i8(i8,i8,f8,b1[::1],{_STATE},{_KEPT})", read=11), **OUTER)
def all_blocks(
    first, last, least, closed, rows, sizes, metric, picks, directionless, apart, count, near, own, seen, tops, places
):  # fmt: skip
    """Look at every block of a range that may hold an item as far as `least`; returns distances taken."""
    point, out, taken = np.empty(rows.shape[1]), np.empty(LANES), 0
    for block in range(first, last):
        if tops[block] >= least:
            taken += _look(
                block, least, closed, rows, sizes, metric, picks, directionless, apart, count, point, out, near, own,
                seen, tops, places,
            )  # fmt: skip
    return taken


@nb.njit(compiled_for(f"i8(i8,i8,{_STATE},f8[::1],i4[::1],i4[::1])", read=9), **OUTER)
def refresh(low, high, rows, sizes, metric, picks, directionless, apart, count, near, own, seen):
    """Bring a range of items up to date; returns distances taken."""
    point, out, taken = np.empty(rows.shape[1]), np.empty(LANES), 0
    for i in range(low, high):
        taken += _refresh(i, rows, sizes, metric, picks, directionless, apart, count, point, out, near, own, seen)
    return taken


@nb.njit(compiled_for("void(f8[::1],b1,i8,i8,f8[:,:,::1],b1[::1],f4[:,::1])", read=1), **OUTER)
def add_pick(point, zero, metric, count, picks, directionless, apart):
    """Put a pick into its lane, and half its distance to every earlier one, rounded down, into `apart`."""
    chunk, lane = count // LANES, count % LANES
    for f in range(len(point)):
        picks[chunk, f, lane] = point[f]
    directionless[count] = zero
    if count >= len(apart):
        return
    out = np.empty(LANES)
    for start in range(0, count, LANES):
        _squares(point, picks[start // LANES], out)
        for j in range(start, min(start + LANES, count)):
            square = out[j - start]
            if metric == COSINE and (zero or directionless[j]):
                square = 0.0 if zero and directionless[j] else 2.0
            # Squares that overflow or vanish say nothing, and half of nothing rules nothing out.
            half = np.sqrt(square) / 2 * (1 - 1e-6) if 1e-250 < square < 1e300 else 0.0
            apart[count, j] = apart[j, count] = min(half, 1e38) if half > 1e-37 else 0.0
    apart[count, count] = 0.0


@nb.njit(compiled_for(f"void(i8,i8,{_STATE},f8,f8[::1],f8[::1],i4[::1],f8[:,::1])", read=11), **OUTER)
def serve(first, last, rows, sizes, metric, picks, directionless, apart, count, unit, weights, near, own, saved):
    """saved[block, t]: what pick t saves the items of a block after the picks before it, w (near - unit * distance)."""
    point, out = np.empty(rows.shape[1]), np.empty(LANES)
    for block in range(first, last):
        for i in range(block * BLOCK, min((block + 1) * BLOCK, len(near))):
            zero = metric == COSINE and sizes[i] == 0
            for f in range(len(point)):
                point[f] = rows[i, f] / sizes[i] if metric == COSINE and not zero else rows[i, f]
            for start in range(0, count, LANES):
                high = min(start + LANES, count)
                wanted = own[i] < 0 or own[i] >= len(apart) or high > len(apart)
                if not wanted:
                    reach = _length(near[i] / unit, metric)
                    for j in range(start, high):
                        wanted |= not (apart[own[i], j] > reach)
                if not wanted:
                    continue
                _squares(point, picks[start // LANES], out)
                for j in range(start, high):
                    square = out[j - start]
                    if metric == COSINE and (zero or directionless[j]):
                        square = 0.0 if zero and directionless[j] else 2.0
                    cost = unit * _finish(square, metric)
                    if cost < near[i]:
                        saved[block, j] += weights[i] * (near[i] - cost)
                        near[i], own[i] = cost, j
