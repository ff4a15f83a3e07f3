"""Compiled loop that finds the cells which a row may be near a row of."""

from __future__ import annotations

import numba as nb
import numpy as np

from kofn.core.compiled import OUTER, compiled_for


@nb.njit(compiled_for("i8(f4[:,::1],f4[::1],f4[::1],f8[::1],i8,i4[:,::1])", read=4), **OUTER)
def visits(products, halves, apart, within, cell, out):
    """out[i] = the columns j that are nearest beyond the plane between the centres `cell` and j, the nearest first.

    Of each row x, `products` has x.c_j and `halves` |c_j|^2 / 2; `apart` is |c_j - c_cell|. What is more than within[i]
    beyond counts as none (-1), as do fewer than `out` has room for. Equal ones stand by column. Returns of how many
    rows more are within.
    """
    n, m = products.shape
    room, more = out.shape[1], 0
    best = np.empty(room + 1, np.float32)
    for i in range(n):
        own, count, taken = halves[cell] - products[i, cell], 0, 0
        for j in range(m):
            beyond = (halves[j] - products[i, j] - own) / apart[j]
            if not beyond <= within[i] or j == cell:
                continue
            count += 1
            if taken == room and (room == 0 or beyond >= best[room - 1]):
                continue
            slot = taken if taken < room else room - 1
            while slot > 0 and beyond < best[slot - 1]:
                best[slot], out[i, slot] = best[slot - 1], out[i, slot - 1]
                slot -= 1
            best[slot], out[i, slot] = beyond, j
            taken = min(taken + 1, room)
        for slot in range(taken, room):
            out[i, slot] = -1
        more += count > room
    return more
