"""The audit of a plan: each hard constraint of a call, recounted from its arguments alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.plans import Allocation, Assignment, Blend, Plan, Selection

# Options that hold pairs of items of one group, or of two.
LINKS = ("must_link", "cannot_link")


class Asked(Protocol):
    """What an audit reads of a problem."""

    @property
    def n(self) -> int: ...

    @property
    def given(self) -> Mapping[str, Any]: ...

    @property
    def at_most_k(self) -> bool: ...


def _malformed_picks(problem: Asked, plan: Selection) -> list[str]:
    index = np.asarray(plan.indices)
    if index.dtype != np.int64 or index.ndim != 1:
        return [f"indices have dtype {index.dtype}, shape {index.shape}"]
    if len(index) and (index.min() < 0 or index.max() >= problem.n):
        return [f"indices reach outside 0..{problem.n - 1}"]
    return []


def _picks_differ(_problem: Asked, plan: Selection) -> list[str]:
    breaches = []
    if len(plan.gains) != len(plan.indices):
        breaches.append(f"{len(plan.gains)} gains for {len(plan.indices)} picks")
    if len(np.unique(plan.indices)) < len(plan.indices):
        breaches.append("an item is picked twice")
    return breaches


def _k_picks(problem: Asked, plan: Selection) -> list[str]:
    """Exactly k, or at most k under a budget, where the method declares it, and where the run was stopped."""
    k, picks = problem.given["k"], len(plan.indices)
    if picks > k:
        return [f"{picks} picks, k={k}"]
    at_most = "budget" in problem.given or problem.at_most_k or plan.status == "stopped"
    return [] if at_most or picks == k else [f"only {picks} picks, k={k}"]


def _within_budget(problem: Asked, plan: Selection) -> list[str]:
    """Whole costs exactly, others up to the rounding of a sum over the pool."""
    costs, budget = problem.given["costs"], problem.given["budget"]
    spent: float
    if costs.dtype.kind == "i":
        spent = sum(int(costs[i]) for i in plan.indices)
        return [f"cost {spent} over the budget {budget}"] if spent > budget else []
    spent = math.fsum(costs[plan.indices].tolist())
    limit = budget * (1 + problem.n * np.finfo(np.float64).eps)
    return [f"cost {spent!r} over the budget {budget!r}"] if spent > limit else []


def _within_quotas(problem: Asked, plan: Selection) -> list[str]:
    groups, quotas = problem.given["groups"], problem.given["quotas"]
    if isinstance(groups, Mapping):
        return [
            f"{column}: {breach}"
            for column, ends in quotas.items()
            for breach in _within_column(groups[column], ends, plan)
        ]
    return _within_column(groups, quotas, plan)


def _within_column(groups: NDArray[Any], quotas: Mapping[Any, tuple[int, int | None]], plan: Selection) -> list[str]:
    """Each group's picks counted: the problem holds the quotas under the groups' own names."""
    counts = Counter(groups[plan.indices].tolist())
    return [
        f"group {group!r} holds {counts[group]}, its quota is ({low}, {high})"
        for group, (low, high) in quotas.items()
        if counts[group] < low or (high is not None and counts[group] > high)
    ]


def _entries_per_row(problem: Asked, plan: Selection) -> list[str]:
    scores, per_item = problem.given["scores"], problem.given["per_item"]
    if scores.ndim != 2 or not len(plan.indices):
        return []
    in_row = np.bincount(plan.indices // scores.shape[1])
    if in_row.max() <= per_item:
        return []
    return [f"row {int(in_row.argmax())} holds {in_row.max()} entries, per_item={per_item}"]


def _included(problem: Asked, plan: Selection) -> list[str]:
    missed = set(problem.given["include"]) - set(plan.indices.tolist())
    return [f"{len(missed)} items of include are not picked, row {min(missed)} for one"] if missed else []


def _excluded(problem: Asked, plan: Selection) -> list[str]:
    banned = set(problem.given["exclude"]) & set(plan.indices.tolist())
    return [f"{len(banned)} excluded items are picked, row {min(banned)} for one"] if banned else []


def _malformed_bins(problem: Asked, plan: Assignment) -> list[str]:
    if plan.indptr.shape != (problem.n + 1,) or plan.indptr[0] != 0 or plan.indptr[-1] != len(plan.bins):
        return ["indptr does not fit the bins"]
    if (np.diff(plan.indptr) < 0).any():
        return ["indptr decreases"]
    if len(plan.bins) and (plan.bins.min() < 0 or plan.bins.max() >= plan.k):
        return [f"bins reach outside 0..{plan.k - 1}"]
    return []


def _bins_differ(problem: Asked, plan: Assignment) -> list[str]:
    # Rows in the order of their bins, as large plans have them, need no search.
    rises = plan.bins[1:] > plan.bins[:-1]
    starts = plan.indptr[1:-1]
    rises[starts[(starts > 0) & (starts < len(plan.bins))] - 1] = True
    if rises.all():
        return []
    pairs = np.repeat(np.arange(problem.n), np.diff(plan.indptr)) * plan.k + plan.bins
    return ["an item holds the same bin twice"] if len(np.unique(pairs)) < len(pairs) else []


def _within_capacity(problem: Asked, plan: Assignment) -> list[str]:
    load = np.bincount(plan.bins, minlength=plan.k)
    over = np.flatnonzero(load > np.broadcast_to(problem.given["capacity"], plan.k))
    return [f"bin {j} holds {load[j]}, over its capacity" for j in over[:3]]


def _bins_per_item(problem: Asked, plan: Assignment) -> list[str]:
    per_item = problem.given["per_item"]
    return [f"an item holds more than per_item={per_item} bins"] if (np.diff(plan.indptr) > per_item).any() else []


def _large_enough(_problem: Asked, plan: Assignment) -> list[str]:
    asked = plan.options.get("min_size")
    least = np.broadcast_to(0 if asked is None else asked, plan.k)
    load = np.bincount(plan.bins, minlength=plan.k)
    return [f"bin {j} holds {load[j]}, less than min_size={least[j]}" for j in np.flatnonzero(load < least)[:3]]


def _links_hold(_problem: Asked, plan: Assignment) -> list[str]:
    breaches = []
    for name, together in zip(LINKS, (True, False), strict=True):
        links = plan.options.get(name)
        if links is None:
            continue
        pairs = np.asarray(links, np.int64).reshape(-1, 2)
        first, second = plan.labels[pairs[:, 0]], plan.labels[pairs[:, 1]]
        # Two items that stay out share no bin.
        apart = (first != second) | ((first < 0) & (not together))
        for a, b in pairs[apart == together][:1].tolist():
            breaches.append(f"rows {a} and {b} of {name} are {'not ' if together else ''}in one bin")
    return breaches


def _margins_hold(problem: Asked, plan: Assignment) -> list[str]:
    """Totals are sums of floats: they may be off by rounding, or by the tolerance that was asked for."""
    if plan.status == "stopped":
        return []
    margins = problem.given["margins"]
    breaches = []
    slack = math.fsum(margins[0].tolist()) * max(1e-9, float(plan.options.get("tol", 0.0)))
    sides = (("row", plan.row_margin, margins[0]), ("column", plan.col_margin, margins[1]))
    for side, totals, asked in sides:
        if len(totals) != len(asked):
            breaches.append(f"{len(totals)} {side} totals, margins asks for {len(asked)}")
        elif (off := float(np.abs(totals - asked).sum())) > slack:
            breaches.append(f"the {side} totals are off by {off:.3g} from margins")
    return breaches


def _medoids_are_items(problem: Asked, plan: Assignment) -> list[str]:
    if plan.medoids is None:
        return []
    breaches = []
    if len(np.unique(plan.medoids)) < len(plan.medoids):
        breaches.append("a medoid stands twice")
    if len(plan.medoids) and (plan.medoids.min() < 0 or plan.medoids.max() >= problem.n):
        breaches.append("a medoid is not an item")
    return breaches


def _malformed_amounts(problem: Asked, plan: Allocation) -> list[str]:
    if len(plan.amounts) == problem.n == len(plan.values):
        return []
    return [f"{len(plan.amounts)} amounts and {len(plan.values)} values for {problem.n} items"]


def _within_budgets(problem: Asked, plan: Allocation) -> list[str]:
    breaches = []
    for name, limit in plan.budget.items():
        spent = plan.used[name]
        slack = 0 if isinstance(spent, int | np.integer) else problem.n * np.finfo(np.float64).eps * abs(limit)
        if spent > limit + slack:
            breaches.append(f"{name}: used {spent!r} over the budget {limit!r}")
    return breaches


def _at_most_k(problem: Asked, plan: Allocation) -> list[str]:
    above, k = int((np.asarray(plan.amounts) > 0).sum()), problem.given["k"]
    return [f"{above} items are above zero, k={k}"] if above > k else []


def _within_bounds(problem: Asked, plan: Allocation) -> list[str]:
    ends = checks.spread_bounds(problem.given["bounds"], problem.n)
    amounts = np.asarray(plan.amounts)
    outside = np.flatnonzero((amounts < ends[:, 0]) | (amounts > ends[:, 1]))
    return [f"amount {amounts[i]} of row {i} is outside ({ends[i, 0]:g}, {ends[i, 1]:g})" for i in outside[:3]]


def _malformed_blend(problem: Asked, plan: Blend) -> list[str]:
    if plan.form == "order" and sorted(np.asarray(plan.result).tolist()) != list(range(problem.n)):
        return ["the ranking is not an order of the alternatives"]
    return []


_Check = Callable[[Asked, Any], list[str]]
# For each verb its noun, what must hold before anything can be counted, and the checks, each with the words that a call
# must give for it to apply: a new constraint adds a row.
AUDITS: dict[str, tuple[type[Plan], _Check, tuple[tuple[tuple[str, ...], _Check], ...]]] = {
    "select": (
        Selection,
        _malformed_picks,
        (
            ((), _picks_differ),
            (("k",), _k_picks),
            (("budget", "costs"), _within_budget),
            (("groups", "quotas"), _within_quotas),
            (("scores", "per_item"), _entries_per_row),
            (("include",), _included),
            (("exclude",), _excluded),
        ),
    ),
    "assign": (
        Assignment,
        _malformed_bins,
        (
            ((), _bins_differ),
            (("capacity",), _within_capacity),
            (("per_item",), _bins_per_item),
            ((), _large_enough),
            ((), _links_hold),
            (("margins",), _margins_hold),
            ((), _medoids_are_items),
        ),
    ),
    "allocate": (
        Allocation,
        _malformed_amounts,
        (((), _within_budgets), (("bounds",), _within_bounds), (("k",), _at_most_k)),
    ),
    "combine": (Blend, _malformed_blend, ()),
}
