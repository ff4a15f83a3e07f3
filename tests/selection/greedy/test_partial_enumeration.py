"""Searches begun from every pair against exhaustion: the share of the optimum, and never less than plain greedy."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.selection import lazy_greedy, partial_enumeration


def covered(words: list[set[int]], picks: Any) -> float:
    return float(len(set().union(*(words[item] for item in picks))))


def best_within(words: list[set[int]], costs: np.ndarray, budget: int, most: int) -> float:
    sets = itertools.chain.from_iterable(itertools.combinations(range(len(costs)), size) for size in range(most + 1))
    return max(covered(words, picks) for picks in sets if costs[list(picks)].sum() <= budget)


@pytest.mark.parametrize("seed", range(40))
def test_the_share_holds_and_nothing_is_lost(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, topics = int(rng.integers(4, 10)), 12
    table = (rng.random((n, topics)) < 0.3).astype(float)
    words = [set(np.flatnonzero(row).tolist()) for row in table]
    costs = rng.integers(1, 9, n)
    budget = int(rng.integers(costs.min(), costs.sum() + 1))
    call: dict[str, Any] = {"X": table, "objective": "weighted_coverage", "costs": costs, "budget": budget}
    if seed % 2:
        call["k"] = int(rng.integers(1, n))
    plan, plain = partial_enumeration(**call), lazy_greedy(**call)
    best = best_within(words, costs, budget, call.get("k", n))
    assert plain.value <= plan.value <= best <= plan.bound + 1e-9
    assert plan.value == covered(words, plan.indices.tolist())
    assert costs[plan.indices].sum() <= budget
    assert plan.value >= plan.guarantee * best
    if "k" not in call and plan.status != "optimal":
        assert plan.guarantee == 1 - 1 / math.e
    assert plan.info["searches"] >= 1


def test_quotas_and_rows_to_begin_from_hold() -> None:
    rng = np.random.default_rng(1)
    X, costs, groups = rng.normal(size=(12, 2)), rng.integers(1, 6, 12), np.repeat(["a", "b"], 6)
    plan = partial_enumeration(
        X, costs=costs, budget=14, groups=groups, quotas={"a": (2, 3)}, include=np.array([7]), exclude=np.array([0])
    )
    assert {7} <= set(plan.indices.tolist()) <= set(range(1, 12))
    assert 2 <= int((groups[plan.indices] == "a").sum()) <= 3
    assert plan.guarantee is None


def test_without_a_budget_that_binds_it_is_lazy_greedy() -> None:
    X = np.random.default_rng(0).normal(size=(20, 3))
    for call in ({"k": 4}, {"budget": 20, "costs": np.ones(20)}):
        plan = partial_enumeration(X, **call)
        assert plan.indices.tolist() == lazy_greedy(X, **call).indices.tolist()
        assert plan.info["searches"] == 1


def test_a_time_limit_gives_what_was_found() -> None:
    rng = np.random.default_rng(0)
    X, costs = rng.normal(size=(60, 3)), rng.integers(5, 20, 60)
    plan = kofn.select(X, costs=costs, budget=50, method="partial_enumeration", time_limit=0.2)
    assert plan.status == "stopped"
    assert plan.guarantee is None
    assert costs[plan.indices].sum() <= 50
    assert len(plan) > 0
