"""Checks of amounts: the least and the most of each item, success rates, and the total that may be spent."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from kofn.core.arrays import Array, Floats
from kofn.core.checks.constraints import spread_bounds
from kofn.core.checks.errors import InfeasibleError, InputError
from kofn.core.checks.numbers import is_finite, number

_MOST = 2**53


def least_and_most(
    value: Any, n: int, *, least: float = 0, most: float = math.inf, whole: bool = False
) -> tuple[Floats, Floats]:
    """(n,) the least and (n,) the most that each item may get; whole numbers where amounts are counted.

    Args:
        value: `bounds` of the call, or None.
        n: items.
        least: the least where there are no bounds.
        most: the most where there are none, or where their end is open.
        whole: whether only whole numbers will do.

    Raises:
        InputError: another length, a number beyond 2**53, or a fraction of what is counted.

    Examples:
        >>> low, high = least_and_most([(1, 4), (1, None)], 2, most=8)
        >>> low.tolist(), high.tolist()
        ([1.0, 1.0], [4.0, 8.0])
    """
    if value is None:
        return np.full(n, float(least)), np.full(n, float(most))
    ends = spread_bounds(value, n)
    low = ends[:, 0].copy()
    high = np.where(np.isinf(ends[:, 1]), np.maximum(low, most), ends[:, 1])
    known = np.stack([low, ends[:, 1]], axis=1)
    known[np.isinf(known)] = 0
    wrong = (known > _MOST) | (whole & (known != np.floor(known)))
    if wrong.any():
        row, side = np.argwhere(wrong)[0].tolist()
        kind = "whole numbers" if whole else "numbers"
        raise InputError(f"bounds at row {row}: {known[row, side]:.17g}; give {kind} up to 2**53")
    return low, high


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


def enough(
    budget: float, least: float, purchase: str = "the least amounts of all items", remedy: str = "lower bounds"
) -> None:
    """Refuse a budget that does not pay for what every item must get; `remedy` is what helps beside a larger one.

    Raises:
        InfeasibleError: with both numbers and by how much they differ.
    """
    if not is_finite(least):
        raise InputError(f"{purchase} cost more than numbers hold; divide costs and budget by a common factor")
    if budget < least:
        raise InfeasibleError(
            f"budget={budget:g} is {least - budget:g} short: {purchase} cost {least:g}; raise it or {remedy}"
        )
