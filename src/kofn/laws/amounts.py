"""The laws of allocation: Lagrangian duality, and concave curves."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from kofn.core.arrays import Floats
from kofn.laws.case import Case, broken, law
from kofn.laws.words import Levels

_TIGHT = 1e-9


@law("duality", verbs=("allocate",))
def duality(case: Case) -> bool:
    """At every price the Lagrangian bounds the value, and a proven optimum never worsens with a larger budget."""
    plan = case.plan
    if plan.objective != "curves":
        # A loss that the items bring about together is no sum over their curves.
        return False
    ask = Levels.of(case)
    worth, costs, value = _worth(ask), ask.costs.astype(np.float64), _up(ask) * plan.value
    slack = _TIGHT * max(float(np.abs(np.where(np.isfinite(worth), worth, 0.0)).max(axis=1).sum()), 1e-300)
    if plan.price is None or not plan.price >= 0:
        raise broken(case, "duality", f"price is {plan.price!r}")
    for price in _prices(worth, costs, plan.price):
        ceiling = math.fsum((worth - price * costs).max(axis=1).tolist()) + price * float(ask.limit)
        if value > ceiling + slack + _TIGHT * price * float(ask.limit):
            raise broken(
                case, "duality", f"at the price {price!r} nothing is worth more than {ceiling!r}, got {value!r}"
            )
    if plan.status == "optimal":
        larger = _with_budget(case, ask.budget + max(1, int(costs.max())))
        if larger.status == "optimal" and _up(ask) * larger.value < value - slack:
            raise broken(case, "duality", f"a larger budget brought {larger.value!r} after {plan.value!r}")
    return True


@law("concave")
def concave(case: Case) -> bool:
    """With unit costs and diminishing returns: gap 0, nested amounts, and marginals that bracket the price."""
    plan, ask = case.plan, Levels.of(case)
    worth = _worth(ask)
    width = worth.shape[1]
    if not np.isfinite(worth).all():
        return False
    steps = np.diff(worth, axis=1)
    if width < 2 or not (ask.costs == np.arange(width)).all() or (np.diff(steps, axis=1) > 0).any():
        return False
    if plan.gap is None or plan.gap > _TIGHT or plan.status != "optimal":
        raise broken(case, "concave", f"status {plan.status!r}, value {plan.value!r}, bound {plan.bound!r}")
    levels = plan.amounts.astype(np.int64)
    rows = np.arange(case.n)
    padded = np.column_stack([np.full(case.n, np.nan), steps, np.full(case.n, np.nan)])
    down, up = padded[rows, levels], padded[rows, levels + 1]
    for name, reported, counted in (("up", plan.marginal_up, up), ("down", plan.marginal_down, down)):
        if reported is None or not np.allclose(reported, counted, rtol=_TIGHT, atol=_TIGHT, equal_nan=True):
            raise broken(case, "concave", f"marginal_{name} is {reported}, recounted {counted}")
    slack = _TIGHT * max(float(np.abs(worth).max()), 1e-300)
    dearest, cheapest = np.nanmax(up, initial=0.0), np.nanmin(down, initial=math.inf)
    if not dearest - slack <= plan.price <= cheapest + slack:
        raise broken(case, "concave", f"price {plan.price!r} is not between {dearest!r} and {cheapest!r}")
    if len(np.unique(steps)) == steps.size:
        more = _with_budget(case, ask.budget + 1)
        if (more.amounts < plan.amounts).any():
            raise broken(case, "concave", f"one unit more turned {plan.amounts} into {more.amounts}")
    return True


def _up(ask: Levels) -> float:
    return 1.0 if ask.sense == "max" else -1.0


def _worth(ask: Levels) -> Floats:
    """(n, levels) what each level is worth: the value, or minus the loss; -inf where the item may not have it."""
    return _up(ask) * ask.curves


def _prices(worth: Floats, costs: Floats, own: float) -> list[float]:
    """The prices at which some item changes its mind, the plan's own and a few between."""
    with np.errstate(invalid="ignore"):  # of two levels that the item may not have
        gain = worth[:, :, None] - worth[:, None, :]
    run = costs[:, :, None] - costs[:, None, :]
    turns = gain[run > 0] / run[run > 0]
    turns = np.unique(turns[(turns > 0) & np.isfinite(turns)])
    return [0.0, own, 2 * own, *turns.tolist(), *((turns[1:] + turns[:-1]) / 2).tolist()]


def _with_budget(case: Case, budget: Fraction) -> Any:
    whole = budget.denominator == 1
    options = {name: value for name, value in case.options.items() if name != "mean_budget"}
    return case.again(options=options, budget=int(budget) if whole else float(budget))
