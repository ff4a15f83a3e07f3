"""Compiled products of sparse rows."""

from __future__ import annotations

import numba as nb

from kofn.core.compiled import OUTER


@nb.njit("void(i8, i8, i8[::1], i4[::1], f8[::1], i8[::1], i4[::1], f8[::1], f8[:, ::1])", **OUTER)
def products(low, high, starts, columns, data, heads, listed, weights, out):
    """out[i] = the products of row i with all rows of a pool, for rows low to high; `out` is 0 before.

    A product is summed in the order of the columns, so that its bits depend on the two rows alone.

    Args:
        low, high: the rows.
        starts, columns, data: sparse rows, CSR, columns in order.
        heads, listed, weights: the pool by columns, CSC.
        out: (rows, n).
    """
    for row in range(low, high):
        for entry in range(starts[row], starts[row + 1]):
            column, value = columns[entry], data[entry]
            for position in range(heads[column], heads[column + 1]):
                out[row, listed[position]] += value * weights[position]
