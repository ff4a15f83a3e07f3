"""Greedy search judged by a sample of the rows: exact where it is all of them, valued on all of them always."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from command_line import run
from law_runs import keeps_laws_at_size, rounded

import kofn
from kofn.core.dispatch import choose
from kofn.core.runtime import Control
from kofn.objectives import _estimates
from kofn.objectives._estimates import pairs_of_search
from kofn.objectives.facility_location import FacilityLocation
from kofn.selection import lazy_greedy, sampled_greedy
from kofn.selection.greedy._sample import SampledVectors

_RNG = np.random.default_rng(5)
X = (_RNG.normal(size=(40, 8))[_RNG.integers(40, size=1500)] * 3 + _RNG.normal(size=(1500, 8))).astype(np.float32)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_value_and_gains_are_those_of_the_whole_pool(metric: Any) -> None:
    weights = np.arange(1500) % 4
    plan = sampled_greedy(X, k=9, weights=weights, metric=metric, seed=3, reference=200)
    objective = FacilityLocation(X, metric=metric, weights=weights)
    assert plan.value == pytest.approx(objective.value(plan.indices), rel=1e-9)
    assert plan.gains.tolist() == [objective.add(item) for item in plan.indices.tolist()]
    assert plan.bound is None
    assert plan.guarantee is None
    assert plan.status == "heuristic"


def test_the_whole_pool_as_sample_is_exact_greedy() -> None:
    exact, plan = lazy_greedy(X[:300], k=7), sampled_greedy(X[:300], k=7, seed=0)
    np.testing.assert_array_equal(plan.indices, exact.indices)
    assert (plan.bound, plan.info["sample_gap"]) == (exact.bound, 0.0)


def test_little_is_lost_and_the_gap_is_that_of_sample_and_rest() -> None:
    exact = lazy_greedy(X, k=60)
    for seed in range(3):
        plan = sampled_greedy(X, k=60, seed=seed, reference=600)
        random = kofn.select(X, k=60, method="random_sample", seed=seed)
        spread = FacilityLocation(X)
        lost = exact.value - plan.value
        assert lost < 0.1 * (exact.value - spread.value(random.indices))
        low, high = plan.info["sample_gap_interval"]
        assert low <= plan.info["sample_gap"] <= high
        distances = np.linalg.norm(X[:, None] - X[plan.indices], axis=2).min(axis=1)
        sampled = np.isin(np.arange(1500), np.random.default_rng(seed).choice(1500, 600, replace=False))
        others = ~np.isin(np.arange(1500), plan.indices)
        gap = distances[others & ~sampled].mean() - distances[others & sampled].mean()
        assert plan.info["sample_gap"] == pytest.approx(max(0.0, gap) * others.sum(), rel=1e-4)


def test_a_sampled_row_stands_for_itself_once_picked() -> None:
    """A pick of a lone far row saves itself, not the rows that it is a sample of."""
    far = np.full((1, 8), 200, np.float32)
    pool = np.vstack([X, far])
    picks = [sampled_greedy(pool, k=1, seed=seed, reference=100).indices[0] for seed in range(20)]
    assert len(X) not in picks


def test_constraints_hold() -> None:
    groups, costs = np.arange(1500) % 3, 1 + np.arange(1500) % 5
    asked: Any = {"groups": groups, "quotas": {0: (5, 5), 1: (0, 2)}, "include": [4], "exclude": [7], "k": 12}
    keeps_laws_at_size("sampled_greedy", {"X": rounded(1500, 4), **asked, "seed": 0}, {"reference": 150})
    plan = sampled_greedy(X, budget=30, costs=costs, seed=0, reference=150)
    assert costs[plan.indices].sum() <= 30
    assert len(plan) > 8


_POOLS = {
    "far from the origin": X + np.float32(4096),
    "float64": X.astype(np.float64) * 1e-7 + 1,
    "tiny": X * np.float32(1e-30),
    "copies": np.round(X[:, :2]),
    "a scale within each cluster": X * np.float32(10) ** np.round(X[:, :1]),
    "zero rows": np.where(np.arange(1500)[:, None] % 3 == 0, np.float32(0), X),
}


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "rbf"])
@pytest.mark.parametrize("pool", _POOLS)
def test_gains_are_exact_to_the_last_bit(pool: str, metric: Any) -> None:
    """Screening by rounded distances leaves out no row that a pick serves better."""
    rows = np.random.default_rng(0).choice(1500, 300, replace=False)
    weights = np.arange(1500) % 7 / 3
    words = {"weights": weights, "metric": metric}
    objective, exact = SampledVectors(_POOLS[pool], rows, words, 0), FacilityLocation(_POOLS[pool], **words)
    picks = np.random.default_rng(1).permutation(1500)[:70].tolist()
    for item in picks:
        objective.commit(item)
    assert objective.settle() == [exact.add(item) for item in picks]
    np.testing.assert_array_equal(objective.nearest, exact.nearest)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("pool", ["float64", "copies", "a scale within each cluster", "zero rows"])
@pytest.mark.parametrize("listed", [0.0, 0.05, 1.0])
def test_estimates_are_the_gains_on_the_sampled_rows(
    pool: str, metric: Any, listed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However early near candidates are listed, and through every growth of the sample."""
    monkeypatch.setattr(_estimates, "_FIRST_ROWS", 60)
    monkeypatch.setattr(_estimates, "_listed_share", lambda width, items: listed)
    monkeypatch.setattr(_estimates, "_ITEMS_AT_ONCE", 64)
    given = _POOLS[pool]
    rows = np.random.default_rng(0).choice(1500, 700, replace=False)
    weights = 1.0 + np.arange(1500) % 7
    objective = SampledVectors(given, rows, {"weights": weights, "metric": metric}, 40)
    every = np.arange(1500)
    judges: list[int] = []
    picks: list[int] = []
    for step in range(40):
        gains = objective.gains(every)
        judging = objective._estimates.rows
        judges.append(len(judging))
        assert set(judging) <= set(rows)
        standing = np.zeros(1500)
        standing[judging] = weights[judging] * weights.sum() / weights[judging].sum()
        if step % 6 == 5 or step < 3:
            plain = FacilityLocation(given, weights=standing, metric=metric)
            for item in picks:
                plain.add(item)
            own = plain._unit * (standing - weights) * (plain._cost - plain._source.least)
            wanted = np.maximum(plain.exact_gains(every) - np.where(standing > 0, own, 0.0), 0.0)
            scale = plain._unit * standing.sum() * float(np.average(plain._cost, weights=standing))
            np.testing.assert_allclose(gains, wanted, rtol=1e-4, atol=1e-5 * scale)
        picks.append(int(np.argmax(gains)))
        objective.commit(picks[-1])
    assert judges == sorted(judges)
    # No part judges more than a quarter of the picks, nor gives them fewer than 20 rows each; the rest is for all rows.
    assert judges.count(700) >= 30
    assert judges[0] < 300


