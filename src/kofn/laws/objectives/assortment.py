"""Revenue of an assortment, written out plainly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kofn.laws.case import Case
from kofn.laws.inputs import Draw, TextDrawer
from kofn.laws.words import (
    Value,
)


def _mnl_revenue(case: Case, outside: float = 1.0) -> Callable[[NDArray[np.int64]], float]:
    prices = np.asarray(case.words["scores"], np.float64).tolist()
    attraction = np.asarray(case.words.get("weights", np.ones(case.n)), np.float64).tolist()

    def value(picks: NDArray[np.int64]) -> float:
        """The one R at which what the dearer items would earn above R pays for the customers who buy nothing."""
        rate = 0.0
        while True:
            dearer = [int(item) for item in picks if prices[int(item)] > rate]
            earned = math.fsum(prices[item] * attraction[item] for item in dearer)
            better = earned / (outside + math.fsum(attraction[item] for item in dearer))
            if better <= rate * (1 + 1e-15):
                return max(rate, better)
            rate = better

    return value


def _priced(draw: Draw, given: dict[str, Any], _options: dict[str, Any]) -> str | None:
    scores = np.asarray(given["scores"])
    if scores.ndim != 1 or scores.min() < 0:
        return None
    if draw(st.booleans()):
        pulls = st.sampled_from((0.0, 0.1, 1.0, 3.0))
        pull = np.array(draw(st.lists(pulls, min_size=len(scores), max_size=len(scores))))
        given["weights"] = pull if pull.any() else pull + 1
    return draw(st.sampled_from(("mnl_revenue", "mnl_revenue(outside=2.5)")))


FUNCTIONS: dict[str, Callable[..., Value]] = {"mnl_revenue": _mnl_revenue}
OBJECTIVES: dict[str, TextDrawer] = {"mnl_revenue": _priced}
