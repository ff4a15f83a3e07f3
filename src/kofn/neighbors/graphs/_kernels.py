"""Compiled loops over the pairs of a neighbour graph."""

from __future__ import annotations

import numba as nb
import numpy as np

from kofn.core.compiled import INNER, OUTER, compiled_for


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


@nb.njit(compiled_for("void(i8,i8,T[:,::1],f8[::1],i4[:,::1],f8[:,::1])", read=5), **OUTER)
def lengths(low, high, rows, scale, indices, out):
    """out[i, l] = |row i - row indices[i, l]|."""
    here, there = np.empty(rows.shape[1]), np.empty(rows.shape[1])
    for i in range(low, high):
        _from_row(i, rows, scale, indices[i], here, there, out[i])


@nb.njit(compiled_for("void(i8,T[:,::1],f8[::1],i4[::1],f8[::1])", read=4), **OUTER)
def lengths_to(i, rows, scale, others, out):
    """out[l] = |row i - row others[l]|, with the bits of `lengths`."""
    _from_row(i, rows, scale, others, np.empty(rows.shape[1]), np.empty(rows.shape[1]), out)


@nb.njit(**INNER)
def _largest_first(values, places, count, size):
    """Move the `count` largest of the first `size` values to the front, with their places; returns the least of them.

    Hoare's selection, with the median of three as pivot.
    """
    low, high, last = 0, size - 1, count - 1
    while low < high:
        a, b, c = values[low], values[(low + high) // 2], values[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                places[i], places[j] = places[j], places[i]
                i += 1
                j -= 1
        if last <= j:
            high = j
        elif last >= i:
            low = i
        else:
            break
    least = values[0]
    for l in range(1, count):
        least = min(least, values[l])
    return least


_LISTS = "i8,f4[:,::1],i4[:,::1],i8[::1]"


@nb.njit(compiled_for(f"void(f4[:,::1],i4[::1],{_LISTS},f4[::1])"), **OUTER)
def keep_largest(products, numbers, count, values, places, kept, least):
    """Add to the list of each row the columns whose products may be among its `count` largest.

    Args:
        products: (rows, columns).
        numbers: (columns,) what a list calls them.
        count: how many are wanted of each row.
        values, places: (rows, room) the lists, with more room than `count`.
        kept: (rows,) how long each list is.
        least: (rows,) what a product must exceed: the least of the `count` largest when the list was last full.
    """
    columns, room = products.shape[1], values.shape[1]
    for r in range(len(products)):
        row, size, bar = products[r], kept[r], least[r]
        for start in range(0, columns, 64):
            stop = min(start + 64, columns)
            above = np.int32(0)
            for j in range(start, stop):
                above += np.int32(row[j] > bar)
            if above == 0:
                continue
            for j in range(start, stop):
                if row[j] > bar:
                    values[r, size], places[r, size] = row[j], numbers[j]
                    size += 1
                    if size == room:
                        bar = _largest_first(values[r], places[r], count, size)
                        size = count
        kept[r], least[r] = size, bar


@nb.njit(compiled_for(f"void({_LISTS})"), **OUTER)
def trim(count, values, places, kept):
    """Leave each list its `count` largest."""
    for r in range(len(kept)):
        if kept[r] > count:
            _largest_first(values[r], places[r], count, kept[r])
            kept[r] = count


_COSTS = "i8[::1],i4[::1],T[::1]"


@nb.njit(compiled_for(f"void(i4[:,::1],T[:,::1],f8,{_COSTS})", read=2), **OUTER)
def by_candidate(indices, distances, unit, starts, items, costs):
    """Write, candidate by candidate, the items that list it and unit * distance; each lists itself, at no cost.

    starts: (n + 1,) zeros, of which it makes where each candidate's items begin.
    """
    n, count = indices.shape
    for i in range(n):
        starts[i + 1] += 1
        for l in range(count):
            starts[indices[i, l] + 1] += 1
    for j in range(n):
        starts[j + 1] += starts[j]
    # While the items are written, starts[j] is where the next one of j goes.
    for i in range(n):
        for l in range(-1, count):
            j = i if l < 0 else indices[i, l]
            items[starts[j]] = i
            costs[starts[j]] = 0.0 if l < 0 else distances[i, l] * unit
            starts[j] += 1
    for j in range(n, 0, -1):
        starts[j] = starts[j - 1]
    starts[0] = 0


@nb.njit(**INNER)
def _saved(j, starts, items, costs, weights, now):
    """What candidate j saves the items that list it, which cost `now`."""
    total = 0.0
    for e in range(starts[j], starts[j + 1]):
        i = items[e]
        total += weights[i] * max(now[i] - costs[e], 0.0)
    return total


@nb.njit(compiled_for(f"void(i8[::1],{_COSTS},f8[::1],f8[::1],f8[::1])", read=1), **OUTER)
def listed_gains(candidates, starts, items, costs, weights, now, out):
    """out[c] = what candidates[c] saves the items that list it."""
    for c in range(len(candidates)):
        out[c] = _saved(candidates[c], starts, items, costs, weights, now)


@nb.njit(compiled_for(f"i8(b1[::1],b1[::1],f8[::1],{_COSTS},f8[::1],f8[::1])"), **OUTER)
def refresh_best(closed, stale, upper, starts, items, costs, weights, now):
    """Bring up to date the open candidates that may gain most; returns how many that took.

    upper: (n,) what each gained when it was last looked at, which is no less than what it gains now.
    stale: (n,) whether that may have become less.
    """
    most, taken = -np.inf, 0
    for j in range(len(upper)):
        if not closed[j] and not stale[j] and upper[j] > most:
            most = upper[j]
    for j in range(len(upper)):
        if stale[j] and not closed[j] and upper[j] >= most:
            upper[j] = _saved(j, starts, items, costs, weights, now)
            stale[j] = False
            most = max(most, upper[j])
            taken += 1
    return taken