def test_equal_rows_have_equal_estimates() -> None:
    given = np.vstack([X[:700], X[:700]])
    objective = SampledVectors(given, np.arange(900, 1400, 2), {"weights": np.ones(1400)}, 0)
    unsampled = np.arange(0, 200)
    for item in (5, 300, 650):
        gains = objective.gains(np.arange(1400))
        np.testing.assert_array_equal(gains[unsampled], gains[unsampled + 700])
        objective.commit(item)


def test_the_sample_is_looked_at_about_as_often_as_is_said_beforehand() -> None:
    rng = np.random.default_rng(3)
    for pool in (
        rng.normal(size=(6000, 24)),
        np.repeat(rng.normal(size=(60, 24)) * 4, 100, axis=0) + rng.normal(size=(6000, 24)),
    ):
        plan = sampled_greedy(pool.astype(np.float32), k=300, seed=0, reference=3000)
        said = pairs_of_search(6000, 24, 3000, 300)
        assert said / 1.5 < plan.info["distance_evals"] < 1.5 * said
        assert plan.info["distance_evals"] < 4 * 6000 * 3000


def test_few_picks_are_judged_by_the_whole_sample() -> None:
    pool = np.random.default_rng(4).normal(size=(5000, 8)).astype(np.float32)
    objective = SampledVectors(pool, np.arange(0, 5000, 2), {"weights": np.ones(5000)}, 3)
    objective.gains(np.arange(5000))
    assert len(objective._estimates.rows) == 2500


