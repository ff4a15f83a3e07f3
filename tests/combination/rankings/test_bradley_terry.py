"""Bradley and Terry's strengths: the optimum of a general solver, closed forms, and where there are none."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

import kofn
from kofn.combination import bradley_terry, win_ballots
from kofn.core.checks import InputError
from kofn.core.plans import Blend


def likelihood(wins: Any, strength: Any) -> float:
    """Pair by pair, in plain Python."""
    n = len(wins)
    return math.fsum(
        -wins[i][j] * math.log1p(math.exp(strength[j] - strength[i])) for i in range(n) for j in range(n) if i != j
    )


def by_scipy(wins: Any) -> float:
    """The highest likelihood that a general optimiser finds from 0."""
    n = len(wins)

    def loss(strength: Any) -> tuple[float, Any]:
        share = 1 / (1 + np.exp(strength[None, :] - strength[:, None]))
        slope = (wins - (wins + wins.T) * share).sum(axis=1)
        return -likelihood(wins, strength), -slope

    return -float(minimize(loss, np.zeros(n), jac=True, method="BFGS", options={"gtol": 1e-10}).fun)


@pytest.mark.parametrize("seed", range(12))
def test_the_likelihood_is_that_of_a_general_solver(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 15))
    truth = rng.normal(0, 1.5, n)
    played = rng.integers(1, 60, (n, n)) * (rng.random((n, n)) < 0.8)
    played = np.triu(played, 1)
    won = rng.binomial(played, 1 / (1 + np.exp(truth[None, :] - truth[:, None])))
    wins = (won + (played - won).T).astype(float)
    ring = np.arange(n)
    wins[ring, (ring + 1) % n] += 1  # so that strengths exist
    np.fill_diagonal(wins, 0)
    ties = np.triu(rng.integers(0, 4, (n, n)), 1)
    ties = ties + ties.T
    plan = bradley_terry(**win_ballots(wins, ties))
    points = plan.info["points"]
    counted = wins + ties / 2
    best = by_scipy(counted)
    assert plan.value == pytest.approx(likelihood(counted, points), rel=1e-12)
    assert plan.value == pytest.approx(best, rel=1e-9)
    assert plan.value >= best - 1e-9 * abs(best)
    assert points.mean() == pytest.approx(0, abs=1e-12)
    assert (np.diff(points[plan.result]) <= 0).all()
    expected = ((counted + counted.T) / (1 + np.exp(points[None, :] - points[:, None]))).sum(axis=1)
    assert expected == pytest.approx(counted.sum(axis=1), rel=1e-9)  # what a maximum of this likelihood has


def test_the_likelihood_is_choixs() -> None:
    choix = pytest.importorskip("choix")
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1, 20)
    pairs = [(i, j) for i, j in rng.integers(0, 20, (4000, 2)).tolist() if i != j]
    data = [(i, j) if rng.random() < 1 / (1 + np.exp(truth[j] - truth[i])) else (j, i) for i, j in pairs]
    wins = np.zeros((20, 20))
    np.add.at(wins, tuple(np.array(data).T), 1)
    plan = bradley_terry(**win_ballots(wins))
    theirs = choix.ilsr_pairwise(20, data)
    assert plan.value == pytest.approx(likelihood(wins, theirs), rel=1e-9)
    assert plan.info["points"] == pytest.approx(theirs - theirs.mean(), abs=1e-5)


def test_two_alternatives_have_the_odds_that_were_counted() -> None:
    plan = bradley_terry(**win_ballots([[0, 30], [10, 0]], [[0, 8], [8, 0]]))
    first, second = plan.info["points"]
    assert first - second == pytest.approx(math.log(34 / 14))
    # The difference of two means of 0 is twice each; its variance is 1 / (n p q).
    share = 34 / 48
    assert 2 * plan.info["standard_error"][0] == pytest.approx(1 / math.sqrt(48 * share * (1 - share)))


def test_standard_errors_are_the_curvature_of_the_likelihood() -> None:
    wins = np.array([[0, 5, 2, 7], [4, 0, 3, 1], [6, 2, 0, 3], [1, 4, 2, 0]], float)
    plan = bradley_terry(**win_ballots(wins))
    points, step = plan.info["points"], 1e-4
    axes = np.eye(4) * step
    bend = np.array(
        [
            [
                likelihood(wins, points + a + b)
                - likelihood(wins, points + a - b)
                - likelihood(wins, points - a + b)
                + likelihood(wins, points - a - b)
                for b in axes
            ]
            for a in axes
        ]
    ) / (4 * step**2)
    assert plan.info["standard_error"] == pytest.approx(np.sqrt(np.diag(np.linalg.pinv(-bend, rcond=1e-5))), rel=1e-4)


def test_judges_of_many_are_their_pairs_and_ties_are_halves() -> None:
    table = np.array([[3, 1, 2, 2], [2, 2, np.nan, 1], [1, 3, 2, np.nan], [0, 3, 1, 3.0]])
    wins = np.zeros((4, 4))
    weights = np.array([1.0, 2.0, 0.5, 1.0])
    for ballot, weight in zip(table.T, weights, strict=True):
        for i in range(4):
            for j in range(4):
                wins[i, j] += weight * (float(ballot[i] > ballot[j]) + 0.5 * float(i != j and ballot[i] == ballot[j]))
    plan = bradley_terry(table, weights=weights)
    assert plan.value == pytest.approx(by_scipy(wins), rel=1e-9)


def test_a_prior_is_so_many_comparisons_of_every_two() -> None:
    wins = np.array([[0, 5, 2], [1, 0, 3], [2, 2, 0]], float)
    plan = bradley_terry(**win_ballots(wins), prior=3)
    added = wins + 1.5 * (1 - np.eye(3))
    other = bradley_terry(**win_ballots(added))
    assert plan.info["points"] == pytest.approx(other.info["points"], abs=1e-9)
    assert plan.value == pytest.approx(other.value)


def test_strengths_that_do_not_exist_are_refused_with_what_stands_apart() -> None:
    apart = np.zeros((5, 5))
    apart[0, 1] = apart[1, 0] = apart[3, 4] = apart[4, 3] = 2
    with pytest.raises(InputError, match=r"in 2 parts with no comparison between them, .*: 0, 1; 3, 4; .*prior"):
        bradley_terry(**win_ballots(apart))
    first = np.array([[0, 5, 2], [0, 0, 3], [0, 2, 0]], float)
    with pytest.raises(InputError, match=r"never lost to the others \(0\): perfect separation.*prior such as 0.1"):
        bradley_terry(**win_ballots(first))
    drawn = bradley_terry(**win_ballots(apart), prior=0.1)
    assert drawn.info["never_compared"] == [2]
    assert np.isnan(drawn.info["points"][2])
    assert drawn.result.tolist()[-1] == 2
    assert bradley_terry(**win_ballots(first), prior=0.1).result.tolist()[0] == 0


def test_a_cycle_is_even_and_long_odds_converge() -> None:
    cycle = bradley_terry(**win_ballots([[0, 2, 0], [0, 0, 2], [2, 0, 0]]))
    assert cycle.info["points"] == pytest.approx(0, abs=1e-12)
    assert cycle.to_frame()["rank"].to_list() == [1, 1, 1]
    chain = np.zeros((12, 12))
    chain[np.arange(11), np.arange(1, 12)] = 1e6
    chain[np.arange(1, 12), np.arange(11)] = 1
    points = bradley_terry(**win_ballots(chain)).info["points"]
    assert -np.diff(points) == pytest.approx(math.log(1e6), rel=1e-6)


@pytest.mark.parametrize("prior", [-1, math.nan, math.inf])
def test_priors_that_are_none(prior: float) -> None:
    with pytest.raises(InputError, match="prior"):
        bradley_terry([[1, 2], [2, 1]], prior=prior)


def test_alternatives_that_nobody_compares_come_last() -> None:
    plan = kofn.combine(rankings=[[1, 2, np.nan], [2, 1, np.nan], [np.nan, np.nan, 5]], method="bradley_terry")
    assert plan.info["never_compared"] == [2]
    assert np.isnan(plan.info["points"][2])


@pytest.mark.parametrize("method", ["bradley_terry", "plackett_luce", "general_preference"])
def test_where_nothing_was_compared_there_are_no_strengths(method: Any) -> None:
    with pytest.raises(InputError, match="compares no two of the 2 alternatives, as no judge rated more than one"):
        kofn.combine(rankings=[[1, np.nan], [np.nan, 2]], method=method)
    assert kofn.combine(rankings=[[1, np.nan], [np.nan, 2]], method=method, prior=0.1).info["never_compared"] == [0, 1]


@pytest.mark.parametrize("unit", [1e-300, 1e-30, 1e30])
def test_strengths_do_not_depend_on_the_unit_of_the_weights(unit: float) -> None:
    ballots = win_ballots([[0, 3, 2], [1, 0, 5], [2, 2, 0]])
    plan = bradley_terry(**ballots)
    scaled = bradley_terry(ballots["rankings"], weights=np.asarray(ballots["weights"]) * unit)
    np.testing.assert_allclose(scaled.info["points"], plan.info["points"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(scaled.info["standard_error"] * np.sqrt(unit), plan.info["standard_error"], rtol=1e-9)


def test_a_prior_beside_which_the_comparisons_are_nothing_makes_all_alike() -> None:
    plan = bradley_terry(**win_ballots([[0, 3], [1, 0]]), prior=2.0**63)
    assert plan.info["points"].tolist() == [0.0, 0.0]
    assert np.all(plan.info["standard_error"] > 0)


def test_rounding_noise_is_0_points_in_tables_and_reports(tmp_path: Path) -> None:
    points = np.array([1.0, 1.868e-16, -1.0, np.nan])
    plan = Blend(n=4, result=np.array([0, 1, 2, 3]), form="order", info={"points": points, "never_compared": [3]})
    assert plan.to_frame()["points"].to_list()[:3] == [1.0, 0.0, -1.0]
    small = dataclasses.replace(plan, info={"points": np.array([1e-15, 5e-16, 2e-16, 0.0])})
    assert small.points().tolist() == [1e-15, 5e-16, 2e-16, 0.0]
    assert "e-16" not in Path(plan.report(tmp_path / "r.html")).read_text()


def test_nothing_is_written_where_nobody_is_compared(capfd: pytest.CaptureFixture[str]) -> None:
    plan = bradley_terry([[1, np.nan], [np.nan, 2]], prior=0.1)
    assert plan.info["never_compared"] == [0, 1]
    assert capfd.readouterr() == ("", "")
