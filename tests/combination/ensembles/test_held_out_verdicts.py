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
from kofn.combination.ensembles._plan import weighted_mean
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


def test_columns_of_classes_that_are_exchanged_are_told() -> None:
    rng = np.random.default_rng(0)
    y = np.array(["cat", "dog", "fox"])[rng.integers(0, 3, 200)]
    truth = np.unique(y, return_inverse=True)[1]
    good, other = (np.exp(2 * np.eye(3)[truth] + rng.normal(size=(200, 3))) for _ in range(2))
    good, other = (part / part.sum(axis=1, keepdims=True) for part in (good, other))
    weak = np.full((200, 3), 1 / 3)
    assert ensemble_selection([good, other, weak], y=y).info["warnings"] == []
    for order, says in (
        ([1, 0, 2], "'cat', 'dog' are highest where y is 'dog', 'cat'"),
        ([1, 2, 0], "'cat', 'dog', 'fox' are highest where y is 'dog', 'fox', 'cat'"),
    ):
        (warning,) = ensemble_selection([good, weak, other[:, order]], y=y).info["warnings"]
        assert f": its columns of {says}" in warning


def test_the_verdict_says_that_it_is_by_one_draw_of_the_folds() -> None:
    members, y, _ = _task()
    plan: Any = ensemble_selection(members, y=y, folds=4)
    assert any("; by one draw of 4 folds, which another seed draws anew" in line for line in brings(plan))


def test_hard_zeros_of_others_make_no_member_suspect() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    soft = np.clip(np.where(y == 1, 0.8, 0.2) + rng.normal(scale=0.15, size=200), 0.05, 0.95)
    # As right as the soft one, and sure of it where it is wrong too.
    hard = np.where(rng.random(200) < 0.04, 1 - y, y).astype(float)
    plan = ensemble_selection([soft, hard], y=y)
    assert plan.info["single"][1] > 2 * plan.info["single"][0]
    assert plan.info["warnings"] == []
    trained_on = np.where(y == 1, 0.99, 0.01)
    weak = [np.clip(np.where(y == 1, 0.6, 0.4) + rng.normal(scale=0.2, size=200), 0.05, 0.95) for _ in range(2)]
    weak[1][:40] = np.nan
    for row_weights in (None, rng.random(200)):
        (warning,) = ensemble_selection([trained_on, *weak], y=y, row_weights=row_weights).info["warnings"]
        assert warning.startswith("member 0 has log_loss")


def test_weights_that_were_given_are_judged_on_all_rows() -> None:
    y = np.arange(200) % 2
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=0.1, size=(2, 200))
    good, bad = (np.clip(np.where(y == 1, high, 1 - high) + noise[i], 0.05, 0.95) for i, high in enumerate((0.8, 0.5)))
    plan = weighted_mean([good, bad], y, weights=[1, 9])
    assert plan.info["on_these_rows"] == {"over_single": "worse", "over_mean": "worse"}
    told = brings(plan)
    assert "; best model " in told[0]
    assert told[1:] == [
        "these weights are surely worse than 0 alone, surely worse than the mean of all; on these rows 0 alone and the "
        "mean of all did better",
        "prefer 0 alone or the mean of all (without --weights) to this blend",
    ]
    alike = brings(weighted_mean([good, good], y, loss="accuracy"))
    assert alike[1:] == ["these weights are not surely better than 0 alone"]
    assert brings(weighted_mean([good], y))[1:] == []
