"""Checks of amounts: the least and the most of each item, success rates, and the total that may be spent."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from kofn.core.arrays import Array, Floats
from kofn.core.checks.arrays import as_array, vector
from kofn.core.checks.errors import InfeasibleError, InputError
from kofn.core.checks.numbers import is_finite, number, shown

_MOST = 2**53


def bounds(
    value: Any, n: int, *, least: float = 0, most: float = math.inf, whole: bool = False
) -> tuple[Floats, Floats]:
    """(n,) the least and (n,) the most that each item may get; whole numbers where amounts are counted.

    Args:
        value: (least, most), each a number for all items, (n,) numbers, or None for the default; or None for both.
        n: items.
        least: the default of the one.
        most: the default of the other.
        whole: whether only whole numbers will do.

    Raises:
        InputError: no pair, another length, a negative or fractional number, or a least above its most.

    Examples:
        >>> low, high = bounds((1, [4, 8]), 2)
        >>> low.tolist(), high.tolist()
        ([1.0, 1.0], [4.0, 8.0])
    """
    if value is None:
        value = (None, None)
    if isinstance(value, str | dict) or not hasattr(value, "__len__") or len(value) != 2:
        raise InputError(f"bounds={shown(value)}: give (least, most), each a number or one for each item")
    low = _end(value[0], n, "least", least, whole)
    high = _end(value[1], n, "most", most, whole)
    if (low > high).any():
        row = int((low > high).argmax())
        raise InputError(f"bounds at row {row}: the least is {low[row]:g}, the most {high[row]:g}; swap them")
    return low, high


def _end(value: Any, n: int, side: str, default: float, whole: bool) -> Floats:
    if value is None:
        return np.full(n, float(default))
    if np.ndim(value) == 0 and not isinstance(value, str):
        value = np.full(n, float(number(value, f"bounds: the {side}")))
    array = vector(as_array(value, "bounds"), "bounds").astype(np.float64)
    if len(array) != n:
        raise InputError(f"bounds: the {side} has {len(array)} values for {n} items; give a number, or one for each")
    wrong = (array < 0) | (array > _MOST) | (whole & (array != np.floor(array)))
    if wrong.any():
        row = int(wrong.argmax())
        kind = "whole numbers" if whole else "numbers"
        raise InputError(f"bounds: the {side} at row {row} is {array[row]:g}; give {kind} from 0 to 2**53")
    return array


def rates(scores: Any, name: str = "scores") -> Floats:
    """(n,) success rates from 0 to 1.

    Raises:
        InputError: a table, or a number outside.
    """
    array = one_an_item(scores, name)
    wrong = (array < 0) | (array > 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(f"{name} at row {row} is {array[row]:g}; give success rates from 0 to 1 (50% is 0.5)")
    return array


def one_an_item(scores: Any, name: str = "scores") -> Floats:
    """(n,) numbers in float64.

    Raises:
        InputError: a table.
    """
    array = np.asarray(scores)
    if array.ndim != 1:
        raise InputError(f"{name} has shape {array.shape}; give one score an item, shape ({len(array)},)")
    return array.astype(np.float64)


def total_budget(budget: Any, mean_budget: Any, sizes: Array) -> float | int:
    """The total that may be spent: `budget`, or `mean_budget` times the summed sizes, exactly as written in decimals.

    Raises:
        InputError: neither or both.

    Examples:
        >>> total_budget(None, 0.29, np.array([60, 40]))
        29
    """
    if (budget is None) == (mean_budget is None):
        given = "neither" if budget is None else "both"
        raise InputError(f"give budget (the total) or mean_budget (the total over the summed sizes), not {given}")
    if mean_budget is None:
        return number(budget, "budget")
    # In decimals, as written: 0.29 of 100 is 29, where the binary product is 28.999999999999996.
    mean = number(mean_budget, "mean_budget")
    size: float | int = int(sizes.sum()) if sizes.dtype.kind == "i" else math.fsum(sizes.tolist())
    total = Fraction(repr(mean)) * Fraction(size)
    return int(total) if total.denominator == 1 else float(total)


def enough(budget: float, least: float, purchase: str = "the least amounts of all items") -> None:
    """Refuse a budget that does not pay for what every item must get.

    Raises:
        InfeasibleError: with both numbers and by how much they differ.
    """
    if not is_finite(least):
        raise InputError(f"{purchase} cost more than numbers hold; divide costs and budget by a common factor")
    if budget < least:
        raise InfeasibleError(
            f"budget={budget:g} is {least - budget:g} short: {purchase} cost {least:g}; raise it or lower bounds"
        )
