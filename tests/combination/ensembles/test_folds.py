"""Folds do not hang on the order of the members, nor on the last bits of what they predict."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from kofn.combination import dynamic_ensemble_selection, ensemble_selection, stacking
from kofn.combination.ensembles._held_out import folds_of
from kofn.combination.ensembles._task import read_task


def drawn(kind: str, n: int = 90) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Predictions of which every third row repeats another, the answers, and features."""
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(n // 3, 2)), 3, axis=0) + 1e-3 * rng.normal(size=(n, 2))
    if kind == "numbers":
        y = 10 * rng.normal(size=n)
        members = [y + rng.normal(size=n) * scale for scale in (5, 6, 7, 8)]
    else:
        y = rng.integers(0, 3, n)
        logits = rng.normal(size=(4, n, 3)) + 1.5 * np.eye(3)[y]
        members = list(np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True))
    for member in members:
        member[1::3] = member[::3]
    return members, y, X


@pytest.mark.parametrize("kind", ["numbers", "classes"])
def test_folds_are_of_the_rows(kind: str) -> None:
    members, y, _X = drawn(kind)
    loss = "rmse" if kind == "numbers" else "log_loss"

    def folds(members: list[np.ndarray]) -> Any:
        order, bounds, repeated = folds_of(read_task(members, y, loss, None, None), 5, np.random.default_rng(1))
        assert repeated == 30
        return order.tolist(), bounds

    expected = folds(members)
    assert folds(members[::-1]) == expected
    assert folds([members[2], members[0], members[3], members[1]]) == expected
    assert folds([np.nextafter(member, 0) for member in members]) == expected
    place = np.empty(90, int)
    place[expected[0]] = np.repeat(np.arange(5), np.diff(expected[1]))
    assert (place[::3] == place[1::3]).all()


@pytest.mark.parametrize("kind", ["numbers", "classes"])
@pytest.mark.parametrize("method", [ensemble_selection, stacking, dynamic_ensemble_selection])
def test_members_in_another_order_are_judged_alike(method: Any, kind: str) -> None:
    members, y, X = drawn(kind)
    if method is dynamic_ensemble_selection:
        if kind == "numbers":
            pytest.skip("it is of classes")
        # Strategies that take some of the members settle ties by their numbers.
        method = partial(dynamic_ensemble_selection, X=X, strategy="knora_u")
    plan = method(members, y=y, seed=3)
    order = [2, 0, 3, 1]
    other = method([members[index] for index in order], y=y, seed=3)
    np.testing.assert_allclose(other.weights, plan.weights[order], atol=1e-6)
    for name in ("blend", "best_single", "plain_mean"):
        assert other.info["held_out"][name] == pytest.approx(plan.info["held_out"][name], rel=1e-6)
