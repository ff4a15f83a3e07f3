"""The spread of members around their mean, written out plainly; and precisions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.laws.case import Case, broken
from kofn.laws.inputs import Draw, Drawer, seeded
from kofn.laws.words import (
    Recount,
    agree,
    flat,
    member_weights,
)


def _squared_distance(case: Case) -> None:
    plan = case.plan
    middle = flat(plan.result)
    rows = [flat(member) for member in case.words["members"]]
    size = max(float(np.linalg.norm(row)) for row in [*rows, middle])
    weights = np.asarray(plan.weights, np.float64)
    if not np.allclose(weights, member_weights(case), rtol=1e-12, atol=0):
        raise broken(case, "recount", f"weights are {weights}, asked {member_weights(case)}")
    apart = np.array([math.sqrt(math.fsum(((row - middle) ** 2).tolist())) for row in rows])
    for member, (reported, counted) in enumerate(zip(plan.spread.tolist(), apart.tolist(), strict=True)):
        agree(case, f"spread of member {member}", reported, counted, size)
    agree(case, "value", plan.value, math.fsum((weights * apart**2).tolist()), size * size)


def _fisher(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Precisions of very different sizes, zeros among them, for every tensor of every member."""
    rng = seeded(draw)

    def precisions(member: Any) -> Any:
        if isinstance(member, Mapping):
            return {name: precisions(tensor) for name, tensor in member.items()}
        drawn: NDArray[np.float64] = 10.0 ** rng.integers(-6, 3, np.shape(member)) * rng.integers(
            0, 2, np.shape(member)
        )
        return drawn

    options["fisher"] = [precisions(member) for member in given["members"]]


def _temperatures(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Temperatures within a few orders of magnitude, of heads that are whole members."""
    options["temperatures"] = (10.0 ** seeded(draw).uniform(0, 2, len(given["members"]))).tolist()
    options["head"] = "*"


RECOUNTS: dict[str, Recount] = {"squared_distance": _squared_distance}
OPTIONS: dict[str, Drawer] = {"fisher": _fisher, "temperatures": _temperatures}
