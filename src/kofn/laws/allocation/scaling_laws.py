"""Predicted losses of unions of pools, pass by pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.laws.case import Case, broken, near
from kofn.laws.inputs import Draw, Drawer
from kofn.laws.words import (
    Recount,
)


def _predicted_loss(case: Case) -> None:
    """The law of the fitted numbers, pass by pass; the union that is best under it; and equal passes over its pools."""
    plan, info = case.plan, case.plan.info
    sizes = np.asarray(case.options.get("sizes", np.ones(case.n)), np.float64)
    budget = float(case.words["budget"])
    rate, half_life = np.asarray(info["utility"]), np.asarray(info["half_life"])

    def loss(pools: list[int]) -> float:
        rows = float(sizes[pools].sum())
        excess, seen, turn = float(info["scale"]), float(info["unit"]), 0
        while turn == 0 or seen < budget * (1 - 1e-12):
            end = min(rows * (turn + 1), budget)
            power = sum(sizes[i] / rows * rate[i] * 0.5 ** (turn / (half_life[i] * rows / sizes[i])) for i in pools)
            excess, seen, turn = excess * (end / seen) ** -power, end, turn + 1
        return float(info["loss_floor"]) + excess

    predicted = loss(list(info["pools"]))
    # What the law predicts is a product over the passes, and then a sum.
    if not near(plan.value, predicted, 1e-9, abs(float(info["loss_floor"]))):
        raise broken(case, "recount", f"value is {plan.value!r}, the law gives {predicted!r}")
    for pools, other_loss in info["tried"]:
        if other_loss < plan.value:
            raise broken(case, "recount", f"pools {pools} are better: {other_loss!r}")
    for item in range(case.n):
        passes = budget / sizes[list(info["pools"])].sum() if item in info["pools"] else 0.0
        if not near(float(plan.amounts[item]), passes, 1e-12):
            raise broken(case, "recount", f"pool {item} is passed {plan.amounts[item]!r} times, not {passes!r}")


def _draw_unions(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Pools that have rows and were measured, and samples to see."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    n, width = np.asarray(words["curves"]).shape
    for name in ("sizes", "levels"):
        options.pop(name, None)
    if draw(st.booleans()):
        options["sizes"] = np.array(draw(st.lists(st.integers(1, 4), min_size=n, max_size=n)), np.float64)
    # By default the first level is none, so that one level alone would measure nothing.
    if width == 1 or draw(st.booleans()):
        options["levels"] = np.arange(1, width + 1) * draw(st.sampled_from((0.5, 1.0, 3.0)))
    words["budget"] = draw(st.sampled_from((0.5, 1, 3, 40.5)))
    options["unions"] = draw(st.sampled_from(("prefix", "all")))


RECOUNTS: dict[str, Recount] = {"predicted_loss": _predicted_loss}
OPTIONS: dict[str, Drawer] = {"unions": _draw_unions}
