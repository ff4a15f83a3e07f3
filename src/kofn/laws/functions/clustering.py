"""What a partition is worth, written out plainly: links that hold groups together, squares, likelihoods."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kofn.core.arrays import Floats
from kofn.laws.case import Case, broken, near

if TYPE_CHECKING:
    # The laws themselves read recounts, before there is anything to draw.
    from kofn.laws.inputs import Draw

_MOST_ITEMS = 8


def _apart(case: Case) -> Floats:
    # Late: the recount gathers this module.
    from kofn.laws.recount import distances

    return distances(case)


def _longest(table: Floats, members: list[NDArray[np.int64]]) -> float:
    """The longest step of the groups' shortest trees."""
    return max((step for held in members for step in _tree(table[np.ix_(held, held)])), default=0.0)


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
            group = [new if one == old else one for one in group]
    return lengths


def _members(case: Case) -> list[NDArray[np.int64]]:
    labels = case.plan.labels
    members = [np.flatnonzero(labels == group) for group in range(case.plan.k)]
    for group, held in enumerate(members):
        if not len(held):
            raise broken(case, "recount", f"group {group} is empty")
    if (labels < 0).any():
        raise broken(case, "recount", f"item {int((labels < 0).argmax())} is in no group")
    return members


def _spanning_forest(case: Case) -> None:
    plan, table, members = case.plan, _apart(case), _members(case)
    scale = case.options.get("threshold", math.inf)
    if "threshold" not in case.options and plan.k != case.words.get("k", 1):
        raise broken(case, "recount", f"{plan.k} groups, asked {case.words.get('k', 1)}")
    counted = math.fsum(_shortest_tree(table[np.ix_(held, held)]) for held in members)
    # Below the rounding of the largest distance, distances are nothing.
    nothing = float(np.finfo(np.float64).eps * table.max(initial=0.0))
    if not near(plan.value, counted, case.rtol, nothing * case.n / case.rtol):
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {counted!r}")
    between = [float(table[np.ix_(held, other)].min()) for held in members for other in members if held is not other]
    spacing, told = min(between, default=math.inf), plan.info["spacing"]
    if not near(math.inf if told is None else told, spacing, case.rtol, nothing):
        raise broken(case, "recount", f"spacing is {told!r}, recounted {spacing!r}")
    if "threshold" in case.options and not _longest(table, members) * (1 - case.rtol) <= scale <= spacing * (
        1 + case.rtol
    ):
        raise broken(case, "recount", f"groups are {spacing!r} apart, with steps beyond or within the scale {scale!r}")


def _squares(X: Floats) -> float:
    gap = X - X[0]
    gap = gap - gap.mean(axis=0)
    return math.fsum((gap * gap).ravel().tolist())


def _rows(case: Case) -> Floats:
    return np.asarray(case.words["X"], np.float64)


def _within_group_squares(case: Case) -> None:
    plan, X = case.plan, _rows(case)
    members = _members(case)
    counted = math.fsum(_squares(X[held]) for held in members)
    # Squares of what rounding does to the rows are nothing.
    nothing = float((np.finfo(np.float64).eps * np.abs(X).max()) ** 2) * X.size
    if not near(plan.value, counted, case.rtol, nothing / case.rtol):
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {counted!r}")
    middle = np.array([X[held].mean(axis=0) for held in members])
    if not np.allclose(plan.centers, middle, rtol=1e-9, atol=1e-12 * np.abs(X).max()):
        raise broken(case, "recount", f"centers are {plan.centers}, recounted {middle}")


def _group_log_likelihood(case: Case) -> None:
    plan, X = case.plan, _rows(case)
    spread = float(X.var(axis=0).mean())
    ridge = float(case.plan.options["ridge"]) * (spread or 1.0)
    # Of rows that are all alike only rounding differs.
    if spread < (1e3 * np.finfo(np.float64).eps * np.abs(X).max()) ** 2:
        return
    terms = []
    for held in _members(case):
        gap = X[held] - X[held].mean(axis=0)
        values, vectors = np.linalg.eigh(gap.T @ gap / len(held))
        variance = np.maximum(values, 0.0) + ridge
        along = gap @ vectors
        terms += (-0.5 * along * along / variance).ravel().tolist()
        terms += [-0.5 * len(held) * math.log(2 * math.pi * one) for one in variance.tolist()]
    counted, scale = math.fsum(terms), math.fsum(map(abs, terms))
    # The ridge is what the smallest variances rest on: their rounding is that of the largest over the ridge.
    if not near(plan.value, counted, max(case.rtol, 1e-9), scale):
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {counted!r}")


def _partitions(n: int, k: int) -> Iterator[list[int]]:
    """Every partition of n items into k groups, as labels that begin in order."""

    def grow(labels: list[int], used: int) -> Iterator[list[int]]:
        if len(labels) == n:
            if used == k:
                yield labels
            return
        if used + n - len(labels) < k:
            return
        for group in range(min(used + 1, k)):
            yield from grow([*labels, group], max(used, group + 1))

    return grow([], 0)


def _least(case: Case, cost: Callable[[NDArray[np.int64]], float]) -> float | None:
    """The least summed cost of any partition into as many groups."""
    if case.n > _MOST_ITEMS:
        return None
    known: dict[int, float] = {}

    def of(mask: int) -> float:
        if mask not in known:
            known[mask] = cost(np.array([item for item in range(case.n) if mask >> item & 1]))
        return known[mask]

    best = math.inf
    for labels in _partitions(case.n, case.plan.k):
        masks = [0] * case.plan.k
        for item, group in enumerate(labels):
            masks[group] |= 1 << item
        best = min(best, math.fsum(of(mask) for mask in masks))
    return best


def _best_forest(case: Case) -> float | None:
    table = _apart(case)
    return _least(case, lambda held: _shortest_tree(table[np.ix_(held, held)]))


def _best_squares(case: Case) -> float | None:
    X = _rows(case)
    return _least(case, lambda held: _squares(X[held]))


RECOUNTS: dict[str, Callable[[Case], None]] = {
    "spanning_forest": _spanning_forest,
    "within_group_squares": _within_group_squares,
    "group_log_likelihood": _group_log_likelihood,
}

# Name in `objective` -> the best value of any partition into as many groups, None where there are too many.
OPTIMA: dict[str, Callable[[Case], float | None]] = {
    "spanning_forest": _best_forest,
    "within_group_squares": _best_squares,
}


def _draw_threshold(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """A scale among the distances instead of k, or none."""
    from kofn.laws.recount import pairwise

    if draw(st.integers(0, 2)) == 0:
        return
    if isinstance(given, dict):
        given.pop("k", None)
    if "distances" in given:
        table = np.asarray(given["distances"], np.float64)
    else:
        table = pairwise(np.asarray(given["X"], np.float64), given.get("metric", "euclidean"))
    options["threshold"] = float(np.quantile(table, draw(st.sampled_from((0.0, 0.2, 0.35, 0.5, 1.0)))))


OPTIONS: dict[str, Callable[[Draw, Mapping[str, Any], dict[str, Any]], None]] = {"threshold": _draw_threshold}
