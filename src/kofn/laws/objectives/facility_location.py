"""Facility location again, column by column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.core.arrays import Floats
from kofn.core.checks import is_sparse
from kofn.laws.case import Case, broken
from kofn.laws.inputs import Draw
from kofn.laws.words import (
    SetFunction,
    from_table,
    item_weights,
    pairwise,
)


def _facility_location(case: Case, bandwidth: float | None = None) -> SetFunction:
    if case.words.get("metric") == "rbf" and "similarity" not in case.words:
        width = float(case.plan.info["bandwidth"]) if bandwidth is None else bandwidth
        table = np.exp(-pairwise(case.words["X"], "sqeuclidean") / (2 * width * width))
    else:
        table = _similarity(case)
    return from_table("facility_location", table, item_weights(case), "most")


def _similarity(case: Case) -> Floats:
    words = case.words
    if "similarity" in words:
        given = words["similarity"]
        return np.asarray(given.toarray() if is_sparse(given) else given, np.float64)
    apart = pairwise(words["X"], words.get("metric", "euclidean"))
    if words.get("metric") == "cosine":
        apart = apart / 2
    offset = float(case.plan.info["offset"])
    if offset < apart.max() * (1 - case.rtol):
        raise broken(case, "recount", f"offset {offset!r} is below the largest distance {apart.max()!r}")
    return offset - apart


def _draw_metric(draw: Draw, given: dict[str, Any], options: dict[str, Any]) -> str:  # noqa: ARG001
    """The similarity that no other objective has, with a bandwidth or without."""
    if "X" not in given or draw(st.integers(0, 2)):
        return "facility_location"
    given["metric"] = "rbf"
    width = draw(st.sampled_from((None, 0.25, 1.0, 4.0)))
    return "facility_location" if width is None else f"facility_location(bandwidth={width})"


FUNCTIONS: dict[str, Callable[..., SetFunction]] = {"facility_location": _facility_location}
OBJECTIVES: dict[str, Any] = {"facility_location": _draw_metric}
