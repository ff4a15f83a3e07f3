"""The value and the cost of one level an item, written out plainly."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np

from kofn.laws.case import Case, broken
from kofn.laws.sides import keeps_sides
from kofn.laws.words import (
    Levels,
    Recount,
    agree,
)


def _curves(case: Case) -> None:
    plan, ask = case.plan, Levels.of(case)
    for item in range(case.n):
        if ask.level(item, plan.amounts[item], plan.values[item]) is None:
            raise broken(
                case, "recount", f"item {item} has no level {plan.amounts[item]} of value {plan.values[item]!r}"
            )
    if plan.sense != ask.sense:
        raise broken(case, "recount", f"sense is {plan.sense!r}, asked {ask.sense!r}")
    agree(case, "value", plan.value, math.fsum(plan.values.tolist()), math.fsum(np.abs(plan.values).tolist()))
    spent = sum((Fraction(cost) for cost in ask.spent(plan.amounts)), Fraction(0))
    agree(case, "used", float(plan.used["budget"]), float(spent))
    agree(case, "budget", float(plan.budget["budget"]), float(ask.budget))


def _constrained(case: Case) -> None:
    """The same, and every other limit by itself."""
    _curves(case)
    ask = Levels.of(case)
    columns = np.asarray(case.plan.info["level"])
    wrong = keeps_sides(case.words, case.options, columns, ask.amounts, ask.costs)
    if wrong:
        raise broken(case, "recount", "; ".join(wrong))


def _best_constrained(case: Case) -> float | None:
    """The best of all choices of levels that keep everything."""
    ask = Levels.of(case)
    n, width = ask.curves.shape
    if width**n > _MOST_CHOICES:
        return None
    sign, best = (1.0 if ask.sense == "max" else -1.0), -math.inf
    for choice in itertools.product(range(width), repeat=n):
        columns = np.array(choice)
        worth = sign * ask.curves[np.arange(n), columns]
        total = math.fsum(worth.tolist()) if np.isfinite(worth).all() else -math.inf
        if total <= best or sum(map(Fraction, ask.costs[np.arange(n), columns].tolist())) > ask.limit:
            continue
        if not keeps_sides(case.words, case.options, columns, ask.amounts, ask.costs):
            best = total
    return sign * best


_MOST_CHOICES = 4_096

RECOUNTS: dict[str, Recount] = {"curves": _curves, "constrained_curves": _constrained}
OPTIMA = {"constrained_curves": _best_constrained}
