"""Ranks under a falling budget: exact counts at every choice, by the definition."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

from kofn.allocation import RankBudget
from kofn.core.checks import InfeasibleError


def test_the_highest_scores_are_kept_and_what_was_dropped_comes_back() -> None:
    rng = np.random.default_rng(3)
    budgeted = RankBudget([4, 3, 5], 5, steps=20, warmup=3, final=4, every=2)
    returned = False
    for step in range(1, 21):
        before, scores = budgeted.active.copy(), rng.integers(0, 6, 12).astype(float)
        budgeted.step(scores)
        left = max(1 - (step - 3) / 13, 0)
        expected = 12 if step <= 3 else int(7 * left**3 + 5)
        assert budgeted.current_budget == budgeted.schedule(step) == expected
        chooses = step > 3 and (step == 17 or (step <= 16 and step % 2 == 0))
        assert budgeted.choosing == chooses
        if chooses:
            order = sorted(range(12), key=lambda i: (-scores[i], i))[:expected]
            assert sorted(np.flatnonzero(budgeted.active)) == sorted(order)
            returned |= bool((budgeted.active & ~before).any())
        else:
            assert (budgeted.active == before).all()
        plan = budgeted.plan
        assert plan.amounts.tolist() == [budgeted.active[rows].sum() for rows in np.split(np.arange(12), [4, 7])]
    assert returned
    assert budgeted.plan.amounts.sum() == 5


def test_refusals() -> None:
    refused(lambda: RankBudget([2, 2], 5, steps=5), "budget=5 of 4 directions", InfeasibleError)
    refused(lambda: RankBudget([2, 0], 1, steps=5), "ranks: give a whole number of 1 or more")
    refused(lambda: RankBudget([2, 1.5], 1, steps=5), "ranks: give a whole number")
    refused(lambda: RankBudget([2], 1, steps=5, warmup=3, final=2), "leave none of steps=5")
    refused(lambda: RankBudget([2], 1, steps=5).step([1.0]), "scores has 1 values for 2 directions")
    refused(lambda: RankBudget([2], 1, steps=5).step([1.0, -1.0]), "scores at row 1 is -1")
    with pytest.raises(Exception, match="scores"):
        RankBudget([2], 1, steps=5).step([1.0, np.inf])
