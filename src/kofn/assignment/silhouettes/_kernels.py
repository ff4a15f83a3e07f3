"""Compiled loops of medoid silhouette clustering: every item knows its three nearest medoids."""

from __future__ import annotations

import numba as nb
import numpy as np

from kofn.core.compiled import INNER, OUTER, compiled_for


@nb.njit(**INNER)
def _ratio(a, b, nothing):
    """The nearer distance as a share of the farther one; 1 where both are 0, since the two medoids are then alike."""
    return a / b if b > nothing else 1.0


@nb.njit(**INNER)
def _refresh(to_medoid, weights, nothing, who, dist, removal):
    """Update the three nearest medoids of every item and the removal losses; return the loss."""
    n, k = to_medoid.shape
    removal[:] = 0.0
    loss = 0.0
    for o in range(n):
        nearest, runner_up, third = np.inf, np.inf, np.inf
        first, second = 0, 0
        for m in range(k):
            d = np.float64(to_medoid[o, m])
            if d < nearest:
                third, runner_up, second = runner_up, nearest, first
                nearest, first = d, m
            elif d < runner_up:
                third, runner_up, second = runner_up, d, m
            elif d < third:
                third = d
        who[o, 0], who[o, 1] = first, second
        dist[o, 0], dist[o, 1], dist[o, 2] = nearest, runner_up, third
        base = _ratio(nearest, runner_up, nothing)
        loss += weights[o] * base
        removal[first] += weights[o] * (_ratio(runner_up, third, nothing) - base)
        removal[second] += weights[o] * (_ratio(nearest, third, nothing) - base)
    return loss


@nb.njit(**INNER)
def _change(row, weights, nothing, who, dist, removal, change):
    """Change of the loss if this candidate replaces medoid m: change[m] plus the returned value, for all k."""
    for m in range(len(change)):
        change[m] = removal[m]
    shared = 0.0
    for o in range(len(row)):
        d, third = np.float64(row[o]), dist[o, 2]
        if d >= third:
            continue
        nearest, runner_up = dist[o, 0], dist[o, 1]
        base = _ratio(nearest, runner_up, nothing)
        if d < nearest:
            stays = _ratio(d, nearest, nothing)
        elif d < runner_up:
            stays = _ratio(nearest, d, nothing)
        else:
            stays = base
        shared += weights[o] * (stays - base)
        gone = _ratio(min(d, runner_up), max(d, runner_up), nothing)
        change[who[o, 0]] += weights[o] * ((gone - stays) - (_ratio(runner_up, third, nothing) - base))
        gone = _ratio(min(d, nearest), max(d, nearest), nothing)
        change[who[o, 1]] += weights[o] * ((gone - stays) - (_ratio(nearest, third, nothing) - base))
    return shared


_KNOWN = "T[:,::1],f8[::1],f8,i4[:,::1],f8[:,::1],f8[::1]"


@nb.njit(compiled_for(f"f8({_KNOWN})"), **OUTER)
def refresh(to_medoid, weights, nothing, who, dist, removal):
    """`_refresh`, compiled for calls from Python."""
    return _refresh(to_medoid, weights, nothing, who, dist, removal)


@nb.njit(compiled_for(f"void(T[:,::1],i8,i8[::1],u1[::1],{_KNOWN},f8[::1],f8,i8[::1])", read=1), **OUTER)
def sweep(rows, start, medoids, is_medoid, to_medoid, weights, nothing, who, dist, removal, loss, tolerance, counts):
    """Try the candidates start, start + 1, ... and swap immediately if the loss falls by more than the tolerance.

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
        after = _refresh(to_medoid, weights, nothing, who, dist, removal)
        if not after < loss[0] * (1 - tolerance / 2):
            # The change was mere rounding.
            to_medoid[:, m] = column
            _refresh(to_medoid, weights, nothing, who, dist, removal)
            continue
        is_medoid[medoids[m]] = 0
        is_medoid[start + b] = 1
        medoids[m] = start + b
        loss[0] = after
        counts[0] = 1
        counts[1] += 1
