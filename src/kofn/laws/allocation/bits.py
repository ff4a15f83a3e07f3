"""Errors that bits leave, written out plainly."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from kofn.core.arrays import Floats
from kofn.laws.brute import best_levels
from kofn.laws.case import Case, broken
from kofn.laws.inputs import Draw, Drawer
from kofn.laws.words import Levels, Optimum, Recount, agree


def _error_by_bits(case: Case) -> None:
    plan = case.plan
    errors = [c / 4.0**b for c, b in zip(_float(case.words["scores"]), plan.amounts.tolist(), strict=True)]
    agree(case, "value", plan.value, math.fsum(errors))
    if not np.allclose(plan.values, errors, rtol=1e-9, atol=0.0):
        raise broken(case, "recount", f"values are {plan.values}, recounted {errors}")


def _least_error(case: Case) -> float | None:
    if not case.options.get("whole", True):
        return None
    prices = np.asarray(case.options.get("sizes", np.ones(case.n, np.int64)))
    low, high = np.broadcast_to(case.words["bounds"], (case.n, 2)).astype(np.int64).T
    bits = np.minimum(low[:, None] + np.arange(int((high - low).max()) + 1), high[:, None])
    error = np.asarray(_float(case.words["scores"]))[:, None] / 4.0**bits
    if "budget" in case.words:
        budget = Fraction(case.words["budget"])
    else:
        budget = Fraction(repr(case.options["mean_budget"])) * sum(Fraction(price) for price in prices.tolist())
    whole = prices.dtype.kind in "iu"
    return best_levels(Levels(bits, error, prices[:, None] * bits, budget, whole, "min"))


def _float(scores: object) -> list[float]:
    return [float(x) for x in np.asarray(scores, np.float64)]


def _weighted(case: Case) -> Floats:
    """(n, levels) errors of experts, weighted."""
    options, n = case.options, case.n
    frequency, gate = (np.asarray(options.get(name, np.ones(n)), np.float64) for name in ("frequency", "gate"))
    importance = frequency ** options.get("alpha", 1.0) * gate ** options.get("beta", 1.5)
    curves = np.asarray(case.words["curves"], np.float64)
    return np.asarray(importance[:, None] * curves ** options.get("gamma", 2.0))


def _weighted_error(case: Case) -> None:
    chosen = case.plan.info["level"]
    errors = _weighted(case)[np.arange(case.n), chosen]
    agree(case, "value", case.plan.value, math.fsum(errors.tolist()))


def _least_weighted(case: Case) -> float | None:
    if case.options.get("at_least"):
        return None
    return best_levels(replace(Levels.of(case), curves=_weighted(case)))


def _draw_experts(draw: Draw, given: dict[str, object], options: dict[str, object]) -> None:
    """Errors that are not negative, bits from 1, and how often experts are used."""
    curves = np.abs(np.asarray(given["curves"], np.float64))
    n, width = curves.shape
    given["curves"] = curves
    if "levels" not in options:
        levels = np.arange(width)
        options["levels"] = levels
    for name in ("frequency", "gate"):
        if draw(st.booleans()):
            options[name] = np.array(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))) / 4


RECOUNTS: dict[str, Recount] = {"error_by_bits": _error_by_bits, "weighted_error": _weighted_error}
OPTIMA: dict[str, Optimum] = {"error_by_bits": _least_error, "weighted_error": _least_weighted}
OPTIONS: dict[str, Drawer] = {"frequency": _draw_experts}
