"""Held-out figures are of blends chosen anew, and no gain is sure that the plan's own blend contradicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kofn.cli.combine_predictions import brings
from kofn.combination import dynamic_ensemble_selection, ensemble_selection, stacking
from kofn.combination.ensembles._held_out import doubted
from kofn.core.plans import Blend


def _task(n: int = 60) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, n)
    good = [1 / (1 + np.exp(rng.normal(size=n) - 3 * (2 * y - 1))) for _ in range(2)]
    return [*good, *(rng.uniform(0.1, 0.9, n) for _ in range(4))], y, rng.normal(size=(n, 1))


METHODS: dict[str, Callable[..., Blend]] = {
    "ensemble_selection": lambda members, y, X, **own: ensemble_selection(members, y=y, seed=0, **own),
    "stacking": lambda members, y, X, **own: stacking(members, y=y, seed=0, **own),
    "dynamic_ensemble_selection": lambda members, y, X, **own: dynamic_ensemble_selection(
        members, y=y, X=X, seed=0, **own
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_gain_that_the_written_blend_contradicts_is_not_sure(name: str) -> None:
    plan = METHODS[name](*_task())
    held_out = plan.info["held_out"]
    assert held_out["over_mean"] == "better"
    assert held_out["behind"] == []
    assert "surely better than the mean of all" in brings(plan)[-1]
    worse = doubted(dataclasses.replace(plan, value=plan.info["plain_mean"] * 1.01))
    assert worse.info["held_out"]["over_mean"] == worse.info["held_out"]["over_single"] == "alike"
    assert worse.info["held_out"]["behind"] == ["single", "mean"]
    printed = brings(worse)
    assert not any(", surely better" in line or "are surely better" in line for line in printed)
    assert printed[-1].startswith("this blend loses more than the best model and the mean of all even on the rows")
    assert "(5 folds): blends chosen anew by the others" in printed[1]


def test_accuracy_is_better_where_it_is_higher() -> None:
    members, y, X = _task()
    plan = METHODS["dynamic_ensemble_selection"](members, y, X, loss="accuracy")
    assert plan.info["held_out"]["behind"] == []
    worse = doubted(dataclasses.replace(plan, value=plan.info["plain_mean"] - 0.01))
    assert "mean" in worse.info["held_out"]["behind"]


def test_without_folds_there_is_no_verdict() -> None:
    members, y, _ = _task()
    plan: Any = ensemble_selection(members, y=y, folds=0)
    assert plan.info["held_out"] is None