def test_no_time_still_gives_k_picks_and_what_was_valued_is_exact() -> None:
    plan = sampled_greedy(X, k=30, seed=0, reference=200, time_limit=1e-9)
    assert plan.status == "stopped"
    assert len(set(plan.indices.tolist())) == 30
    objective = FacilityLocation(X)
    gains = [objective.add(item) for item in plan.indices.tolist()]
    valued = np.isfinite(plan.gains)
    assert valued.sum() >= 1
    assert plan.gains[valued].tolist() == np.array(gains)[valued].tolist()


def test_picks_made_before_a_stop_are_all_valued(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search stops between two rounds of valuing; what it picked by then has its gains."""
    calls = iter(range(10**6))
    monkeypatch.setattr(Control, "stopped", lambda self: next(calls) > 40)
    plan = sampled_greedy(X, k=60, seed=0, reference=200, time_limit=9_999)
    assert plan.status == "stopped"
    assert 0 < plan.info["found_in_time"] < 60
    objective = FacilityLocation(X)
    assert plan.gains.tolist() == [objective.add(item) for item in plan.indices.tolist()]


def test_threads_and_seed_decide_nothing_and_all() -> None:
    wide = np.vstack([X, X[::-1] + 1, X * 2])
    plans = [sampled_greedy(wide, k=90, seed=1, reference=2200, n_threads=threads) for threads in (1, 2, 3)]
    for plan in plans[1:]:
        assert plan.indices.tolist() == plans[0].indices.tolist()
        assert plan.gains.tolist() == plans[0].gains.tolist()
        assert plan.value == plans[0].value
    picks = sampled_greedy(X, k=9, seed=1, reference=200).indices.tolist()
    assert picks != sampled_greedy(X, k=9, seed=2, reference=200).indices.tolist()


def test_auto_looks_at_a_sample_where_all_pairs_would_take_more_than_a_minute() -> None:
    large, small = np.empty((100_000, 384), np.float16), np.empty((20_000, 64))
    wanted = {
        "sampled_greedy": [{}, {"time_limit": 60, "n_threads": 2}, {"time_limit": 9_999}, {"costs": 1}],
        "lazy_greedy": [{"metric": "rbf"}, {"objective": "graph_cut"}],
    }
    for method, calls in wanted.items():
        for words in calls:
            assert choose("select", {"X": large, "k": 1000, **words}) == method
    assert choose("select", {"X": large, "k": 9}, {"tight_bound": True}) == "lazy_greedy"
    assert choose("select", {"X": small, "k": 1000}) == "lazy_greedy"
    assert choose("select", {"X": large[:, :64], "k": 1000}) == "lazy_greedy"
    assert choose("select", {"X": small, "k": 1000, "time_limit": 60, "n_threads": 2}) == "lazy_greedy"
    assert choose("select", {"X": small, "k": 1000, "time_limit": 1, "n_threads": 2}) == "sampled_greedy"


def test_the_command_says_what_the_sample_costs(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "pool.npy", X)
    code, out, _ = run(
        capsys, "select", tmp_path / "pool.npy", "-k", 20, "-m", "sampled_greedy", "--reference", 300, "--seed", 0
    )
    assert code == 0
    assert "judged by a sample of 300 rows, which the picks serve" in out
