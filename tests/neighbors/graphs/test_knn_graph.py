"""Graphs of nearest rows against all pairs, and what an index misses."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from plain_distances import pairwise
from scipy import sparse

from kofn.core.checks import InputError
from kofn.core.runtime import Control, Stopped
from kofn.neighbors import knn_graph
from kofn.neighbors.graphs import _cells as cells
from kofn.neighbors.graphs import _found_rows as found_rows
from kofn.neighbors.graphs import _knn_graph as graphs

METRICS = ("euclidean", "sqeuclidean", "cosine")


needs_usearch = pytest.mark.skipif(importlib.util.find_spec("usearch") is None, reason="needs usearch")


def rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    X = np.random.default_rng(seed).normal(size=(n, d))
    X[n // 2], X[n // 3] = 0, X[n // 4]
    return X


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("engine", ["exact", "cells", pytest.param("usearch", marks=needs_usearch)])
@pytest.mark.parametrize("compiled", [False, True])
def test_graph_is_that_of_all_pairs(monkeypatch: pytest.MonkeyPatch, metric: str, engine: str, compiled: bool) -> None:
    if compiled:
        monkeypatch.setattr(found_rows, "_COMPILED", -1)
    X = rows(300, 4) + 100 * (metric != "cosine")
    apart = pairwise(X, metric)
    graph = knn_graph(X, 9, metric, engine=engine, expansion=300)
    assert graph.engine == engine
    assert (graph.indices != np.arange(300)[:, None]).all()
    assert np.allclose(graph.distances, np.take_along_axis(apart, graph.indices, axis=1), rtol=1e-9, atol=1e-12)
    assert (np.diff(graph.distances, axis=1) >= 0).all()
    np.fill_diagonal(apart, np.inf)
    best = np.sort(apart, axis=1)[:, :9]
    assert np.allclose(graph.distances, best, rtol=1e-9, atol=1e-12)
    assert graph.recall > 0.995
    assert graph.csr.shape == (300, 300)
    assert graph.csr[[7], [int(graph.indices[7, 3])]][0] == graph.distances[7, 3]


def tied_pools() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    repeated = rng.normal(size=(7, 5))[rng.integers(0, 7, 60)]
    return {
        "axes": np.eye(12),
        "grid": rng.integers(0, 3, (30, 2)).astype(float),
        "grid in float32": rng.integers(-2, 3, (150, 3)).astype(np.float32),
        "far from the origin": rng.integers(0, 3, (60, 2)) + 1e6,
        "repeated": repeated,
        "all the same": np.ones((20, 3)),
        "beside an outlier": np.concatenate([rng.integers(0, 2, (40, 6)), np.full((1, 6), 1e7)]),
    }


@pytest.mark.parametrize("pool", list(tied_pools()))
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("compiled", [False, True])
def test_ties_go_to_the_lowest_row(monkeypatch: pytest.MonkeyPatch, pool: str, metric: str, compiled: bool) -> None:
    if compiled:
        monkeypatch.setattr(found_rows, "_COMPILED", -1)
    X = tied_pools()[pool]
    n = len(X)
    # Every length in float64 as it is listed where all others are: a list that is shorter is the beginning of that.
    whole = knn_graph(X.astype(np.float64), n - 1, metric, engine="exact")
    lengths = np.full((n, n), np.inf)
    np.put_along_axis(lengths, whole.indices, whole.distances, axis=1)
    others = ~np.eye(n, dtype=bool)
    assert np.allclose(lengths[others], pairwise(X.astype(np.float64), metric)[others], rtol=1e-14, atol=1e-15)
    assert (whole.indices == np.argsort(lengths, axis=1, kind="stable")[:, :-1]).all()
    for count in (1, 3, 5, n // 2):
        part = knn_graph(X, count, metric, engine="exact")
        assert (part.indices == whole.indices[:, :count]).all()
        assert (part.distances == whole.distances[:, :count].astype(X.dtype)).all()


def test_ties_of_the_axes_by_hand() -> None:
    for X in (np.eye(6), sparse.csr_array(np.eye(6))):
        graph = knn_graph(X, 3, "cosine")
        assert graph.indices.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2], [0, 1, 2]]


def test_rows_that_an_index_lost_are_listed_by_length_and_number() -> None:
    space = graphs.geometry(np.ones((9, 2)), "euclidean")
    assert found_rows.exactly(space, 2, 4).tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize(("engine", "expansion"), [("cells", 400), pytest.param("usearch", 13, marks=needs_usearch)])
@pytest.mark.parametrize("metric", METRICS)
def test_what_an_approximate_graph_misses_is_measured(
    metric: str, engine: Any, expansion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "_CELL", 50)
    X = np.random.default_rng(1).normal(size=(3000, 24)).astype(np.float32)
    apart = pairwise(X, metric)
    np.fill_diagonal(apart, np.inf)
    graph = knn_graph(X, 12, metric, engine=engine, expansion=expansion)
    assert graph.sample.tolist() == list(range(3000))
    true = np.argsort(apart, axis=1)[:, :12]
    recall = np.mean([len(set(a) & set(b)) / 12 for a, b in zip(true.tolist(), graph.indices.tolist(), strict=True)])
    assert graph.recall == pytest.approx(recall, abs=1e-4)
    assert recall < 0.999
    unlisted = apart.copy()
    np.put_along_axis(unlisted, graph.indices, np.inf, axis=1)
    missed = np.maximum(graph.distances[:, -1] - unlisted.min(axis=1), 0)
    assert graph.missed == pytest.approx(missed, abs=1e-5)
    part = knn_graph(X, 12, metric, engine=engine, expansion=expansion, sample=500, seed=4)
    assert len(part.sample) == 500
    assert part.missed == pytest.approx(missed[part.sample], abs=1e-5)


@pytest.mark.parametrize(("engine", "expansion"), [("cells", 600), pytest.param("usearch", None, marks=needs_usearch)])
def test_graph_is_the_same_for_any_number_of_threads(engine: Any, expansion: int | None) -> None:
    X = rows(4000, 12)
    graphs = [knn_graph(X, 8, engine=engine, expansion=expansion, n_threads=threads) for threads in (1, 2, 4)]
    assert all((graph.indices == graphs[0].indices).all() and graph.recall == graphs[0].recall for graph in graphs)


def test_each_row_is_compared_with_the_rows_of_the_nearest_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two heaps far apart: the cells of one heap are enough, and each list is exact."""
    monkeypatch.setattr(cells, "_CELL", 50)
    rng = np.random.default_rng(4)
    X = np.concatenate([rng.normal(size=(200, 5)), 1e3 + rng.normal(size=(200, 5))])
    graph = knn_graph(X, 6, engine="cells", expansion=200)
    whole = knn_graph(X, 6, engine="exact")
    assert (graph.indices == whole.indices).all()
    assert graph.recall == 1.0
    assert not graph.missed.any()


