"""Bits for each group of weights, where each bit more divides a group's error by four: in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation._blocks import blocks_of
from kofn.allocation._counts import next_units, spent, total, uniform
from kofn.core import checks
from kofn.core.arrays import Array, Floats
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Allocation
from kofn.core.registry import method

# One bit more saves three quarters of the error; an infinitesimal one this much of it for each bit.
_STEP, _SLOPE, _BACK = 0.75, 2 * math.log(2), 3.0
_MOST_ERROR = 1e300


@method(
    "allocate",
    draws=Draw(kinds={"scores": "not negative"}, plain={"budget": 30}, silent=("duality",)),
    cost="O(n) for fractions of bits, O(n log n) for whole ones",
    exact="optimal; for whole bits of groups of unlike sizes within one bit of one group of the optimum, with a bound",
    paper=(115, "cover2006", "bitran1981"),
    aliases=("BAQ", "mixed precision", "optimal bit allocation", "bits per layer"),
)
def reverse_water_filling(
    scores: Any,
    *,
    budget: float | None = None,
    bounds: Any = None,
    sizes: ArrayLike | None = None,
    mean_budget: float | None = None,
    whole: bool = True,
) -> Allocation:
    """Give each group of weights its bits so that the summed error, `scores * 4 ** -bits`, is the least, or near it.

    Where nothing is clipped a group's bits are the mean plus half the binary logarithm of its sensitivity over the
    geometric mean, and all groups of one size are left with the same error.

    Args:
        scores: (n,) sensitivity of each group: its error at 0 bits, >= 0, such as the group's summed squared range
            times the diagonal of a Hessian. Only ratios matter for the answer.
        budget: bits in all: the summed bits times sizes, at most.
        bounds: (least, most) bits of all groups, or one such pair for each; default (1, 8).
            An open least is 0, an open most is 8.
        sizes: (n,) weights in each group, default 1.
        mean_budget: instead of `budget`, bits a weight, such as 3.5.
        whole: whole bits; False gives fractions, in closed form.

    Returns:
        An `Allocation`: `amounts` bits, `values` the error left in each group, `price` the error that one more bit of
        budget would save. `info["uniform"]` is the summed error where all groups get the same bits.

    Raises:
        InfeasibleError: the least bits of all groups are more than the budget; says by how much.
        InputError: a sensitivity below 0, bounds of another length, or not exactly one of budget and mean_budget.

    Cost: O(n) for fractions of bits, O(n log n) for whole ones; 10 million groups take some five seconds of one core.

    Guarantee: fractions of bits are optimal. Whole bits are optimal for groups of one size, and wherever the last bits
    spend the budget exactly; else the status is "approximate", and the bound says how far from optimal at most: a few
    groups of unlike sizes can be a fifth off, and `multiple_choice_knapsack` is exact for them.
    The law is poor at 1 bit, where rounding to the nearest of two levels errs nine times as much as of four: for means
    of 2 bits or less give `bounds=(2, 8)`, or measured errors to `multiple_choice_knapsack`, which takes any curves.

    References:
        "BAQ: Efficient Bit Allocation Quantization for Large Language Models", 2025 (the loss c * 2^(-2b) of a group
        and its solution). Cover & Thomas 2006, section 10.3.3 (reverse water-filling).

    Examples:
        >>> from kofn.allocation import reverse_water_filling
        >>> plan = reverse_water_filling([64.0, 4.0, 1.0], mean_budget=4)
        >>> plan.amounts.tolist(), plan.value, plan.info["uniform"]
        ([6, 4, 2], 0.09375, 0.26953125)
        >>> reverse_water_filling([64.0, 4.0, 1.0], mean_budget=4, whole=False).amounts.round(3).tolist()
        [5.667, 3.667, 2.667]
    """
    sensitivity = checks.one_an_item(scores)
    n = len(sensitivity)
    if sensitivity.min() < 0:
        row = int(sensitivity.argmin())
        raise InputError(f"scores at row {row} is {sensitivity[row]:g}; a sensitivity is an error, give it >= 0")
    weights: Array = np.ones(n, np.int64) if sizes is None else checks.costs(sizes, "sizes")
    checks.same_length(n, "scores", "sizes", len(weights))
    low, high = checks.least_and_most(bounds, n, least=1, most=8, whole=whole)
    room = checks.total_budget(budget, mean_budget, weights)
    checks.enough(room, float(weights @ low), "the least bits of all groups")
    if sensitivity.sum() > _MOST_ERROR:
        raise InputError(f"scores add up to {sensitivity.sum():g}, beyond what sums hold; divide them by the largest")
    problem = _Groups(sensitivity, weights, low, high, room)
    bits, price, lower = problem.in_whole_bits() if whole else problem.in_fractions()
    values = _errors(sensitivity, bits)
    value = float(values.sum())
    amounts: Array = bits.astype(np.int64) if whole else bits
    tight = value - lower <= 1e-12 * value
    return Allocation(
        n=n,
        amounts=amounts,
        values=values,
        price=price,
        marginal_up=np.where(bits < high, (_STEP if whole else _SLOPE) * values, np.nan),
        marginal_down=np.where(bits > low, (_BACK if whole else _SLOPE) * values, np.nan),
        bounds=np.stack([low, high], axis=1),
        value=value,
        sense="min",
        bound=value if tight else lower,
        status="optimal" if tight else "approximate",
        used={"budget": spent(weights, amounts)},
        budget={"budget": room},
        prices={"budget": price},
        objective="error_by_bits",
        info={"uniform": float(_errors(sensitivity, uniform(weights, low, high, float(room), whole)).sum())},
    )


def _errors(sensitivity: Floats, bits: Floats) -> Floats:
    """(n,) the error that each group is left with."""
    return sensitivity * np.exp2(-2 * bits)


@dataclass(frozen=True)
class _Groups:
    """Groups of weights: the error of each at 0 bits, its size and bounds, and what all bits may cost."""

    sensitivity: Floats
    sizes: Array
    low: Floats
    high: Floats
    room: float | int

    def levels(self) -> Floats:
        """(n,) the bits at which one more saves as much a unit of cost everywhere, up to a constant."""
        with np.errstate(divide="ignore", invalid="ignore"):
            level: Floats = 0.5 * (np.log2(self.sensitivity) - np.log2(self.sizes.astype(np.float64)))
        level[self.sensitivity == 0] = -np.inf
        return level

    def in_fractions(self) -> tuple[Floats, float, float]:
        """(n,) bits, the price of a bit, and the summed error, which is the least."""
        bits, height = self.filled()
        price = 0.0 if height == -math.inf else float(_SLOPE * 4.0**height)
        return bits, price, float(_errors(self.sensitivity, bits).sum())

    def filled(self) -> tuple[Floats, float]:
        """(n,) clip(level - height, low, high) that costs the room, and the height; -inf where all have their most.

        Bitran & Hax 1981: solve without the bounds, fix the items beyond the bound that is broken by more, and again.
        """
        live = (self.sizes > 0) & (self.sensitivity > 0)
        bits = np.where((self.sizes == 0) & (self.sensitivity > 0), self.high, self.low).astype(np.float64)
        size, want = np.where(live, self.sizes, 0.0), np.where(live, self.levels(), 0.0)
        room = float(self.room) - float(self.sizes @ bits) + float(size @ self.low)
        if float(size @ self.high) <= room:
            bits[live] = self.high[live]
            return bits, -math.inf
        height, blocks = 0.0, blocks_of(len(bits))
        while weight := math.fsum(float(size[block].sum()) for block in blocks):
            # Levels may be hundreds of bits, and their differences are what counts.
            middle = math.fsum(float(size[block] @ want[block]) for block in blocks) / weight
            share = room / weight
            height = middle - share
            short, beyond = [], []
            for block in blocks:
                got = want[block] - middle + share
                short.append(float(size[block] @ np.maximum(self.low[block] - got, 0.0)))
                beyond.append(float(size[block] @ np.maximum(got - self.high[block], 0.0)))
            lack, excess = math.fsum(short), math.fsum(beyond)
            # What breaks its bound by more in all stays there: the height only moves further that way.
            for block in blocks:
                got, free = want[block] - middle + share, size[block] > 0
                if lack == excess == 0:
                    np.copyto(bits[block], got, where=free)
                    continue
                end = self.low[block] if lack >= excess else self.high[block]
                fixed = free & (got < end if lack >= excess else got > end)
                np.copyto(bits[block], end, where=fixed)
                room -= float(size[block] @ np.where(fixed, end, 0.0))
                size[block] *= ~fixed
            if lack == excess == 0:
                break
        self._take_back(bits)
        return bits, height

    def _take_back(self, bits: Floats) -> None:
        """Lower one group's bits by what rounding has overspent."""
        over = total(self.sizes * bits) - float(self.room)
        able = np.flatnonzero((self.sizes > 0) & (bits > self.low))
        if over > 0 and len(able):
            item = able[(self.sizes[able] * (bits - self.low)[able]).argmax()]
            bits[item] = max(self.low[item], np.nextafter(bits[item] - 2 * over / float(self.sizes[item]), -np.inf))

    def in_whole_bits(self) -> tuple[Floats, float, float]:
        """(n,) bits, the price of a bit, and a bound on the summed error from below."""
        costly = self.sizes[self.sizes > 0]
        unit: float = 1
        groups = self
        if len(costly) and costly.min() == costly.max():
            # Of groups of one size only whole bits of each can be paid for.
            unit = costly[0].item()
            room = math.floor(Fraction(self.room) / Fraction(unit))
            groups = replace(self, sizes=(self.sizes > 0).astype(np.int64), room=room)
        bits, price, lower = groups._rounded()
        return bits, price / float(unit), lower

    def _rounded(self) -> tuple[Floats, float, float]:
        level = self.levels()
        bits, height = self.filled()
        bits = np.maximum(np.floor(bits), self.low)
        if height == -math.inf:
            return bits, 0.0, float(_errors(self.sensitivity, bits).sum())
        dear: float | None = None
        while True:
            # A unit of cost saves 0.75 * 4 ** urgency.
            urgency = level - bits
            free = (bits < self.high) & (self.sizes > 0) & (self.sensitivity > 0)
            given, first = next_units(urgency, self.sizes, self.room - total(self.sizes * bits), free)
            if dear is None:
                dear = -math.inf if first == len(bits) else float(urgency[first])
            if not given.any():
                break
            bits = bits + given
        if dear == -math.inf:
            return bits, 0.0, float(_errors(self.sensitivity, bits).sum())
        price = float(_STEP * 4.0**dear)
        return bits, price, self._dual(level, dear, price)

    def _dual(self, level: Floats, dear: float, price: float) -> float:
        """What no bits within the budget go below: the least error less the price, over all bits."""
        with np.errstate(invalid="ignore"):
            best = np.clip(np.floor(level - dear) + 1, self.low, self.high)
        best = np.where((self.sizes == 0) & (self.sensitivity > 0), self.high, best)
        excess = total(self.sizes * best) - float(self.room)
        return float(_errors(self.sensitivity, best).sum()) + price * excess
