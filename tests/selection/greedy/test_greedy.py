"""The greedy searches against each other, brute force, and constraints of every kind."""

from __future__ import annotations

import itertools
import math
import os
import signal
import threading
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import kofn
from kofn.core.checks import InputError
from kofn.selection import lazy_greedy, naive_greedy


class Cover:
    """A user's own objective: how many of 30 points the chosen sets cover."""

    submodular = True
    monotone = True

    def __init__(self, sets: np.ndarray) -> None:
        self.sets, self.held, self.calls = sets, np.zeros(sets.shape[1], bool), 0

    def gains(self, candidates: np.ndarray) -> np.ndarray:
        self.calls += len(candidates)
        return (self.sets[candidates] & ~self.held).sum(axis=1).astype(float)

    def add(self, item: int) -> float:
        gain = float((self.sets[item] & ~self.held).sum())
        self.held |= self.sets[item]
        return gain

    def value(self, indices: np.ndarray) -> float:
        return float(self.sets[indices].any(axis=0).sum())


class Parity(Cover):
    """Neither submodular nor monotone."""

    submodular = False
    monotone = False


def sets(rng: np.random.Generator, n: int = 10) -> np.ndarray:
    return rng.random((n, 30)) < rng.uniform(0.05, 0.4)


def constraints(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Random constraints that can be met: the tests of refusals live elsewhere."""
    groups = rng.integers(0, 3, n)
    some = int(groups[0])
    out: dict[str, Any] = [
        {"k": int(rng.integers(1, n + 1))},
        {"k": 4, "groups": groups, "quotas": {some: (1, None)}},
        {"costs": rng.integers(1, 5, n), "budget": int(rng.integers(6, 14))},
        {"costs": rng.random(n) + 0.1, "budget": 2.5, "groups": groups, "quotas": {some: (1, 2)}},
        {"k": 5, "include": [3], "exclude": [1, 2]},
        {"k": 3, "costs": rng.integers(1, 5, n), "budget": 15},
    ][int(rng.integers(6))]
    return out


def feasible(picks: tuple[int, ...], given: dict[str, Any]) -> bool:
    chosen = list(picks)
    if "budget" in given:
        if given["costs"][chosen].sum() > given["budget"] + 1e-12 or len(chosen) > given.get("k", len(chosen)):
            return False
    elif len(chosen) != given["k"]:
        return False
    for group, (low, high) in given.get("quotas", {}).items():
        if not low <= int((given["groups"][chosen] == group).sum()) <= (high or 99):
            return False
    return set(given.get("include", [])) <= set(chosen) and not set(given.get("exclude", [])) & set(chosen)


@pytest.mark.parametrize("seed", range(60))
def test_lazy_is_naive_and_keeps_its_promise(seed: int) -> None:
    rng = np.random.default_rng(seed)
    covers = sets(rng)
    given = constraints(rng, len(covers))
    X = np.zeros((len(covers), 1))
    lazy = lazy_greedy(X, objective=Cover(covers), **given)
    assert lazy.indices.tolist() == naive_greedy(X, objective=Cover(covers), **given).indices.tolist()
    every = (c for r in range(len(covers) + 1) for c in itertools.combinations(range(len(covers)), r))
    best = max(Cover(covers).value(np.array(c, int)) for c in every if feasible(c, given))
    assert lazy.bound is not None
    assert lazy.value <= best <= lazy.bound + 1e-9
    assert lazy.value >= (lazy.guarantee or 0) * best
    assert lazy.value == Cover(covers).value(lazy.indices)


def test_lazy_asks_for_fewer_gains() -> None:
    covers = np.random.default_rng(0).random((400, 300)) < 0.03
    X = np.zeros((400, 1))
    lazy, naive = (rule(X, objective=Cover(covers), k=40) for rule in (lazy_greedy, naive_greedy))
    assert lazy.indices.tolist() == naive.indices.tolist()
    assert lazy.info["oracle_calls"] < naive.info["oracle_calls"] / 3


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("ties", [False, True])
def test_facility_location_from_vectors_is_that_of_the_matrix(metric: str, ties: bool) -> None:
    rng = np.random.default_rng(3)
    X = rng.integers(0, 3, (60, 3)).astype(float) if ties else rng.normal(size=(60, 3))
    squares = ((X[:, None] - X[None]) ** 2).sum(axis=-1)
    if metric == "cosine":
        norms = np.linalg.norm(X, axis=1)
        both = np.outer(norms, norms)
        similarity = (1 + np.where(both > 0, X @ X.T / np.where(both > 0, both, 1), 0)) / 2
        similarity[np.ix_(norms == 0, norms == 0)] = 1.0
    else:
        distance = squares if metric == "sqeuclidean" else np.sqrt(squares)
        similarity = distance.max() - distance
    one = kofn.select(X, k=12, metric=metric)
    two = kofn.select(similarity=similarity, k=12)
    assert [_loss(similarity, one.indices[:t]) for t in range(1, 13)] == pytest.approx(
        [_loss(similarity, two.indices[:t]) for t in range(1, 13)]
    )


def _loss(similarity: np.ndarray, picks: np.ndarray) -> float:
    return float(similarity[:, picks].max(axis=1).sum())


def test_sparse_similarity_is_its_dense_form() -> None:
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((80, 80)) < 0.1, rng.random((80, 80)), 0.0)
    for form in (sparse.csr_array, sparse.csc_array, sparse.coo_array):
        plan = kofn.select(similarity=form(dense), k=10)
        assert plan.indices.tolist() == kofn.select(similarity=dense, k=10).indices.tolist()


@pytest.mark.parametrize("n", [300, 3000])
def test_picks_are_the_same_for_any_number_of_threads(n: int) -> None:
    X = np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32)
    plans = [kofn.select(X, k=15, n_threads=threads) for threads in (1, 2, 4)]
    assert all(plan.indices.tolist() == plans[0].indices.tolist() for plan in plans)
    assert all(plan.gains.tolist() == plans[0].gains.tolist() for plan in plans)


def test_a_smaller_k_is_a_prefix_and_a_start_goes_on() -> None:
    X = np.random.default_rng(0).normal(size=(200, 4))
    whole = kofn.select(X, k=20)
    assert kofn.select(X, k=8).indices.tolist() == whole.prefix(8).indices.tolist()
    assert kofn.select(X, k=20, start=whole.prefix(8)).indices.tolist() == whole.indices.tolist()


def test_a_tighter_bound_is_tighter_and_still_a_bound() -> None:
    covers = np.random.default_rng(1).random((12, 30)) < 0.2
    X = np.zeros((12, 1))
    loose = lazy_greedy(X, objective=Cover(covers), k=3)
    tight = lazy_greedy(X, objective=Cover(covers), k=3, tight_bound=True)
    best = max(Cover(covers).value(np.array(c)) for c in itertools.combinations(range(12), 3))
    assert best <= tight.bound <= loose.bound


def test_the_best_single_item_beats_a_cost_benefit_run_that_misses_it() -> None:
    # Gain per cost prefers the small item, after which the large one is no longer affordable.
    plan = kofn.select(scores=[2.0, 90.0, 0.0], costs=[1, 100, 1], budget=100, method="lazy_greedy")
    assert plan.indices.tolist() == [1]


def test_an_objective_that_is_not_submodular() -> None:
    covers = sets(np.random.default_rng(0))
    X = np.zeros((len(covers), 1))
    with pytest.raises(InputError, match=r"not submodular.*naive_greedy"):
        lazy_greedy(X, objective=Parity(covers), k=2)
    plan = naive_greedy(X, objective=Parity(covers), k=2)
    assert plan.bound is None
    assert plan.status == "heuristic"
    with pytest.raises(InputError, match="lacks gains, add, value"):
        lazy_greedy(X, objective=object(), k=2)


def test_a_time_limit_returns_k_valid_picks() -> None:
    X = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)
    groups = np.arange(3000) % 2
    plan = kofn.select(X, k=2500, groups=groups, quotas={1: (5, None)}, time_limit=0.05)
    assert plan.status == "stopped"
    assert plan.info["found_in_time"] < len(plan) == 2500
    assert plan.guarantee is None
    assert (groups[plan.indices] == 1).sum() >= 5


def test_ctrl_c_returns_the_valid_prefix() -> None:
    X = np.random.default_rng(0).normal(size=(4000, 16)).astype(np.float32)
    timer = threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    plan = kofn.select(X, k=4000, time_limit=60)
    timer.cancel()
    assert plan.status == "stopped"
    assert len(plan) < 4000
    assert len(set(plan.indices.tolist())) == len(plan)


def test_all_rows_the_same_gives_distinct_picks() -> None:
    plan = kofn.select(np.ones((500, 3)), k=40)
    assert len(set(plan.indices.tolist())) == 40
    assert plan.gains[1:].tolist() == [0.0] * 39
    assert plan.status == "optimal"


def test_distances_do_not_depend_on_the_arbitrary_constant() -> None:
    X = np.random.default_rng(0).normal(size=(50, 2))
    plan = kofn.select(X, k=5)
    nearest = np.min([np.linalg.norm(X - X[j], axis=1) for j in plan.indices], axis=0)
    assert plan.info["distance"] == pytest.approx(nearest.sum())
    assert 0 <= plan.info["distance_bound"] <= plan.info["distance"]
    assert math.isclose(plan.value, plan.info["offset"] * 50 - nearest.sum())


def test_the_best_single_item_wins_for_an_own_objective_too() -> None:
    covers = np.zeros((3, 30), bool)
    covers[0, :2] = covers[1] = True
    X = np.zeros((3, 1))
    plan = lazy_greedy(X, objective=Cover(covers), costs=[1, 100, 1], budget=100)
    assert plan.indices.tolist()[0] == 1
    assert plan.value >= plan.guarantee * 30
