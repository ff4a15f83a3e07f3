"""Units in proportion to scores, claim by claim in fractions."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from kofn.laws.case import Case
from kofn.laws.words import Recount, agree

# The divisor of an item that has so many units, by the name of what its method sums.
_DIVISORS: dict[str, Callable[[int], float]] = {
    "quotients_by_1_and_on": lambda units: units + 1,
    "quotients_by_0.5_and_on": lambda units: units + 0.5,
    "quotients_by_0_and_on": lambda units: units,
    "quotients_by_geometric_means": lambda units: math.sqrt(units * (units + 1)),
    "quotients_by_harmonic_means": lambda units: units * (units + 1) / (units + 0.5),
}


def _never_due(_units: int) -> float:
    """Without divisors nobody's first unit goes before all others'."""
    return 1.0


def _worth(case: Case) -> list[Callable[[int], float]]:
    """Of each item, what an amount is worth under the objective; a first unit that everyone gets counts for nothing."""
    votes = np.asarray(case.words["scores"], np.float64).tolist()
    if case.plan.objective == "squared_remainders":
        total, budget = sum(map(Fraction, votes), Fraction(0)), case.words["budget"]
        droop = case.options.get("quota") == "droop"
        price = Fraction(math.floor(total / (budget + 1)) + 1) if droop else total / budget if budget else Fraction(1)

        def square(vote: float, amount: int) -> float:
            return float((amount - Fraction(vote) / price) ** 2)

        return [functools.partial(square, vote) for vote in votes]
    divisor, first = _DIVISORS[case.plan.objective], case.options.get("first")

    def quotients(vote: float, amount: int) -> float:
        divisors = [divisor(units) for units in range(amount)]
        if first is not None and divisors:
            divisors[0] = first
        return math.fsum(vote / d for d in divisors if d)

    return [functools.partial(quotients, vote) for vote in votes]


def _claims(case: Case) -> None:
    worth = _worth(case)
    values = [each(int(amount)) for each, amount in zip(worth, case.plan.amounts.tolist(), strict=True)]
    agree(case, "value", case.plan.value, math.fsum(values), 1e-3 * math.fsum(map(abs, values)))


def _best_total(case: Case) -> float:
    """The best total of any amounts within the bounds that add up, by dynamic programming over the units."""
    sign, budget = (1.0 if case.plan.sense == "max" else -1.0), int(case.words["budget"])
    best = {0: 0.0}
    due = _DIVISORS.get(case.plan.objective, _never_due)(0) == 0
    votes = np.asarray(case.words["scores"], np.float64)
    ends = np.broadcast_to(np.asarray(case.words.get("bounds", (0, budget)), np.float64), (case.n, 2))
    for item, each in enumerate(_worth(case)):
        after: dict[int, float] = {}
        low, high = ends[item].tolist()
        for amount in range(max(int(low), int(due and votes[item] > 0)), int(min(high, budget)) + 1):
            for spent, value in best.items():
                total = spent + amount
                if total <= budget:
                    after[total] = max(after.get(total, -math.inf), value + sign * each(amount))
        best = after
    return sign * best[budget]


_NAMES = (*_DIVISORS, "squared_remainders")
RECOUNTS: dict[str, Recount] = dict.fromkeys(_NAMES, _claims)
OPTIMA = dict.fromkeys(_NAMES, _best_total)