def test_lists_longer_than_the_cells_in_view_and_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "_CELL", 8)
    for X in (rows(100, 3), np.ones((100, 3))):
        graph = knn_graph(X, 60, engine="cells", expansion=1)
        assert (np.diff(np.sort(graph.indices, axis=1), axis=1) > 0).all()
        assert (graph.indices != np.arange(100)[:, None]).all()


@pytest.mark.parametrize("count", [1, 5, 64])
def test_largest_products_are_kept(count: int) -> None:
    from kofn.neighbors.graphs import _kernels

    rng = np.random.default_rng(count)
    products = rng.integers(-50, 50, (7, 900)).astype(np.float32) + np.arange(900, dtype=np.float32) / 1024
    values = np.empty((7, 4 * count), np.float32)
    places, kept, least = np.empty(values.shape, np.int32), np.zeros(7, np.int64), np.full(7, -np.inf, np.float32)
    for low in range(0, 900, 130):
        part = slice(low, low + 130)
        numbers = np.arange(900, dtype=np.int32)[part]
        _kernels.keep_largest(np.ascontiguousarray(products[:, part]), numbers, count, values, places, kept, least)
    _kernels.trim(count, values, places, kept)
    assert (kept == count).all()
    assert (np.sort(places[:, :count]) == np.sort(np.argsort(-products, axis=1)[:, :count])).all()


def test_without_usearch_large_pools_are_cut_into_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(graphs, "_EXACT_ROWS", 10)
    assert knn_graph(rows(40, 2), 3).engine == "cells"
    assert knn_graph(rows(10, 2), 3).engine == "exact"
    with pytest.raises(InputError, match="needs the package usearch"):
        knn_graph(rows(40, 2), 3, engine="usearch")


def test_a_graph_can_be_stopped() -> None:
    for engine in ("exact", "cells", "usearch"):
        with pytest.raises(Stopped):
            knn_graph(rows(40, 2), 3, engine=engine, control=Control(time_limit=1e-9))


class TestSparseRows:
    @pytest.mark.parametrize("n", [9, 200])
    @pytest.mark.parametrize("count", [1, 7])
    def test_neighbours_are_those_of_the_dense_rows(self, n: int, count: int) -> None:
        X = sparse.random_array((n, 40), density=0.1, rng=np.random.default_rng(0), format="csr")
        X = sparse.vstack([X, sparse.csr_array((1, 40)), X[:3]], format="csr")
        graph = knn_graph(X, count, "cosine")
        away = pairwise(X.toarray(), "cosine")
        np.fill_diagonal(away, np.inf)
        np.testing.assert_allclose(graph.distances, np.sort(away, axis=1)[:, :count], atol=1e-14)
        rows = np.arange(n + 4)[:, None]
        np.testing.assert_allclose(away[rows, graph.indices], graph.distances, atol=1e-14)
        assert not (graph.indices == rows).any()
        assert (graph.engine, graph.recall) == ("exact", 1.0)
        for n_threads in (1, 2):
            np.testing.assert_array_equal(knn_graph(X, count, "cosine", n_threads=n_threads).indices, graph.indices)

    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            ({}, "say metric='cosine'"),
            ({"metric": "cosine", "engine": "usearch"}, "engine='usearch' reads dense rows"),
            ({"metric": "cosine", "n_neighbors": 9}, "n_neighbors=9 of 9 rows"),
        ],
    )
    def test_refusals_of_sparse_rows(self, asked: Any, message: str) -> None:
        with pytest.raises(InputError, match=message):
            knn_graph(sparse.eye_array(9, format="csr"), **{"n_neighbors": 2, **asked})


@pytest.mark.parametrize(("apart", "spread"), [(1e3, 0.01), (1e5, 1.0), (1e3, 1e-6)])
def test_neighbours_in_small_groups_far_apart_are_found_by_cells(apart: float, spread: float, monkeypatch: Any) -> None:
    """Cells that two groups share see each from its own centre, in double precision where single takes all away."""
    monkeypatch.setattr(cells, "_CELL", 64)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(9, 5))[rng.integers(0, 9, 900)] * apart + rng.normal(size=(900, 5)) * spread
    found = knn_graph(X, 10, engine="cells", expansion=600)
    exact = knn_graph(X, 10, engine="exact")
    shared = [len(np.intersect1d(a, b)) for a, b in zip(found.indices, exact.indices, strict=True)]
    assert np.mean(shared) > 9.8
