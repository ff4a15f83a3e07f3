"""Amounts of any size over curves with diminishing returns, curve by curve."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.laws.case import Case
from kofn.laws.inputs import Draw, Drawer, seeded
from kofn.laws.words import Recount, agree

_CURVES: dict[str, Callable[[float, float, float], float]] = {
    "power": lambda a, b, x: a * x**-b if a else 0.0,
    "exponential": lambda a, b, x: a * math.exp(-x / b),
    "log": lambda a, b, x: a * math.log1p(x / b),
    "root": lambda a, b, x: a * x**b,
    "saturating": lambda a, b, x: -a * math.expm1(-x / b),
}
_SLOPES: dict[str, Callable[[float, float, float], float]] = {
    "power": lambda a, b, x: a * b * x ** (-b - 1),
    "exponential": lambda a, b, x: a / b * math.exp(-x / b),
    "log": lambda a, b, x: a / (b + x),
    "root": lambda a, b, x: a * b * x ** (b - 1),
    "saturating": lambda a, b, x: a / b * math.exp(-x / b),
}


def _total(case: Case, amounts: list[float]) -> float:
    curve = _CURVES[case.options.get("family", "power")]
    rows = np.asarray(case.words["curves"], np.float64).tolist()
    return math.fsum(
        curve(row[0], row[1], x) + (row[2] if len(row) > 2 else 0.0) for row, x in zip(rows, amounts, strict=True)
    )


def _concave_curves(case: Case) -> None:
    agree(case, "value", case.plan.value, _total(case, case.plan.amounts.tolist()), 1e-9)


def _best_amounts(case: Case) -> float:
    """The optimum by halving in on the price, and in each item on the amount whose slope is that."""
    slope = _SLOPES[case.options.get("family", "power")]
    rows = np.asarray(case.words["curves"], np.float64).tolist()
    sizes = np.asarray(case.options.get("sizes", np.ones(case.n)), np.float64).tolist()
    ends = np.broadcast_to(np.asarray(case.words.get("bounds", (0, math.inf)), np.float64), (case.n, 2)).tolist()
    budget = float(case.words["budget"])

    def amount(item: int, price: float) -> float:
        (a, b), (low, high), size = rows[item][:2], ends[item], sizes[item]
        high = min(high, budget / size)
        if not a:
            return low
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if middle == 0 or slope(a, b, middle) > price * size else (low, middle)
        return low

    low, high = 1e-12, 1e12
    for _ in range(100):
        price = math.sqrt(low * high)
        spent = math.fsum(sizes[i] * amount(i, price) for i in range(case.n))
        low, high = (price, high) if spent > budget else (low, price)
    return _total(case, [max(amount(i, high), 1e-300) for i in range(case.n)])


def _draw_curves(draw: Draw, given: dict[str, Any], options: dict[str, Any]) -> None:
    """Parameters of a family, and a budget above what the least amounts cost."""
    n = len(given["curves"])
    rng = seeded(draw)
    family = draw(st.sampled_from(sorted(_CURVES)))
    options["family"] = family
    top = 0.9 if family == "root" else 4.0
    curves = np.stack([rng.integers(1, 5, n) * 1.0, rng.uniform(0.2, top, n)], axis=1)
    if draw(st.booleans()):
        curves = np.column_stack([curves, rng.normal(size=n)])
    given["curves"] = curves
    options.pop("sense", None)
    sizes = np.ones(n)
    if "sizes" in options:
        sizes = options["sizes"] = rng.choice([0.1, 0.5, 1.0, 3.0], n)
    least = np.zeros(n)
    if "bounds" in given:
        least = rng.integers(0, 2, n).astype(np.float64)
        given["bounds"] = np.stack([least, np.where(rng.random(n) < 0.5, math.inf, least + 2.0)], axis=1)
    given["budget"] = float((least * sizes).sum() + rng.uniform(0.5, 3.0 * n))


RECOUNTS: dict[str, Recount] = {"concave_curves": _concave_curves}
OPTIMA = {"concave_curves": _best_amounts}
OPTIONS: dict[str, Drawer] = {"family": _draw_curves}
