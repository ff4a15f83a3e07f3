"""What the same budget brings where every item gets the same: the baseline beside every allocation over levels."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Ints


def uniform(curves: NDArray[Any], levels: NDArray[Any], costs: NDArray[Any], budget: float | int) -> dict[str, Any]:
    """The largest amount that every item can have within the budget, and what it brings: amounts, level, value, used.

    Each item gets its largest level that is no more than this amount, or where it has none so small, its least.

    Args:
        curves: (n, L) losses or values.
        levels: (n, L) amounts.
        costs: (n, L) costs of the levels.
        budget: the total cost, at most; at least that of the least levels.

    Examples:
        >>> table = np.array([[9.0, 4.0, 1.0], [5.0, 4.5, 4.4]])
        >>> levels = np.array([[2, 4, 8]] * 2)
        >>> same = uniform(table, levels, levels, 9)
        >>> same["amounts"].tolist(), same["value"], same["used"]
        ([4, 4], 8.5, 8)
    """
    rows = np.arange(len(levels))
    # Levels that are the same for all are often one row, repeated.
    every = levels[:1] if levels.strides[0] == 0 or len(levels) == 1 else levels
    tops = np.unique(every)
    least = levels.argmin(axis=1)

    def columns(top: Any) -> Ints:
        within = np.where(every <= top, every, -1)
        largest = within.argmax(axis=1)
        own = np.where(within[np.arange(len(every)), largest] < 0, least[: len(every)], largest)
        return np.broadcast_to(own, len(levels))

    def spent(column: Ints) -> float | int:
        chosen = costs[rows, column]
        return int(chosen.astype(np.int64).sum()) if chosen.dtype.kind in "iu" else math.fsum(chosen.tolist())

    limit = Fraction(budget) * (1 if costs.dtype.kind in "iu" else 1 + len(rows) * Fraction(float(np.finfo(float).eps)))
    low, high = 0, len(tops)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if spent(columns(tops[middle])) <= limit else (low, middle)
    column = columns(tops[low])
    values = curves[rows, column].astype(np.float64)
    return {
        "amounts": levels[rows, column],
        "level": column,
        "value": math.fsum(values.tolist()),
        "used": spent(column),
    }
