"""Compiled loops of medoid silhouette clustering: every item knows its three nearest medoids."""

from __future__ import annotations

import numba as nb
import numpy as np

from kofn.assignment._compiled import INNER, OUTER, both_precisions


@nb.njit(**INNER)
def _ratio(a, b, nothing):
    """The share of the nearer distance in the farther one; two medoids in one place tell nothing apart."""
    return a / b if b > nothing else 1.0


@nb.njit(**INNER)
def _settle(to_medoid, weights, nothing, who, dist, removal):
    """Three nearest medoids of every item, what removing each medoid costs; returns the loss."""
    n, k = to_medoid.shape
    removal[:] = 0.0
    loss = 0.0
    for o in range(n):
        one, two, three = np.inf, np.inf, np.inf
        first, second = 0, 0
        for m in range(k):
            d = np.float64(to_medoid[o, m])
            if d < one:
                three, two, second = two, one, first
                one, first = d, m
            elif d < two:
                three, two, second = two, d, m
            elif d < three:
                three = d
        who[o, 0], who[o, 1] = first, second
        dist[o, 0], dist[o, 1], dist[o, 2] = one, two, three
        base = _ratio(one, two, nothing)
        loss += weights[o] * base
        removal[first] += weights[o] * (_ratio(two, three, nothing) - base)
        removal[second] += weights[o] * (_ratio(one, three, nothing) - base)
    return loss


@nb.njit(**INNER)
def _change(row, weights, nothing, who, dist, removal, change):
    """How the loss changes if this candidate replaces each medoid: change[m] plus what is returned, for all k."""
    change[:] = removal
    shared = 0.0
    for o in range(len(row)):
        d, three = np.float64(row[o]), dist[o, 2]
        if d >= three:
            continue
        one, two = dist[o, 0], dist[o, 1]
        base = _ratio(one, two, nothing)
        if d < one:
            stays = _ratio(d, one, nothing)
        elif d < two:
            stays = _ratio(one, d, nothing)
        else:
            stays = base
        shared += weights[o] * (stays - base)
        gone = _ratio(min(d, two), max(d, two), nothing)
        change[who[o, 0]] += weights[o] * ((gone - stays) - (_ratio(two, three, nothing) - base))
        gone = _ratio(min(d, one), max(d, one), nothing)
        change[who[o, 1]] += weights[o] * ((gone - stays) - (_ratio(one, three, nothing) - base))
    return shared


_KNOWN = "T[:,::1],f8[::1],f8,i4[:,::1],f8[:,::1],f8[::1]"


@nb.njit(both_precisions(f"f8({_KNOWN})"), **OUTER)
def settle(to_medoid, weights, nothing, who, dist, removal):
    """`_settle`, for callers outside."""
    return _settle(to_medoid, weights, nothing, who, dist, removal)


@nb.njit(both_precisions(f"void(T[:,::1],i8,i8[::1],u1[::1],{_KNOWN},f8[::1],f8,i8[::1])", read=1), **OUTER)
def sweep(rows, start, medoids, is_medoid, to_medoid, weights, nothing, who, dist, removal, loss, tolerance, counts):
    """Try the candidates start, start + 1, ... and swap at once wherever that lowers the loss beyond its tolerance.

    counts: candidates since the last swap, swaps, candidates evaluated. Ends early once a full round brought no swap.
    """
    n, k = to_medoid.shape
    change, column = np.empty(k), np.empty(n, rows.dtype)
    for b in range(len(rows)):
        if counts[0] >= n:
            return
        counts[0] += 1
        if is_medoid[start + b]:
            continue
        counts[2] += 1
        shared = _change(rows[b], weights, nothing, who, dist, removal, change)
        m = np.argmin(change)
        if not shared + change[m] < -tolerance * loss[0]:
            continue
        column[:] = to_medoid[:, m]
        to_medoid[:, m] = rows[b]
        after = _settle(to_medoid, weights, nothing, who, dist, removal)
        if not after < loss[0] * (1 - tolerance / 2):
            # The change was mere rounding.
            to_medoid[:, m] = column
            _settle(to_medoid, weights, nothing, who, dist, removal)
            continue
        is_medoid[medoids[m]] = 0
        is_medoid[start + b] = 1
        medoids[m] = start + b
        loss[0] = after
        counts[0] = 1
        counts[1] += 1
