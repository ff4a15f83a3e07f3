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
