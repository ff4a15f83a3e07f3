"""Neighbour graphs against brute force; greedy search over them against all subsets and the exact greedy search."""

from __future__ import annotations

import importlib.util
import itertools
import math
import time
from typing import Any

import numpy as np
import pytest
from law_runs import load_compiled
from limit_calls import processor_clock
from plain_distances import pairwise
from scipy.spatial.distance import cdist

from kofn.core.checks import InputError
from kofn.neighbors import knn_graph
from kofn.neighbors.graphs import _found_rows
from kofn.neighbors.graphs import _knn_graph as graphs
from kofn.selection import lazy_greedy, sparse_greedy
from kofn.selection.greedy import _sparse_greedy as sparse

METRICS = ("euclidean", "sqeuclidean", "cosine")
needs_usearch = pytest.mark.skipif(importlib.util.find_spec("usearch") is None, reason="needs usearch")


def rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    X = np.random.default_rng(seed).normal(size=(n, d))
    X[n // 2], X[n // 3] = 0, X[n // 4]
    return X


REFUSED = {
    "too many": (lambda: knn_graph(rows(9, 2), 9), "n_neighbors=9 of 9 rows: a row has 8 others"),
    "none": (lambda: knn_graph(rows(9, 2), 0), "n_neighbors=0"),
    "engine": (
        lambda: knn_graph(rows(9, 2), 3, engine="faiss"),
        "engine='faiss': choose one of auto, exact, cells, usearch",
    ),
    "metric": (lambda: knn_graph(rows(9, 2), 3, "manhattan"), "metric='manhattan'"),
    "expansion": (lambda: knn_graph(rows(9, 2), 3, engine="usearch", expansion=0), "expansion=0"),
    "neighbors": (lambda: sparse_greedy(rows(9, 2), k=2, neighbors="all"), "neighbors='all'"),
    "no neighbours": (lambda: sparse_greedy(rows(9, 2), k=2, n_neighbors=0), "n_neighbors=0"),
    "nothing asked": (lambda: sparse_greedy(rows(9, 2)), "give k"),
}


@pytest.mark.parametrize(("ask", "says"), REFUSED.values(), ids=REFUSED)
def test_refusals(ask: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        ask()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def value(X: np.ndarray, picks: Any, metric: str, weights: np.ndarray, offset: float) -> float:
    apart = pairwise(X, metric) / (2 if metric == "cosine" else 1)
    return math.fsum((weights * (offset - apart[:, list(picks)].min(axis=1))).tolist())


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(12))
def test_value_and_bound_enclose_the_optimum(metric: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = 9, int(rng.integers(1, 5))
    X = rng.integers(-2, 3, (n, 2)).astype(float) if seed % 2 else rng.normal(size=(n, 2))
    weights = rng.integers(0, 4, n) + 0.25
    groups = np.arange(n) % 2
    given: dict[str, Any] = [
        {},
        {"groups": groups, "quotas": {0: (1, None), 1: (0, 2)}},
        {"include": [4], "exclude": [0, 1]},
    ][seed % 3]
    plan = sparse_greedy(X, k=k, metric=metric, weights=weights, n_neighbors=1 + seed % 4, **given)
    assert plan.info["neighbors"] == "exact"
    told = value(X, plan.indices, metric, weights, plan.info["offset"])
    assert plan.value == pytest.approx(told, rel=1e-12)
    assert plan.info["distance"] >= plan.info["distance_bound"] - 1e-9

    def allowed(some: tuple[int, ...]) -> bool:
        if "quotas" in given and not (sum(groups[list(some)] == 0) >= 1 and sum(groups[list(some)] == 1) <= 2):
            return False
        return "include" not in given or (4 in some and not {0, 1} & set(some))

    sets = [some for some in itertools.combinations(range(n), k) if allowed(some)]
    best = max(value(X, some, metric, weights, plan.info["offset"]) for some in sets)
    assert plan.value <= best + 1e-9 <= plan.bound + 2e-9
    assert plan.info["lost_at_most"] == pytest.approx(plan.bound - plan.value)


@pytest.mark.parametrize("metric", METRICS)
def test_a_complete_graph_is_the_exact_search(metric: str) -> None:
    X = rows(60, 3)
    plan, exact = sparse_greedy(X, k=9, metric=metric), lazy_greedy(X, k=9, metric=metric, tight_bound=True)
    assert plan.indices.tolist() == exact.indices.tolist()
    assert (plan.value, plan.bound, plan.guarantee) == (exact.value, exact.bound, exact.guarantee)
    assert (plan.info["neighbors"], plan.info["unlisted"]) == ("all", 0.0)


@pytest.mark.parametrize("n_neighbors", [3, 40, 398])
def test_picks_are_greedy_on_the_listed_pairs(n_neighbors: int) -> None:
    X = np.random.default_rng(2).normal(size=(400, 3))
    plan = sparse_greedy(X, k=15, n_neighbors=n_neighbors)
    apart = pairwise(X, "euclidean")
    rank = np.argsort(np.argsort(apart, axis=1), axis=1)
    similarity = np.where(rank <= n_neighbors, plan.info["offset"] - apart, 0.0)
    held = np.zeros(400)
    for item in plan.indices.tolist():
        gains = np.maximum(similarity - held[:, None], 0).sum(axis=0)
        assert gains[item] == pytest.approx(gains.max(), rel=1e-12)
        held = np.maximum(held, similarity[:, item])
    nearest = plan.indices[apart[:, plan.indices].argmin(axis=1)]
    assert plan.info["unlisted"] == np.mean(rank[np.arange(400), nearest] > n_neighbors)


@needs_usearch
def test_an_approximate_graph_bounds_the_optimum_too() -> None:
    X = np.random.default_rng(3).normal(size=(2500, 24)).astype(np.float32)
    exact = lazy_greedy(X, k=20, tight_bound=True)
    plan = sparse_greedy(X, k=20, n_neighbors=16, neighbors="usearch", expansion=17)
    assert plan.info["recall"] < 0.999
    assert plan.info["recall_rows"] == 2500
    assert plan.info["bound_confidence"] == 1.0
    assert plan.info["offset"] == exact.info["offset"]
    assert max(exact.value, plan.value) <= plan.bound
    assert plan.info["distance"] < 1.02 * exact.info["distance"]


def test_a_sample_tells_what_all_lists_miss() -> None:
    """The limit holds for every sample, and comes down to the truth as the sample grows."""
    rng = np.random.default_rng(0)
    n = 20_000
    missed = np.where(rng.random(n) < 0.1, rng.random(n), 0.0)
    weights, reach = rng.random(n), np.full(n, 1.5)
    total = float(weights @ missed)
    for size in (50, 500, 5000):
        limits = []
        for _ in range(200):
            some = rng.integers(0, n, size)
            graph = graphs.KnnGraph(np.empty((n, 0)), np.empty((n, 0)), "usearch", 0.9, some, missed[some], 0.0)
            limit, sure = sparse._missed(graph, graph.missed, weights, reach)
            assert sure == 1 - 1e-6
            limits.append(limit)
        assert min(limits) >= total
    assert np.mean(limits) < 1.8 * total


@needs_usearch
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_compiled_evaluation_is_the_plain_one(monkeypatch: pytest.MonkeyPatch, metric: str, kind: type) -> None:
    X = rows(3000, 6).astype(kind)
    weights = np.arange(3000) % 3 + 0.5
    given = {"k": 30, "metric": metric, "weights": weights, "n_neighbors": 8}
    plain = sparse_greedy(X, **given)
    monkeypatch.setattr(sparse, "_SMALL", -1)
    compiled = [sparse_greedy(X, n_threads=threads, **given) for threads in (1, 2, 4)]
    assert all(one.equals(compiled[0]) for one in compiled)
    assert compiled[0].indices.tolist() == plain.indices.tolist()
    assert compiled[0].gains == pytest.approx(plain.gains, rel=1e-11, abs=1e-9)
    assert compiled[0].bound == pytest.approx(plain.bound, rel=1e-12)
    assert compiled[0].info["unlisted"] == plain.info["unlisted"]
    assert plain.value == pytest.approx(value(X, plain.indices, metric, weights, plain.info["offset"]), rel=1e-12)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("grid", [False, True])
def test_the_compiled_search_is_the_plain_one(monkeypatch: pytest.MonkeyPatch, kind: type, grid: bool) -> None:
    """Of rows on a grid sums are exact in any order, so that ties are the same ties."""
    rng = np.random.default_rng(7)
    X = (rng.integers(0, 12, (2000, 2)) if grid else rng.normal(size=(2000, 3))).astype(kind)
    given: Any = {"k": 60, "metric": "sqeuclidean" if grid else "euclidean", "n_neighbors": 9, "exclude": [3, 1500]}
    given |= {"weights": np.arange(2000) % 4 + 1.0, "include": [11]}
    plain = sparse_greedy(X, **given)
    monkeypatch.setattr(sparse, "_COMPILED", -1)
    monkeypatch.setattr(sparse, "_CANDIDATES", 300)
    compiled = sparse_greedy(X, **given)
    assert compiled.indices.tolist() == plain.indices.tolist()
    assert (compiled.value, compiled.info["unlisted"]) == (plain.value, plain.info["unlisted"])
    assert compiled.bound == pytest.approx(plain.bound, rel=1e-12)
    assert compiled.info["oracle_calls"] <= 2000 + 60 * 200


def test_budget_and_its_best_single_item() -> None:
    X = rows(200, 2)
    costs = 1 + np.arange(200) % 5
    plan = sparse_greedy(X, budget=23, costs=costs, n_neighbors=6)
    assert plan.used["costs"] == costs[plan.indices].sum() <= 23
    assert plan.value <= plan.bound
    dear = np.full(200, 10)
    dear[7] = 1
    assert len(sparse_greedy(X, budget=10, costs=dear, n_neighbors=6)) == 1


def test_time_is_up_before_the_graph_is_there() -> None:
    plan = sparse_greedy(rows(200, 2), k=9, n_neighbors=3, time_limit=1e-9, include=[5], groups=np.arange(200) % 2,
                         quotas={0: (2, None)})  # fmt: skip
    assert plan.status == "stopped"
    assert plan.bound is None
    assert plan.indices[0] == 5
    assert (plan.indices % 2 == 0).sum() >= 2
    assert len(plan) == 9
    assert plan.value == pytest.approx(
        value(rows(200, 2), plan.indices, "euclidean", np.ones(200), plan.info["offset"])
    )


@pytest.mark.parametrize("engine", ["exact", pytest.param("usearch", marks=needs_usearch)])
@pytest.mark.parametrize(("n", "d", "k"), [(4000, 4096, 50), (12_000, 512, 2000)])
def test_a_time_limit_is_kept_on_wide_pools(engine: Any, n: int, d: int, k: int) -> None:
    X, limit = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32), 0.5
    load_compiled()
    sparse_greedy(X[:200], k=3, neighbors=engine)
    with processor_clock():
        began = time.process_time()
        plan = sparse_greedy(X, k=k, time_limit=limit, n_threads=1, neighbors=engine)
        seconds = time.process_time() - began
    assert seconds <= 1.1 * limit + 1
    assert (plan.status, len(set(plan.indices.tolist())), plan.bound) == ("stopped", k, None)


def test_a_graph_leaves_time_to_value_the_picks() -> None:
    X = np.random.default_rng(0).normal(size=(60_000, 64)).astype(np.float32)
    with processor_clock():
        plan = sparse_greedy(X, k=100, time_limit=1.5, n_threads=1)
    assert (plan.status, plan.info["neighbors"]) == ("stopped", "none")
    nearest = cdist(X, X[plan.indices]).min(axis=1)
    assert plan.value == pytest.approx(float((plan.info["offset"] - nearest).sum()), rel=1e-6)


def test_equal_rows() -> None:
    plan = sparse_greedy(np.ones((50, 3)), k=4, n_neighbors=5)
    assert (len(plan), plan.value, plan.info["distance"]) == (4, 0.0, 0.0)


@needs_usearch
@pytest.mark.parametrize("n", [2, 3, _found_rows._ROWS_AT_ONCE + 1])
def test_blocks_of_one_row_and_indices_that_find_too_few(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    X = np.random.default_rng(0).normal(size=(n, 2))
    graph = knn_graph(X, min(n - 1, 4), engine="usearch", sample=50)
    assert (graph.indices != np.arange(n)[:, None]).all()
    assert (np.diff(np.sort(graph.indices, axis=1), axis=1) > 0).all()


@needs_usearch
def test_copies_do_not_hide_each_other() -> None:
    """An index that finds only some of many equal rows still lists as many neighbours as were asked for."""
    X = np.repeat(np.random.default_rng(0).normal(size=(5, 3)), 200, axis=0)
    graph = knn_graph(X, 20, engine="usearch")
    assert (np.diff(np.sort(graph.indices, axis=1), axis=1) > 0).all()
    assert (graph.indices != np.arange(1000)[:, None]).all()
    plan = sparse_greedy(X, k=5, n_neighbors=20, neighbors="usearch")
    assert plan.value <= plan.bound


@pytest.mark.parametrize("n_neighbors", [1, 2])
def test_laws_hold_of_incomplete_graphs(n_neighbors: int) -> None:
    """The drawn pools are small, so that the default would always list everyone."""
    from hypothesis import HealthCheck, given, seed, settings

    from kofn.core import dispatch
    from kofn.laws import LAWS, Case
    from kofn.laws.generators import calls

    entry = dispatch.methods_of("select")["sparse_greedy"]
    options = {"n_neighbors": n_neighbors}

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @seed(n_neighbors)
    @given(call=calls(entry))
    def hold(call: Any) -> None:
        case = Case.of("select", "sparse_greedy", call.given, options)
        for law in ("recount", "sandwich", "feasible", "same-again", "ids", "saved", "untouched"):
            LAWS[law](case)

    hold()
