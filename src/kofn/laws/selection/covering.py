"""Radii, and utility plus least distance, written out plainly."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.core.arrays import Floats
from kofn.laws.case import Case, broken, near
from kofn.laws.families import gather
from kofn.laws.inputs import Draw, Drawer
from kofn.laws.words import (
    Optimum,
    Recount,
    SetFunction,
    Value,
    distances,
    from_table,
)
from kofn.objectives import base


def _k_center(case: Case) -> SetFunction:
    return from_table("k_center", distances(case), np.ones(case.n), "radius")


def _least_distance(apart: Floats, picks: Any, everyone: list[int]) -> float:
    pairs = [float(apart[i, j]) for i, j in itertools.combinations(map(int, picks), 2)]
    return min(pairs) if pairs else max((float(apart[i, j]) for i in everyone for j in everyone), default=0.0)


def _utility_and_distance(case: Case) -> tuple[Value, list[int]]:
    """Utility + lam * least distance of any set, and the items that are open."""
    apart = distances(case)
    (term,) = base.parse(case.plan.info["utility_is"], gather("FUNCTIONS"))
    made = gather("FUNCTIONS")[term.name](case, **term.parameters)
    utility: Value = made.value if isinstance(made, SetFunction) else made
    banned = set(np.asarray(case.words.get("exclude", []), np.int64).tolist())
    everyone = [item for item in range(case.n) if item not in banned]
    lam = float(case.options.get("lam", 1.0))
    return lambda picks: utility(picks) + lam * _least_distance(apart, picks, everyone), everyone


def _recount_utility_and_distance(case: Case) -> None:
    value, _ = _utility_and_distance(case)
    reported, counted = case.plan.value, value(case.plan.indices)
    if not near(reported, counted, case.rtol):
        raise broken(case, "recount", f"value is {reported!r}, recounted {counted!r}")


def _best_utility_and_distance(case: Case) -> float | None:
    value, everyone = _utility_and_distance(case)
    if len(everyone) > 10:
        return None
    sizes = range(1, int(case.words["k"]) + 1)
    return max(value(picks) for size in sizes for picks in itertools.combinations(everyone, size))


def _draw_utility(draw: Draw, given: dict[str, Any], options: dict[str, Any]) -> None:
    if draw(st.booleans()):
        n = len(given["X"] if "X" in given else given["distances"])
        given["scores"] = draw(st.lists(st.sampled_from((0.0, 1.0, 2.0, 2.5)), min_size=n, max_size=n))
        return
    kinds = [None, "medoid_loss"] + ["facility_location", "saturated_coverage(alpha=0.25)"] * ("X" in given)
    options["utility"] = draw(st.sampled_from(kinds))


def _draw_lam(draw: Draw, given: dict[str, Any], options: dict[str, Any]) -> None:  # noqa: ARG001
    options["lam"] = draw(st.sampled_from((0, 0.5, 1.0, 6.0)))


def _rows_within(case: Case, picks: Any, radius: float) -> int:
    """How many rows are picked, or nearer than the radius to a pick."""
    chosen = np.asarray(picks, np.int64)
    covered = np.zeros(case.n, bool)
    if len(chosen):
        covered |= (distances(case)[:, chosen] < radius).any(axis=1)
        covered[chosen] = True
    return int(covered.sum())


def _radii(case: Case) -> tuple[float, float]:
    """The radius less and plus what distances are rounded by: a row on the edge may be counted or not."""
    radius = float(case.plan.info["radius"])
    # Rows of one direction are at a distance of rounding, which no relative slack covers.
    slack = 1e-6 * radius + (1e-12 if case.words.get("metric") == "cosine" else 0.0)
    return radius - slack, radius + slack


def _recount_rows_in_balls(case: Case) -> None:
    reported, picks = case.plan.value, case.plan.indices
    ends = [_rows_within(case, picks, radius) for radius in _radii(case)]
    if not ends[0] <= reported <= ends[1]:
        raise broken(case, "recount", f"value is {reported!r}, recounted {ends[0]} to {ends[1]}")


def _most_rows_in_balls(case: Case) -> float | None:
    """The optimum where only k and exclusions bind."""
    banned = set(np.asarray(case.words.get("exclude", []), np.int64).tolist())
    everyone = [item for item in range(case.n) if item not in banned]
    if len(everyone) > 10 or {"costs", "groups", "include", "start"} & case.words.keys():
        return None
    low, high = _radii(case)
    apart = distances(case)
    if ((apart >= low) & (apart < high)).any():
        return None
    size = int(case.words["k"])
    return float(max(_rows_within(case, picks, low) for picks in itertools.combinations(everyone, size)))


FUNCTIONS: dict[str, Callable[[Case], SetFunction]] = {"k_center": _k_center}
RECOUNTS: dict[str, Recount] = {
    "utility_plus_min_distance": _recount_utility_and_distance,
    "rows_in_balls": _recount_rows_in_balls,
}
OPTIMA: dict[str, Optimum] = {
    "utility_plus_min_distance": _best_utility_and_distance,
    "rows_in_balls": _most_rows_in_balls,
}
OPTIONS: dict[str, Drawer] = {"utility": _draw_utility, "lam": _draw_lam}
