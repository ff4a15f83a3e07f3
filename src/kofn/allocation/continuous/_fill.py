"""One price for all: the amounts of curves with diminishing returns that a budget buys, within bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import TypeVar

import numpy as np

from kofn.allocation._blocks import blocks_of, of_each
from kofn.allocation.continuous._families import Family
from kofn.core.arrays import Floats
from kofn.core.checks import InputError, item_name

T = TypeVar("T")

# Sums of so few terms are rounded once, and of so few are compared with the budget as fractions.
EXACT, _FRACTIONS = 2**17, 2_000
# More items than this are begun with the price of so many of them, and placed in at most so many steps.
_MANY, _SAMPLE, _PLACED = 2**17, 2**14, 12
# An item that is free, and one that is fixed at its least or at its most.
_FREE, _UNDER, _OVER = 0, 1, 2


def total(terms: Floats) -> float:
    """The sum, correctly rounded where there are few terms."""
    return math.fsum(terms.tolist()) if len(terms) <= EXACT else float(terms.sum())


def fill(curves: Family, budget: float, least: Floats, most: Floats) -> tuple[Floats, float]:
    """The best amounts and the price.

    Bounds are fixed in turns: at the price of the items that are free, those that would take too much or too little go
    to their bound, of the two kinds the one that is further off in total, which never has to be taken back. Of many
    items a sample says first about where the price is, so that few items are sent to the wrong place.
    """
    amounts, price = least.copy(), 0.0
    turns = _Turns(curves, least, most)
    if len(least) > _MANY:
        near = _price_of_some(curves, budget, least, most)
        known = turns.placed_from(near, budget, amounts) if near > 0 else None
        if known is not None:
            turns.settle(amounts)
            return amounts, known
        turns = _Turns(curves, least, most)
    left = budget - turns.fixed_cost
    while turns.open:
        if left <= 0:
            turns.close()
            break
        price = curves.price_of(turns.of_free_parts, left)
        lack, excess = turns.tried(price, amounts)
        if not lack and not excess:
            break
        left -= turns.fix(_OVER if excess > lack else _UNDER)
    turns.settle(amounts)
    return amounts, price


def _price_of_some(curves: Family, budget: float, least: Floats, most: Floats) -> float:
    """The price at which every so many items share as much of the budget; 0 where they cannot."""
    some = slice(None, None, len(least) // _SAMPLE)
    part, low, high = curves.part(some), np.ascontiguousarray(least[some]), np.ascontiguousarray(most[some])
    return fill(part, budget * len(low) / len(least), low, high)[1]


class _Turns:
    """Which items are free, and which have gone to a bound: in blocks, where fixed items have no weight."""

    def __init__(self, curves: Family, least: Floats, most: Floats) -> None:
        self.curves, self.least, self.most = curves, least, most
        self.kind = np.zeros(len(least), np.int8)
        self.beyond = np.zeros(len(least), np.int8)
        self.blocks = blocks_of(len(least))

        def begun(_: int, block: slice) -> float:
            free = (curves.scale[block] > 0) & (most[block] > least[block])
            self.kind[block] = np.where(free, _FREE, _UNDER)
            fixed = curves.part(block).weighed(np.where(free, 0.0, least[block]))
            return total(fixed) if len(least) <= EXACT else float(fixed.sum())

        costs = of_each(begun, self.blocks)
        self.fixed_cost = math.fsum(costs)
        self.limited = bool(np.isfinite(most).any())
        self._count()

    def _count(self) -> None:
        """How many of each block are free."""
        self.count = of_each(
            lambda _, block: block.stop - block.start - int(np.count_nonzero(self.kind[block])), self.blocks
        )

    @property
    def open(self) -> bool:
        """Whether any item is free."""
        return any(self.count)

    def _open_blocks(self) -> list[slice]:
        """The blocks that have free items."""
        return [block for block, count in zip(self.blocks, self.count, strict=True) if count]

    def _free(self, block: slice) -> Floats:
        """1 for each free item, 0 for others."""
        return (self.kind[block] == _FREE).astype(np.float64)

    def of_free_parts(self, work: Callable[[Family, Floats], T]) -> list[T]:
        """What `work` makes of the curves of each block that has free items, and of which are free."""
        return of_each(lambda _, block: work(self.curves.part(block), self._free(block)), self._open_blocks())

    def tried(self, price: float, amounts: Floats) -> tuple[float, float]:
        """Write what items take at a price: by how much those of the free ones are under their least, and over."""

        def tried_in(_: int, block: slice) -> tuple[float, float]:
            part, free, excess = self.curves.part(block), self._free(block), 0.0
            low, high, wanted = self.least[block], self.most[block], part.amounts(price)
            amounts[block] = wanted
            weight = part.weighed(free)
            beyond = (wanted < low).astype(np.int8) * np.int8(_UNDER)
            lack = _sum_where(free, np.maximum(low - wanted, 0.0), weight)
            if self.limited:
                beyond += (wanted > high).astype(np.int8) * np.int8(_OVER)
                excess = _sum_where(free, np.maximum(wanted - high, 0.0), weight)
            self.beyond[block] = beyond
            return lack, excess

        per_block = of_each(tried_in, self._open_blocks())
        return math.fsum(lack for lack, _ in per_block), math.fsum(excess for _, excess in per_block)

    def placed_from(self, price: float, budget: float, amounts: Floats) -> float | None:
        """Newton's steps from a price near the right one: send all items where they belong at a price, and take that of
        those that are free, until no item moves. The price then, None where that takes too long."""
        for step in range(_PLACED):
            per_block = of_each(partial(self._place, price, amounts), self.blocks)
            self._count()
            if step and not any(moved for _, moved in per_block):
                return price
            left = budget - math.fsum(cost for cost, _ in per_block)
            if left <= 0 or not self.open:
                return None
            price = self.curves.price_of(self.of_free_parts, left, price)
        return None

    def _place(self, price: float, amounts: Floats, _: int, block: slice) -> tuple[float, int]:
        """Write what items take at a price, and which are beyond a bound: what those cost there, and how many moved."""
        part, low, high = self.curves.part(block), self.least[block], self.most[block]
        wanted = amounts[block] = part.amounts(price)
        kind = ((wanted < low) | (part.scale <= 0) | (high <= low)).astype(np.int8) * np.int8(_UNDER)
        fixed = low * (kind == _UNDER)
        if self.limited:
            over = (wanted > high) & (kind == _FREE)
            kind += over * np.int8(_OVER)
            fixed = np.where(over, high, fixed)
        moved = int(np.count_nonzero(kind != self.kind[block]))
        self.kind[block] = kind
        return float(part.weighed(fixed).sum()), moved

    def fix(self, kind: int) -> float:
        """Send the free items that were beyond this bound to it; what they cost there."""
        ends = self.least if kind == _UNDER else self.most

        def fix_in(_: int, block: slice) -> float:
            own = self.kind[block]
            sent = (self.beyond[block] == kind) & (own == _FREE)
            own += sent * np.int8(kind)
            return float(self.curves.part(block).weighed(np.where(sent, ends[block], 0.0)).sum())

        costs = of_each(fix_in, self._open_blocks())
        self._count()
        return math.fsum(costs)

    def close(self) -> None:
        """Send all free items to their least."""
        self.kind[self.kind == _FREE] = _UNDER
        self._count()

    def settle(self, amounts: Floats) -> None:
        """Write the amounts of what went to a bound; what is free is within its own."""

        def settle_in(number: int, block: slice) -> None:
            own = self.kind[block]
            if self.count[number] < len(own):
                np.copyto(amounts[block], self.least[block], where=own == _UNDER)
                np.copyto(amounts[block], self.most[block], where=own == _OVER)

        of_each(settle_in, self.blocks)


def _sum_where(free: Floats, values: Floats, weight: Floats) -> float:
    """The weighted sum over free items; others may be NaN, of curves that have no amount there."""
    with np.errstate(invalid="ignore"):
        summed = float(values @ weight)
        return summed if math.isfinite(summed) else float(np.where(free > 0, values * weight, 0.0).sum())


def within_budget(amounts: Floats, size: Floats | None, budget: float, least: Floats, most: Floats) -> Floats:
    """The amounts, lowered by rounding's worth where they cost more than the budget."""
    for _ in range(60):
        over = _overspent(amounts, size, budget)
        if over <= 0:
            break
        largest = _most_spare(amounts, size, least, most)
        unit = 1.0 if size is None else float(size[largest])
        lowered = amounts[largest] - max(over / unit, float(np.spacing(amounts[largest])))
        amounts[largest] = max(lowered, least[largest])
    return amounts


def _most_spare(amounts: Floats, size: Floats | None, least: Floats, most: Floats) -> int:
    """The item that can give the most back: one between its bounds, where there is one, so that others stay there."""
    best = [(-math.inf, 0), (-math.inf, 0)]
    for block in blocks_of(len(amounts)):
        spare = amounts[block] - least[block] if size is None else (amounts[block] - least[block]) * size[block]
        for kind, values in enumerate((np.where(amounts[block] < most[block], spare, 0.0), spare)):
            item = int(values.argmax())
            best[kind] = max(best[kind], (float(values[item]), block.start + item), key=lambda pair: pair[0])
    return best[0][1] if best[0][0] > 0 else best[1][1]


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
