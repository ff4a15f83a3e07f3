"""Facility location again, column by column."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kofn.core.arrays import Floats
from kofn.core.checks import is_sparse
from kofn.laws.case import Case, broken
from kofn.laws.words import (
    SetFunction,
    from_table,
    item_weights,
    pairwise,
)


def _facility_location(case: Case) -> SetFunction:
    return from_table("facility_location", _similarity(case), item_weights(case), "most")


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


FUNCTIONS: dict[str, Callable[[Case], SetFunction]] = {"facility_location": _facility_location}
