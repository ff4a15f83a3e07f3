"""top_k, random_sample, stochastic_batch, ccs and farthest_first against brute force and their definitions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

import kofn
from kofn.core.checks import InfeasibleError, InputError
from kofn.selection import ccs, farthest_first, random_sample, stochastic_batch, top_k


@pytest.mark.parametrize("seed", range(30))
def test_top_k_within_quotas_is_optimal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, groups = rng.integers(-3, 4, 9).astype(float), rng.integers(0, 3, 9)
    quotas = {int(groups[0]): (1, 2), int(groups[1]): (0, 3)} if groups[0] != groups[1] else {int(groups[0]): (1, 3)}
    try:
        plan = top_k(scores, k=4, groups=groups, quotas=quotas)
    except InfeasibleError:
        plan = None
    best = -np.inf
    for picks in itertools.combinations(range(9), 4):
        held = groups[list(picks)]
        if all(low <= (held == group).sum() <= high for group, (low, high) in quotas.items()):
            best = max(best, scores[list(picks)].sum())
    assert (plan is None) == (best == -np.inf)
    assert plan is None or plan.value == best == plan.bound


def test_random_sample_is_uniform() -> None:
    counts = np.zeros(6)
    for seed in range(600):
        counts[random_sample(np.zeros((6, 1)), k=2, seed=seed).indices] += 1
    assert stats.chisquare(counts).pvalue > 1e-6
    plan = random_sample(np.zeros((6, 1)), k=3, seed=0, include=[4], exclude=[0, 1])
    assert plan.probabilities.tolist() == pytest.approx([0, 0, 2 / 3, 2 / 3, 1, 2 / 3])


@pytest.mark.parametrize("distribution", ["power", "softmax", "softrank"])
def test_stochastic_batch_draws_in_proportion(distribution: str) -> None:
    scores = np.array([3.0, 1.0, 2.0, 0.5])
    weights = {"power": scores**2, "softmax": np.exp(2 * scores), "softrank": np.array([1.0, 3, 2, 4]) ** -2}[
        distribution
    ]
    first = np.zeros(4)
    second = np.zeros((4, 4))
    for seed in range(2000):
        a, b = stochastic_batch(scores, k=2, seed=seed, distribution=distribution, beta=2.0).indices
        first[a] += 1
        second[a, b] += 1
    share = weights / weights.sum()
    assert stats.chisquare(first, share * 2000).pvalue > 1e-6
    # Without replacement: given the first, the others keep their proportions.
    top = int(share.argmax())
    rest = np.delete(share, top)
    seen = np.delete(second[top], top)
    assert stats.chisquare(seen, rest / rest.sum() * seen.sum()).pvalue > 1e-6


def test_stochastic_batch_at_the_ends() -> None:
    scores = np.array([0.0, 0.0, 5.0, 1.0])
    picks = stochastic_batch(scores, k=3, seed=1).indices.tolist()
    assert set(picks[:2]) == {2, 3}
    assert picks[2] in (0, 1)
    assert stochastic_batch(scores, k=2, seed=1, beta=1e6).indices.tolist() == [2, 3]
    uniform = np.bincount([stochastic_batch(scores, k=1, seed=s, beta=0).indices[0] for s in range(800)], minlength=4)
    assert stats.chisquare(uniform).pvalue > 1e-6
    with pytest.raises(InputError, match=r"row 0 is -1.*softmax"):
        stochastic_batch([-1.0, 2.0], k=1)
    with pytest.raises(InfeasibleError, match=r"only|exclude"):
        stochastic_batch(scores, k=3, exclude=[0, 1])


def test_ccs_is_the_papers_algorithm() -> None:
    scores = np.concatenate([np.full(2, 0.05), np.full(5, 0.35), np.full(100, 0.65), np.full(100, 0.95), [9.0] * 3])
    plan = ccs(scores, k=40, n_strata=4, cutoff=3 / 210, seed=0)
    # Ranges of equal width over 0.05..0.95 hold 2, 5, 100, 100; of the 33 left the first large one gets 16.
    assert np.bincount(np.searchsorted([0.2, 0.5, 0.8], scores[plan.indices])).tolist() == [2, 5, 16, 17]
    assert plan.info["dropped"] == 3
    assert not set(plan.indices.tolist()) & {207, 208, 209}
    assert plan.probabilities.sum() == pytest.approx(40)
    counts = np.zeros(len(scores))
    for seed in range(300):
        counts[ccs(scores, k=40, n_strata=4, cutoff=3 / 210, seed=seed).indices] += 1
    sampled = (plan.probabilities > 0) & (plan.probabilities < 1)
    expected = plan.probabilities[sampled] * 300
    assert stats.chisquare(counts[sampled], expected * counts[sampled].sum() / expected.sum()).pvalue > 1e-6
    with pytest.raises(InfeasibleError, match="leaves 21"):
        ccs(np.arange(210.0), k=30, cutoff=0.9)


def test_ccs_of_equal_scores_is_a_uniform_draw() -> None:
    assert len(set(ccs(np.ones(20), k=20, cutoff=0).indices.tolist())) == 20


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("seed", range(8))
def test_farthest_first_is_within_its_bounds(metric: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.integers(-2, 3, (9, 2)).astype(float) + (0.01 if metric == "cosine" else 0)
    squares = ((X[:, None] - X[None]) ** 2).sum(axis=-1)
    unit = X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12)
    apart = {"euclidean": np.sqrt(squares), "sqeuclidean": squares, "cosine": 1 - unit @ unit.T}[metric]
    plan = farthest_first(X, k=3, metric=metric)
    radius = max(apart[:, plan.indices].min(axis=1))
    best = min(apart[:, list(c)].min(axis=1).max() for c in itertools.combinations(range(9), 3))
    assert plan.value == pytest.approx(radius, abs=1e-9)
    assert plan.bound <= best + 1e-9 <= plan.value + 2e-9
    assert best >= plan.guarantee * plan.value - 1e-9


def test_farthest_first_picks_are_farthest_within_constraints() -> None:
    X = np.random.default_rng(0).normal(size=(120, 5))
    groups = np.arange(120) % 4
    plan = farthest_first(X, k=12, groups=groups, quotas={0: (5, None), 1: (0, 1)}, include=[7], exclude=[0])
    assert plan.indices[0] == 7
    assert (groups[plan.indices] == 0).sum() >= 5
    assert (groups[plan.indices] == 1).sum() <= 1
    free = farthest_first(X, k=12)
    for t in range(1, 12):
        nearest = np.min([np.linalg.norm(X - X[j], axis=1) for j in free.indices[:t]], axis=0)
        assert nearest[free.indices[t]] == pytest.approx(nearest.max())


def test_compare_judges_all_under_one_objective() -> None:
    X = np.random.default_rng(0).normal(size=(60, 3))
    frame = kofn.compare("select", X, k=[3, 6], methods=["lazy_greedy", "farthest_first", "random_sample"], seeds=4)
    assert len(frame) == 2 + 2 + 8
    best = dict(frame.group_by("k").agg(pl.col("value").max()).iter_rows())
    for k, value in frame.filter(pl.col("method") == "lazy_greedy").select("k", "value").iter_rows():
        assert value == best[k]


def test_inputs_of_two_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="scores has 1 values"):
        kofn.select(np.zeros((6, 2)), scores=[1.0], k=1, method="random_sample")


@pytest.mark.parametrize("seed", range(40))
def test_prices_are_what_a_looser_quota_brings(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(6, 14)), int(rng.integers(2, 6))
    scores, groups = rng.integers(0, 9, n).astype(float), rng.choice(list("abc"), n)
    quotas: dict[str, tuple[int, int | None]] = {}
    for group in np.unique(groups).tolist():
        low = int(rng.integers(0, 2)) if (groups == group).sum() > 1 else 0
        quotas[group] = (low, int(rng.integers(low, 4)) if rng.random() < 0.6 else None)
    call: dict[str, Any] = {"scores": scores, "k": k, "groups": groups, "method": "top_k"}
    call |= {"include": [int(rng.integers(n))]} if seed % 3 == 0 else {}
    try:
        plan = kofn.select(quotas=quotas, **call)
    except InfeasibleError:
        return
    for group, (low, high) in quotas.items():
        count = plan.used.get(f"quota {group}")
        binds = (high is not None and count == high < n) or (low > 0 and count == low)
        assert (f"quota {group}" in plan.prices) == binds
        if binds:
            least = max(0, low - 1) if count == low else low
            looser = (least, high + 1 if high is not None and count == high else high)
            freed = kofn.select(quotas={**quotas, group: looser}, **call)
            assert plan.prices[f"quota {group}"] == pytest.approx(freed.value - plan.value, abs=1e-12)


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("seed", range(30))
def test_prices_over_several_columns_are_what_a_looser_quota_brings(columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(8, 20)), int(rng.integers(2, 7))
    scores = rng.integers(-3, 9, n).astype(float) if seed % 2 else rng.normal(size=n)
    names = "uvw"[:columns]
    groups = {name: rng.choice(list("abc"), n) for name in names}
    quotas: dict[str, dict[str, tuple[int, int | None]]] = {name: {} for name in names}
    for name in names:
        for group in np.unique(groups[name]).tolist()[: int(rng.integers(1, 4))]:
            low = int(rng.integers(0, 2))
            quotas[name][group] = (low, int(rng.integers(low, 4)) if rng.random() < 0.7 else None)
    call: dict[str, Any] = {"scores": scores, "k": k, "groups": groups, "method": "top_k"}
    call |= {"include": [int(rng.integers(n))]} if seed % 3 == 0 else {}
    call |= {"exclude": [int(rng.integers(n))]} if seed % 5 == 1 else {}
    try:
        plan = kofn.select(quotas=quotas, **call)
    except InfeasibleError:
        return
    for name, asked in quotas.items():
        for group, (low, high) in asked.items():
            key = f"quota {name}={group}"
            count = plan.used.get(key)
            binds = (high is not None and count == high < n) or (low > 0 and count == low)
            assert (key in plan.prices) == binds
            if not binds:
                continue
            least = max(0, low - 1) if count == low else low
            looser = (least, high + 1 if high is not None and count == high else high)
            gained = kofn.select(quotas={**quotas, name: {**asked, group: looser}}, **call).value - plan.value
            if columns == 2:
                assert plan.prices[key] == pytest.approx(gained, abs=1e-9)
            else:
                assert plan.prices[key] >= gained - 1e-9


def test_prices_of_two_columns_see_more_of_a_cell_than_its_quota_lets_in() -> None:
    call: dict[str, Any] = {"scores": [5.0, 4.0, 1.0, 0.0], "groups": {"u": list("aabb"), "v": list("pppp")}, "k": 2}
    plan = kofn.select(quotas={"u": {"a": (0, 1)}, "v": {"p": (1, None)}}, **call)
    assert plan.prices == {"quota u=a": 3.0}
    call["groups"]["w"] = list("xxxx")
    plan = kofn.select(quotas={"u": {"a": (0, 1)}, "v": {"p": (1, None)}, "w": {"x": (0, 3)}}, **call)
    assert plan.prices["quota u=a"] >= 3.0
