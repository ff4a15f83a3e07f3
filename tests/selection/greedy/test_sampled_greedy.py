"""Greedy search judged by a sample of the rows: exact where it is all of them, valued on all of them always."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from command_line import run
from law_runs import keeps_laws_at_size, rounded

import kofn
from kofn.core.dispatch import choose
from kofn.objectives.facility_location import FacilityLocation
from kofn.selection import lazy_greedy, sampled_greedy

_RNG = np.random.default_rng(5)
X = (_RNG.normal(size=(40, 8))[_RNG.integers(40, size=1500)] * 3 + _RNG.normal(size=(1500, 8))).astype(np.float32)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_value_and_gains_are_those_of_the_whole_pool(metric: Any) -> None:
    weights = np.arange(1500) % 4
    plan = sampled_greedy(X, k=9, weights=weights, metric=metric, seed=3, reference=200)
    objective = FacilityLocation(X, metric=metric, weights=weights)
    assert plan.value == pytest.approx(objective.value(plan.indices), rel=1e-9)
    np.testing.assert_allclose(plan.gains, [objective.add(item) for item in plan.indices.tolist()], rtol=1e-6)
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


def test_threads_and_seed_decide_nothing_and_all() -> None:
    picks = [sampled_greedy(X, k=9, seed=1, reference=200, n_threads=threads).indices.tolist() for threads in (1, 2)]
    assert picks[0] == picks[1]
    assert picks[0] != sampled_greedy(X, k=9, seed=2, reference=200).indices.tolist()


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
