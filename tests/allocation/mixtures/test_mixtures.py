"""Task budgets by submodular gains, against an own greedy and the paper's rule."""

from __future__ import annotations

import numpy as np
from refusals import refused

import kofn
from kofn.core.checks import InfeasibleError

RNG = np.random.default_rng(5)


def test_shares_are_the_taylor_softmax_of_greedy_gains() -> None:
    X = np.abs(RNG.normal(size=(12, 5)))
    rows = X / np.linalg.norm(X, axis=1, keepdims=True)
    alike = rows @ rows.T
    order: list[int] = []
    gains = []
    for _ in range(12):
        best = {
            item: alike[:, item].sum() - 0.4 * (2 * alike[item, order].sum() + alike[item, item])
            for item in range(12)
            if item not in order
        }
        order.append(max(best, key=best.__getitem__))
        gains.append(best[order[-1]])
    plan = kofn.allocate(X=X, budget=10_000, method="submodular_mixture")
    assert plan.info["order"].tolist() == order
    np.testing.assert_allclose(plan.info["gains"], gains)
    share = 1 + np.array(gains) + np.array(gains) ** 2 / 2
    assert np.abs(plan.amounts[order] - 10_000 * share / share.sum()).max() < 1
    assert plan.amounts.sum() == 10_000


def test_what_small_tasks_cannot_use_goes_to_the_others() -> None:
    X = np.abs(RNG.normal(size=(6, 3)))
    most = np.array([3, 5, 50, 50, 2, 50])
    plan = kofn.allocate(
        X=X, budget=120, bounds=np.stack([np.zeros_like(most), most], axis=1), method="submodular_mixture"
    )
    assert plan.amounts.sum() == 120
    assert (plan.amounts <= most).all()
    free = np.flatnonzero(plan.amounts < most)
    alone = kofn.allocate(X=X, budget=10**6, method="submodular_mixture").amounts
    assert np.ptp(plan.amounts[free] / alone[free] * alone[free].mean()) < 2


def test_smart_picks_as_many_of_each_task_as_its_budget() -> None:
    X, task = RNG.normal(size=(90, 4)) + np.repeat(np.eye(4)[:3] * 4, 30, axis=0), np.repeat(["a", "b", "c"], 30)
    plan = kofn.select(X, k=20, groups=task, method="smart")
    picked = {name: int((task[plan.indices] == name).sum()) for name in "abc"}
    assert picked == plan.info["budgets"]
    two = kofn.select(X, k=20, groups=task, n_tasks=2, method="smart")
    assert len(set(task[two.indices])) == 2
    rows = np.flatnonzero(task == task[plan.indices[0]])
    alone = kofn.select(X[rows], k=picked[task[plan.indices[0]]], metric="cosine", method="lazy_greedy")
    assert plan.indices[: len(alone.indices)].tolist() == rows[alone.indices].tolist()


def test_refusals() -> None:
    X = np.eye(3)
    refused(
        lambda: kofn.allocate(X=X, budget=10, bounds=[(0, 2), (0, 3), (0, 4)], method="submodular_mixture"),
        "budget=10: the 3 groups kept have 9 rows, 1 too few",
        InfeasibleError,
    )
    for call, says in (
        ({"budget": 2.5}, "budget=2.5: rows are counted, give a whole number"),
        ({"budget": 3, "bounds": (1, 2)}, "bounds at row 0: the least is 1; a task may be left out, give 0"),
        ({"budget": 3, "task_objective": "dispersion_min"}, "task_objective="),
        ({"budget": 3, "task_objective": "modular"}, "task_objective='modular': modular is no submodular function"),
    ):
        refused(lambda call=call: kofn.allocate(X=X, method="submodular_mixture", **call), says)
    refused(
        lambda: kofn.select(X, k=1, groups=["a", "b", "b"], n_tasks=3, method="smart"),
        "n_tasks=3: groups has 2; keep at most so many",
    )
