"""The true optimum of small problems, by exhaustive search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from kofn.core.arrays import Ints, Mask
from kofn.laws.case import Case
from kofn.laws.families import gather
from kofn.laws.recount import set_function
from kofn.laws.words import Levels

MOST_ITEMS = 12
_MOST_STATES = 200_000
_MOST_PARTITIONED = 8


@lru_cache(maxsize=MOST_ITEMS + 1)
def subsets(n: int) -> Mask:
    """(2^n, n) every subset as a mask; read-only."""
    masks = (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1
    masks.flags.writeable = False
    return masks


def quota_columns(words: Mapping[str, Any]) -> list[tuple[Any, Mapping[Any, Any]]]:
    """The groups and quotas of each column."""
    groups, quotas = words.get("groups"), words.get("quotas", {})
    if isinstance(groups, Mapping):
        return [(groups[column], quotas[column]) for column in quotas]
    return [(groups, quotas)] if quotas else []


def feasible_sets(n: int, words: Mapping[str, Any]) -> Mask:
    """(m, n) every feasible set of a selection, by a naive form of the constraints."""
    masks = subsets(n)
    counts = masks.sum(axis=1)
    keep = np.ones(len(masks), bool)
    k, budget = words.get("k"), words.get("budget")
    if k is not None:
        keep &= (counts == k) if budget is None else (counts <= k)
    for name in ("include", "start"):
        keep &= masks[:, np.asarray(words.get(name, []), np.int64)].all(axis=1)
    keep &= ~masks[:, np.asarray(words.get("exclude", []), np.int64)].any(axis=1)
    for groups, quotas in quota_columns(words):
        labels = np.array([str(label) for label in np.asarray(groups).tolist()])
        for label, (least, most) in quotas.items():
            picked = masks[:, labels == str(label)].sum(axis=1)
            keep &= (picked >= least) & (picked <= (n if most is None else most))
    masks = masks[keep]
    if budget is None:
        return masks
    costs = np.asarray(words["costs"])
    if costs.dtype.kind in "iu":
        room: Any = Fraction(budget)
        spent = [sum(costs[mask].tolist()) for mask in masks]
    else:
        room = budget * (1 + n * float(np.finfo(np.float64).eps))
        spent = [math.fsum(costs[mask].tolist()) for mask in masks]
    return masks[np.array([cost <= room for cost in spent], bool)]


def optimum(case: Case) -> float | None:
    """The best value of any feasible plan, None if the problem is too large for exhaustive search."""
    if case.plan.objective in gather("OPTIMA"):
        return gather("OPTIMA")[case.plan.objective](case)
    if case.verb == "select":
        return _best_set(case)
    if case.verb == "allocate":
        return _best_levels(case) if "curves" in case.words and case.plan.objective in ("", "curves") else None
    if case.verb == "assign":
        if case.plan.medoids is not None:
            return _best_medoids(case)
        return _best_routes(case) if case.plan.objective == "routed_score" else None
    return None


def _best_set(case: Case) -> float | None:
    objective = set_function(case)
    if objective is not None and np.ndim(case.words.get("scores", ())) == 2:
        return _best_entries(case)
    if objective is None or case.n > MOST_ITEMS:
        return None
    masks = feasible_sets(case.n, case.words)
    if not len(masks):
        return None
    values = objective.values(masks)
    best = int(np.argmax(values) if case.plan.sense == "max" else np.argmin(values))
    return objective.value(np.flatnonzero(masks[best]))


def _best_entries(case: Case) -> float | None:
    """The largest summed score of entries of a table that a budget buys, at most `per_item` of a row.

    None where other words set limits, a row's and a column's, which are those of no set of items.
    """
    words = case.words
    scores = np.asarray(words["scores"], np.float64)
    if not {"scores", "costs", "budget", "per_item", "exclude"} >= words.keys() or "budget" not in words:
        return None
    n, width = scores.shape
    costs = np.asarray(words["costs"])
    price = costs.reshape(n, width) if costs.size == scores.size else np.broadcast_to(costs, scores.shape)
    shut = set(np.asarray(words.get("exclude", []), np.int64).tolist())
    room: Any = Fraction(words["budget"])
    if costs.dtype.kind not in "iu":
        room *= 1 + scores.size * Fraction(float(np.finfo(np.float64).eps))
    best: dict[Fraction, float] = {Fraction(0): 0.0}
    for row in range(n):
        able = [j for j in range(width) if scores[row, j] > -math.inf and row * width + j not in shut]
        sizes = range(min(len(able), words.get("per_item", 1)) + 1)
        choices = [pick for size in sizes for pick in itertools.combinations(able, size)]
        after: dict[Fraction, float] = {}
        for spent, value in best.items():
            for pick in choices:
                total = spent + sum(Fraction(price[row, j].item()) for j in pick)
                worth = value + math.fsum(scores[row, list(pick)].tolist())
                if total <= room and worth > after.get(total, -math.inf):
                    after[total] = worth
        best = after
        if len(best) > _MOST_STATES:
            return None
    return max(best.values())


def _best_medoids(case: Case) -> float | None:
    objective = set_function(case)
    if objective is None or case.n > MOST_ITEMS:
        return None
    picks = np.array(list(itertools.combinations(range(case.n), case.words["k"])))
    masks = np.zeros((len(picks), case.n), bool)
    np.put_along_axis(masks, picks, True, axis=1)
    return objective.value(picks[int(np.argmin(objective.values(masks)))])


def _best_routes(case: Case) -> float | None:
    """The largest summed score of any routing within the capacities: item by item over the room that is left."""
    scores = np.asarray(case.words["scores"], np.float64)
    n, bins = scores.shape
    most = case.words.get("per_item", 1)
    room = np.broadcast_to(case.words.get("capacity", n), bins).astype(int).tolist()
    # More room than items never binds.
    best: dict[tuple[int, ...], float] = {tuple(min(n, free) for free in room): 0.0}
    for item in range(n):
        listed = np.flatnonzero(scores[item] > -np.inf).tolist()
        choices = [pick for size in range(most + 1) for pick in itertools.combinations(listed, size)]
        after: dict[tuple[int, ...], float] = {}
        for state, value in best.items():
            for pick in choices:
                if all(state[j] > 0 for j in pick):
                    left = tuple(free - (j in pick) for j, free in enumerate(state))
                    total = value + math.fsum(scores[item, list(pick)].tolist())
                    if total > after.get(left, -math.inf):
                        after[left] = total
        if len(after) * len(choices) > _MOST_STATES:
            return None
        best = after
    return max(best.values())


def _best_levels(case: Case) -> float | None:
    return best_levels(Levels.of(case))


def best_levels(ask: Levels, budget: Fraction | None = None) -> float | None:
    """The best total worth of one level an item within the budget, by exact dynamic programming over what is spent."""
    limit = ask.limit if budget is None else budget
    sign = 1.0 if ask.sense == "max" else -1.0
    best: dict[Fraction, float] = {Fraction(0): 0.0}
    for costs, worth in zip(ask.costs, ask.curves, strict=True):
        after: dict[Fraction, float] = {}
        for spent, value in best.items():
            for cost, gain in zip(costs.tolist(), worth.tolist(), strict=True):
                total = spent + Fraction(cost)
                if total <= limit and value + sign * gain > after.get(total, -math.inf):
                    after[total] = value + sign * gain
        if len(after) > _MOST_STATES:
            return None
        best = after
    return sign * max(best.values()) if best else None


def partitions(n: int, k: int | None = None) -> Iterator[list[int]]:
    """Every partition of n items, into k groups where k is given, as labels that begin in order."""

    def grow(labels: list[int], used: int) -> Iterator[list[int]]:
        if len(labels) == n:
            if k is None or used == k:
                yield labels
            return
        if k is not None and used + n - len(labels) < k:
            return
        for group in range(used + 1 if k is None else min(used + 1, k)):
            yield from grow([*labels, group], max(used, group + 1))

    return grow([], 0)


def least_partition(case: Case, cost: Callable[[Ints], float]) -> float | None:
    """The least summed cost of any partition into as many groups as the plan has; None above a few items."""
    if case.n > _MOST_PARTITIONED:
        return None
    known: dict[int, float] = {}

    def of(mask: int) -> float:
        if mask not in known:
            known[mask] = cost(np.array([item for item in range(case.n) if mask >> item & 1]))
        return known[mask]

    best = math.inf
    for labels in partitions(case.n, case.plan.k):
        masks = [0] * case.plan.k
        for item, group in enumerate(labels):
            masks[group] |= 1 << item
        best = min(best, math.fsum(of(mask) for mask in masks))
    return best
