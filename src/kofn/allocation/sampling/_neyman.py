"""Samples of each stratum, so that an estimated total or mean varies least."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kofn.allocation._counts import spent, total, uniform
from kofn.allocation.knapsack._multiple_choice_knapsack import multiple_choice_knapsack
from kofn.core import checks
from kofn.core.arrays import Array, Floats
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Allocation
from kofn.core.registry import method

_HALVINGS = 200
# Samples of a stratum by which its variance can be estimated.
_LEAST = 2.0
# Strata times counts in doubt that a table may hold; beyond it the plan keeps its bound and is not proved.
_MOST_ENTRIES = 20_000_000
# What rounding may take off a bound, as a share of it.
_ROUNDING = 1e-9


@method(
    "allocate",
    traits=("sandwich",),
    draws=Draw(
        kinds={"scores": "not negative"},
        plain={"budget": 30},
        silent=("duality",),
        options={"population": "strata"},
        long=("population",),
    ),
    cost="O(n log) for the price, and a multiple-choice knapsack over the few counts that it leaves in doubt",
    exact="the least variance in whole numbers, of two samples a stratum or more (--min 1: of one or more), unless the "
    "counts in doubt make too large a table",
    paper=("wright2012", "neyman1934"),
    aliases=(
        "stratified sampling",
        "samples per stratum",
        "Neyman allocation",
        "optimal allocation of sample sizes",
        "sample size per group",
        "labels per group",
        "survey design",
    ),
)
def neyman(
    scores: ArrayLike,
    *,
    budget: float,
    costs: ArrayLike | None = None,
    bounds: ArrayLike | None = None,
    population: ArrayLike | None = None,
) -> Allocation:
    """Sample each stratum so often that the estimated total of a population varies least for what samples cost.

    Without limits the counts are in proportion to N_h sd_h / sqrt(cost_h) for a stratum of N_h units with the standard
    deviation sd_h. Here they are whole, at least two and at most N_h, and the optimum of these.

    Args:
        scores: (n,) standard deviation of each stratum, >= 0; for a share p, sqrt(p (1 - p)).
        budget: what all samples may cost, or how many there are.
        costs: (n,) what a sample of each stratum costs, > 0; default 1.
        bounds: (least, most) samples of all strata, or one such pair for each. A least that is open, or 0, is two, by
            which a variance can be estimated, or all of a smaller stratum; an open most is all that a stratum has.
        population: (n,) how many units each stratum has, >= 1, whole; by default all are alike and without end.

    Returns:
        An `Allocation`: `amounts` samples, `values` the variance of each stratum's estimated total, N_h^2 sd_h^2 (1 /
        n_h - 1 / N_h) for samples without replacement, `value` their sum; without `population` sd_h^2 / n_h. `price` is
        what one more unit of budget lowers it by, at most and about. `info` has `standard_error` (of the population's
        estimated mean), and the value of `equal` samples of each stratum and, of a `population`, of those `by_size`.

    Raises:
        InfeasibleError: the least samples of all strata cost more than the budget; says by how much.
        InputError: deviations below 0, costs that are not above 0, a population below 1 or with a fraction, a least
            above it, a most below two without a least.

    Cost: milliseconds for a thousand strata of any size.

    Guarantee: optimal in whole numbers. Counts that any better plan could have are bounded by the price's reduced
    costs, and the knapsack over these is solved exactly; at equal costs that is Wright's rule, the next sample to the
    largest N_h sd_h / sqrt(n_h (n_h + 1)). That the deviations are known is the assumption.

    References:
        Neyman 1934, Journal of the Royal Statistical Society 97; Wright 2012, "The Equivalence of Neyman Optimum
        Allocation for Sampling and Equal Proportions for Apportioning the U.S. House of Representatives", The American
        Statistician 66.

    Examples:
        >>> from kofn.allocation import neyman
        >>> plan = neyman([10.0, 2.0, 40.0], population=[5000, 3000, 60], budget=100)
        >>> plan.amounts.tolist(), plan.status, plan.info["standard_error"].round(3).item()
        ([86, 10, 4], 'optimal', 0.718)
        >>> neyman([10.0, 2.0, 40.0], population=[5000, 3000, 60], costs=[4, 1, 1], budget=100).amounts.tolist()
        [23, 6, 2]
    """
    strata = _Strata.of(scores, population, costs, bounds)
    cheapest = total(strata.costs * strata.low)
    remedy = "lower bounds"
    if strata.assumed.any():
        remedy = "ask for one sample a stratum, not two: bounds=(1, None)"
    checks.enough(float(budget), cheapest, "the least samples of all strata", remedy)
    price, counts = strata.near(float(budget))
    plan, bound, status = strata.best(float(budget), price, counts)
    amounts = plan.astype(np.int64)
    values = strata.variance(plan)
    value = math.fsum(values.tolist())
    # The bound is of the part that samples change.
    rest = math.fsum((strata.power(plan) * strata.unit).tolist()) - value
    bound = value if status == "optimal" else min(bound * strata.unit - rest, value)
    next_one = np.where(plan < strata.high, strata.power(plan) / (plan + 1) * strata.unit, np.nan)
    last_one = np.where(plan > strata.low, strata.power(plan) / np.maximum(plan - 1, 1) * strata.unit, np.nan)
    worth = float(np.nanmax(np.append(next_one / strata.costs, 0.0)))
    same = uniform(strata.costs, strata.low, strata.high, float(budget), True)
    everyone = float(len(amounts) if population is None else strata.sizes.sum())
    return Allocation(
        n=len(amounts),
        amounts=amounts,
        values=values,
        price=worth,
        marginal_up=next_one,
        marginal_down=last_one,
        bounds=np.stack([strata.low, strata.high], axis=1),
        value=value,
        sense="min",
        bound=bound,
        status=status,
        used={"budget": spent(strata.costs, amounts)},
        budget={"budget": budget},
        prices={"budget": worth},
        objective="stratified_variance",
        info={
            "standard_error": np.float64(math.sqrt(value) / everyone),
            "equal": math.fsum(strata.variance(same).tolist()),
            **({} if population is None else {"by_size": strata.value_by_size(float(budget))}),
        },
    )


@dataclass(frozen=True)
class _Strata:
    """The strata, with N^2 sd^2 in `unit` so that the largest is one; `assumed`: two samples are the least unasked."""

    deviations: Floats
    sizes: Floats
    costs: Array
    low: Floats
    high: Floats
    squares: Floats
    unit: float
    assumed: NDArray[np.bool_]

    @classmethod
    def of(
        cls, scores: ArrayLike, population: ArrayLike | None, costs: ArrayLike | None, bounds: ArrayLike | None
    ) -> _Strata:
        deviations = checks.one_an_item(scores)
        n = len(deviations)
        if deviations.min() < 0:
            row = int(deviations.argmin())
            raise InputError(f"scores at row {row} is {deviations[row]:g}; standard deviations are 0 or more")
        price: Array = np.ones(n, np.int64) if costs is None else np.asarray(costs)
        if price.min() <= 0:
            row = int(price.argmin())
            raise InputError(
                f"costs at {checks.item_name(row)} is {price[row]:g}; a sample costs something, give it > 0"
            )
        units = np.full(n, np.inf) if population is None else _whole_numbers(population, n)
        low, high = checks.least_and_most(bounds, n, most=2.0**53, whole=True)
        unasked = low < 1
        low = np.where(unasked, np.minimum(_LEAST, units), low)
        if (low > units).any():
            row = int((low > units).argmax())
            raise InputError(
                f"bounds at {checks.item_name(row)} ask for {low[row]:g} samples at least of a stratum of "
                f"{units[row]:g}; give no more than its population"
            )
        if (high < low).any():
            row = int((high < low).argmax())
            raise InputError(
                f"bounds at {checks.item_name(row)} allow {high[row]:g} samples at most, and without a least there are "
                "two, by which a variance can be estimated; raise it, or give the least: bounds=(1, ...)"
            )
        high = np.minimum(high, units)
        weight = np.where(np.isinf(units), 1.0, units) * deviations
        largest = float(weight.max()) or 1.0
        unit = largest * largest
        if not 0 < unit < math.inf:
            raise InputError(
                f"scores times population up to {largest:.3g} are beyond what squares hold; give another unit"
            )
        return cls(deviations, units, price, low, high, np.square(weight / largest), unit, unasked & (low > 1))

    def power(self, counts: Floats) -> Floats:
        """(n,) N^2 sd^2 / counts, in units."""
        return self.squares / counts

    def variance(self, counts: Floats) -> Floats:
        """(n,) the variance of each stratum's estimated total; exactly 0 where all of it is sampled."""
        return self.squares * self.unit * (1 - counts / self.sizes) / counts

    def counts_at(self, price: float, low: Floats, high: Floats) -> Floats:
        """(n,) the most samples of which the last still lowers the variance by `price` for each unit it costs."""
        with np.errstate(over="ignore"):
            ratio = self.squares / (price * self.costs)
            return np.clip(np.floor((1 + np.sqrt(1 + 4 * ratio)) / 2), low, high)

    def until(self, budget: float, low: Floats, high: Floats) -> tuple[float, Floats]:
        """The least price, and the counts at it, that the budget pays for."""
        most = float((self.squares / (low * (low + 1)) / self.costs)[high > low].max(initial=0.0)) * (1 + _ROUNDING)
        if not most > 0:
            return 0.0, low
        least = most * 2.0**-1000
        if total(self.costs * self.counts_at(least, low, high)) <= budget:
            return least, self.counts_at(least, low, high)
        for _ in range(_HALVINGS):
            middle = math.sqrt(least) * math.sqrt(most)
            if not least < middle < most or most - least <= 1e-15 * most:
                break
            pays = total(self.costs * self.counts_at(middle, low, high)) <= budget
            least, most = (least, middle) if pays else (middle, most)
        return most, self.counts_at(most, low, high)

    def near(self, budget: float) -> tuple[float, Floats]:
        """The price of the relaxed problem, and counts that spend what is left where it still buys a sample."""
        price, counts = self.until(budget, self.low, self.high)
        for _ in range(2 * len(counts)):
            left = budget - total(self.costs * counts)
            able = (self.costs <= left) & (counts < self.high) & (self.squares > 0)
            if not able.any():
                break
            gain = np.where(able, self.squares / (counts * (counts + 1)) / self.costs, -1.0)
            counts = counts.copy()
            counts[int(gain.argmax())] += 1
            counts = self.until(budget, counts, np.where(able, self.high, counts))[1]
        return price, counts

    def best(self, budget: float, price: float, counts: Floats) -> tuple[Floats, float, str]:
        """The optimum, a bound on N^2 sd^2 / counts in units, and the plan's status."""
        middle = self.counts_at(price, self.low, self.high) if price > 0 else self.low
        around = np.clip(middle + np.array([[-1.0], [0.0], [1.0]]), self.low, self.high)
        reduced = self.squares / around + price * self.costs * around
        least, middle = reduced.min(axis=0), around[reduced.argmin(axis=0), np.arange(len(middle))]
        reached = math.fsum(self.power(counts).tolist())
        bound = math.fsum(least.tolist()) - price * budget
        gap = max(reached - bound, 0.0) + _ROUNDING * reached
        first, last = self.low.copy(), self.high.copy()
        # Left and right of its least the reduced cost only rises, so that what is within the gap is an interval.
        ends = (first, middle.copy()), (middle.copy(), last)
        for (low, high), rising in zip(ends, (False, True), strict=True):
            while (low < high).any():
                half = np.floor((low + high + rising) / 2)
                inside = self.squares / half + price * self.costs * half - least <= gap
                if rising:
                    low[:], high[:] = np.where(inside, half, low), np.where(inside, high, half - 1)
                else:
                    low[:], high[:] = np.where(inside, low, half + 1), np.where(inside, half, high)
        first, last = ends[0][0], ends[1][1]
        width = int((last - first).max()) + 1
        if width * len(first) > _MOST_ENTRIES:
            return counts, bound, "approximate"
        levels = np.minimum(first[:, None] + np.arange(width), last[:, None]).astype(np.int64)
        plan = multiple_choice_knapsack(self.squares[:, None] / levels, budget=budget, sizes=self.costs, levels=levels)
        if plan.status != "optimal":
            return np.asarray(plan.amounts, np.float64), float(plan.bound or bound), "approximate"
        return np.asarray(plan.amounts, np.float64), plan.value, "optimal"

    def value_by_size(self, budget: float) -> float:
        """The value of samples in proportion to the sizes, as near as bounds and budget allow."""
        sizes = self.sizes
        least, most = 0.0, float((self.high / sizes).max())
        for _ in range(_HALVINGS):
            middle = (least + most) / 2
            pays = total(self.costs * np.clip(np.floor(middle * sizes), self.low, self.high)) <= budget
            least, most = (middle, most) if pays else (least, middle)
        return math.fsum(self.variance(np.clip(np.floor(least * sizes), self.low, self.high)).tolist())


def _whole_numbers(population: ArrayLike, n: int) -> Floats:
    given = checks.as_array(population, "population")
    if given.shape != (n,):
        raise InputError(f"population has shape {given.shape}, scores has {n} values; give one a stratum")
    units = checks.as_float(given, "population").astype(np.float64)
    odd = ~((units >= 1) & (units <= 2.0**53) & (units == np.floor(units)))
    if odd.any():
        row = int(odd.argmax())
        raise InputError(
            f"population at {checks.item_name(row)} is {units[row]:g}; give how many units there are, 1 or more"
        )
    return units
