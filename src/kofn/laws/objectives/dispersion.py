"""Distances among the picks, pair by pair."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from kofn.laws.case import Case
from kofn.laws.inputs import Draw, TextDrawer, objective_text
from kofn.laws.words import (
    Value,
    distances,
)


def _dispersion(case: Case, kind: str = "sum") -> Value:
    apart = distances(case)

    def value(picks: Any) -> float:
        pairs = [float(apart[i, j]) for i, j in itertools.combinations(map(int, picks), 2)]
        return (math.fsum(pairs) if kind == "sum" else min(pairs)) if pairs else 0.0

    return value


def _draw_dispersion(draw: Draw, given: dict[str, Any], options: dict[str, Any]) -> str:  # noqa: ARG001
    return objective_text("dispersion", kind=draw(st.sampled_from(("sum", "min"))))


FUNCTIONS: dict[str, Callable[..., Value]] = {"dispersion": _dispersion}
OBJECTIVES: dict[str, TextDrawer] = {"dispersion": _draw_dispersion}
