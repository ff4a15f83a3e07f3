"""Groups as the trees that span them, written out plainly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kofn.core.arrays import Floats
from kofn.laws.brute import least_partition
from kofn.laws.case import Case, broken, near
from kofn.laws.inputs import Draw, Drawer
from kofn.laws.words import (
    Optimum,
    Recount,
    distances,
    group_members,
    pairwise,
)


def _longest(table: Floats, members: list[NDArray[np.int64]]) -> float:
    """The longest step of the groups' shortest trees."""
    return max((step for group in members for step in _tree(table[np.ix_(group, group)])), default=0.0)


def _shortest_tree(table: Floats) -> float:
    return math.fsum(_tree(table))


def _tree(table: Floats) -> list[float]:
    """Steps of the shortest tree over all items, by Kruskal's rule."""
    count = len(table)
    group, lengths = list(range(count)), []
    pairs = [(float(table[i, j]), i, j) for i in range(count) for j in range(i + 1, count)]
    for length, i, j in sorted(pairs):
        if group[i] != group[j]:
            lengths.append(length)
            old, new = group[j], group[i]
            group = [new if label == old else label for label in group]
    return lengths


def _spanning_forest(case: Case) -> None:
    plan, table, members = case.plan, distances(case), group_members(case)
    scale = case.options.get("threshold", math.inf)
    if "threshold" not in case.options and plan.k != case.words.get("k", 1):
        raise broken(case, "recount", f"{plan.k} groups, asked {case.words.get('k', 1)}")
    counted = math.fsum(_shortest_tree(table[np.ix_(group, group)]) for group in members)
    # Below the rounding of the largest distance, distances are nothing.
    nothing = float(np.finfo(np.float64).eps * table.max(initial=0.0))
    if not near(plan.value, counted, case.rtol, nothing * case.n / case.rtol):
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {counted!r}")
    between = [float(table[np.ix_(group, other)].min()) for group in members for other in members if group is not other]
    spacing, reported = min(between, default=math.inf), plan.info["spacing"]
    if not near(math.inf if reported is None else reported, spacing, case.rtol, nothing):
        raise broken(case, "recount", f"spacing is {reported!r}, recounted {spacing!r}")
    if "threshold" in case.options and not _longest(table, members) * (1 - case.rtol) <= scale <= spacing * (
        1 + case.rtol
    ):
        raise broken(case, "recount", f"groups are {spacing!r} apart, with steps beyond or within the scale {scale!r}")


def _best_forest(case: Case) -> float | None:
    table = distances(case)
    return least_partition(case, lambda group: _shortest_tree(table[np.ix_(group, group)]))


def _draw_threshold(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """A scale among the distances instead of k, or none."""
    if draw(st.integers(0, 2)) == 0:
        return
    if isinstance(given, dict):
        given.pop("k", None)
    if "distances" in given:
        table = np.asarray(given["distances"], np.float64)
    else:
        table = pairwise(np.asarray(given["X"], np.float64), given.get("metric", "euclidean"))
    options["threshold"] = float(np.quantile(table, draw(st.sampled_from((0.0, 0.2, 0.35, 0.5, 1.0)))))


RECOUNTS: dict[str, Recount] = {"spanning_forest": _spanning_forest}
OPTIMA: dict[str, Optimum] = {"spanning_forest": _best_forest}
OPTIONS: dict[str, Drawer] = {"threshold": _draw_threshold}
