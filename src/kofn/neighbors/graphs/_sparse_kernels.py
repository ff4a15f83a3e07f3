"""Compiled search for the nearest sparse rows: an inverted index, partial cosines, and bounds on what they lack."""

from __future__ import annotations

import numba as nb
import numpy as np

from kofn.core.compiled import INNER, OUTER

# Partial cosines are compared for the first time after so many products for each neighbour asked for, and again after
# so many times as many products as before.
_FIRST_LOOK, _LATER = 8, 8
# What is not added up is at most this share of the least cosine that counts: a smaller share takes more additions, a
# larger one more comparisons.
_LEFT_OUT = 0.25
# Rows that are met are listed up to this share of all, then all are looked through, so many at once.
_LISTED, _TOGETHER = 16, 16
# The largest partial cosines are total to this part of the largest.
_PARTS = 256
# A sum that cancels out: its row is met all the same.
_MET = np.float32(1e-30)


@nb.njit(**INNER)
def _before(distance, row, other, other_row):
    """Whether a neighbour stands before another: nearer, or as near and of a lower number."""
    return distance < other or (distance == other and row < other_row)


@nb.njit(**INNER)
def _sink(heap, rows, size, distance, row):
    """Put a neighbour in the place of the heap's top."""
    position = 0
    while True:
        child = 2 * position + 1
        if child >= size:
            break
        if child + 1 < size and _before(heap[child], rows[child], heap[child + 1], rows[child + 1]):
            child += 1
        if _before(heap[child], rows[child], distance, row):
            break
        heap[position], rows[position] = heap[child], rows[child]
        position = child
    heap[position], rows[position] = distance, row


@nb.njit(**INNER)
def _offer(heap, rows, filled, distance, row):
    """Keep the nearest rows in a heap whose top is the farthest of them; returns how many it holds."""
    size = len(heap)
    if filled < size:
        position = filled
        while position > 0:
            parent = (position - 1) // 2
            if _before(distance, row, heap[parent], rows[parent]):
                break
            heap[position], rows[position] = heap[parent], rows[parent]
            position = parent
        heap[position], rows[position] = distance, row
        return filled + 1
    if _before(distance, row, heap[0], rows[0]):
        _sink(heap, rows, size, distance, row)
    return filled


@nb.njit(**INNER)
def _reached(reach, low, high, cut):
    """Where a part of `reach`, which falls, gets below a number."""
    while low < high:
        middle = (low + high) // 2
        if reach[middle] >= cut:
            low = middle + 1
        else:
            high = middle
    return low


@nb.njit(**INNER)
def _at_least(partial, met, meetings, least, out):
    """List the rows whose partial cosine is at least this, -inf for none; returns how many.

    Args:
        partial: of each row, 0 if it was not met.
        met, meetings: the rows that were met, and how many; -1 if they are not listed.
        least: above 0 where they are not listed.
        out: room for all rows.
    """
    total = 0
    if meetings >= 0:
        for i in range(meetings):
            out[total] = met[i]
            total += (partial[met[i]] >= least) & (partial[met[i]] > -np.inf)
        return total
    n = len(partial)
    for low in range(0, n, _TOGETHER):
        high = min(low + _TOGETHER, n)
        here = 0
        for row in range(low, high):
            here += partial[row] >= least
        if here:
            for row in range(low, high):
                out[total] = row
                total += partial[row] >= least
    return total


@nb.njit(**INNER)
def _leading(partial, listed, total, count):
    """A partial cosine that about `count` of the listed rows reach, 0 if all are below."""
    most, parts = np.float32(0), np.zeros(_PARTS + 1, np.int64)
    for i in range(total):
        most = max(most, partial[listed[i]])
    if most == 0:
        return most
    step = _PARTS / most
    for i in range(total):
        parts[int(max(partial[listed[i]], np.float32(0)) * step)] += 1
    part, above = _PARTS, parts[_PARTS]
    while above < count and part > 0:
        part -= 1
        above += parts[part]
    return np.float32(part / step)


@nb.njit("void(i8[::1], f8[::1], f4[::1])", **OUTER)
def tails(starts, data, out):
    """The length of each row from each of its entries on."""
    for row in range(len(starts) - 1):
        squares = 0.0
        for entry in range(starts[row + 1] - 1, starts[row] - 1, -1):
            squares += data[entry] * data[entry]
            out[entry] = np.sqrt(squares)


@nb.njit(**INNER)
def _compare(partial, least, most, listed, total, starts, columns, data, point, nothing, heap, rows, filled):
    """Complete the partial cosines of listed rows, up to so many that are at least `least`, and keep the nearest.

    A distance is 1 - cos of the row's entries in their order, its rounding to 0 cut off.

    Returns:
        how many are kept, and how many were completed.
    """
    completed = 0
    for i in range(total):
        row = listed[i]
        if partial[row] < least or partial[row] == -np.inf or completed == most:
            continue
        cosine = 0.0
        for entry in range(starts[row], starts[row + 1]):
            cosine += data[entry] * point[columns[entry]]
        square = 2 - 2 * cosine
        filled = _offer(heap, rows, filled, 0.0 if square < nothing else square / 2, row)
        # Whatever is added later, it is not compared again.
        partial[row] = -np.inf
        completed += 1
    return filled, completed


