"""Samples to collect of each group, from the learning curves of all and what a group's error weighs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation._counts import spent, total, uniform
from kofn.allocation.scaling_laws._learning_curves import LearningCurves, fit_learning_curves
from kofn.core import checks
from kofn.core.arrays import Array, Floats, Ints
from kofn.core.checks import InputError, shown
from kofn.core.draws import Draw
from kofn.core.plans import Allocation
from kofn.core.registry import method

_HALVINGS = 200
# So many samples are bought one by one.
_FEW = 1000
# A group planned to so many times what it was measured at is a guess.
_FAR = 10.0


@method(
    "allocate",
    draws=Draw(
        options={"aversion": (1.0, 2.0, math.inf), "collected": "collected", "floor": "floor"}, silent=("duality",)
    ),
    cost="a fit a group, then O(n) a step of a bisection",
    exact="the best whole samples under the fitted curves, up to one of each group; no promise that the curves hold",
    paper=225,
    aliases=("equitable sampling", "data collection", "labelling budget", "learning curves", "fair data"),
)
def equitable_collection(
    curves: Any,
    *,
    budget: float,
    costs: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    levels: ArrayLike | None = None,
    collected: ArrayLike | None = None,
    aversion: float = 1.0,
    floor: bool = True,
) -> Allocation:
    """Buy each group as many samples as lower the groups' errors most, by power laws fitted to their learning curves.

    Args:
        curves: (n, L) measured error of each group, >= 0, after training on `levels` samples of it.
        budget: what the samples may cost in all.
        costs: (n,) what a sample of each group costs, > 0; default 1.
        weights: (n,) how much each group counts, such as its share of the population; default 1.
        levels: (L,) or (n, L) samples, >= 1, default 1, 2, 3, ...
        collected: (n,) samples that are there already and stay, default the most that a curve was measured at.
        aversion: power of the errors whose weighted sum is the least: 1 is the mean error, 2 counts large errors more,
            inf is the error of the worst group.
        floor: whether an error may remain that no data removes; False takes two points a curve, with it three.

    Returns:
        An `Allocation`: `amounts` samples to buy, `values` the predicted error of each group with them, `value` the
        weighted sum of their powers (the largest, for inf), `price` what one more unit of budget lowers it by. `info`
        has the fit (`error_floor`, `error_scale`, `exponent`, `fit_error`), and the value of `equal` purchases and of
        those `proportional` to the weights.

    Raises:
        InputError: fewer points than parameters, errors below 0, costs of 0, an aversion below 1.

    Cost: a fit of each group, milliseconds; then a bisection over the price.

    Guarantee: status "heuristic": best under fitted curves, in which a group learns from its own samples alone.
    Measure again and ask again as samples arrive, which is the sequential form of the paper. A group that is planned to
    ten times what it was measured at is named in a warning.

    References:
        Cai et al. 2022, "Adaptive Sampling Strategies to Construct Equitable Training Datasets", FAccT.

    Examples:
        >>> from kofn.allocation import equitable_collection
        >>> errors = [[0.6, 0.4, 0.3, 0.25], [0.8, 0.65, 0.575, 0.5375]]
        >>> plan = equitable_collection(errors, budget=3000, levels=[25, 100, 400, 1600])
        >>> plan.amounts.tolist(), plan.values.round(3).tolist()
        ([1796, 1204], [0.234, 0.528])
        >>> equitable_collection(errors, budget=30, levels=[25, 100, 400, 1600], aversion=float("inf")).amounts.tolist()
        [0, 30]
    """
    n, width = curves.shape
    if not checks.is_number(aversion) or not aversion >= 1 or (aversion > 64 and not math.isinf(aversion)):
        raise InputError(f"aversion={shown(aversion)}: give a number from 1 to 64, or inf for the worst group alone")
    law = fit_learning_curves(curves, levels=np.arange(1, width + 1) if levels is None else levels, floor=floor)
    price: Array = np.ones(n, np.int64) if costs is None else np.asarray(costs)
    if price.min() <= 0:
        row = int(price.argmin())
        raise InputError(f"costs at row {row} is {price[row]:g}; a sample costs something, give it > 0")
    if budget / float(price.min()) > 2**53:
        raise InputError(
            f"budget={budget:g} pays for more samples of a group than can be counted (2**53 at costs of "
            f"{price.min():g}); give the budget and the costs in larger units"
        )
    matter = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    have = np.floor(law.reach) if collected is None else checks.costs(collected, "collected").astype(np.float64)
    checks.same_length(n, "curves", "collected", len(have))
    plan = _Collection(law, price, matter, have, float(aversion))
    bought, worth = plan.best(float(budget))
    count = bought.astype(np.int64)
    share = np.floor(budget * matter / total(price * matter))
    same = uniform(price, np.zeros(n), np.full(n, 2.0**53), float(budget), True)
    far = np.flatnonzero((count > 0) & (have + count > _FAR * law.reach))
    return Allocation(
        n=n,
        amounts=count,
        values=law.loss(have + count),
        price=worth,
        value=plan.value(count),
        sense="min",
        used={"budget": spent(price, count)},
        budget={"budget": budget},
        prices={"budget": worth},
        objective="predicted_group_errors",
        additive=False,
        info={
            "error_floor": law.floor,
            "error_scale": law.scale,
            "exponent": law.exponent,
            "fit_error": law.error,
            "collected": have,
            "equal": plan.value(same),
            "proportional": plan.value(share),
            **({"warnings": [_too_far(law, have + count, int(far[0]))]} if len(far) else {}),
        },
    )


def _too_far(law: LearningCurves, planned: Floats, row: int) -> str:
    return (
        f"group {row} is planned to {planned[row]:,.0f} samples and was measured at {law.reach[row]:,.0f} at most, so "
        "that its error there is a guess; buy a part, measure, and ask again"
    )


class _Collection:
    """What is bought, and what the errors then come to."""

    def __init__(self, law: LearningCurves, price: Array, matter: Floats, have: Floats, aversion: float) -> None:
        self.law, self.price, self.matter, self.have, self.aversion = law, price, matter, have, aversion

    def value(self, bought: Array) -> float:
        """The weighted sum of the errors' powers; for infinite aversion the largest error of a group that counts."""
        error = self.law.loss(self.have + bought)
        if math.isinf(self.aversion):
            return float(error[self.matter > 0].max())
        return float(self.matter @ error**self.aversion)

    def best(self, budget: float) -> tuple[Floats, float]:
        """(n,) whole samples, and what one more unit of budget is worth."""
        most = np.floor(budget / self.price)
        none = np.zeros(len(most))
        amounts = self._worst_first(budget, most) if math.isinf(self.aversion) else self._at_a_price(budget, none, most)
        amounts = np.floor(amounts)
        while True:
            gain = self._gain(amounts)
            left = budget - total(self.price * amounts)
            able = np.flatnonzero((self.price <= left) & (gain > 0))
            if not len(able):
                break
            self._spend(budget, left, amounts, able[np.argsort(-(gain / self.price)[able], kind="stable")])
        return amounts, float((gain / self.price).max(initial=0.0))

    def _spend(self, budget: float, left: float, amounts: Floats, able: Ints) -> None:
        """Add to the amounts a part of what is left: of the groups that it can pay for, the best first."""
        if left <= _FEW * self.price[able].min():
            amounts[able[0]] += 1
            return
        # Cheap groups by thousands, where the dear ones can no longer be paid for.
        most = amounts.copy()
        most[able] += np.floor(left / self.price[able])
        more = amounts if math.isinf(self.aversion) else self._at_a_price(budget, amounts, most)
        if (more > amounts).any():
            amounts[:] = more
            return
        # At the next price all of them would gain one, which is more than is left.
        for group in able:
            if self.price[group] <= left:
                amounts[group] += 1
                left -= self.price[group]

    def _gain(self, amounts: Floats) -> Floats:
        """(n,) what one more sample of each group lowers the value by."""
        # The law says nothing of no samples: the first is worth what the second is, so that gains only fall.
        counted = np.maximum(self.have + amounts, 1.0)
        now, less = self.law.loss(counted), self.law.saving(counted)
        if math.isinf(self.aversion):
            worst = now == now[self.matter > 0].max()
            return np.where(worst & (self.matter > 0), less, 0.0)
        share = np.divide(less, now, out=np.zeros_like(less), where=now > 0)
        with np.errstate(divide="ignore"):
            return np.asarray(self.matter * now**self.aversion * -np.expm1(self.aversion * np.log1p(-share)))

    def _at_a_price(self, budget: float, least: Floats, most: Floats) -> Floats:
        """(n,) samples up to where a unit of budget saves as much in every group, by bisection over the price."""
        # Above what the next sample of any group is worth nothing is bought.
        first = np.where(most > least, self._gain(least) / self.price, 0.0)
        low, high = 1e-300, float(first.max(initial=0.0)) * (1 + 1e-9)
        if not high > low:
            return least.copy()
        for _ in range(_HALVINGS):
            middle = math.sqrt(low) * math.sqrt(high)
            if not low < middle < high:
                break
            cost = total(self.price * self._until(middle, least, most))
            low, high = (low, middle) if cost <= budget else (middle, high)
        bought = self._until(high, least, most)
        return bought if total(self.price * bought) <= budget else least.copy()

    def _until(self, worth: float, least: Floats, most: Floats) -> Floats:
        """(n,) the most samples of which the last still saves `worth` for each unit it costs: gains only fall."""
        low, high = least.copy(), most.copy()
        while (high > low).any():
            middle = low + np.ceil((high - low) / 2)
            pays = self._gain(middle - 1) >= worth * self.price
            low, high = np.where(pays, middle, low), np.where(pays, high, middle - 1)
        return low

    def _worst_first(self, budget: float, most: Floats) -> Floats:
        """(n,) samples that bring every group that can be to one error, the least that the budget pays for."""
        some = self.matter > 0
        # Errors are told by what they are above the highest floor: beside a floor rounding would leave nothing of it.
        floor = float(self.law.floor[some].max())
        first = self.law.loss(self.have) - floor
        low, high = 1e-300, float(first[some].max())
        if not high > low:
            return np.zeros(len(most))

        def needed(excess: float) -> Floats:
            with np.errstate(divide="ignore", over="ignore"):
                ratio = np.maximum(floor - self.law.floor + excess, 0.0) / self.law.scale
                count = np.where(first <= excess, 0.0, ratio ** (-1 / self.law.exponent) - self.have)
            return np.where(some, np.maximum(np.nan_to_num(count, posinf=math.inf), 0.0), 0.0)

        for _ in range(_HALVINGS):
            middle = math.sqrt(low) * math.sqrt(high)
            enough = (needed(middle) <= most).all() and total(self.price * np.ceil(needed(middle))) <= budget
            low, high = (low, middle) if enough else (middle, high)
            if high <= low * (1 + 1e-15):
                break
        return np.ceil(needed(high))
