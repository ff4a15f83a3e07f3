"""One price for all: the amounts of curves with diminishing returns that a budget buys, within bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from kofn.allocation.continuous._families import Family
from kofn.core.arrays import Floats
from kofn.core.checks import InputError, item_name

# Sums of so few terms are rounded once, and of so few are compared with the budget as fractions.
_EXACT, _FRACTIONS = 2**17, 2_000


def total(terms: Floats) -> float:
    """The sum, correctly rounded where there are few terms."""
    return math.fsum(terms.tolist()) if len(terms) <= _EXACT else float(terms.sum())


def fill(curves: Family, budget: float, least: Floats, most: Floats) -> tuple[Floats, float]:
    """The best amounts and the price.

    Bounds are fixed in turns: at the price of the items that are free, those that would take too much or too little go
    to their bound, of the two kinds the one that is further off in total, which never has to be taken back.
    """
    amounts, price = least.copy(), 0.0
    free = (curves.scale > 0) & (most > least)
    left = budget - total(curves.weighed(np.where(free, 0.0, least)))
    limited = bool(np.isfinite(most).any())
    inner, low, high = curves.part(free), least[free], most[free]
    rows = np.flatnonzero(free)
    while len(rows):
        if left <= 0:
            amounts[rows] = low
            break
        price = inner.price(left)
        wanted = inner.amounts(price)
        under = wanted < low
        over = wanted > high if limited else np.zeros(0, bool)
        lack = float(inner.weighed(np.where(under, low - wanted, 0.0)).sum()) if under.any() else 0.0
        excess = float(inner.weighed(np.where(over, wanted - high, 0.0)).sum()) if over.any() else 0.0
        if not lack and not excess:
            amounts[rows] = np.clip(wanted, low, high)
            break
        fixed, ends = (over, high) if excess > lack else (under, low)
        amounts[rows[fixed]] = ends[fixed]
        left -= float(inner.part(fixed).weighed(ends[fixed]).sum())
        kept = ~fixed
        inner, low, high, rows = inner.part(kept), low[kept], high[kept], rows[kept]
    return amounts, price


def within_budget(amounts: Floats, size: Floats | None, budget: float, least: Floats, most: Floats) -> Floats:
    """The amounts, lowered by rounding's worth where they cost more than the budget."""
    for _ in range(60):
        over = _overspent(amounts, size, budget)
        if over <= 0:
            break
        spare = (amounts - least) * (1.0 if size is None else size)
        # One that is between its bounds, where there is one, so that those at a bound stay there.
        inner = np.where(amounts < most, spare, 0.0)
        largest = int((inner if inner.max() > 0 else spare).argmax())
        unit = 1.0 if size is None else float(size[largest])
        lowered = amounts[largest] - max(over / unit, float(np.spacing(amounts[largest])))
        amounts[largest] = max(lowered, least[largest])
    return amounts


def _overspent(amounts: Floats, size: Floats | None, budget: float) -> float:
    """By how much the budget is exceeded, or may be where that is not added up exactly."""
    if len(amounts) <= _FRACTIONS:
        units = [1.0] * len(amounts) if size is None else size.tolist()
        spent = sum((Fraction(a) * Fraction(u) for a, u in zip(amounts.tolist(), units, strict=True)), Fraction(0))
        return float(spent - Fraction(budget)) * (1 + 1e-15)
    return total(amounts if size is None else amounts * size) - budget * (1 - 1e-13)


def fill_functions(
    values: Callable[[int, float], float], size: Floats, budget: float, least: Floats, most: Floats
) -> tuple[Floats, float]:
    """The same for functions that are only evaluated: their best amounts at a price that is halved in on.

    Args:
        values: of an item and an amount, what is made large.
        size: (n,) what a unit of amount costs.
        budget: the total cost.
        least: (n,) the least amounts.
        most: (n,) the most, finite.
    """
    from scipy.optimize import minimize_scalar

    def best(item: int, price: float) -> float:
        low, high = float(least[item]), float(most[item])
        if high <= low:
            return low

        def worse(amount: float) -> float:
            return price * float(size[item]) * amount - values(item, amount)

        inside = minimize_scalar(worse, bounds=(low, high), method="bounded", options={"xatol": 1e-10 * (high - low)})
        return min((low, high, float(inside.x)), key=worse)

    def taken(price: float) -> Floats:
        return np.array([best(item, price) for item in range(len(size))])

    few = taken(0.0)
    if float((few * size).sum()) <= budget:
        return few, 0.0
    low, high, many = 0.0, 1.0, few
    for _ in range(2_000):
        few = taken(high)
        if float((few * size).sum()) <= budget:
            break
        low, high, many = high, 2 * high, few
    for _ in range(50):
        middle = (low + high) / 2
        amounts = taken(middle)
        if float((amounts * size).sum()) <= budget:
            high, few = middle, amounts
        else:
            low, many = middle, amounts
    spent, more = float((few * size).sum()), float((many * size).sum())
    share = (budget - spent) / (more - spent) if more > spent else 0.0
    return few + share * (many - few), (low + high) / 2


def refuse_free(size: Floats | None, most: Floats) -> None:
    """Refuse an item that costs nothing and has no limit."""
    if size is None:
        return
    endless = (size == 0) & np.isinf(most)
    if endless.any():
        raise InputError(
            f"sizes at {item_name(int(endless.argmax()))} is 0, so that it could have any amount; give it a "
            "most in bounds"
        )
