"""Robust picking against the linear program of its game, its closed form and its draws."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused
from scipy.optimize import linprog

import kofn
from kofn.core.checks import InfeasibleError
from kofn.selection import rad


def game(gains: np.ndarray, k: int, m: int) -> float:
    """The value of the game by linear programming: the sum of g p less its m largest terms."""
    n = len(gains)
    costs = np.concatenate([-gains, [m], np.ones(n)])
    over = np.hstack([np.diag(gains), -np.ones((n, 1)), -np.eye(n)])
    spend = np.concatenate([np.ones(n), np.zeros(n + 1)])[None]
    bounds = [(0, 1)] * n + [(0, None)] * (n + 1)
    return -linprog(costs, A_ub=over, b_ub=np.zeros(n), A_eq=spend, b_eq=[k], bounds=bounds, method="highs").fun


def draws(rng: np.random.Generator, n: int) -> np.ndarray:
    return [
        rng.random(n),
        rng.integers(0, 4, n).astype(float),
        np.exp(2 * rng.normal(size=n)),
        np.round(rng.random(n), 1),
    ][rng.integers(4)]


def test_the_chances_are_those_of_the_linear_program() -> None:
    rng = np.random.default_rng(0)
    for _ in range(400):
        n = int(rng.integers(1, 16))
        k = int(rng.integers(1, n + 1))
        gains = draws(rng, n)
        plan = rad(gains, k=k, error=float(rng.choice([0.0, rng.random(), 1.0])), seed=0)
        best = game(gains, k, plan.info["mistakes"])
        assert abs(plan.value - best) <= 1e-9 * max(1.0, best)
        worth = np.sort(gains * plan.probabilities)[: n - plan.info["mistakes"]]
        assert abs(worth.sum() - plan.value) <= 1e-9 * max(1.0, best)
        assert plan.probabilities.sum() == pytest.approx(k, abs=1e-9)
        assert plan.probabilities.min() >= 0
        assert plan.probabilities.max() <= 1


def test_one_draw_is_the_closed_form_of_the_paper() -> None:
    rng = np.random.default_rng(1)
    for n, m in ((5, 1), (30, 4), (200, 60)):
        gains = np.sort(rng.random(n))[::-1]
        plan = rad(gains, k=1, error=m / n, seed=0)
        assert plan.info["mistakes"] == m
        payoffs = (np.arange(1, n + 1) - m) / np.cumsum(1 / gains)
        size = int(payoffs.argmax()) + 1
        assert plan.value == pytest.approx(payoffs.max(), rel=1e-12)
        expected = np.where(np.arange(n) < size, 1 / gains, 0) / (1 / gains[:size]).sum()
        np.testing.assert_allclose(plan.probabilities, expected, rtol=1e-10, atol=0)
        assert plan.info["support"] == size


def test_without_mistakes_it_picks_the_highest() -> None:
    scores = np.random.default_rng(2).random(50)
    plan = kofn.select(scores=scores, k=7, method="rad", options={"error": 0.0}, seed=3)
    assert set(plan.indices.tolist()) == set(np.argsort(-scores)[:7].tolist())
    assert plan.value == pytest.approx(np.sort(scores)[-7:].sum())
    assert plan.status == "optimal"
    assert plan.bound == plan.value


def test_more_mistakes_spread_the_picks_and_promise_less() -> None:
    scores = np.random.default_rng(3).random(300)
    plans = [rad(scores, k=20, error=error, seed=0) for error in (0.0, 0.05, 0.2, 0.5)]
    assert [plan.info["mistakes"] for plan in plans] == [0, 15, 60, 150]
    supports = [plan.info["support"] for plan in plans]
    assert supports == sorted(supports)
    assert supports[-1] > supports[0]
    values = [plan.value for plan in plans]
    assert values == sorted(values, reverse=True)


def test_rows_come_as_often_as_their_chance() -> None:
    scores = np.random.default_rng(4).random(40)
    counts = np.zeros(40)
    for seed in range(3000):
        picks = rad(scores, k=9, error=0.2, seed=seed).indices
        assert len(np.unique(picks)) == 9
        counts[picks] += 1
    chance = rad(scores, k=9, error=0.2, seed=0).probabilities
    spread = np.sqrt(np.maximum(chance * (1 - chance) / 3000, 1e-12))
    assert (np.abs(counts / 3000 - chance) < 5 * spread + 1e-9).all()


def test_excluded_rows_are_not_in_the_game() -> None:
    scores = np.array([9.0, 3.0, 8.0, 2.0, 1.0, 1.0])
    open_rows = [1, 3, 4, 5]
    plan = rad(scores, k=2, exclude=[0, 2], error=0.25, seed=0)
    alone = rad(scores[open_rows], k=2, error=0.25, seed=0)
    assert plan.info["mistakes"] == 1
    assert plan.probabilities[[0, 2]].tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(plan.probabilities[open_rows], alone.probabilities)


def test_rows_worth_nothing_fill_up_evenly() -> None:
    plan = rad([0.0, 2.0, 0.0, 0.0], k=2, error=0.0, seed=0)
    np.testing.assert_allclose(plan.probabilities, [1 / 3, 1, 1 / 3, 1 / 3])


def test_large_pools_keep_their_marginals_exactly() -> None:
    scores = np.random.default_rng(5).random(200_000)
    plan = rad(scores, k=20_000, error=0.1, seed=0)
    assert len(np.unique(plan.indices)) == 20_000
    assert plan.probabilities.sum() == pytest.approx(20_000, rel=1e-12)
    assert (plan.probabilities[plan.indices] > 0).all()


def test_refusals() -> None:
    refused(lambda: rad([1.0, -2.0], k=1), "scores at row 1 is -2; a label is worth >= 0")
    refused(lambda: rad([1.0, 2.0], k=1, error=1.5), "error=1.5: give a number between 0 and 1")
    refused(lambda: rad(np.ones((2, 2)), k=1), "give one score an item")
    refused(lambda: rad([1.0, 2.0], k=2, exclude=[0]), "k=2 of 1 open items", InfeasibleError)
