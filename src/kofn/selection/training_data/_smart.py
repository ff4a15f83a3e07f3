"""Rows of many tasks to train on: a budget for each task by what it adds to the others, then its own best rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.objectives._group_budgets import OF_TASKS, group_budgets, submodular
from kofn.selection.greedy._lazy_greedy import lazy_greedy


@method(
    "select",
    draws=Draw(
        states_no_value=True,
        options={"task_objective": ("facility_location",), "row_objective": ("graph_cut", "facility_location")},
    ),
    cost="O(sum of n_g^2 d) for tasks of n_g rows",
    exact="k rows, as many of each task as its budget; both steps are greedy",
    paper=297,
    aliases=("SMART", "instruction tuning"),
)
def smart(
    X: Any,
    *,
    k: int,
    groups: ArrayLike,
    n_tasks: int | None = None,
    task_objective: str = OF_TASKS,
    row_objective: str = "facility_location",
) -> Selection:
    """Pick k rows of many tasks: budgets by what each task adds to the others, then rows that stand for each task.

    Args:
        X: vectors (n, d), such as embeddings of the prompts.
        k: rows in all.
        groups: (n,) the task of each row.
        n_tasks: how many tasks to keep, the most representative ones; default all.
        task_objective: what orders the tasks, by the means of their rows; any submodular one of `kofn.objectives`. How
            alike two tasks are is their cosine, 0 where it is negative.
        row_objective: what is maximised inside a task, by the rows' cosines; likewise.

    Returns:
        Selection, task by task in the order of the tasks and inside each in the order picked; `value` is NaN, as each
        task has a maximum of its own. `info["budgets"]` has the rows of each task kept.

    Raises:
        InfeasibleError: the tasks kept have fewer than k rows.
        InputError: more tasks to keep than there are, an objective that is not submodular.

    Does it help? In our trials, with few rows and all tasks judged alike, it taught more than rows in proportion to the
    tasks' sizes and less than even shares of each task, picked inside in the same way (`each={"task": 5}`).

    Costs O(n_g^2 d) time for each task of n_g rows, O(n d) memory.

    References:
        Renduchintala, Bhatia & Ramakrishnan 2024, "SMART: Submodular Data Mixture Strategy for Instruction Tuning",
        ACL.

    Examples:
        >>> from kofn.selection import smart
        >>> X = [[1.0, 0.0], [0.9, 0.1], [0.8, 0.1], [0.0, 1.0], [0.1, 0.9], [0.5, 0.5]]
        >>> s = smart(X, k=3, groups=["a", "a", "a", "b", "b", "c"])
        >>> s.indices.tolist(), s.info["budgets"]
        ([5, 1, 3], {'c': 1, 'a': 1, 'b': 1})
    """
    labels = np.asarray(groups)
    names, task = np.unique(labels.astype(str), return_inverse=True)
    sizes = np.bincount(task)
    keep = len(names) if n_tasks is None else checks.count(n_tasks, "n_tasks")
    if keep > len(names):
        raise InputError(f"n_tasks={n_tasks}: groups has {len(names)}; keep at most so many")
    sums = np.zeros((len(names), X.shape[1]))
    np.add.at(sums, task, X.astype(np.float64))
    submodular("row_objective", row_objective)
    shared = group_budgets(sums / sizes[:, None], sizes, k, keep, task_objective)
    picks = []
    for number in shared.order[shared.counts[shared.order] > 0].tolist():
        rows = np.flatnonzero(task == number)
        inside = lazy_greedy(X[rows], k=int(shared.counts[number]), objective=row_objective, metric="cosine")
        picks.append(rows[inside.indices])
    budgets = {str(names[number]): int(shared.counts[number]) for number in shared.order.tolist()}
    return Selection(
        n=len(X),
        indices=np.concatenate(picks),
        gains=np.full(k, np.nan),
        used={"k": k},
        budget={"k": k},
        info={"budgets": budgets},
    )
