"""The loss of medoids, written out plainly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.laws.case import Case, broken
from kofn.laws.inputs import Draw, Drawer
from kofn.laws.words import (
    Recount,
    SetFunction,
    agree,
    distances,
    from_table,
    item_weights,
)


def _k_medoids(case: Case) -> SetFunction:
    return from_table("k_medoids", distances(case), item_weights(case), "least")


def _medoid_loss(case: Case) -> None:
    plan, loss = case.plan, _k_medoids(case)
    # Below the rounding of the largest distance, distances are nothing.
    table = distances(case)
    nothing = float(np.finfo(np.float64).eps * table.max() * item_weights(case).sum())
    agree(case, "value", plan.value, loss.value(plan.medoids), nothing)
    own = table[np.arange(case.n), plan.medoids[plan.labels]]
    least = table[:, plan.medoids].min(axis=1)
    if not np.allclose(own, least, rtol=case.rtol, atol=case.rtol * table.max()):
        far = int(np.argmax(own - least))
        raise broken(case, "recount", f"item {far} is not with its nearest medoid: {own[far]!r} > {least[far]!r}")


def _draw_share(draw: Draw, _given: Mapping[str, Any], options: dict[str, Any]) -> None:
    options["max_neighbor"] = draw(st.sampled_from((0.025, 1.0)))


FUNCTIONS: dict[str, Callable[[Case], SetFunction]] = {"k_medoids": _k_medoids}
RECOUNTS: dict[str, Recount] = {"k_medoids": _medoid_loss}
OPTIONS: dict[str, Drawer] = {"max_neighbor": _draw_share}