@nb.njit(
    "i8(i8, i8, i8[::1], i4[::1], f8[::1], i4[::1], f4[::1], f4[::1], i8[::1], i4[::1], f4[::1], f4[::1], f8, f8,"
    " i4[:, ::1], f8[:, ::1])",
    **OUTER,
)
def nearest(
    low,
    high,
    starts,
    columns,
    data,
    ranked,
    own,
    tails,
    heads,
    listed,
    weights,
    reach,
    nothing,
    margin,
    out_rows,
    out_distances,
):
    """Fill in the nearest rows of rows low to high, themselves among them; returns the work: products and comparisons.

    The columns of a row are taken from the rarest on. What columns from one on can add to a cosine is at most the
    length of both rows in those columns (Cauchy-Schwarz). Where that is a small share of what a cosine must reach, it
    is not added up any more, which ends the list of a column, sorted by those lengths. Rows whose partial cosine and
    that share are enough are compared.

    Args:
        low, high: the rows.
        starts, columns, data: unit rows, CSR.
        ranked, own: their columns by rank, the rarest first, and the entries there.
        tails: the length of a row from each of these columns on.
        heads, listed, weights: of each rank where its list begins, the rows of the list and their entries.
        reach: the length of a listed row from this column on, by which a list falls.
        nothing: a squared chord below this is 0.
        margin: bound on the rounding of partial cosines and lengths.
        out_rows, out_distances: (rows, count) the nearest, nearest first, ties by number.
    """
    n, count = len(starts) - 1, out_rows.shape[1]
    point = np.zeros(columns.max() + 1 if len(columns) else 1)
    # 0 for a row that was not met, -inf for one whose cosine is complete.
    partial = np.zeros(n, np.float32)
    met, chosen = np.empty(n + 1, np.int32), np.empty(n + 1, np.int32)
    heap, rows = np.empty(count), np.empty(count, np.int32)
    exact, work = (starts, columns, data, point, nothing), 0
    for row in range(low, high):
        for entry in range(starts[row], starts[row + 1]):
            point[columns[entry]] = data[entry]
        filled = meetings = added = 0
        look, last_entry = _FIRST_LOOK * count, starts[row + 1] - 1
        total, least, left_out = 0, -np.inf, 0.0
        for entry in range(starts[row], starts[row + 1]):
            first, last = heads[ranked[entry]], heads[ranked[entry] + 1]
            if least > 0:
                left_out = _LEFT_OUT * least
                last = _reached(reach, first, last, left_out / tails[entry])
            weight = own[entry]
            added += last - first
            if added * _LISTED > n and least > 0:
                meetings = -1
            if meetings < 0:
                for position in range(first, last):
                    partial[listed[position]] += weight * weights[position]
            else:
                for position in range(first, last):
                    other = listed[position]
                    met[meetings] = other
                    meetings += partial[other] == 0
                    value = partial[other] + weight * weights[position]
                    partial[other] = value if value != 0 else _MET
            if (added >= look and (meetings < 0 or meetings >= count)) or entry == last_entry:
                total = _at_least(partial, met, meetings, np.float32(least - left_out), chosen)
                leading = _leading(partial, chosen, total, count)
                filled, completed = _compare(partial, leading, 2 * count, chosen, total, *exact, heap, rows, filled)
                work += completed
                look = _LATER * added
                if filled == count:
                    least = 1 - heap[0] - margin
        filled, completed = _compare(
            partial, np.float32(least - left_out), n, chosen, total, *exact, heap, rows, filled
        )
        if filled < count or heap[0] >= 1:
            # Rows that share no column, in their order.
            for other in range(n):
                if partial[other] == 0:
                    if filled == count and not _before(1.0, other, heap[0], rows[0]):
                        break
                    filled = _offer(heap, rows, filled, 1.0, other)
        for position in range(count - 1, -1, -1):
            out_rows[row, position], out_distances[row, position] = rows[0], heap[0]
            _sink(heap, rows, position, heap[position], rows[position])
        if meetings < 0:
            partial[:] = 0
        for i in range(meetings):
            partial[met[i]] = 0
        for entry in range(starts[row], starts[row + 1]):
            point[columns[entry]] = 0
        work += added + completed
    return work


@nb.njit("void(i8, i8, i4[::1], i8[::1], i4[::1], i4[:, ::1], f8[:, ::1], i4[:, ::1], f8[:, ::1])", **OUTER)
def expand(low, high, kind_of, starts, members, near, distances, out_rows, out_distances):
    """Fill in the nearest other rows of rows low to high from the nearest different rows, each with its copies.

    Args:
        low, high: the rows.
        kind_of: of each row, which of the different rows it is.
        starts, members: the rows of each kind, in their order.
        near, distances: of each kind the nearest kinds, itself among them; ties by number.
        out_rows, out_distances: (rows, count) the nearest, nearest first, ties by number.
    """
    count, width = out_rows.shape[1], near.shape[1]
    for row in range(low, high):
        kind = kind_of[row]
        filled = first = 0
        while filled < count and first < width:
            last = first + 1
            while last < width and distances[kind, last] == distances[kind, first]:
                last += 1
            total = 0
            for i in range(first, last):
                total += min(count + 1, starts[near[kind, i] + 1] - starts[near[kind, i]])
            tied = np.empty(total, np.int32)
            position = 0
            for i in range(first, last):
                begin = starts[near[kind, i]]
                for entry in range(begin, min(begin + count + 1, starts[near[kind, i] + 1])):
                    tied[position] = members[entry]
                    position += 1
            if last > first + 1:
                tied.sort()
            for other in tied:
                if other != row and filled < count:
                    out_rows[row, filled], out_distances[row, filled] = other, distances[kind, first]
                    filled += 1
            first = last
