"""The value and the cost of one level an item, written out plainly."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from kofn.laws.case import Case, broken
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


RECOUNTS: dict[str, Recount] = {"curves": _curves}
