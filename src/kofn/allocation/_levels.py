"""The check of `sizes` and `levels`, which every method on curves takes: cost = size * level."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.arrays import Array
from kofn.core.checks import InputError


def sizes_and_levels(curves: Array, sizes: ArrayLike | None, levels: ArrayLike | None) -> tuple[Array, Array]:
    """(n,) sizes, default 1, and (n, L) levels, default 0..L-1, both >= 0; whole numbers stay whole.

    Args:
        curves: (n, L) losses or values.
        sizes: (n,) cost of one unit of level for each item.
        levels: (L,) amounts for all items, or (n, L) for each.

    Examples:
        >>> sizes, levels = sizes_and_levels(np.zeros((2, 3)), None, [0, 2, 4])
        >>> sizes.tolist(), levels.tolist()
        ([1, 1], [[0, 2, 4], [0, 2, 4]])
    """
    n, width = curves.shape
    checked = np.ones(n, np.int64) if sizes is None else checks.costs(sizes, "sizes")
    checks.same_length(n, "curves", "sizes", len(checked))
    amounts = np.arange(width) if levels is None else _levels(levels, n, width)
    return checked, np.broadcast_to(amounts, (n, width))


def _levels(levels: Any, n: int, width: int) -> Array:
    array = checks.as_array(levels, "levels")
    if array.shape not in ((width,), (n, width)):
        raise InputError(
            f"levels has shape {array.shape}; give ({width},) or ({n}, {width}), one for each column of curves"
        )
    rows = array.reshape(-1, width)
    if rows.dtype.kind not in "iu":
        rows = checks.matrix(rows, "levels")
    if rows.min() < 0:
        i, j = np.unravel_index(int(rows.argmin()), rows.shape)
        raise InputError(f"levels at row {i}, column {j} is {rows[i, j]:g}; levels must be >= 0")
    return rows.astype(np.int64 if rows.dtype.kind in "iu" else np.float64).reshape(array.shape)
