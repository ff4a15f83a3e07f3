"""Compiled loops of assignment: k-medoids swaps over blocks of distance rows, and deferred acceptance over scores."""

from __future__ import annotations

import numba as nb
import numpy as np

_OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy"}
# Points are tested in groups: a group without any point that the candidate would serve is passed over at vector speed.
_GROUP = 32


def _typed(signature):  # type: ignore[no-untyped-def]
    """The signature for float32 and for float64 distances or scores, written `T`."""
    return [signature.replace("T", kind) for kind in ("f4", "f8")]


@nb.njit(
    _typed("void(T[::1],T[::1],T[::1],i4[::1],f8[::1],f8[::1],f8[::1],f8[::1])"), **_OPTIONS
)
def swap_change(row, near, second, nearest, weights, removal, change, shared):  # type: ignore[no-untyped-def]
    """How the loss changes if this candidate replaces each medoid, for all k at once.

    change[m] + shared[0] is the change when medoid m goes: `removal[m]` if the candidate did nothing, corrected at the
    points that the candidate is nearer to than their second nearest medoid, plus what every point that it is nearest to saves.
    """
    n = len(row)
    saved = 0.0
    change[:] = removal
    for low in range(0, n, _GROUP):
        high = min(low + _GROUP, n)
        hit = False
        for o in range(low, high):
            hit |= row[o] < second[o]
        if hit:
            for o in range(low, high):
                d = row[o]
                if d < second[o]:
                    if d < near[o]:
                        saved += weights[o] * (np.float64(d) - np.float64(near[o]))
                        change[nearest[o]] += weights[o] * (np.float64(near[o]) - np.float64(second[o]))
                    else:
                        change[nearest[o]] += weights[o] * (np.float64(d) - np.float64(second[o]))
    shared[0] = saved
