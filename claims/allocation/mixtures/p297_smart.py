"""Task budgets by submodular gains, and rows of each task by another: what a classifier learns from few rows.

Thirty tasks of which ten repeat others, drawn as Gaussians; and the ten digits, each cut in three parts of very unequal
size by k-medoids. Learners tell the families that tasks belong to, and are judged on rows of all tasks alike.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from claims import Evidence, claim
from claims.harness.data import digits
from claims.harness.learners import Network
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

TASKS, COPIES, ROWS, WIDTH = 30, 10, 3000, 12
BUDGETS = (60, 120, 240)
WAYS = ("smart", "proportional", "equal", "equal, greedy inside", "ten tasks")


@claim(
    paper=297,
    says="At each budget a learner from rows by SMART is more accurate over all tasks alike than from rows in "
    "proportion to "
    "the tasks' sizes and from equal shares, and at the smallest budget ten tasks teach more than all",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Rows of two pools of tasks at three budgets; broken: all tasks have one vector, so that none adds less."""
    runs = 10 if scale == "small" else 30
    measured: dict[str, Any] = {}
    criteria = {}
    for data in ("drawn tasks", "parts of digits"):
        trials = spread(functools.partial(_trial, data=data, broken=broken), derive(seed, runs, stream=len(data)))
        for budget in BUDGETS:
            table = {
                way: np.array([trial[budget][way] for trial in trials]) for way in WAYS if way in trials[0][budget]
            }
            row: dict[str, Any] = {way: round(float(values.mean()), 4) for way, values in table.items()}
            for way in WAYS[1:4]:
                gap = difference(table["smart"], table[way])
                criteria[f"{data}, {budget} rows: above {way}"] = gap.above(0.0)
                row[f"smart - {way}"] = gap.figures()
            measured[f"{data}, {budget} rows"] = row
        few = difference(
            np.array([trial[BUDGETS[0]]["ten tasks"] for trial in trials]),
            np.array([trial[BUDGETS[0]]["smart"] for trial in trials]),
        )
        criteria[f"{data}: ten tasks teach more than all at {BUDGETS[0]} rows"] = few.above(0.0)
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="lower 95% limits of paired differences in accuracy, the mean over tasks, above 0 at each budget; ten "
        "tasks less all tasks above 0 at the smallest",
        baseline="rows drawn in proportion to the tasks' sizes; as many of each task, drawn; and as many of each task, "
        "picked inside by the facility location that SMART has too",
        kind="reduced",
    )


def _trial(seed: int, *, data: str, broken: bool) -> dict[int, dict[str, float]]:
    rng = np.random.default_rng(seed)
    X, task, family = _drawn(rng) if data == "drawn tasks" else _parts(rng)
    order = rng.permutation(len(X))
    pool, test = order[: 2 * len(X) // 3], order[2 * len(X) // 3 :]
    X_pool, task_pool = X[pool], task[pool]
    names = np.unique(task_pool)
    sizes = np.array([(task_pool == name).sum() for name in names])

    def judged(rows: Ints) -> float:
        network = Network(hidden=(32,), steps=250, rate=1e-2).fit(
            X_pool[rows], family[pool][rows], int(family.max()) + 1, seed
        )
        hit = network.logits(X[test]).argmax(axis=1) == family[test]
        return float(np.mean([hit[task[test] == name].mean() for name in names if (task[test] == name).any()]))

    def smart(budget: int, **options: Any) -> Ints:
        if broken:
            # The mean of all rows stands for each task, so that gains tell no task from another.
            plan = kofn.allocate(
                X=np.tile(X_pool.mean(axis=0), (len(names), 1)),
                budget=budget,
                bounds=np.stack([np.zeros_like(sizes), sizes], axis=1),
                method="submodular_mixture",
            )
            return _inside(X_pool, task_pool, names, plan.amounts)
        return np.asarray(kofn.select(X_pool, k=budget, groups=task_pool, method="smart", **options).indices)

    out = {}
    for budget in BUDGETS:
        even = _equal(sizes, budget)
        out[budget] = {
            "smart": judged(smart(budget)),
            "proportional": judged(rng.permutation(len(pool))[:budget]),
            "equal": judged(
                np.concatenate(
                    [rng.permutation(np.flatnonzero(task_pool == n))[:m] for n, m in zip(names, even, strict=True)]
                )
            ),
            "equal, greedy inside": judged(_inside(X_pool, task_pool, names, even)),
        }
    # Ten tasks may have too few rows for more.
    out[BUDGETS[0]]["ten tasks"] = judged(smart(BUDGETS[0], n_tasks=10))
    return out


def _inside(X: Floats, task: Ints, names: Ints, amounts: Ints) -> Ints:
    """So many rows of each task, those that stand for the task."""
    picks = []
    for name, count in zip(names, amounts.tolist(), strict=True):
        rows = np.flatnonzero(task == name)
        if count:
            picks.append(rows[kofn.select(X[rows], k=count, metric="cosine", method="lazy_greedy").indices])
    return np.concatenate(picks)


def _equal(sizes: Ints, budget: int) -> Ints:
    """As many of each as there are, one after the other."""
    counts = np.zeros(len(sizes), np.int64)
    while counts.sum() < budget:
        open_ = np.flatnonzero(counts < sizes)
        counts[open_[: budget - counts.sum()]] += 1
    return counts


def _drawn(rng: np.random.Generator) -> tuple[Floats, Ints, Ints]:
    """Rows, tasks and families: ten tasks are copies of others, a little moved, and of the same family."""
    centres = np.abs(rng.normal(size=(TASKS - COPIES, WIDTH))) * 1.2
    copied = np.concatenate([np.arange(TASKS - COPIES), rng.integers(0, 4, COPIES)])
    moved = centres[copied] + 0.1 * rng.normal(size=(TASKS, WIDTH))
    task = rng.choice(TASKS, ROWS, p=rng.dirichlet(np.full(TASKS, 1.0)))
    X = moved[task] + 0.8 * rng.normal(size=(ROWS, WIDTH))
    return X.astype(np.float32), task, copied[task]


def _parts(rng: np.random.Generator) -> tuple[Floats, Ints, Ints]:
    """Digits cut in thirty parts, of which some keep few rows."""
    rows = digits()
    task = np.zeros(len(rows), np.int64)
    for label in range(10):
        own = np.flatnonzero(rows.y == label)
        groups = kofn.assign(rows.X[own], k=3, method="fasterpam", seed=int(rng.integers(2**31)))
        task[own] = 3 * label + groups.labels
    keep = rng.random(len(rows)) < rng.uniform(0.2, 1.0, 30)[task]
    return rows.X[keep], task[keep], rows.y[keep]
