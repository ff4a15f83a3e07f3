"""Compiled loops of routing: the best bins of each item, and deferred acceptance within capacities."""

from __future__ import annotations

import numba as nb
import numpy as np

from kofn.core.compiled import INNER, OUTER, compiled_for


@nb.njit(**INNER)
def worse(score, item, other_score, other_item):
    """Whether the first entry ranks lower in a bin: lower score, ties to the later item."""
    return score < other_score or (score == other_score and item > other_item)


@nb.njit(**INNER)
def _sift(scores, items, position, size, score, item):
    """Sift an item down the heap from `position`; the lowest-ranked entry is on top."""
    while True:
        child = 2 * position + 1
        if child >= size:
            break
        if child + 1 < size and worse(scores[child + 1], items[child + 1], scores[child], items[child]):
            child += 1
        if not worse(scores[child], items[child], score, item):
            break
        scores[position], items[position] = scores[child], items[child]
        position = child
    scores[position], items[position] = score, item


@nb.njit(**INNER)
def _first_choices(row, choices):
    """Bins of the highest scores, best first, ties to the lowest bin; -1 where fewer are listed."""
    choices[:] = -1
    last = len(choices) - 1
    for j in range(len(row)):
        if row[j] > -np.inf and (choices[last] < 0 or row[j] > row[choices[last]]):
            position = last
            while position > 0 and (choices[position - 1] < 0 or row[j] > row[choices[position - 1]]):
                choices[position] = choices[position - 1]
                position -= 1
            choices[position] = j


@nb.njit(**INNER)
def _best_open(row, item, bar, bar_item, chosen):
    """The item's best bin among those that would accept it and that it is not in; -1 if none."""
    best = -1
    for j in range(len(row)):
        s = row[j]
        if (best < 0 or s > row[best]) and s > -np.inf and worse(bar[j], bar_item[j], s, item):
            mine = False
            for slot in range(len(chosen)):
                mine |= chosen[slot] == j
            if not mine:
                best = j
    return best


@nb.njit(**INNER)
def _admit(scores, items, size, score, item):
    """Insert an item into a bin's heap of `size` entries; return the displaced item, or -1."""
    if size == len(items):
        out = np.int64(items[0])
        _sift(scores, items, 0, size, score, item)
        return out
    position = size
    while position > 0 and worse(score, item, scores[(position - 1) // 2], items[(position - 1) // 2]):
        scores[position], items[position] = scores[(position - 1) // 2], items[(position - 1) // 2]
        position = (position - 1) // 2
    scores[position], items[position] = score, item
    return -1


@nb.njit(compiled_for("void(T[:,::1],i8[::1],i8[::1],b1,i4[:,::1],i8[::1],T[::1],i4[::1],f8[::1])", read=1), **OUTER)
def defer(scores, room, offsets, reroute, chosen, asked, heap_scores, heap_items, most):
    """Deferred acceptance: items ask for bins best first, full bins keep their highest scores; held[i] are i's bins.

    With `reroute` refused items ask on; without it each item asks only for its first choices. Unused slots are -1.
    Bin j keeps a heap from offsets[j] on unless it has room for all. asked[j] counts whose first choice it is, most[0]
    sums the scores >= 0 of all first choices.
    """
    n, bins = scores.shape
    size = np.zeros(bins, np.int64)
    # The entry an item must beat in each bin: the lowest-ranked of a full one, none elsewhere.
    bar, bar_item = np.full(bins, -np.inf, scores.dtype), np.full(bins, n, np.int64)
    for j in range(bins):
        if room[j] == 0:
            bar[j], bar_item[j] = np.inf, -1
    choices = np.empty(chosen.shape[1], np.int64)
    for i in range(n):
        _first_choices(scores[i], choices)
        for slot in range(len(choices)):
            item, best = i, choices[slot]
            if best >= 0:
                asked[best] += 1
                most[0] += max(scores[i, best], 0.0)
                mine = False
                for other in range(slot):
                    mine |= chosen[i, other] == best
                if mine or not worse(bar[best], bar_item[best], scores[i, best], i):
                    best = -1
            if best < 0 and reroute:
                best = _best_open(scores[i], i, bar, bar_item, chosen[i])
            while best >= 0:
                free = 0
                while chosen[item, free] >= 0:
                    free += 1
                chosen[item, free] = best
                if room[best] >= n:
                    break
                low, high = offsets[best], offsets[best] + room[best]
                out = _admit(heap_scores[low:high], heap_items[low:high], size[best], scores[item, best], item)
                size[best] += out < 0
                if size[best] == room[best]:
                    bar[best], bar_item[best] = heap_scores[low], heap_items[low]
                if out < 0:
                    break
                for other in range(len(choices)):
                    if chosen[out, other] == best:
                        chosen[out, other] = -1
                item, best = out, -1
                if reroute:
                    best = _best_open(scores[item], item, bar, bar_item, chosen[item])


@nb.njit(compiled_for("void(T[:,::1],i4[:,::1])", read=1), **OUTER)
def best_bins(scores, chosen):
    """chosen[i] = the bins of item i's highest scores in order, ties to the lowest bin; -1 where fewer are listed."""
    choices = np.empty(chosen.shape[1], np.int64)
    for i in range(len(scores)):
        _first_choices(scores[i], choices)
        for slot in range(len(choices)):
            chosen[i, slot] = choices[slot]
