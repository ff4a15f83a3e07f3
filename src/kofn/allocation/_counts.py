"""Whole amounts from fractional ones, under one budget."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Array, Floats, Ints

# Beyond so many items the tolerance of a sum, n times the rounding of one number, is more than its rounding.
_MANY = 100_000
_HALVINGS = 60
# A mean of whole numbers that rounding has put below one of them.
_ROUNDING = 1e-9


def spent(sizes: Array, amounts: NDArray[Any]) -> int | float:
    """What the amounts cost, without rounding where all numbers are whole."""
    costs = sizes * amounts
    return int(costs.sum()) if costs.dtype.kind in "iu" else total(costs)


def total(costs: NDArray[Any]) -> float:
    """The sum, to the last bit where few numbers leave the budget little tolerance for rounding."""
    return float(costs.sum()) if len(costs) > _MANY or costs.dtype.kind in "iu" else math.fsum(costs.tolist())


def uniform(sizes: Array, low: Floats, high: Floats, room: float, whole: bool) -> Floats:
    """(n,) the same amount for all items, as near as their bounds allow: what somebody would do without a method.

    Examples:
        >>> uniform(np.array([2, 1]), np.zeros(2), np.array([9.0, 1.0]), 7.0, True).tolist()
        [3.0, 1.0]
    """
    most, least = float(high.max()), float(low.min())
    if total(sizes * high) <= room:
        return high
    if low.max() == least and high.min() == most:
        mean = room / total(sizes)
        return np.full(len(sizes), math.floor(mean + _ROUNDING) if whole else mean)
    for _ in range(_HALVINGS):
        middle = (least + most) / 2
        cost = total(sizes * np.clip(np.floor(middle) if whole else middle, low, high))
        least, most = (middle, most) if cost <= room else (least, middle)
        if most - least <= 1e-12 * most or (whole and math.floor(most) == math.floor(least)):
            break
    return np.clip(np.floor(least) if whole else least, low, high)


def next_units(urgency: Floats, sizes: Array, room: float, free: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int]:
    """Which items get one unit more, in order of urgency, each of those that `room` still pays for.

    Args:
        urgency: (n,) whose unit comes first; ties go to the lower row.
        sizes: (n,) what a unit of each item costs.
        room: what is left to spend.
        free: (n,) whether the item may have another.

    Returns:
        (n,) True where a unit is given, and the first item that was passed over for want of room, n where none was.

    Examples:
        >>> given, first = next_units(np.array([0.2, 0.9, 0.5]), np.array([1, 2, 1]), 2, np.ones(3, bool))
        >>> given.tolist(), first
        ([False, True, False], 2)
    """
    n = len(urgency)
    given = np.zeros(n, bool)
    index: Ints = np.flatnonzero(free)
    if len(index) and sizes.dtype.kind == "i" and sizes[index].min() == sizes[index].max() > 0:
        # Of units of one cost it is known how many come first, so that the others need no order.
        count = min(len(index), int(max(room, 0) // int(sizes[index[0]])) + 1)
        last = np.partition(-urgency[index], count - 1)[count - 1]
        index = index[-urgency[index] <= last]
    index = index[np.argsort(-urgency[index], kind="stable")]
    sums = np.cumsum(sizes[index])
    count = int(np.searchsorted(sums, room, side="right"))
    given[index[:count]] = True
    if count == len(index):
        return given, n
    left = room - (sums[count - 1] if count else 0)
    # Whoever needs less than is left comes after all, as long as anybody does.
    for item in index[count + 1 :][sizes[index[count + 1 :]] <= left].tolist():
        if sizes[item] <= left:
            given[item] = True
            left -= sizes[item]
    return given, int(index[count])
