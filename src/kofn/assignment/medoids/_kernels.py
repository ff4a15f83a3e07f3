"""Compiled loops of assignment: k-medoids swaps over blocks of distance rows, and deferred acceptance over scores."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from numba.core.sigutils import normalize_signature

from kofn.objectives._kernels import GROUP, LANES, _load, _tile

# Inner functions carry no signature and no cache of their own: they are compiled into their callers.
_INNER = {"nogil": True, "error_model": "numpy"}
_OUTER = {**_INNER, "cache": True}


def _both(signature: str, read: int = 0) -> list[Any]:
    """The signature for float32 and for float64, written `T`.

    The first `read` arguments are only read, so that memory-mapped and locked input will do.
    """
    out = []
    for kind in ("f4", "f8"):
        arguments, result = normalize_signature(signature.replace("T", kind))
        locked = [nb.types.Array(a.dtype, a.ndim, a.layout, readonly=True) for a in arguments[:read]]
        out.append(result(*locked, *arguments[read:]))
    return out


@nb.njit(
    _both("void(T[:,::1],T[:,::1],f8[::1],i8[::1],b1,f8,i8,i8,T[:,::1],T[:,::1],T[:,::1])", read=4),
    fastmath={"contract"},
    **_OUTER,
)
def distance_rows(rows, columns, scale, candidates, squared, unit, low, high, lanes, tile, out):  # type: ignore[no-untyped-def]
    """out[q, i] = unit * distance of row i to row candidates[q], for the rows of blocks low..high-1."""
    n, d = rows.shape
    items = np.zeros((GROUP, lanes.shape[0]), rows.dtype)
    everyone = np.empty(0, np.int64)
    for block in range(low, high):
        start = block * LANES
        stop = min(start + LANES, n)
        _load(rows, columns, scale, everyone, start, lanes)
        for first in range(0, len(candidates), GROUP):
            here = min(GROUP, len(candidates) - first)
            for q in range(here):
                c = candidates[first + q]
                for f in range(d):
                    items[q, f] = rows[c, f]
                if len(scale) > 0:
                    for f in range(d):
                        items[q, f] = rows[c, f] * scale[c]
            _tile(lanes, items, 0, tile)
            for q in range(here):
                b, target = tile[q], out[first + q, start:stop]
                if squared:
                    for l in range(len(target)):
                        target[l] = b[l] * unit
                else:
                    for l in range(len(target)):
                        target[l] = np.sqrt(b[l]) * unit


@nb.njit(**_INNER)
def _change(row, near, second, nearest, weights, removal, touched, change):  # type: ignore[no-untyped-def]
    """How the loss changes if this candidate replaces each medoid: change[m] plus what is returned, for all k at once.

    Where medoid m goes, the loss rises by `removal[m]` less what the candidate spares the points that it is nearer to
    than their second nearest medoid; and every point that it is nearest to gains, whichever medoid goes.
    """
    # Few points lie nearer to a candidate than to their second medoid: gather them without a branch, then visit those.
    count = 0
    for o in range(len(row)):
        touched[count] = o
        count += row[o] < second[o]
    change[:] = removal
    shared = 0.0
    for t in range(count):
        o = touched[t]
        d, first, other = np.float64(row[o]), np.float64(near[o]), np.float64(second[o])
        if d < first:
            shared += weights[o] * (d - first)
            change[nearest[o]] += weights[o] * (first - other)
        else:
            change[nearest[o]] += weights[o] * (d - other)
    return shared


@nb.njit(**_INNER)
def _change_naive(row, near, second, nearest, weights, change):  # type: ignore[no-untyped-def]
    """The same, medoid by medoid, with a pass over all points for each: what FastPAM saves."""
    for m in range(len(change)):
        total = 0.0
        for o in range(len(row)):
            d, first, other = np.float64(row[o]), np.float64(near[o]), np.float64(second[o])
            if nearest[o] == m:
                total += weights[o] * (min(d, other) - first)
            elif d < first:
                total += weights[o] * (d - first)
        change[m] = total


@nb.njit(**_INNER)
def _swap(row, m, to_medoid, nearest, runner, near, second, weights, removal):  # type: ignore[no-untyped-def]
    """Put the candidate in place of medoid m: nearest and second nearest medoids, removal losses; returns the loss."""
    k = to_medoid.shape[1]
    removal[:] = 0.0
    loss = 0.0
    for o in range(len(row)):
        d = row[o]
        to_medoid[o, m] = d
        gone = nearest[o] == m
        if gone and d >= second[o]:
            nearest[o], near[o] = runner[o], second[o]
        if gone and d < second[o]:
            near[o] = d
        elif not gone and d < near[o]:
            runner[o], second[o] = nearest[o], near[o]
            nearest[o], near[o] = m, d
        elif not gone and d < second[o]:
            runner[o], second[o] = m, d
        elif gone or runner[o] == m:
            # The second nearest is gone, or has become the nearest: look among all medoids.
            distances, first = to_medoid[o], nearest[o]
            runner[o], second[o] = m, d
            for i in range(k):
                if i != first and distances[i] < second[o]:
                    runner[o], second[o] = i, distances[i]
        loss += weights[o] * np.float64(near[o])
        removal[nearest[o]] += weights[o] * (np.float64(second[o]) - np.float64(near[o]))
    return loss


@nb.njit(**_INNER)
def _lowered(row, m, nearest, near, second, weights):  # type: ignore[no-untyped-def]
    """The loss with the candidate in place of medoid m, summed from scratch in the order of `_swap`."""
    loss = 0.0
    for o in range(len(row)):
        other = second[o] if nearest[o] == m else near[o]
        loss += weights[o] * np.float64(min(row[o], other))
    return loss


_STATE = "T[:,::1],i4[::1],i4[::1],T[::1],T[::1],f8[::1],f8[::1]"


@nb.njit(_both(f"void(T[:,::1],i8[::1],i8[::1],u1[::1],{_STATE},f8[::1],f8,i8,i8[::1])", read=2), **_OUTER)
def sweep(  # type: ignore[no-untyped-def]
    rows,
    candidates,
    medoids,
    is_medoid,
    to_medoid,
    nearest,
    runner,
    near,
    second,
    weights,
    removal,
    loss,
    tolerance,
    patience,
    counts,
):
    """Try the candidates in turn and swap at once wherever that lowers the loss beyond its tolerance.

    counts: candidates since the last swap, swaps, candidates evaluated. Ends once `patience` candidates brought no
    swap.
    """
    n, k = to_medoid.shape
    touched, change = np.empty(n + 1, np.int32), np.empty(k)
    for b in range(len(rows)):
        if counts[0] >= patience:
            return
        counts[0] += 1
        if is_medoid[candidates[b]]:
            continue
        counts[2] += 1
        shared = _change(rows[b], near, second, nearest, weights, removal, touched, change)
        m = np.argmin(change)
        if shared + change[m] < -tolerance * loss[0]:
            # Where the loss is small beside the distances that cancel in the change, the change may be mere rounding,
            # and swaps would go round in circles: only a loss that falls is worth a swap.
            if not _lowered(rows[b], m, nearest, near, second, weights) < loss[0] * (1 - tolerance / 2):
                continue
            is_medoid[medoids[m]] = 0
            is_medoid[candidates[b]] = 1
            medoids[m] = candidates[b]
            loss[0] = _swap(rows[b], m, to_medoid, nearest, runner, near, second, weights, removal)
            counts[0] = 1
            counts[1] += 1


@nb.njit(
    _both("void(T[:,::1],i8,u1[::1],i4[::1],T[::1],T[::1],f8[::1],f8[::1],b1,f8,f8[::1],i8[::1])", read=1), **_OUTER
)
def best_swap(  # type: ignore[no-untyped-def]
    rows, start, is_medoid, nearest, near, second, weights, removal, naive, margin, best, found
):
    """Lower best[0], the change of the best swap so far; `found` gets its candidate and medoid, and counts candidates.

    A swap must be better by `margin` to replace an earlier one, so that rounding does not decide between equal swaps.
    """
    k = len(removal)
    touched, change = np.empty(rows.shape[1] + 1, np.int32), np.empty(k)
    for b in range(len(rows)):
        if is_medoid[start + b]:
            continue
        found[2] += 1
        shared = 0.0
        if naive:
            _change_naive(rows[b], near, second, nearest, weights, change)
        else:
            shared = _change(rows[b], near, second, nearest, weights, removal, touched, change)
        for m in range(k):
            if shared + change[m] < best[0] - margin:
                best[0] = shared + change[m]
                found[0], found[1] = start + b, m


@nb.njit(_both(f"f8(T[::1],i8,{_STATE})", read=1), **_OUTER)
def swap(row, m, to_medoid, nearest, runner, near, second, weights, removal):  # type: ignore[no-untyped-def]
    """`_swap`, for callers outside."""
    return _swap(row, m, to_medoid, nearest, runner, near, second, weights, removal)


@nb.njit(**_INNER)
def _worse(score, item, other_score, other_item):  # type: ignore[no-untyped-def]
    """Whether a bin would rather lose the first: the lower score, of equal ones the later item."""
    return score < other_score or (score == other_score and item > other_item)


@nb.njit(**_INNER)
def _sift(scores, items, place, size, score, item):  # type: ignore[no-untyped-def]
    """Put an item into the heap at `place` or below, where what the bin would lose first is on top."""
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _worse(scores[child + 1], items[child + 1], scores[child], items[child]):
            child += 1
        if not _worse(scores[child], items[child], score, item):
            break
        scores[place], items[place] = scores[child], items[child]
        place = child
    scores[place], items[place] = score, item


@nb.njit(**_INNER)
def _first_choices(row, choices):  # type: ignore[no-untyped-def]
    """The bins of the highest scores in order, ties to the lowest bin; -1 where fewer are listed."""
    choices[:] = -1
    last = len(choices) - 1
    for j in range(len(row)):
        if row[j] > -np.inf and (choices[last] < 0 or row[j] > row[choices[last]]):
            place = last
            while place > 0 and (choices[place - 1] < 0 or row[j] > row[choices[place - 1]]):
                choices[place] = choices[place - 1]
                place -= 1
            choices[place] = j


@nb.njit(**_INNER)
def _best_open(row, item, bar, bar_item, held):  # type: ignore[no-untyped-def]
    """The bin that the item scores highest of those that would take it and that it is not in; -1 if there is none."""
    best = -1
    for j in range(len(row)):
        s = row[j]
        if (best < 0 or s > row[best]) and s > -np.inf and _worse(bar[j], bar_item[j], s, item):
            mine = False
            for slot in range(len(held)):
                mine |= held[slot] == j
            if not mine:
                best = j
    return best


@nb.njit(**_INNER)
def _admit(scores, items, size, score, item):  # type: ignore[no-untyped-def]
    """Put an item into the heap of a bin that holds `size`; returns whom it displaces, -1 for nobody."""
    if size == len(items):
        out = np.int64(items[0])
        _sift(scores, items, 0, size, score, item)
        return out
    place = size
    while place > 0 and _worse(score, item, scores[(place - 1) // 2], items[(place - 1) // 2]):
        scores[place], items[place] = scores[(place - 1) // 2], items[(place - 1) // 2]
        place = (place - 1) // 2
    scores[place], items[place] = score, item
    return -1


@nb.njit(_both("void(T[:,::1],i8[::1],i8[::1],b1,i4[:,::1],i8[::1],T[::1],i4[::1],f8[::1])", read=1), **_OUTER)
def defer(scores, room, offsets, reroute, held, asked, heap_scores, heap_items, most):  # type: ignore[no-untyped-def]
    """Items ask for bins from their best on, a full bin keeps its highest scores: held[i] are item i's bins, else -1.

    With `reroute` whoever is refused asks on (deferred acceptance); without, each item asks for its first choices only.
    Bin j keeps a heap from offsets[j] on unless it has room for all. asked[j] counts whose first choice it is, most[0]
    sums the scores >= 0 of all first choices.
    """
    n, bins = scores.shape
    size = np.zeros(bins, np.int64)
    # What an item must beat in each bin: the worst of a full one, nothing elsewhere.
    bar, bar_item = np.full(bins, -np.inf, scores.dtype), np.full(bins, n, np.int64)
    for j in range(bins):
        if room[j] == 0:
            bar[j], bar_item[j] = np.inf, -1
    choices = np.empty(held.shape[1], np.int64)
    for i in range(n):
        _first_choices(scores[i], choices)
        for slot in range(len(choices)):
            item, best = i, choices[slot]
            if best >= 0:
                asked[best] += 1
                most[0] += max(scores[i, best], 0.0)
                mine = False
                for other in range(slot):
                    mine |= held[i, other] == best
                if mine or not _worse(bar[best], bar_item[best], scores[i, best], i):
                    best = -1
            if best < 0 and reroute:
                best = _best_open(scores[i], i, bar, bar_item, held[i])
            while best >= 0:
                free = 0
                while held[item, free] >= 0:
                    free += 1
                held[item, free] = best
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
                    if held[out, other] == best:
                        held[out, other] = -1
                item, best = out, -1
                if reroute:
                    best = _best_open(scores[item], item, bar, bar_item, held[item])
