"""The diversity-aware search: what it asks for, by its definition, and what it returns and refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from refusals import refused, untested
from scipy.stats import norm

from kofn.combination import diverse_search, ensemble_selection
from kofn.combination.searches import _diverse_search as module

RNG = np.random.default_rng(0)
ROWS, CONFIGURATIONS = 60, 25
Y = RNG.integers(0, 2, ROWS)
X = RNG.random((CONFIGURATIONS, 3))
NOISE = RNG.normal(size=(CONFIGURATIONS, ROWS))


def evaluate(index: int) -> Any:
    odds = (2 * Y - 1) * (1 + X[index, 0]) + 2 * X[index, 1] * NOISE[index]
    second = 1 / (1 + np.exp(-odds))
    return np.column_stack([1 - second, second])


def test_the_plan_is_the_ensemble_of_all_that_were_evaluated() -> None:
    asked: list[int] = []

    def recording(index: int) -> Any:
        asked.append(index)
        return evaluate(index)

    plan = diverse_search(X, recording, y=Y, budget=9, seed=1)
    assert plan.info["evaluated"].tolist() == asked
    assert len(set(asked)) == 9
    want = ensemble_selection([evaluate(i) for i in asked], y=Y, folds=0)
    np.testing.assert_array_equal(plan.weights, want.weights)
    np.testing.assert_allclose(plan.info["losses"], want.info["single"], rtol=1e-9)
    again = diverse_search(X, evaluate, y=Y, budget=9, seed=1)
    assert again.info["evaluated"].tolist() == asked
    accuracy = diverse_search(X, evaluate, y=Y, budget=6, seed=1, loss="accuracy", diversity=0)
    assert accuracy.sense == "max"
    assert 0.5 < accuracy.info["losses"].max() <= 1


def test_the_next_is_the_least_sum_of_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With surrogates that know the truth: the ranks by hand."""
    truth, spread = RNG.random(CONFIGURATIONS), 0.2 + RNG.random(CONFIGURATIONS)
    apart = RNG.random((CONFIGURATIONS, CONFIGURATIONS))
    where = {row.tobytes(): i for i, row in enumerate(X)}

    def oracle(_: Any, values: Any, questions: Any, rng: Any) -> Any:
        if questions.shape[1] == 3:
            rows = [where[row.tobytes()] for row in np.ascontiguousarray(questions)]
            return truth[rows], spread[rows]
        halves = [[where[np.ascontiguousarray(part).tobytes()] for part in (row[:3], row[3:])] for row in questions]
        return np.array([apart[i, j] for i, j in halves]), np.zeros(len(questions))

    monkeypatch.setattr(module, "_forest", oracle)
    asked, mates = np.array([3, 7, 11]), np.array([0, 2])
    predictions, losses = [evaluate(i) for i in asked], truth[asked]
    left = [i for i in range(CONFIGURATIONS) if i not in asked]
    z = (losses.min() - truth[left]) / spread[left]
    improvement = spread[left] * (z * norm.cdf(z) + norm.pdf(z))
    nearest = apart[left][:, asked[mates]].min(axis=1)

    def rank(values: Any) -> Any:
        return 1 + np.array([(values > value).sum() for value in values])

    for share in (0.0, 0.02, 0.5, 50.0):
        want = left[int(np.argmin(rank(improvement) + share * rank(nearest)))]
        got = module._next(X, asked, losses, predictions, mates, share, np.random.default_rng(0))
        assert got == want
    assert want == left[int(nearest.argmax())]


def test_pairs_are_learnt_at_their_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[Any] = []

    def spy(table: Any, values: Any, questions: Any, rng: Any) -> Any:
        taught.append((table, values))
        return np.zeros(len(questions)), np.zeros(len(questions))

    monkeypatch.setattr(module, "_forest", spy)
    sure = [np.tile([1.0, 0.0], (4, 1)), np.tile([0.0, 1.0], (4, 1)), np.tile([0.5, 0.5], (4, 1))]
    asked = np.array([0, 1, 2])
    module._nearest(X, np.array([5, 6]), asked, sure, np.array([1]), np.random.default_rng(0))
    table, values = taught[0]
    np.testing.assert_allclose(values, [1, 0.5, 0.5] * 2)
    np.testing.assert_array_equal(table[0], np.concatenate([X[0], X[1]]))
    np.testing.assert_array_equal(table[3], np.concatenate([X[1], X[0]]))


def test_limits_and_refusals() -> None:
    stopped = diverse_search(X, evaluate, y=Y, budget=9, seed=1, time_limit=1e-9)
    assert stopped.status == "stopped"
    assert stopped.n == 1

    def shrinking(index: int) -> Any:
        shrinking.calls = getattr(shrinking, "calls", 0) + 1  # type: ignore[attr-defined]
        return evaluate(index)[: ROWS - shrinking.calls + 1]  # type: ignore[attr-defined]

    reached = {
        refused(lambda: diverse_search(X, evaluate, y=Y, budget=99), "budget=99: there are 25 configurations; ask for"),
        refused(lambda: diverse_search(X, evaluate, y=Y, budget=5, start=6), "start=6 is more than budget=5"),
        refused(lambda: diverse_search(X, evaluate, y=Y, budget=5, diversity=-1.0), "diversity=-1.0"),
        refused(lambda: diverse_search(X, evaluate, y=Y[:9], budget=5), "y"),
        refused(lambda: diverse_search(X, shrinking, y=Y, budget=5), "returned shape (59, 2), before it (60, 2)"),
        refused(
            lambda: diverse_search(np.eye(4), lambda i: np.full(5, -1.7e308), y=np.full(5, 1.7e308), budget=4, seed=0),
            "has a loss of inf: its predictions or y are too large to square",
        ),
    }
    assert not untested(module, reached)


@pytest.mark.parametrize("unit", [2.0**-600, 2.0**-400, 2.0**400, 2.0**600])
def test_the_unit_does_not_decide(unit: float) -> None:
    rng = np.random.default_rng(3)
    y, configurations, noise = rng.normal(size=30), rng.random((12, 2)), rng.normal(size=(12, 30))

    def evaluated(scale: float) -> Any:
        def ask(i: int) -> Any:
            return scale * (y + configurations[i, 0] + noise[i] * configurations[i, 1])

        return diverse_search(scale * configurations, ask, y=scale * y, budget=6, seed=0).info["evaluated"].tolist()

    assert evaluated(unit) == evaluated(1.0)
