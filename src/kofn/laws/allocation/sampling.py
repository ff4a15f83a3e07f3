"""Chances of mixed and of right outcomes, and errors along fitted learning curves, written out plainly."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.core.arrays import Floats
from kofn.laws.brute import best_levels
from kofn.laws.case import Case, broken, near
from kofn.laws.inputs import Draw, Drawer
from kofn.laws.words import Levels, Optimum, Recount, agree


def _rates(case: Case) -> list[float]:
    return [float(x) for x in np.asarray(case.words["scores"], np.float64)]


def _mixed(case: Case, row: int, count: int) -> float:
    """What so many rollouts of a prompt are worth: the sum over all numbers of successes but none and all."""
    rate = _rates(case)[row]
    trials = case.options.get("trials")
    if count < 2:
        return 0.0

    def moment(up: int, down: int) -> float:
        if trials is None:
            return float(rate**up * (1 - rate) ** down)
        prior = case.options.get("prior", 0.5)
        a, b = rate * trials[row] + prior, (1 - rate) * trials[row] + prior
        steps = [(a + i) / (a + b + i) for i in range(up)]
        return math.prod(steps + [(b + i) / (a + b + up + i) for i in range(down)])

    learning = case.options.get("gain", "learning") == "learning"
    up, down = (1, 2) if learning else (0, 0)
    weight = float(case.words["weights"][row]) if "weights" in case.words else 1.0
    return weight * math.fsum(
        math.comb(count, right) * moment(up + right, down + count - right) for right in range(1, count)
    )


def _mixed_outcomes(case: Case) -> None:
    values = [_mixed(case, row, count) for row, count in enumerate(case.plan.amounts.tolist())]
    if not near(case.plan.value, math.fsum(values), 1e-5 if not case.precise else 1e-9, 1e-3):
        raise broken(case, "recount", f"value is {case.plan.value!r}, recounted {math.fsum(values)!r}")


def _most_mixed(case: Case) -> float | None:
    prices = np.asarray(case.words.get("costs", np.ones(case.n, np.int64)))
    low, high = np.broadcast_to(case.words["bounds"], (case.n, 2)).astype(np.int64).T
    counts = np.minimum(low[:, None] + np.arange(int((high - low).max()) + 1), high[:, None])
    worth = np.array([[_mixed(case, row, count) for count in counts[row].tolist()] for row in range(case.n)])
    budget = Fraction(case.words["budget"])
    return best_levels(Levels(counts, worth, prices[:, None] * counts, budget, prices.dtype.kind in "iu", "max"))


def _queries_answered(case: Case) -> None:
    rates, trials = _rates(case), case.options.get("trials")
    if trials is not None:
        prior = case.options.get("prior", 0.5)
        rates = [(p * t + prior) / (t + 2 * prior) for p, t in zip(rates, trials, strict=True)]
    chance = [1 - (1 - p) ** x for p, x in zip(rates, case.plan.amounts.tolist(), strict=True)]
    agree(case, "value", case.plan.value, math.fsum(chance), float(case.n))


def _predicted_group_errors(case: Case) -> None:
    plan, info = case.plan, case.plan.info
    errors = [
        base + scale * max(collected + bought, 1.0) ** -power
        for base, scale, power, collected, bought in zip(
            info["error_floor"], info["error_scale"], info["exponent"], info["collected"], plan.amounts, strict=True
        )
    ]
    weights = np.asarray(case.words.get("weights", np.ones(case.n)), np.float64)
    aversion = case.options.get("aversion", 1.0)
    if math.isinf(aversion):
        value = max(error for error, weight in zip(errors, weights, strict=True) if weight > 0)
    else:
        value = math.fsum(weight * error**aversion for error, weight in zip(errors, weights.tolist(), strict=True))
    if not near(plan.value, value, 1e-9):
        raise broken(case, "recount", f"value is {plan.value!r}, the fitted curves give {value!r}")


def _strata_variance(case: Case, row: int, count: int) -> Fraction:
    """The variance of a stratum's estimated total, in exact arithmetic."""
    units = case.options.get("population")
    deviation = Fraction(float(np.asarray(case.words["scores"], np.float64)[row]))
    if units is None:
        return deviation**2 / count
    size = Fraction(int(units[row]))
    return size**2 * deviation**2 * (Fraction(1, count) - 1 / size)


def _stratified_variance(case: Case) -> None:
    value = float(sum(_strata_variance(case, row, count) for row, count in enumerate(case.plan.amounts.tolist())))
    if not near(case.plan.value, value, 1e-5 if not case.precise else 1e-9):
        raise broken(case, "recount", f"value is {case.plan.value!r}, recounted {value!r}")


def _least_variance(case: Case) -> float | None:
    prices = np.asarray(case.words.get("costs", np.ones(case.n, np.int64)))
    low, high = case.plan.bounds.astype(np.int64).T
    counts = np.minimum(low[:, None] + np.arange(int((high - low).max()) + 1), high[:, None])
    values = [[float(_strata_variance(case, row, count)) for count in counts[row].tolist()] for row in range(case.n)]
    budget = Fraction(case.words["budget"])
    whole = prices.dtype.kind in "iu"
    return best_levels(Levels(counts, np.array(values), prices[:, None] * counts, budget, whole, "min"))


def _draw_strata(draw: Draw, given: dict[str, Any], options: dict[str, Any]) -> None:
    """Sizes of strata, bounds within them, and a budget between the least and a little more than the most."""
    n = len(given["scores"])
    low = np.array(draw(st.lists(st.integers(1, 3), min_size=n, max_size=n)))
    high = low + np.array(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    options["population"] = high + np.array(draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)))
    given["bounds"] = np.stack([low, high], axis=1)
    prices = np.asarray(given.get("costs", np.ones(n, np.int64)))
    least, most = float((prices * low).sum()), float((prices * high).sum())
    given["budget"] = math.ceil(least + draw(st.sampled_from((0.0, 0.3, 0.7, 1.1))) * (most - least))


def _draw_trials(draw: Draw, given: dict[str, Any], options: dict[str, Any]) -> None:
    """In how many trials each rate was counted."""
    if draw(st.booleans()):
        n = len(given["scores"])
        options["trials"] = np.array(draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)))


def _draw_groups(draw: Draw, given: dict[str, Any], options: dict[str, Any]) -> None:
    """Errors that fall, measured at enough sizes, samples that cost something, and a budget for some."""
    curves: Floats = np.abs(np.asarray(given["curves"], np.float64))
    n, width = curves.shape
    if width < 3:
        curves = np.tile(curves, (1, 3))[:, :3]
        width = 3
    given["curves"] = -np.sort(-curves, axis=1)
    options["levels"] = 2 ** np.arange(width) * draw(st.sampled_from((1, 10)))
    options["floor"] = draw(st.booleans())
    given.pop("costs", None)
    if draw(st.booleans()):
        given["costs"] = np.array(draw(st.lists(st.integers(1, 3), min_size=n, max_size=n)))
    given["budget"] = draw(st.sampled_from((0, 1, 10, 57.5)))
    if draw(st.booleans()):
        options["collected"] = np.array(draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)))


RECOUNTS: dict[str, Recount] = {
    "mixed_outcomes": _mixed_outcomes,
    "stratified_variance": _stratified_variance,
    "queries_answered": _queries_answered,
    "predicted_group_errors": _predicted_group_errors,
}
OPTIMA: dict[str, Optimum] = {"mixed_outcomes": _most_mixed, "stratified_variance": _least_variance}
OPTIONS: dict[str, Drawer] = {"trials": _draw_trials, "collected": _draw_groups, "strata": _draw_strata}
