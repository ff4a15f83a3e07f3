"""The one routine of all methods of apportionment: the threshold that the budget's last unit reaches, ties exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kofn.allocation.apportionment._claims import Claims, Quotients
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.plans import Allocation

MakeClaims = Callable[[NDArray[Any], int], Claims]
_MOST_UNITS = 2**53
# Of larger scores sums of quotients may be infinite.
_LARGEST = 1e300
_NAMED = 5


@dataclass(frozen=True)
class Shared:
    """Amounts that add up, and the items of equal claims among whom the last `units` went to the first in order."""

    amounts: Ints
    tied: Ints
    units: int = 0


def apportion(
    scores: ArrayLike, budget: float, bounds: ArrayLike | None, name: str, claims_of: MakeClaims
) -> Allocation:
    """The plan of a method: units in proportion to the scores, which add up to the budget.

    Args:
        scores: (n,) votes, sizes or weights, >= 0.
        budget: how many units there are.
        bounds: (least, most) for all items or for each.
        name: the method, for refusals.
        claims_of: its claims, of scores and budget.
    """
    votes = _votes(scores)
    total = checks.count(budget, "budget", least=0)
    if total > _MOST_UNITS:
        raise InputError(f"budget={total} is beyond 2**53 units; share them in larger ones")
    least, most = _limits(bounds, len(votes), total)
    claims = claims_of(votes, total)
    shared = _share(claims, total, least, most, name)
    alike = claims_of((votes > 0).astype(np.int64), total)
    return _plan(claims, shared, total, least, most, _share(alike, total, least, most, name))


def _votes(scores: Any) -> NDArray[Any]:
    votes: NDArray[Any] = np.asarray(scores)
    if votes.ndim != 1:
        raise InputError(f"scores has shape {votes.shape}; give one score an item, shape (n,)")
    checks.refuse_nonfinite(votes, "scores")
    if votes.min() < 0:
        row = int(votes.argmin())
        raise InputError(f"scores at row {row} is {votes[row]:g}; votes and sizes must be >= 0")
    if float(votes.max()) > _LARGEST:
        raise InputError(
            f"scores go up to {votes.max():g}, beyond what sums of quotients hold; divide them by the largest"
        )
    if not votes.any():
        raise InputError("scores are all zero, which is no proportion; give one item a score above 0")
    if votes.dtype.kind == "f" and (votes == np.floor(votes)).all() and votes.max() < _MOST_UNITS:
        votes = votes.astype(np.int64)
    return votes


def _limits(bounds: Any, n: int, budget: int) -> tuple[Ints, Ints]:
    """(n,) the least and the most units of each item, in whole numbers."""
    ends = checks.spread_bounds(bounds, n)
    # Part of a unit is none: the least is rounded up, the most down.
    least = np.minimum(np.ceil(ends[:, 0]), _MOST_UNITS).astype(np.int64)
    most = np.minimum(np.floor(ends[:, 1]), budget).astype(np.int64)
    if (clash := least > np.floor(ends[:, 1])).any():
        row = int(clash.argmax())
        raise InfeasibleError(
            f"bounds at row {row} is ({ends[row, 0]:g}, {ends[row, 1]:g}), and no whole number lies between; widen them"
        )
    low, high = sum(least.tolist()), sum(np.minimum(np.floor(ends[:, 1]), _MOST_UNITS).astype(np.int64).tolist())
    if budget < low:
        most_of_all = f"that of the most is {high}" if np.isfinite(ends[:, 1]).all() else "the most is open"
        raise InfeasibleError(
            f"budget={budget} is below {low}, the sum of the least of all items ({most_of_all}); raise it by "
            f"{low - budget}"
        )
    if budget > high:
        raise InfeasibleError(
            f"budget={budget} is above {high}, the sum of the most of all items (that of the least is {low}); lower it "
            f"by {budget - high}, or raise the bounds"
        )
    return least, most


def _share(claims: Claims, budget: int, least: Ints, most: Ints, name: str) -> Shared:
    """Give every unit to the largest claim, within the limits."""
    if claims.first_is_due:
        due = np.where((claims.worth > 0) & (most > 0), np.maximum(least, 1), least)
        needed = sum(due.tolist())
        if needed > budget:
            raise InfeasibleError(
                f"budget={budget} is below {needed}: {name} gives every item with a score above 0 one unit first; "
                f"raise it by {needed - budget}, or use sainte_lague"
            )
    if isinstance(claims, Quotients):
        # Who has no score gets what all others, at their most, leave.
        silent = claims.worth <= 0
        room = int(most[~silent].sum()) + int(least[silent].sum())
        if budget >= room and silent.any():
            return _share_the_rest(budget, least, most, silent)
        most = np.where(silent, least, most)
    few, many = _around_the_last(claims, budget, least, most)
    return _by_exact_claims(claims, budget, few, many)


def _share_the_rest(budget: int, least: Ints, most: Ints, silent: NDArray[np.bool_]) -> Shared:
    """All that have a score at their most, and the rest evenly over the others, the first in order first."""
    amounts = np.where(silent, least, most)
    left = budget - int(amounts.sum())
    while left:
        open_ = np.flatnonzero(silent & (amounts < most))
        step = min(left // len(open_), int((most - amounts)[open_].min()))
        if step == 0:
            amounts[open_[:left]] += 1
            return Shared(amounts, open_, left)
        amounts[open_] += step
        left -= step * len(open_)
    return Shared(amounts, np.zeros(0, np.int64))


def _around_the_last(claims: Claims, budget: int, least: Ints, most: Ints) -> tuple[Ints, Ints]:
    """(n,) amounts that add up to no more than the budget, and to no less, with few claims between the two."""

    def amounts(threshold: float) -> Ints:
        counted = np.minimum(claims.count(threshold), float(_MOST_UNITS))
        return np.clip(counted.astype(np.int64), least, most)

    high, low, off = claims.range()
    relative = isinstance(claims, Quotients)
    while True:
        middle = math.sqrt(high) * math.sqrt(low) if relative else (high + low) / 2
        if not low < middle < high or high - low <= off * (high if relative else 1.0):
            break
        shared = int(amounts(middle).sum())
        if shared == budget:
            low = high = middle
            break
        low, high = (middle, high) if shared > budget else (low, middle)
    if relative:
        return amounts(high * (1 + off)), amounts(low * (1 - off))
    return amounts(high + off), amounts(low - off)


def _by_exact_claims(claims: Claims, budget: int, few: Ints, many: Ints) -> Shared:
    """The amounts between `few` and `many` by the exact order of the claims, equal ones in order of the rows."""
    left = budget - int(few.sum())
    rows = np.flatnonzero(many > few)
    order = sorted(
        (-claims.exact(item, units), item, units)
        for item in rows.tolist()
        for units in range(int(few[item]), int(many[item]))
    )
    amounts = few.copy()
    for _, item, _ in order[:left]:
        amounts[item] += 1
    if not 0 < left < len(order) or order[left - 1][0] != order[left][0]:
        return Shared(amounts, np.zeros(0, np.int64))
    last = order[left][0]
    tied = [item for claim, item, _ in order if claim == last]
    return Shared(amounts, np.array(tied, np.int64), sum(claim == last for claim, *_ in order[:left]))


def _plan(claims: Claims, shared: Shared, budget: int, least: Ints, most: Ints, even: Shared) -> Allocation:
    amounts = shared.amounts
    values = claims.met(amounts)
    value = math.fsum(values.tolist())
    up, down = _marginals(claims, amounts, least, most)
    quotas = claims.worth * budget / math.fsum(claims.worth.tolist())
    info: dict[str, Any] = {
        "quotas": quotas,
        "uniform": {"amounts": even.amounts, "value": math.fsum(claims.met(even.amounts).tolist()), "used": budget},
    }
    if shared.units:
        named = ", ".join(checks.item_name(row) for row in shared.tied[:_NAMED].tolist())
        more = f" and {len(shared.tied) - _NAMED} more" if len(shared.tied) > _NAMED else ""
        info["tied"] = shared.tied
        info["tied_units"] = shared.units
        info["warnings"] = [
            f"a tie: {shared.units} of the units went to the first in order of {len(shared.tied)} items whose claims "
            f"are exactly equal ({named}{more}); another order of the rows gives another answer"
        ]
    price = max(float(np.nanmax(up, initial=0.0)), 0.0)
    return Allocation(
        n=len(amounts),
        amounts=amounts,
        values=values,
        price=price,
        marginal_up=up,
        marginal_down=down,
        bounds=np.stack([least, most], axis=1),
        value=value,
        sense=claims.sense,
        bound=value,
        status="optimal",
        used={"budget": budget},
        budget={"budget": budget},
        prices={"budget": price},
        objective=claims.objective,
        info=info,
    )


def _marginals(claims: Claims, amounts: Ints, least: Ints, most: Ints) -> tuple[Floats, Floats]:
    """The claim of the next unit, and that which the last one met; NaN at the limits and where the first is due."""
    up = np.where(amounts < most, claims.claim(amounts.astype(np.float64)), np.nan)
    down = np.where(amounts > least, claims.claim(np.maximum(amounts - 1.0, 0.0)), np.nan)
    return np.where(np.isinf(up), np.nan, up), np.where(np.isinf(down), np.nan, down)
