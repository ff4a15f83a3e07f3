"""Whole budgets for groups (tasks, sources, domains) by the gains of a greedy order over them."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InfeasibleError, InputError, shown
from kofn.core.objective import Objective
from kofn.objectives import base

# What the paper orders tasks by.
OF_TASKS = "graph_cut(lam=0.4)"
_MOST_GROUPS = 20_000


@dataclass(frozen=True)
class GroupBudgets:
    """What each group gets.

    Attributes:
        counts: (m,) rows of each group; 0 for those that are left out.
        order: (k,) the groups kept, in the order of the greedy picks.
        gains: (k,) what each added.
        value: the objective of the groups kept.
    """

    counts: Ints
    order: Ints
    gains: Floats
    value: float


def group_budgets(X: Floats, most: Ints, budget: int, k: int, objective: str) -> GroupBudgets:
    """Share a budget over the k groups of a greedy order, by the second-order Taylor softmax of their gains.

    Args:
        X: (m, d) a vector for each group; two are as alike as their cosine, 0 where it is negative.
        most: (m,) rows that each group has.
        budget: rows in all.
        k: groups to keep, at most.
        objective: what the order maximises, a name of `kofn.objectives`.

    Raises:
        InfeasibleError: the groups kept have fewer rows than the budget.
        InputError: an objective that is not submodular.
    """
    submodular("task_objective", objective)
    built = base.build(objective, _sources(X, objective))
    order, gains = _greedy(built, len(most), k)
    value = float(built.value(order))
    room = most[order]
    if (rows := int(room.sum())) < budget:
        raise InfeasibleError(
            f"budget={budget:,}: the {len(order)} groups kept have {rows:,} rows, {budget - rows:,} too few; keep more "
            "groups or lower the budget"
        )
    counts = np.zeros(len(most), np.int64)
    counts[order] = _shared(1 + gains + gains**2 / 2, room, budget)
    return GroupBudgets(counts, order, gains, value)


def submodular(name: str, objective: str) -> None:
    """Refuse an objective that a greedy order cannot be made by.

    Raises:
        InputError: it is not known, not submodular, or reads no rows.
    """
    try:
        terms = base.parse(objective, base.GREEDY)
    except InputError as error:
        raise InputError(str(error).replace("objective", name, 1)) from None
    for term in terms:
        known = base.OBJECTIVES[term.name]
        if not known.submodular or not {"X", "similarity"} & set(known.sources):
            raise InputError(
                f"{name}={shown(objective)}: {term.name} is no submodular function of rows; try {OF_TASKS}"
            )


def _sources(X: Floats, objective: str) -> dict[str, Any]:
    """What the objective is built from: the groups' similarities where it reads them, else their vectors."""
    m = len(X)
    if "similarity" not in base.words_of(objective):
        return {"X": X}
    if m > _MOST_GROUPS:
        raise InputError(f"{m:,} groups make {m * m:,} similarities; give at most {_MOST_GROUPS:,}, or join some")
    rows = np.asarray(X, np.float64)
    # By the largest entry first, so that no square is beyond what numbers hold.
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    rows = np.divide(rows, largest, out=np.zeros(rows.shape), where=largest > 0)
    length = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    rows = np.divide(rows, length, out=rows, where=length > 0)
    alike = np.maximum(rows @ rows.T, 0.0)
    # A row of zeros is like nothing but itself.
    np.fill_diagonal(alike, 1.0)
    return {"similarity": (alike + alike.T) / 2}


def _greedy(objective: Objective, n: int, k: int) -> tuple[Ints, Floats]:
    """The k items of largest gain, one after the other, and those gains; stale gains are upper bounds."""
    first = objective.gains(np.arange(n))
    heap = [(-float(gain), item, 0) for item, gain in enumerate(first)]
    heapq.heapify(heap)
    order: list[int] = []
    gains: list[float] = []
    while len(order) < k:
        _, item, fresh = heapq.heappop(heap)
        if fresh < len(order):
            heapq.heappush(heap, (-float(objective.gains(np.array([item]))[0]), item, len(order)))
            continue
        order.append(item)
        gains.append(float(objective.add(item)))
    return np.array(order, np.int64), np.array(gains)


def _shared(weight: Floats, most: Ints, budget: int) -> Ints:
    """(k,) whole parts of the budget in proportion to the weights, none above its most: largest remainders."""
    exact = np.zeros(len(weight))
    open_, room = np.arange(len(weight)), float(budget)
    while len(open_):
        part = room * weight[open_] / weight[open_].sum()
        full = part >= most[open_]
        if not full.any():
            exact[open_] = part
            break
        # What a small group cannot use goes to the others, in their proportions.
        exact[open_[full]] = most[open_[full]]
        room -= float(most[open_[full]].sum())
        open_ = open_[~full]
    counts = np.floor(exact).astype(np.int64)
    rest = np.argsort(-(exact - counts), kind="stable")
    rest = rest[counts[rest] < most[rest]]
    counts[rest[: budget - int(counts.sum())]] += 1
    return counts
