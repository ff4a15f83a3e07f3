"""Share a budget in amounts of any size over curves with diminishing returns, so that a unit is worth the same."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation._blocks import blocks_of, of_each
from kofn.allocation.continuous._families import FAMILIES, Family
from kofn.allocation.continuous._fill import EXACT, fill, fill_functions, refuse_free, total, within_budget
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InfeasibleError, InputError, shown
from kofn.core.draws import Draw
from kofn.core.plans import Allocation
from kofn.core.registry import method

# Steps to the amount that is the same for all, of which a few are taken.
_STEPS = 2_000


@method(
    "allocate",
    traits=("sandwich",),
    cost="O(n) a round of bounds for the families (a few rounds); functions: some 2,000 evaluations each",
    exact="the optimum of the families, to rounding; functions as far as they are concave",
    paper="bretthauer2002",
    draws=Draw(silent=("duality",), plain={"budget": 60}),
    aliases=("waterfilling", "continuous_knapsack", "convex_resource_allocation"),
)
def water_filling(
    curves: Any,
    *,
    budget: float,
    sizes: ArrayLike | None = None,
    bounds: ArrayLike | None = None,
    family: Literal["power", "exponential", "log", "root", "saturating"] = "power",
    sense: Literal["min", "max"] | None = None,
) -> Allocation:
    """Share a budget in amounts of any size over curves with diminishing returns, so that a unit is worth the same.

    Args:
        curves: (n, 2) `scale` and `shape` of each item's curve, and perhaps an `offset` that is added; or n functions
            of the amount, concave values or (with `sense="min"`) convex losses.
        budget: what all amounts may cost in total.
        sizes: (n,) cost of a unit of each item's amount, >= 0, default 1.
        bounds: (least, most) amount for all items, or one such pair for each; default 0 and open.
        family: what scale a and shape b mean: losses "power" a x^-b and "exponential" a exp(-x/b); values "log"
            a log(1 + x/b), "root" a x^b with b < 1, "saturating" a (1 - exp(-x/b)).
        sense: of functions: "max" (default) for values, "min" for losses; of families it follows.

    Returns:
        An `Allocation`: float `amounts`, `values` (the curves there), `price` (what one more unit of budget is worth),
        `marginal_up` and `marginal_down` (the slopes; NaN at the bounds), `info["uniform"]` (the same amount for all).
        `status` is "optimal" for families; "heuristic" for functions, of which nothing is known but their values.

    Raises:
        InfeasibleError: the budget is below what the least amounts cost; says by how much.
        InputError: parameters that are no curve of diminishing returns, or a function that gives no number.

    Cost: closed forms, O(n) a round, from the price of a sample on: 10 million items in about 2 s of processor time,
    most of them shared by threads. Powers of unlike shapes take some rounds of Newton's method.

    Guarantee: the Karush-Kuhn-Tucker conditions, to rounding; the budget is never exceeded.

    References:
        Bretthauer & Shetty 2002, European Journal of Operational Research 138 (bounds in turns).

    Examples:
        >>> from kofn.allocation import water_filling
        >>> plan = water_filling([[1.0, 1.0], [1.0, 3.0], [1.0, 9.0]], budget=4, family="log")
        >>> plan.amounts.tolist(), plan.price
        ([3.0, 1.0, 0.0], 0.25)
        >>> water_filling([lambda x: x - x * x, lambda x: 2 * x - x * x], budget=1.0).amounts.round(4).tolist()
        [0.25, 0.75]
    """
    n = len(curves)
    size = None if sizes is None else checks.costs(sizes, "sizes").astype(np.float64)
    if size is not None:
        checks.same_length(n, "curves", "sizes", len(size))
    ends = checks.spread_bounds(bounds, n).astype(np.float64, copy=False)
    least, most = np.ascontiguousarray(ends[:, 0]), np.ascontiguousarray(ends[:, 1])
    refuse_free(size, most)
    lowest = total(least if size is None else least * size)
    highest = math.inf
    if np.isfinite(most).all():
        highest = total(most if size is None else np.where(size > 0, most * size, 0.0))
    if lowest > budget * (1 + 1e-12):
        more = "" if highest == math.inf else f" (the most of all cost {highest:.15g})"
        raise InfeasibleError(
            f"budget={budget:.15g} is below {lowest:.15g}, what the least amounts cost{more}; raise it by "
            f"{lowest - budget:.6g}"
        )
    if curves.dtype == object:
        return _of_functions(curves, float(budget), np.ones(n) if size is None else size, least, most, sense or "max")
    laws, offset = _laws(curves, size, family, sense)
    if highest <= budget:
        amounts, price = most.copy(), 0.0
    else:
        lowest_taken = least if size is None else np.where(size == 0, most, least)
        amounts, price = fill(laws, float(budget), lowest_taken, most)
    amounts = within_budget(amounts, size, float(budget), least, most)
    return _plan(laws, offset, amounts, price, float(budget), least, most, highest)


def _laws(curves: Any, size: Floats | None, family: str, sense: str | None) -> tuple[Family, Floats | None]:
    """The curves of the family, and what is added to them."""
    checks.refuse_nonfinite(curves, "curves")
    if curves.shape[1] not in (2, 3):
        raise InputError(
            f"curves has {curves.shape[1]} columns; family={family!r} takes scale and shape, and perhaps an offset"
        )
    columns = np.asarray(curves, np.float64)
    laws: Family = FAMILIES[family](np.ascontiguousarray(columns[:, 0]), np.ascontiguousarray(columns[:, 1]), size)
    if sense is not None and sense != laws.sense:
        kind = "losses" if laws.sense == "min" else "values"
        raise InputError(f"sense={sense!r}: family={family!r} are {kind}; leave sense out, or give another family")
    laws.refuse()
    return laws, columns[:, 2] if columns.shape[1] == 3 else None


def _plan(
    laws: Family,
    offset: Floats | None,
    amounts: Floats,
    price: float,
    budget: float,
    least: Floats,
    most: Floats,
    highest: float,
) -> Allocation:
    values, up, down = _curves_at(laws, amounts, least, most)
    if not np.isfinite(values).all():
        row = int((~np.isfinite(values)).argmax())
        raise InfeasibleError(
            f"budget={budget:.15g} leaves {checks.item_name(row)} with {amounts[row]:g}, an infinite loss; raise it, "
            "or give a least amount in bounds"
        )
    used = total(laws.weighed(amounts))
    uniform = most.copy() if highest <= budget else _uniform(laws.size, budget, least, most)
    if offset is not None:
        values = values + offset
    value = total(values)
    # What is left of the budget, by rounding alone, is worth its price.
    gap = price * max(budget - used, 0.0)
    bound = value - gap if laws.sense == "min" else value + gap
    certain = gap <= 1e-9 * max(abs(value), 1e-300)
    notes = {}
    if highest < budget:
        notes["notes"] = [
            f"budget={budget:.15g} is above {highest:.15g}, what the most of all items cost; "
            f"{budget - highest:.6g} cannot be spent"
        ]
    return Allocation(
        n=len(amounts),
        amounts=amounts,
        values=values,
        price=price,
        marginal_up=up,
        marginal_down=down,
        bounds=np.stack([least, most], axis=1),
        value=value,
        sense=laws.sense,
        bound=bound,
        status="optimal" if certain else "approximate",
        used={"budget": used},
        budget={"budget": budget},
        prices={"budget": price},
        objective="concave_curves",
        info={
            "uniform": {
                "amounts": uniform,
                "value": _total_at(laws, uniform, offset),
                "used": total(laws.weighed(uniform)),
            },
            **notes,
        },
    )


def _curves_at(laws: Family, amounts: Floats, least: Floats, most: Floats) -> tuple[Floats, Floats, Floats]:
    """(n,) the curves there, in blocks, and within bounds what a little more and a little less is worth."""
    values, up, down = (np.empty(len(amounts)) for _ in range(3))

    def evaluate(_: int, block: slice) -> None:
        part, own = laws.part(block), amounts[block]
        values[block] = part.values(own)
        slopes = part.slopes(own, values[block])
        up[block] = np.where(own < most[block], slopes, np.nan)
        down[block] = np.where(own > least[block], slopes, np.nan)

    of_each(evaluate, blocks_of(len(amounts)))
    return values, up, down


def _total_at(laws: Family, amounts: Floats, offset: Floats | None) -> float:
    """The sum of the curves there."""
    few = len(amounts) <= EXACT

    def summed(_: int, block: slice) -> float:
        values = laws.part(block).values(amounts[block])
        terms = values if offset is None else values + offset[block]
        return total(terms) if few else float(terms.sum())

    return math.fsum(of_each(summed, blocks_of(len(amounts))))


def _uniform(size: Floats | None, budget: float, least: Floats, most: Floats) -> Floats:
    """The same amount for all, within their bounds, the largest that the budget buys.

    What an amount costs is piecewise linear in it: Newton's steps, halved where they leave what is known to be too
    little and too much.
    """
    units = float(len(least)) if size is None else float(size.sum())
    amount = budget / units if units else 0.0
    if not np.isfinite(most).any() and not least.any():
        return np.full(len(least), amount)
    blocks = blocks_of(len(least))

    def cost_at(amount: float) -> tuple[float, float]:
        """What the amount costs, and what one more unit of it would."""

        def of_block(_: int, block: slice) -> tuple[float, float]:
            taken = np.clip(amount, least[block], most[block])
            rises = (least[block] <= amount) & (amount < most[block])
            if size is None:
                return float(taken.sum()), float(np.count_nonzero(rises))
            return float(taken @ size[block]), float(size[block] @ rises)

        sums = of_each(of_block, blocks)
        return math.fsum(cost for cost, _ in sums), math.fsum(rate for _, rate in sums)

    low, high = 0.0, math.inf
    for _ in range(_STEPS):
        cost, rate = cost_at(amount)
        low, high = (amount, high) if cost <= budget else (low, amount)
        step = amount + (budget - cost) / rate if rate else math.inf
        if abs(step - amount) <= 1e-15 * amount:
            # From a hair above, a hair below is the answer.
            low = max(low, amount * (1 - 1e-13))
            break
        if not low < step < high:
            step = (low + high) / 2 if high < math.inf else max(2 * amount, 1e-300)
        amount = step
    return np.clip(low, least, most)


def _of_functions(curves: Any, budget: float, units: Floats, least: Floats, most: Floats, sense: str) -> Allocation:
    """The plan of n functions."""
    sign = 1.0 if sense == "max" else -1.0
    # None can have more than all of the budget that the others leave.
    spare = budget - total(least * units)
    with np.errstate(divide="ignore"):
        reach = np.minimum(most, least + np.maximum(spare, 0.0) / units)

    def value(item: int, amount: float) -> float:
        result = curves[item](amount)
        if not checks.is_number(result) or not math.isfinite(result):
            raise InputError(
                f"curves[{item}] is {shown(result)} at the amount {amount:g}; give a function with numbers"
            )
        return sign * float(result)

    amounts, price = fill_functions(value, units, budget, least, reach)
    amounts = within_budget(np.clip(amounts, least, reach), units, budget, least, reach)
    values = np.array([sign * value(item, amount) for item, amount in enumerate(amounts.tolist())])
    same = _uniform(units, budget, least, reach)
    equal = [sign * value(item, amount) for item, amount in enumerate(same.tolist())]
    slopes = np.where((amounts > least) & (amounts < reach), price * units, np.nan)
    return Allocation(
        n=len(amounts),
        amounts=amounts,
        values=values,
        price=price,
        marginal_up=slopes,
        marginal_down=slopes,
        bounds=np.stack([least, most], axis=1),
        value=math.fsum(values.tolist()),
        sense=sense,
        status="heuristic",
        used={"budget": total(amounts * units)},
        budget={"budget": budget},
        prices={"budget": price},
        objective="concave_curves",
        info={"uniform": {"amounts": same, "value": math.fsum(equal), "used": total(same * units)}},
    )
