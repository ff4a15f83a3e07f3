"""Plackett and Luce's strengths: a general solver's optimum, Bradley and Terry's of pairs, choix's, and refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

import kofn
from kofn.combination import bradley_terry, order_strengths, plackett_luce, win_ballots, win_strengths
from kofn.core.checks import InputError


def likelihood(scores: Any, weights: Any, strength: Any) -> float:
    """Choice by choice, in plain Python."""
    terms = []
    for column, weight in zip(np.asarray(scores, float).T.tolist(), weights, strict=True):
        rated = [i for i, score in enumerate(column) if score == score]
        last = min(column[i] for i in rated)
        for i in rated:
            tied = sum(column[j] == column[i] for j in rated)
            share = (tied - 1) / tied if column[i] == last else 1.0
            left = sum(math.exp(strength[j]) for j in rated if column[j] <= column[i])
            terms.append(weight * share * (strength[i] - math.log(left)))
    return math.fsum(terms)


def drawn(seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(3, 8)), 40
    scores = rng.integers(0, 4, (n, m)).astype(float)
    scores[rng.random((n, m)) < 0.3] = np.nan
    kept = (~np.isnan(scores)).any(axis=0)
    return scores[:, kept], rng.integers(1, 4, int(kept.sum())).astype(float)


@pytest.mark.parametrize("seed", range(6))
def test_the_likelihood_is_the_highest_and_the_errors_are_its_curvature(seed: int) -> None:
    scores, weights = drawn(seed)
    plan = plackett_luce(scores, weights=weights)
    points, n = plan.info["points"], len(scores)
    solved = minimize(lambda strength: -likelihood(scores, weights, strength), np.zeros(n), options={"gtol": 1e-7})
    assert plan.value == pytest.approx(likelihood(scores, weights, points), rel=1e-12)
    assert plan.value == pytest.approx(-float(solved.fun), rel=1e-9)
    step = 1e-4
    axes = np.eye(n) * step
    signs = [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]
    bend = np.array(
        [
            [sum(s * likelihood(scores, weights, points + p * a + q * b) for p, q, s in signs) for b in axes]
            for a in axes
        ]
    ) / (4 * step**2)
    errors = np.sqrt(np.diag(np.linalg.pinv(-bend, rcond=1e-5)))
    assert plan.info["standard_error"] == pytest.approx(errors, rel=1e-4)


def test_judges_of_two_are_bradley_and_terrys() -> None:
    rng = np.random.default_rng(0)
    ties = np.triu(rng.integers(0, 5, (6, 6)), 1)
    ballots = win_ballots(rng.integers(1, 9, (6, 6)), ties + ties.T)
    for options in ({}, {"prior": 0.5}, {"resamples": 5}):
        ours, theirs = plackett_luce(**ballots, **options), bradley_terry(**ballots, **options)
        assert ours.value == pytest.approx(theirs.value, rel=1e-12)
        for name in ("points", "standard_error", "rank_low", "rank_high"):
            assert ours.info[name] == pytest.approx(theirs.info[name], rel=1e-9)


def test_strengths_are_choixs() -> None:
    choix = pytest.importorskip("choix")
    rng = np.random.default_rng(0)
    scores = rng.normal(size=8)[:, None] + rng.gumbel(size=(8, 60))
    scores[rng.random(scores.shape) < 0.3] = np.nan
    data = [np.argsort(-column)[: int((~np.isnan(column)).sum())].tolist() for column in scores.T]
    theirs = choix.ilsr_rankings(8, [ranking for ranking in data if len(ranking) > 1], tol=1e-12, max_iter=1000)
    assert plackett_luce(scores).info["points"] == pytest.approx(theirs - theirs.mean(), abs=1e-9)


def test_strengths_that_do_not_exist_are_refused_and_exist_with_a_prior() -> None:
    apart = np.array([[3, np.nan], [2, np.nan], [1, np.nan], [np.nan, 3], [np.nan, 2], [np.nan, 1]])
    with pytest.raises(InputError, match=r"in 2 parts with no comparison between them, .*: 0, 1, 2; 3, 4, 5; .*prior"):
        plackett_luce(apart)
    first = np.array([[9, 9, 9], [1, 2, 3], [2, 3, 1], [3, 1, 2]], float)
    with pytest.raises(InputError, match=r"never lost to the others \(0\): perfect separation.*prior such as 0.1"):
        plackett_luce(first)
    assert plackett_luce(first, prior=0.1).result[0] == 0
    drawn_together = plackett_luce(np.vstack([apart, np.full(2, np.nan)]), prior=0.1)
    assert drawn_together.info["never_compared"] == [6]
    assert drawn_together.info["parts"] == [[0, 1, 2], [3, 4, 5]]


def test_one_step_of_a_panel_is_near_the_strengths_of_its_own() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(0, 0.7, 6)[:, None] + rng.gumbel(size=(6, 300))
    for fit in (plackett_luce, bradley_terry):
        step, own = fit(scores), fit(scores, resamples=200)
        for name in ("rank_low", "rank_high"):
            assert np.abs(step.info[name] - own.info[name]).max() <= 1


@pytest.mark.parametrize("resamples", [0, 20])
def test_strengths_of_wins_are_those_of_their_ballots(resamples: int) -> None:
    rng = np.random.default_rng(2)
    wins = rng.integers(0, 9, (5, 5)).astype(float)
    wins[4] = wins[:, 4] = 0
    ties = np.triu(rng.integers(0, 3, (5, 5)), 1) * (wins[:, :1] > 0)
    ties[:, 4] = 0
    names = list("abcde")
    plan = win_strengths(wins, ties + ties.T, ids=names, resamples=resamples)
    ballots = win_ballots(wins, ties + ties.T)
    whole = bradley_terry(**ballots, resamples=resamples)
    for name in ("points", "standard_error", "rank_low", "rank_high", "votes", "ties"):
        np.testing.assert_allclose(plan.info[name], whole.info[name], rtol=1e-9, err_msg=name)
    assert (plan.info["parts"], plan.info["never_compared"]) == (whole.info["parts"], [4])
    assert plan.value == pytest.approx(whole.value)
    assert plan.to_frame()["id"].to_list()[-1] == "e"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: win_strengths([[0.0, 1.5], [1, 0]], resamples=3), "counts that are not whole"),
        (lambda: win_strengths([[0, 1], [1, 0]], resamples=20_000), "ask for at most 10,000"),
        (lambda: win_strengths([[0, 1], [0, 0]], ids=["x", "y"]), r"never lost to the others \(x\)"),
        (lambda: win_strengths([[0, 0], [0, 0]]), "holds no win and no tie"),
        (lambda: win_strengths([[0, 1], [1, 0]], prior=-1), "prior=-1"),
        (lambda: bradley_terry([[1, 2], [2, 1]], resamples=-1), "resamples=-1"),
    ],
)
def test_what_has_no_strengths_or_draws_is_refused(call: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        call()


def test_many_judges_move_strengths_as_their_panels_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from kofn.combination.rankings import _strengths

    rng = np.random.default_rng(3)
    scores = rng.normal(0, 0.3, 7)[:, None] + rng.gumbel(size=(7, 400))
    weights = rng.integers(1, 4, 400)
    drawn_one_by_one = plackett_luce(scores, weights=weights)
    monkeypatch.setattr(_strengths, "_MANY", 100)
    normal = plackett_luce(scores, weights=weights)
    for name in ("rank_low", "rank_high"):
        assert np.abs(normal.info[name] - drawn_one_by_one.info[name]).max() <= 1


@pytest.mark.parametrize("seed", [0, 8])
def test_steps_are_not_cut_by_the_rounding_of_the_likelihood(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from kofn.combination.rankings import _strengths

    rng = np.random.default_rng(seed)
    logit = rng.uniform(0.5, 2, 600) * (rng.normal(size=30)[:, None] - rng.normal(0, 1.5, 600))
    right = (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(float)
    graded = rng.uniform(1, 100, 600) / (1 + np.exp(-logit - rng.normal(size=logit.shape)))
    scores = np.where(np.arange(600) % 2, right, graded)
    scores[rng.random(scores.shape) < 0.5] = np.nan
    evaluate, calls = _strengths._of_choices, []

    def counted(*arguments: Any) -> Any:
        calls.append(len(arguments))
        return evaluate(*arguments)

    monkeypatch.setattr(_strengths, "_of_choices", counted)
    plackett_luce(scores[:, (~np.isnan(scores)).sum(axis=0) > 1], prior=0.1)
    # Two a step: where steps were halved near the top there were more, and on some tables no end.
    assert len(calls) <= 12


@pytest.mark.parametrize("resamples", [0, 4])
def test_strengths_of_lists_are_those_of_their_table(resamples: int) -> None:
    rng = np.random.default_rng(4)
    names = np.array(["ash", "birch", "cedar", "elm", "fir", "oak"])
    orders = [rng.permutation(6)[: rng.integers(2, 7)].tolist() for _ in range(60)]
    weights = rng.integers(1, 4, 60)
    table = np.full((6, 60), np.nan)
    for judge, order in enumerate(orders):
        table[order, judge] = -np.arange(len(order))
    plan = order_strengths([names[order] for order in orders], weights=weights, resamples=resamples)
    whole = kofn.combine(
        rankings=table, weights=weights, ids=names, method="plackett_luce", options={"resamples": resamples}
    )
    assert plan.value == pytest.approx(whole.value, rel=1e-12)
    assert plan.to_frame()["id"].to_list() == whole.to_frame()["id"].to_list()
    for name in ("points", "standard_error", "rank_low", "rank_high", "rated"):
        np.testing.assert_allclose(plan.info[name], whole.info[name], rtol=1e-9, err_msg=name)
    assert plan.spread == pytest.approx(whole.spread)
    numbered = order_strengths(orders, ids=range(6), weights=weights, resamples=resamples)
    np.testing.assert_array_equal(numbered.info["rank_low"], plan.info["rank_low"])


@pytest.mark.parametrize(
    ("orders", "options", "says"),
    [
        ([], {}, "orders is empty; give at least one list"),
        ([["a", "b"], []], {}, "orders at row 1 is empty"),
        ([["a", "b"], ["b", "a", "b"]], {}, "orders at row 1 has 'b' twice"),
        ([["a", "b"], ["b", "c"]], {"ids": ["a", "b"]}, "orders at row 1 has 'c', which is not in ids"),
        ([["a", "b"], ["b", "a"]], {"weights": [1.0]}, "weights has 1 values, orders has 2"),
        ([["a", "b"], ["a", "b"]], {}, "perfect separation"),
        (3, {}, "orders"),
        ([["a", 1], [1, "a"]], {}, "orders"),
    ],
)
def test_lists_that_are_none_are_refused(orders: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        order_strengths(orders, **options)
