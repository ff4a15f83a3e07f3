"""Rankings with their intervals do not hang on the order of the judges' columns, of the rows, or of votes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata

import kofn
from kofn.combination import win_ballots, win_strengths
from kofn.combination.rankings._pairs import Canonical, Listed

ENDS = ("rank_low", "rank_high")
METHODS = [
    *("baldwin", "borda", "bradley_terry", "copeland", "dowdall", "minimax", "plackett_luce", "plurality"),
    *("ranked_pairs", "schulze", "threshold_rule"),
]
BY_STRENGTHS = ("bradley_terry", "plackett_luce")


def drawn(seed: int, kind: str) -> tuple[Any, Any]:
    """Scores with ties and gaps, votes of two, or ballots in which alternatives cannot be told apart."""
    rng = np.random.default_rng(seed)
    if kind == "scores":
        table = rng.integers(0, 4, (6, 9)).astype(float)
        table[rng.random(table.shape) < 0.2] = np.nan
        table[0] = np.nan_to_num(table[0])
        table[1] = np.nan_to_num(table[1])
        return table, rng.integers(1, 3, 9).astype(float)
    if kind == "votes":
        ballots = win_ballots(rng.integers(1, 9, (5, 5)), np.full((5, 5), 2) * (1 - np.eye(5)))
        return ballots["rankings"], ballots["weights"]
    # Each alternative is what every other is: each is first, second, ... for one judge.
    return np.array([np.roll(np.arange(5.0), shift) for shift in range(5)]), np.ones(5)


@pytest.mark.parametrize("resamples", [0, 8])
@pytest.mark.parametrize("kind", ["scores", "votes", "symmetric"])
@pytest.mark.parametrize("method", METHODS)
def test_another_order_of_judges_and_rows_gives_the_same(method: str, kind: str, resamples: int) -> None:
    if resamples and method not in BY_STRENGTHS:
        pytest.skip("only strengths are fitted again")
    table, weights = drawn(3, kind)
    options: dict[str, Any] = {"prior": 0.5, "resamples": resamples} if method in BY_STRENGTHS else {}
    own: Any = method
    plan = kofn.combine(rankings=table, weights=weights, method=own, **options)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rows, judges = rng.permutation(len(table)), rng.permutation(len(weights))
        other = kofn.combine(rankings=table[rows][:, judges], weights=weights[judges], method=own, **options)
        np.testing.assert_allclose(other.info["points"], plan.info["points"][rows], atol=1e-9)
        for name in ENDS:
            np.testing.assert_array_equal(other.info[name], plan.info[name][rows])


@pytest.mark.parametrize("resamples", [0, 8])
def test_another_order_of_the_table_of_wins_gives_the_same(resamples: int) -> None:
    rng = np.random.default_rng(5)
    wins, ties = rng.integers(0, 9, (7, 7)).astype(float), np.triu(rng.integers(0, 3, (7, 7)), 1)
    ties = ties + ties.T
    plan = win_strengths(wins, ties, resamples=resamples)
    for seed in range(3):
        rows = np.random.default_rng(seed).permutation(7)
        inside = np.ix_(rows, rows)
        other = win_strengths(wins[inside], ties[inside], resamples=resamples)
        for name in ENDS:
            np.testing.assert_array_equal(other.info[name], plan.info[name][rows])


def test_what_nothing_tells_apart_shares_its_interval() -> None:
    table, weights = drawn(0, "symmetric")
    for method in METHODS:
        own: Any = method
        info = kofn.combine(rankings=table, weights=weights, method=own).info
        for name in ENDS:
            assert len(set(info[name].tolist())) == 1, method
    # The last is worse than all others, of which each is what any other is.
    apart = kofn.combine(rankings=np.vstack([table, np.full(5, -1.0)]), method="copeland").info
    assert (apart["rank_low"].tolist()[-1], apart["rank_high"].tolist()[-1]) == (6, 6)


def test_the_canonical_order_is_of_what_the_ballots_say() -> None:
    rng = np.random.default_rng(1)
    ballots, weights = rankdata(rng.integers(0, 3, (8, 6)), axis=1), rng.integers(1, 3, 8).astype(float)
    canonical = Canonical.of(Listed.of(ballots), weights, 6)
    expected = ballots[canonical.judges][:, canonical.items]
    for seed in range(5):
        again = np.random.default_rng(seed)
        rows, judges = again.permutation(6), again.permutation(8)
        other = ballots[judges][:, rows]
        turned = Canonical.of(Listed.of(other), weights[judges], 6)
        np.testing.assert_array_equal(other[turned.judges][:, turned.items], expected)
        np.testing.assert_array_equal(weights[judges][turned.judges], weights[canonical.judges])
