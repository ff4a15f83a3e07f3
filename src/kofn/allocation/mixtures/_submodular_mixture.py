"""Rows of each task of a mixture: most to the tasks that stand for others and repeat none."""

from __future__ import annotations

from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Allocation
from kofn.core.registry import method
from kofn.objectives._group_budgets import OF_TASKS, group_budgets


@method(
    "allocate",
    draws=Draw(
        plain={"bounds": (0, 3), "budget": 4},
        options={"task_objective": ("facility_location", "graph_cut(lam=0.2)")},
        silent=("duality",),
    ),
    cost="a greedy order over the n tasks, O(n^2 d)",
    exact="the budget and the rows that each task has; the order is greedy",
    paper=297,
    aliases=("task budgets", "task mixture", "instruction tuning mixture"),
)
def submodular_mixture(
    X: Any,
    *,
    budget: float,
    k: int | None = None,
    bounds: Any = None,
    task_objective: str = OF_TASKS,
) -> Allocation:
    """Share a budget of rows over tasks: most to tasks that stand for many others, little to those that repeat one.

    Tasks are taken in greedy order of a submodular function of their vectors, and share the budget by the second-order
    Taylor softmax 1 + g + g^2 / 2 of their gains. What a task has not enough rows for goes to the others. The rows
    themselves then come from `kofn.select(..., method="smart")`, which does both steps.

    Args:
        X: (n, d) a vector for each task, such as the mean embedding of its prompts.
        budget: rows in all, a whole number.
        k: tasks to keep; the others get nothing. Default all.
        bounds: (0, most) rows that all tasks have, or one such pair for each; default without limit.
        task_objective: what the order of tasks maximises, any submodular one of `kofn.objectives`; how alike two tasks
            are is their cosine, 0 where it is negative.

    Returns:
        An `Allocation`: `amounts` rows of each task, which sum to the budget; `values` the gain of each task in its
        turn, `value` their sum. `info["order"]` are the tasks kept, the most representative first.

    Raises:
        InfeasibleError: the tasks kept have fewer rows than the budget.
        InputError: a budget that is no whole number, a least of `bounds` above 0, k above the tasks, an objective that
            is not submodular.

    Cost: O(n^2 d) for the similarities of n tasks.

    Guarantee: status "heuristic": the greedy order has its share of the objective, but that such shares train well is
    experience.

    References:
        Renduchintala, Bhatia & Ramakrishnan 2024, "SMART: Submodular Data Mixture Strategy for Instruction Tuning",
        ACL.

    Examples:
        >>> from kofn.allocation import submodular_mixture
        >>> tasks = [[1.0, 0.0], [1.0, 0.05], [0.0, 1.0]]
        >>> submodular_mixture(tasks, budget=100, bounds=[(0, 80), (0, 80), (0, 30)]).amounts.tolist()
        [27, 50, 23]
        >>> submodular_mixture(tasks, budget=100, k=2).amounts.tolist()
        [35, 65, 0]
    """
    n = len(X)
    if float(budget) != int(budget):
        raise InputError(f"budget={budget:g}: rows are counted, give a whole number")
    keep = n if k is None else k
    if keep > n:
        raise InputError(f"k={k} of {n} tasks: there are only {n}; keep k <= {n}")
    low, high = checks.least_and_most(bounds, n, whole=True, most=float(int(budget)))
    if low.any():
        row = int(low.argmax())
        raise InputError(f"bounds at row {row}: the least is {low[row]:g}; a task may be left out, give 0")
    shared = group_budgets(X, high.astype(np.int64), int(budget), keep, task_objective)
    values = np.zeros(n)
    values[shared.order] = shared.gains
    return Allocation(
        n=n,
        amounts=shared.counts,
        values=values,
        bounds=np.stack([low, high], axis=1),
        value=float(values.sum()),
        sense="max",
        used={"budget": int(shared.counts.sum())},
        budget={"budget": int(budget)},
        objective="task_gains",
        info={"order": shared.order, "gains": shared.gains},
    )
