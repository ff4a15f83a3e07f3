"""Time limits: k valid picks whatever happens, a plan that says what was found in time, nothing proven of the rest."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.core.constraints import Constraints, Tracker

_X = np.random.default_rng(0).normal(size=(400, 6))
_METHODS = [
    "farthest_first",
    "gist",
    "lazy_greedy",
    "naive_greedy",
    "order_threshold",
    "partitioned_greedy",
    "probability_cover",
    "sparse_greedy",
    "stochastic_greedy",
    "threshold_greedy",
    "typiclust",
]


@pytest.mark.parametrize("method", _METHODS)
def test_no_time_at_all_still_gives_k_picks(method: str) -> None:
    plan = kofn.select(_X, k=30, method=method, time_limit=1e-9)
    assert plan.status == "stopped"
    assert len(set(plan.indices.tolist())) == 30
    assert plan.guarantee is None


_WHERE: list[dict[str, Any]] = [
    {"k": 20, "include": [3, 4], "exclude": [5]},
    {"k": 20, "groups": np.arange(400) % 4, "quotas": {0: (8, None), 1: (None, 2), 2: (None, 1)}},
    {
        "k": 20,
        "groups": {"a": np.arange(400) % 4, "b": np.arange(400) % 3},
        "quotas": {"a": {0: (9, 9), 1: (0, 1)}, "b": {2: (12, None)}},
    },
    {"budget": 40, "costs": np.arange(400) % 7 + 1, "k": 20},
    {
        "budget": 40.5,
        "costs": np.linspace(0.5, 9, 400),
        "groups": np.arange(400) % 4,
        "quotas": {3: (4, None), 0: (None, 1)},
    },
]


@pytest.mark.parametrize("where", _WHERE)
def test_what_fills_up_keeps_every_constraint(where: dict[str, Any]) -> None:
    plan = kofn.select(_X, method="lazy_greedy", time_limit=1e-9, **where)
    assert len(plan) == 20 if "budget" not in where else len(plan) > 3


def _large() -> np.ndarray:
    rng = np.random.default_rng(2)
    sizes = rng.dirichlet(np.full(40, 0.3))
    return rng.normal(size=(40, 6))[rng.choice(40, 1_600, p=sizes)] * 4 + rng.normal(size=(1_600, 6))


_LARGE = _large()


@pytest.mark.parametrize("method", ["lazy_greedy", "stochastic_greedy", "threshold_greedy", "order_threshold"])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_what_completes_the_picks_of_a_large_pool_is_searched_for_on_samples(method: str, metric: str) -> None:
    plan = kofn.select(_LARGE, k=30, method=method, metric=metric, time_limit=1e-9)
    points = _LARGE / np.linalg.norm(_LARGE, axis=1, keepdims=True) if metric == "cosine" else _LARGE

    def distance(picks: Any) -> float:
        return float(np.linalg.norm(points[:, None] - points[picks], axis=2).min(axis=1).mean())

    draws = [distance(np.random.default_rng(draw).choice(1_600, 30, replace=False)) for draw in range(5)]
    assert distance(plan.indices) < 0.9 * min(draws)
    assert plan.info["filled_by"] == "by greedy search on a sample"


@pytest.mark.parametrize("method", ["gist", "typiclust", "probability_cover", "farthest_first"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_what_completes_other_searches_of_a_large_pool_is_searched_for_too(method: str, metric: str) -> None:
    plan = kofn.select(_LARGE, k=30, method=method, metric=metric, time_limit=1e-9)
    points = _LARGE / np.linalg.norm(_LARGE, axis=1, keepdims=True) if metric == "cosine" else _LARGE

    def distance(picks: Any) -> float:
        return float(np.linalg.norm(points[:, None] - points[picks], axis=2).min(axis=1).mean())

    draws = [distance(np.random.default_rng(draw).choice(1_600, 30, replace=False)) for draw in range(5)]
    assert len(set(plan.indices.tolist())) == 30
    assert distance(plan.indices) < 0.9 * min(draws)
    assert plan.info["found_in_time"] < 30
    assert plan.info["filled_by"] == "by greedy search on a sample"


def test_gist_without_time_takes_the_highest_scores() -> None:
    scores = np.random.default_rng(3).random(1_600)
    plan = kofn.select(_LARGE, scores=scores, k=5, method="gist", time_limit=1e-9, exclude=[0])
    want = [row for row in np.argsort(-scores).tolist() if row != 0][:5]
    assert plan.indices.tolist() == want
    assert plan.info["filled_by"] == "by their scores"


def test_a_plan_says_how_many_picks_were_found_in_time() -> None:
    assert "found in time=0 of 30 picks, the others by greedy search on a sample" in repr(
        kofn.select(_LARGE, k=30, method="lazy_greedy", time_limit=1e-9)
    )
    assert "found in time=0 of 30 picks, the others at random" in repr(
        kofn.select(_X, k=30, method="farthest_first", time_limit=1e-9)
    )
    assert "found in time" not in repr(kofn.select(_X, k=3, time_limit=60))


@pytest.mark.parametrize("scale", [1e-300, 1e160, 0.0])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_picks_are_completed_at_any_scale(scale: float, metric: str) -> None:
    plan = kofn.select(_LARGE * scale, k=30, method="lazy_greedy", metric=metric, time_limit=1e-9)
    assert len(set(plan.indices.tolist())) == 30
    if scale:
        same = kofn.select(_LARGE, k=30, method="lazy_greedy", metric=metric, time_limit=1e-9)
        assert len(set(same.indices.tolist()) & set(plan.indices.tolist())) > 25


def test_what_samples_complete_keeps_every_constraint() -> None:
    colour, costs = np.arange(1_600) % 4, np.arange(1_600) % 7 + 1
    plan = kofn.select(
        _LARGE, k=30, method="lazy_greedy", groups=colour, quotas={0: (12, None), 1: (None, 2)}, include=[5],
        exclude=[6], time_limit=1e-9,
    )  # fmt: skip
    assert (colour[plan.indices] == 0).sum() >= 12
    assert (colour[plan.indices] == 1).sum() <= 2
    assert 5 in plan.indices
    assert 6 not in plan.indices
    plan = kofn.select(_LARGE, method="lazy_greedy", costs=costs, budget=90, time_limit=1e-9)
    assert 80 < costs[plan.indices].sum() <= 90


def test_a_filling_completes_whatever_was_picked_before() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        groups = {name: rng.integers(0, 4, 60) for name in ("a", "b", "c")}
        some = rng.choice(60, 12, replace=False)
        quotas = {
            name: {g: (int((labels[some] == g).sum()) - 1, int((labels[some] == g).sum()) + 1) for g in range(4)}
            for name, labels in groups.items()
        }
        quotas = {name: {g: (max(0, low), high) for g, (low, high) in ends.items()} for name, ends in quotas.items()}
        constraints = Constraints.of(60, k=12, groups=groups, quotas=quotas)
        tracker = Tracker(constraints)
        for _ in range(int(rng.integers(0, 12))):
            tracker.add(int(rng.choice(np.flatnonzero(tracker.eligible()))))
        for item in tracker.filling(rng.permutation(60)).tolist():
            tracker.add(item)
        assert tracker.count == 12


def test_gist_returns_its_prefix_when_interrupted() -> None:
    X = np.random.default_rng(0).normal(size=(6000, 16)).astype(np.float32)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    began = time.process_time()
    timer.start()
    plan = kofn.select(X, k=2000, method="gist", scores=np.random.default_rng(1).random(6000), eps=0.01)
    timer.cancel()
    assert plan.status == "stopped"
    assert time.process_time() - began < 5
    assert len(set(plan.indices.tolist())) == len(plan)


def test_a_value_that_no_time_was_left_for_is_not_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kofn.selection.covering._farthest_first._SOON", 0)
    plan = kofn.select(_X, k=30, method="farthest_first", time_limit=1e-9)
    assert math.isnan(plan.value)
    assert plan.bound is None
    assert plan.info["found_in_time"] == 0


@pytest.mark.parametrize("limit", [{"time_limit": 5}, {"max_memory": "1GB"}])
def test_a_limit_that_a_method_cannot_keep_is_refused(limit: dict[str, Any]) -> None:
    with pytest.raises(kofn.InputError, match=r"sieve_streaming.*cannot keep.*lazy_greedy"):
        kofn.select(_X, k=3, method="sieve_streaming", **limit)
