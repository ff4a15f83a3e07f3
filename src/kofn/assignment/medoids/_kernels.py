"""Compiled loops of k-medoids: swaps over blocks of distance rows."""

from __future__ import annotations

import numba as nb
import numpy as np

from kofn.core.compiled import INNER, OUTER, compiled_for


@nb.njit(**INNER)
def _change(row, near, second, nearest, weights, removal, touched, change):
    """Change of the loss if this candidate replaces medoid m: change[m] plus the returned value, for all k at once.

    Removing medoid m raises the loss by `removal[m]`, less the savings of the points to which the candidate is nearer
    than their second nearest medoid; points to which it is nearest gain whichever medoid is removed.
    """
    # Few points lie nearer to a candidate than to their second medoid: gather them without a branch, then visit those.
    count = 0
    for o in range(len(row)):
        touched[count] = o
        count += row[o] < second[o]
    for m in range(len(change)):
        change[m] = removal[m]
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


@nb.njit(**INNER)
def _change_naive(row, near, second, nearest, weights, change):
    """The same with one pass over all points per medoid: the work that FastPAM saves."""
    for m in range(len(change)):
        total = 0.0
        for o in range(len(row)):
            d, first, other = np.float64(row[o]), np.float64(near[o]), np.float64(second[o])
            if nearest[o] == m:
                total += weights[o] * (min(d, other) - first)
            elif d < first:
                total += weights[o] * (d - first)
        change[m] = total


@nb.njit(**INNER)
def _swap(row, m, to_medoid, nearest, runner, near, second, weights, removal):
    """Replace medoid m by the candidate; update the two nearest medoids and the removal losses; return the loss."""
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
            # The second nearest was removed or became the nearest: search all medoids.
            distances, first = to_medoid[o], nearest[o]
            runner[o], second[o] = m, d
            for i in range(k):
                if i != first and distances[i] < second[o]:
                    runner[o], second[o] = i, distances[i]
        loss += weights[o] * np.float64(near[o])
        removal[nearest[o]] += weights[o] * (np.float64(second[o]) - np.float64(near[o]))
    return loss


@nb.njit(**INNER)
def _lowered(row, m, nearest, near, second, weights):
    """The loss after the swap, summed from scratch in the order of `_swap`."""
    loss = 0.0
    for o in range(len(row)):
        other = second[o] if nearest[o] == m else near[o]
        loss += weights[o] * np.float64(min(row[o], other))
    return loss


_STATE = "T[:,::1],i4[::1],i4[::1],T[::1],T[::1],f8[::1],f8[::1]"


@nb.njit(compiled_for(f"void(T[:,::1],i8[::1],i8[::1],u1[::1],{_STATE},f8[::1],f8,i8,i8[::1])", read=2), **OUTER)
def sweep(
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
    """Try the candidates in turn and swap immediately if the loss falls by more than the tolerance.

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
    compiled_for("void(T[:,::1],i8,u1[::1],i4[::1],T[::1],T[::1],f8[::1],f8[::1],b1,f8,f8[::1],i8[::1])", read=1),
    **OUTER,
)
def best_swap(rows, start, is_medoid, nearest, near, second, weights, removal, naive, margin, best, counts):
    """Lower best[0], the change of the best swap so far; `found` gets its candidate and medoid, and counts candidates.

    A swap must be better by `margin` to replace an earlier one, so that rounding does not decide between equal swaps.
    """
    k = len(removal)
    touched, change = np.empty(rows.shape[1] + 1, np.int32), np.empty(k)
    for b in range(len(rows)):
        if is_medoid[start + b]:
            continue
        counts[2] += 1
        shared = 0.0
        if naive:
            _change_naive(rows[b], near, second, nearest, weights, change)
        else:
            shared = _change(rows[b], near, second, nearest, weights, removal, touched, change)
        for m in range(k):
            if shared + change[m] < best[0] - margin:
                best[0] = shared + change[m]
                counts[0], counts[1] = start + b, m


@nb.njit(compiled_for(f"f8(T[::1],i8,{_STATE})", read=1), **OUTER)
def swap(row, m, to_medoid, nearest, runner, near, second, weights, removal):
    """`_swap`, compiled for calls from Python."""
    return _swap(row, m, to_medoid, nearest, runner, near, second, weights, removal)
