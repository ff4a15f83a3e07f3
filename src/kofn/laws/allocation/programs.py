"""Scores of whole choices, asked anew."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from kofn.laws.case import Case, broken
from kofn.laws.inputs import Draw, Drawer, seeded
from kofn.laws.words import Recount, agree


def _score_of_levels(case: Case) -> None:
    plan = case.plan
    agree(case, "value", plan.value, float(case.given["score"](plan.amounts)))
    path = plan.info["path"]
    if any(after > before for before, after in itertools.pairwise(path)) or path[-1] != plan.value:
        raise broken(case, "recount", f"parents score {path}, the plan {plan.value!r}")


def _draw_score(draw: Draw, given: dict[str, Any], _options: dict[str, Any]) -> None:
    """A loss that is no sum: how far amounts are from some, with all pairs."""
    n = np.asarray(given["curves"]).shape[0]
    rng = seeded(draw)
    pairs, aim = rng.normal(size=(n, n)), rng.integers(0, 3, n)
    given["score"] = lambda amounts: float(abs(pairs @ (amounts - aim)).sum())


RECOUNTS: dict[str, Recount] = {"score_of_levels": _score_of_levels}
OPTIONS: dict[str, Drawer] = {"samples": _draw_score}
