"""The true optimum of small problems, by looking at everything."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

import numpy as np

from kofn.core.arrays import Mask
from kofn.laws.case import Case
from kofn.laws.functions import gather
from kofn.laws.recount import Levels, set_function

MOST_ITEMS = 12
_MOST_STATES = 200_000


@lru_cache(maxsize=MOST_ITEMS + 1)
def subsets(n: int) -> Mask:
    """(2^n, n) every subset as a mask; do not write to it."""
    masks = (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1
    masks.flags.writeable = False
    return masks


def feasible_sets(n: int, words: Mapping[str, Any]) -> Mask:
    """(m, n) every set that the checked words of a selection allow: the constraints said once more, plainly."""
    masks = subsets(n)
    counts = masks.sum(axis=1)
    keep = np.ones(len(masks), bool)
    k, budget = words.get("k"), words.get("budget")
    if k is not None:
        keep &= (counts == k) if budget is None else (counts <= k)
    for name in ("include", "start"):
        keep &= masks[:, np.asarray(words.get(name, []), np.int64)].all(axis=1)
    keep &= ~masks[:, np.asarray(words.get("exclude", []), np.int64)].any(axis=1)
    if "quotas" in words:
        labels = np.array([str(label) for label in np.asarray(words["groups"]).tolist()])
        for label, (least, most) in words["quotas"].items():
            held = masks[:, labels == str(label)].sum(axis=1)
            keep &= (held >= least) & (held <= (n if most is None else most))
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


@cache
def optima() -> dict[str, Callable[[Case], float | None]]:
    """name in `objective` -> the best value of any plan of the call: every family's `OPTIMA`."""
    return gather("OPTIMA")


def optimum(case: Case) -> float | None:
    """The best value of any feasible plan, None where the problem is too large to look at everything."""
    if case.plan.objective in optima():
        return optima()[case.plan.objective](case)
    if case.verb == "select":
        return _best_set(case)
    if case.verb == "allocate":
        return _best_levels(case)
    if case.verb == "assign":
        return _best_medoids(case) if case.plan.medoids is not None else _best_routes(case)
    return None


def _best_set(case: Case) -> float | None:
    rule = set_function(case)
    if rule is None or case.n > MOST_ITEMS:
        return None
    masks = feasible_sets(case.n, case.words)
    if not len(masks):
        return None
    values = rule.values(masks)
    best = int(np.argmax(values) if case.plan.sense == "max" else np.argmin(values))
    return rule.value(np.flatnonzero(masks[best]))


def _best_medoids(case: Case) -> float | None:
    rule = set_function(case)
    if rule is None or case.n > MOST_ITEMS:
        return None
    picks = np.array(list(itertools.combinations(range(case.n), case.words["k"])))
    masks = np.zeros((len(picks), case.n), bool)
    np.put_along_axis(masks, picks, True, axis=1)
    return rule.value(picks[int(np.argmin(rule.values(masks)))])


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
